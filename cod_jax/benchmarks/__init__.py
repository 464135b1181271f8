"""Measurements of `python -m cod_jax.benchmark`; each runs in a process of its own."""
