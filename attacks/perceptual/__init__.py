"""Attacks bounded by a perceptual distance."""
