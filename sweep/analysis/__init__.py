"""What is read out of finished sweeps beyond their tables: one trial, two trials, fronts, importances."""
