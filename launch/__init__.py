"""How jobs are started: several processes on one machine, Slurm, TPU pods."""
