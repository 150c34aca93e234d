"""What is seen of a run: while it trains, in its files, and afterwards."""
