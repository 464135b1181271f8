"""`python -m cod_jax` is the command `cod`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
