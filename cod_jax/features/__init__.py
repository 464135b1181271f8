"""Frozen networks: their features, latents and distances train other networks; the caller brings their weights."""
