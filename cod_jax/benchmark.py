"""`python -m cod_jax.benchmark` is `cod benchmark`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="benchmark"))
