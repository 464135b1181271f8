"""`python -m cod_jax.fit_prior` is `cod fit-prior`."""

import sys

from cod_jax.commands.main import main

if __name__ == "__main__":
    sys.exit(main(command="fit-prior"))
