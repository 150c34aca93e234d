"""Compares objectives: same text, same trunk, same optimizer, a declared budget."""
