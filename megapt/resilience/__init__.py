"""What goes wrong in a job, and what is done about it."""
