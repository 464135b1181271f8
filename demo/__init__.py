"""The demo, run from a checkout: `python -m demo --output DIR` or `make demo`."""
