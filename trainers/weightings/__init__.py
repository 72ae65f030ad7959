"""How much does each image count? One weighting a file."""
