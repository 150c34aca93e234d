"""Records, status, speed and traces of a run, while it trains and afterwards."""
