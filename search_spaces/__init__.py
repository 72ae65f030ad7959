"""What is searched: one YAML a space, data only. `datasets/` holds the sizes and steps that suit each data set."""
