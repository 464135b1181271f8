"""Make a model folder from a released checkpoint: `python -m cod_jax.import_checkpoint --checkpoint FILE ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cod_jax.command_options import add_decoding_arguments, chosen_decoding
from cod_jax.errors import UserError

DESCRIPTION = "Read a released CoD or CoD-Lite checkpoint and its YAML file, and write a model folder."
EXAMPLES = """
examples:
  python -m cod_jax.import_checkpoint --checkpoint CoD_Lite_bpp_0_0312.pt --config CoD_Lite_bpp_0_0312.yaml \\
      --output models/lite
  python -m cod_jax.import_checkpoint --checkpoint CoD_latent_vpred.pt --config CoD_latent_vpred.yaml \\
      --output models/latent --frozen-weights pretrained

CoD (PixNerDiT, and DDT, which works on latents), pre-trained CoD-Lite (DConv), one-step CoD and one-step CoD-Lite are
read, as torch or safetensors files. PyTorch is not needed and no code in a file is run. Every name and shape must be
what the YAML file implies. The folder decodes in 25 steps (one-step models: 1) with the published guidance unless
--steps, --guidance or --sampler say otherwise. DDT needs sd-vae-ft-ema, whose weights become part of the model folder.

exit status: 0 done, 1 failed, 2 wrong usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process when absent.

    Returns:
        The exit status: 0 done, 1 failed, 2 usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cod_jax.import_checkpoint",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="released weights (.pt or .safetensors)")
    parser.add_argument("--config", required=True, metavar="FILE", help="the YAML file that belongs to them")
    parser.add_argument("--output", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="moving average or raw weights of a pre-trained model; default: the moving average where there is one",
    )
    parser.add_argument(
        "--key", default="", metavar="NAME", help="which dict of tensors to take, where the checkpoint holds several"
    )
    parser.add_argument(
        "--frozen-weights", default="", metavar="DIR", help="folder of the weights of sd-vae-ft-ema (DDT only)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing model folder")
    add_decoding_arguments(parser, default="as published")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)

    from cod_jax import files
    from cod_jax.interop import load_sd_vae
    from cod_jax.interop.cod_networks.checkpoint import load_published
    from cod_jax.interop.cod_networks.description import published_decoding, reference_config
    from cod_jax.interop.cod_networks.yaml_file import read_network
    from cod_jax.models.functional import count_params

    try:
        with files.clean_exit_on_sigterm():
            # Whatever can fail without reading gigabytes comes first.
            output = Path(args.output)
            if output.is_dir() and any(output.iterdir()) and not args.force:
                raise FileExistsError(f"{output} already exists; choose another output or pass --force to replace it")
            network = read_network(args.config)
            try:
                config = reference_config(network.class_name, network.init_args)
                decoding = published_decoding(network).override(**chosen_decoding(args))
            except UserError as error:
                raise UserError(f"{args.config}: {error}") from error
            if config.is_latent and not args.frozen_weights:
                raise UserError(
                    f"{network.class_name} works on the latents of sd-vae-ft-ema; name the folder of its weights with "
                    "--frozen-weights (they are at https://huggingface.co/stabilityai/sd-vae-ft-ema)"
                )
            autoencoder = load_sd_vae(args.frozen_weights) if config.is_latent else None
            checkpoint = load_published(args.checkpoint, network, kind=args.weights, key=args.key)
            fingerprint = checkpoint.model.save(
                output, training=checkpoint.facts, autoencoder=autoencoder, decoding=decoding, force=args.force
            )
    except (UserError, OSError) as error:
        print(files.printable(f"cod_jax.import_checkpoint: error: {error}"), file=sys.stderr)
        return 1
    if checkpoint.left_out:
        others = ", ".join(f"{name} ({count})" for name, count in checkpoint.left_out.items())
        print(files.printable(f"left out entries of other modules: {others}", sys.stdout.encoding))
    codec = config.codec
    line = (
        f"wrote {output}: {network.class_name}, {checkpoint.facts['weights']} weights, "
        f"{count_params(checkpoint.model.params):,} parameters, {codec.codebook_bits} bits for {codec.pitch}x"
        f"{codec.pitch} pixels, {codec.nominal_bits_per_pixel:.4g} bits per pixel, {decoding.summary()}, "
        f"fingerprint {fingerprint[:16]}"
    )
    print(files.printable(line, sys.stdout.encoding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
