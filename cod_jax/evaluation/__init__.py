"""Measures of how close a decoded picture is to its original."""
