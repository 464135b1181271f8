"""`python -m launch.sweep` is `cod sweep`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="sweep"))
