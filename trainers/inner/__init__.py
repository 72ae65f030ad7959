"""How do several attacks become training batches? One answer a file."""
