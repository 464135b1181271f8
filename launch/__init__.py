"""Start jobs: `python -m` forms of the commands, a Slurm script, a recipe for TPU pods."""
