"""Compares objectives: same text, same trunk, same optimiser, a declared budget."""
