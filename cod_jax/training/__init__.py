"""Training: objectives, the update step, checkpoints, logging and the loop."""
