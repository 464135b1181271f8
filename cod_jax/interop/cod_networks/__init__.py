"""The published networks of CoD and CoD-Lite: their descriptions, checkpoints and names, in both directions."""
