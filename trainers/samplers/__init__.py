"""Which attack(s) train this batch? One sampler a file."""
