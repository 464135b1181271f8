"""Offline preparation of training images."""
