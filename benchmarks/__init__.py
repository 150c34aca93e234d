"""Comparative measurements, run by hand; the results are in RESULTS.md."""
