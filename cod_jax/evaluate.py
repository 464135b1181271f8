"""`python -m cod_jax.evaluate` is `cod evaluate`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="evaluate"))
