"""Settings of runs: plain values that never import `cod_jax`."""
