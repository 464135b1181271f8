"""Preparation of large collections of photographs with Apache Beam and tensorflow-datasets."""
