"""Rectified flow as functions on arrays: paths, velocities, samplers."""
