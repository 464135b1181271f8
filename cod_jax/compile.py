"""`python -m cod_jax.compile` is `cod compile`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="compile"))
