"""Side-by-side measurements, run by hand; what they found is in RESULTS.md."""
