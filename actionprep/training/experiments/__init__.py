"""Several runs: sweeps, folds, comparisons, SLURM jobs."""
