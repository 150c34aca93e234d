"""Installation helpers and SLURM jobs."""
