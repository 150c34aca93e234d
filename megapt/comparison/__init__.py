"""Comparison of objectives on the same text, trunk and optimizer, under a declared budget."""
