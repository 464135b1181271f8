"""Objectives, each with its parameters, named loss terms and randomness."""
