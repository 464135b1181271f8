"""`python -m cod_jax.import_checkpoint` is `cod import`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="import"))
