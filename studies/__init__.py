"""What the notebooks import and nobody else."""
