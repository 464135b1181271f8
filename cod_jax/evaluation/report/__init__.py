"""The report of an evaluation: one HTML file with curves, pictures, tables and protocol, which needs no network."""
