"""`cod fit-prior`: fit the prior that makes a model's files smaller."""

import argparse
from pathlib import Path

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_model_argument, local_model, positive
from cod_jax.model_folder import places

EPILOG = f"""
examples:
  cod fit-prior --model models/lite --images photos
  cod fit-prior --model models/lite --images photos --entropy-model my_package.entropy:MyModel

The pictures should be like those that will be compressed, a few hundred or more. The folder and all its subfolders are
searched for {files.IMAGE_FORMATS} files. The centre of each, up to 512x512 pixels, is
encoded, in a random order that is always the same, until there are two million symbols. Every tenth picture is held out
to measure the prior.

The tables become part of the model folder (prior.safetensors) and of its fingerprint: copy the whole folder to whoever
decompresses. Files written without a prior are still read. Pictures decode to the same pixels with and without it.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser, text="model folder, which gets the prior", parse=local_model)
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument(
        "--entropy-model",
        default="",
        metavar="PACKAGE.MODULE:CLASS",
        help="fit an entropy model of another package instead",
    )
    parser.add_argument(
        "--network-steps",
        type=positive,
        default=0,
        metavar="N",
        help="also train small networks that predict symbols, N steps for each group of channels; 5000 takes about "
        "half an hour on two cores, for files of the included model that are 27 rather than 23 %% smaller",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the model's prior; files coded with the old one need the old folder",
    )


def _run(args: argparse.Namespace) -> int:
    # Mistakes that show before JAX is imported, which takes seconds.
    places.check_place(Path(args.model))

    from cod_jax.codec import from_bundle
    from cod_jax.model_folder.fitting import fit

    given = {"entropy_model": args.entropy_model, "network_steps": args.network_steps, "force": args.force}
    for line in fit(args.model, args.images, lambda bundle: from_bundle(bundle).encode, **given):
        frame.say(line)
    return frame.DONE


COMMAND = Command(
    "fit the prior that makes a model's files smaller", _add_options, _run, EPILOG, device="shared", fetched=("images",)
)
