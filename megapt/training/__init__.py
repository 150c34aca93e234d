"""Training of one run, from its configuration to its last checkpoint."""
