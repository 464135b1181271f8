"""Measurements of `cod benchmark`; each runs in a process of its own."""
