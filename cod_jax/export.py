"""`python -m cod_jax.export` is `cod export`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="export"))
