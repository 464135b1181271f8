"""Write a model folder from a training folder: `python -m cod_jax.export --workdir DIR --output DIR`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cod_jax.command_options import add_decoding_arguments, chosen_decoding
from cod_jax.errors import UserError

DESCRIPTION = "Write the model of a training folder as a self-contained model folder."
EXAMPLES = """
examples:
  python -m cod_jax.export --workdir runs/lite --output models/lite
  python -m cod_jax.export --workdir runs/lite --output models/lite --weights raw --step 20000 --force
  python -m cod_jax.export --workdir runs/pixel --output models/pixel --steps 50 --guidance 2

The folder holds model.json (description, training facts, fingerprint) and weights.safetensors, with the frozen
autoencoder of a latent model. Use it with cod compress -m DIR, cod_jax.load("DIR"), or --config.init_from=DIR to train
on from it. --steps, --guidance and --sampler say how it decodes where its users do not; models trained for one step
take one, the others 25.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 done, 1 failed, 2 usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="training folder, as given to the trainer")
    parser.add_argument("--output", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="moving average (default) or last weights"
    )
    parser.add_argument("--step", type=int, help="checkpoint to take; default: the best by validation, else the latest")
    parser.add_argument(
        "--frozen-weights",
        metavar="DIR",
        help="folder of the published autoencoder's file, for latent models; default: the run's frozen.weights",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing model folder")
    add_decoding_arguments(parser, default="what the model was trained for")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)

    from cod_jax import files
    from cod_jax.model_folder.bundle import default_decoding, save_bundle
    from cod_jax.models import ModelConfig, build_model, unflatten_params
    from cod_jax.training.checkpoint import load_for_export

    try:
        with files.clean_exit_on_sigterm():
            model, flat_params, training = load_for_export(Path(args.workdir), weights=args.weights, step=args.step)
            config = ModelConfig.from_dict(model)
            params = unflatten_params(flat_params, build_model(config).shapes)
            settings = training["config"]
            fingerprint = save_bundle(
                args.output,
                config,
                params,
                training=training,
                autoencoder=_load_autoencoder(settings, args.frozen_weights) if config.has_learned_autoencoder else {},
                decoding=default_decoding(config, one_step=_trains_one_step(settings)).override(
                    **chosen_decoding(args)
                ),
                force=args.force,
            )
    except (UserError, OSError) as error:
        print(files.printable(f"cod_jax.export: error: {error}"), file=sys.stderr)
        return 1
    best = ", the best by validation" if args.step is None and training.get("validation_loss") is not None else ""
    step = f"step {training['step']}{best}, " if "step" in training else ""
    line = f"wrote {args.output}: {step}{args.weights} weights, fingerprint {fingerprint[:16]}"
    print(files.printable(line, sys.stdout.encoding))
    return 0


def _trains_one_step(settings: Mapping[str, Any]) -> bool:
    """Whether a run's settings train at t = 0: the one-step codec, or either form of unified training."""
    objective = settings["objective"]
    if objective.get("kind", "pretrain") != "pretrain":
        return True
    return objective["one_step_weight"] > 0 or objective["one_step_fraction"] > 0


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
    return load_sd_vae(folder, otherwise=way_out)


if __name__ == "__main__":
    sys.exit(main())
