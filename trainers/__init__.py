"""What fine-tunes a model: one training loop, and a method as five parts. Needs torch, numpy and no more of the project
than `attacks`: it can be used in a notebook without Ray."""
