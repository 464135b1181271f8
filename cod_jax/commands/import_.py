"""`cod import`: make a model folder from a released checkpoint."""

import argparse

from cod_jax import storage
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import REPLACE_MODEL, add_decoding_arguments, chosen_decoding
from cod_jax.errors import UserError
from cod_jax.model_folder.places import DESCRIPTION_FILE

EPILOG = """
examples:
  cod import --checkpoint CoD_Lite_bpp_0_0312.pt --config CoD_Lite_bpp_0_0312.yaml \\
      --output models/lite
  cod import --checkpoint CoD_latent_vpred.pt --config CoD_latent_vpred.yaml \\
      --output models/latent --frozen-weights pretrained

CoD (PixNerDiT, and DDT, which works on latents), pre-trained CoD-Lite (DConv), one-step CoD and one-step CoD-Lite are
read, as torch or safetensors files. PyTorch is not needed and no code in a file is run. Every name and shape must match
the YAML file. The folder decodes in 25 steps (one-step models: 1) with the published guidance unless --steps,
--guidance or --sampler say otherwise. DDT needs sd-vae-ft-ema, whose weights become part of the model folder.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="released weights (.pt or .safetensors)")
    parser.add_argument("--config", required=True, metavar="FILE", help="the YAML file that belongs to them")
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="model folder to write, or an address such as gs://bucket/models/pixel",
    )
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
    parser.add_argument("--force", action="store_true", help=REPLACE_MODEL)
    add_decoding_arguments(parser, default="as published")


def _run(args: argparse.Namespace) -> int:
    # What can fail without reading gigabytes, and before JAX is imported, comes first.
    storage.check_new_directory(args.output, args.force, DESCRIPTION_FILE)

    from cod_jax.interop import load_sd_vae
    from cod_jax.interop.cod_networks.checkpoint import load_published
    from cod_jax.interop.cod_networks.description import published_decoding, reference_config
    from cod_jax.interop.cod_networks.yaml_file import read_network
    from cod_jax.models.functional import count_params

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
        args.output, training=checkpoint.facts, autoencoder=autoencoder, decoding=decoding, force=args.force
    )
    if checkpoint.left_out:
        others = ", ".join(f"{name} ({count})" for name, count in checkpoint.left_out.items())
        frame.say(f"left out entries of other modules: {others}")
    codec = config.codec
    frame.say(
        f"wrote {args.output}: {network.class_name}, {checkpoint.facts['weights']} weights, "
        f"{count_params(checkpoint.model.params):,} parameters, {codec.symbols.bits} bits for {codec.pitch}x"
        f"{codec.pitch} pixels, {codec.nominal_bits_per_pixel:.4g} bits per pixel, {decoding.summary()}, "
        f"fingerprint {fingerprint[:16]}"
    )
    return frame.DONE


COMMAND = Command(
    "make a model folder from a released checkpoint",
    _add_options,
    _run,
    EPILOG,
    device="shared",
    addresses=("output",),
)
