"""`python -m cod_jax.train` is `cod train`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="train"))
