"""`python -m cod_jax.export_checkpoint` is `cod export-published`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="export-published"))
