"""Layers: NNX modules and the plain functions they are made of."""
