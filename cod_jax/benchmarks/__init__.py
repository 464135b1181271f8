"""What `python -m cod_jax.benchmark` measures; every measurement runs in a process of its own."""
