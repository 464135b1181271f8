"""Start runs of the trainer: the points of a sweep, here or under Slurm, and several processes on one machine."""
