"""Which weights are kept, and is anything fed back? One rule a file."""
