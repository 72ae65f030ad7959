"""Attacks that optimise the latent of a corruption: one a file, each an initial latent, a render and a projection."""
