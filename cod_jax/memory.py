"""`python -m cod_jax.memory` is `cod memory`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="memory"))
