"""`python -m launch.local` is `cod launch`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="launch"))
