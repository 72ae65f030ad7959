"""Attacks that judge a model and are seldom trained on."""
