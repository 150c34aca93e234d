"""Detects faults of a job, and reacts to them."""
