"""Layers: NNX modules, and the plain functions they consist of."""
