"""Training with objectives, update steps, checkpoints, logging and the loop."""
