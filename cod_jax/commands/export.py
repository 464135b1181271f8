"""`cod export`: write a model folder from a run folder."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cod_jax import files, storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import REPLACE_MODEL, add_decoding_arguments, chosen_decoding
from cod_jax.errors import UserError
from cod_jax.image_search import find_images
from cod_jax.model_folder.places import DESCRIPTION_FILE

EPILOG = """
examples:
  cod export --workdir runs/lite --output models/lite
  cod export --workdir runs/compact --output models/compact --images photos
  cod export --workdir runs/lite --output models/lite --weights raw --step 20000 --force
  cod export --workdir runs/pixel --output models/pixel --steps 50 --guidance 2

The folder holds model.json (description, training facts, fingerprint) and weights.safetensors, with the frozen
autoencoder of a latent model. Use it with cod compress -m DIR, cod_jax.load("DIR"), or --config.init_from=DIR to
continue training from it. --steps, --guidance and --sampler set how it decodes by default. Otherwise models decode in
one step, unless the run's last validation shows that the sampler's pictures have a more natural texture at a PSNR at
most 4 dB lower; then they take the steps and the guidance of validation.
"""
# Facts about a run that its validation measured, on the moving average of the weights.
VALIDATED = ("validation", "validation_loss")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run folder, or its checkpoint.address")
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="model folder to write, or an address such as gs://bucket/models/lite",
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="ema: their moving average (default); raw: the weights themselves, which no validation measures",
    )
    parser.add_argument("--step", type=int, help="checkpoint to take; default: the best by validation, else the latest")
    parser.add_argument(
        "--frozen-weights",
        metavar="DIR",
        help="folder of the published autoencoder's file, for latent models; default: the run's frozen.weights",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="also fit the prior to the pictures of this folder, as cod fit-prior does"
    )
    parser.add_argument("--force", action="store_true", help=REPLACE_MODEL)
    add_decoding_arguments(parser, default="chosen by the run's validation")


def _run(args: argparse.Namespace) -> int:
    storage.check_new_directory(args.output, args.force, DESCRIPTION_FILE)
    if args.images and files.is_address(args.output):
        raise UserError(f"the prior is fitted in a local folder, got {args.output}; leave --images out, or copy later")
    if args.images and not Path(args.images).is_dir():
        raise UserError(f"--images {args.images} is not a folder; give a folder of pictures")
    if args.images and not find_images(args.images):
        raise UserError(f"--images {args.images} holds no pictures; give a folder of {files.IMAGE_FORMATS} files")

    from cod_jax.model_folder.bundle import default_decoding, save_bundle
    from cod_jax.models import ModelConfig, build_model, unflatten_params
    from cod_jax.models.fields import from_mapping
    from cod_jax.training.config import upgraded
    from cod_jax.training.decoding_choice import Choice, choose_decoding
    from cod_jax.training.objectives.objective import ObjectiveConfig
    from cod_jax.training.ranking import DEFAULT
    from cod_jax.training.saved_models import best_by, load_for_export

    model, flat_params, training = load_for_export(args.workdir, weights=args.weights, step=args.step)
    config = ModelConfig.from_dict(model)
    if args.frozen_weights and not config.has_learned_autoencoder:
        raise UserError("--frozen-weights has no effect on this model, which has no autoencoder; leave it out")
    settings = training["config"]
    objective = from_mapping(ObjectiveConfig, upgraded(settings)["objective"], "config.objective")
    is_average = args.weights == "ema"
    choice = Choice(None, None, "the validation measured the moving average, not these weights")
    if is_average:
        choice = choose_decoding(settings.get("validation", {}), training.get("validation", {}))
    if objective.trains_one_step:
        guidance = choice.guidance if objective.can_guide else 1.0
        choice = Choice(None, guidance, "the model was trained for one step")
    decoding = default_decoding(config, one_step=choice.steps is None)
    decoding = decoding.override(steps=choice.steps, guidance=choice.guidance).override(**chosen_decoding(args))
    fingerprint = save_bundle(
        args.output,
        config,
        unflatten_params(flat_params, build_model(config).shapes),
        # Validation measures the moving average, so its numbers do not describe the raw weights.
        training={name: value for name, value in training.items() if is_average or name not in VALIDATED},
        autoencoder=_load_autoencoder(settings, args.frozen_weights) if config.has_learned_autoencoder else {},
        decoding=decoding,
        force=args.force,
    )
    best = ""
    if args.step is None:
        name = best_by(args.workdir)
        value = training.get("validation_loss") if name == DEFAULT else training.get("validation", {}).get(name)
        if value is not None:
            best = ", the best by validation" if name == DEFAULT else f", the best by {name} ({value:.6g})"
            best += "" if is_average else " of the moving average"
    step = f"step {training['step']}{best}, " if "step" in training else ""
    frame.say(f"wrote {args.output}: {step}{args.weights} weights, fingerprint {fingerprint[:16]}")
    reason = "--steps asks for it" if args.steps is not None else choice.reason
    frame.say(f"default decoding: {decoding.summary()} ({reason})")
    if args.images:
        from cod_jax.codec import from_bundle
        from cod_jax.model_folder.fitting import fit

        # The folder is new, so no file needs the prior that it has.
        for line in fit(args.output, args.images, lambda bundle: from_bundle(bundle).encode, force=True):
            frame.say(line)
    return frame.DONE


def _load_autoencoder(settings: Mapping[str, Any], folder: str | None) -> dict[Any, Any]:
    """Read the frozen autoencoder from `folder`, or from where the run had it.

    Raises:
        UserError: No folder is known, or the file is damaged.
        FileNotFoundError: The file is missing.
    """
    from cod_jax.interop import load_sd_vae

    folder = folder or settings["frozen"]["weights"]
    way_out = "give its folder with --frozen-weights"
    if not folder:
        raise UserError(f"the model decodes with sd-vae-ft-ema, and its run names no folder of that file; {way_out}")
    return load_sd_vae(storage.local_path(folder), otherwise=way_out)


COMMAND = Command(
    "write a model folder from a run folder",
    _add_options,
    _run,
    EPILOG,
    device="shared",
    addresses=("workdir", "output"),
    fetched=("images", "frozen_weights"),
)
