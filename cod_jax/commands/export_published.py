"""`cod export-published`: write the weights of a model folder for the published code."""

import argparse
import dataclasses
from pathlib import Path

from cod_jax import files
from cod_jax.commands import frame
from cod_jax.commands.frame import Command
from cod_jax.commands.options import add_model_argument
from cod_jax.errors import UserError
from cod_jax.model_folder import places

EPILOG = """
examples:
  cod export-published --model models/lite --output lite.safetensors --config-output lite.yaml
  cod export-published --model models/lite --output lite.safetensors --prefix denoiser.

The file is safetensors; the published tools read torch files. In Python with PyTorch:
  import torch, safetensors.torch; torch.save(safetensors.torch.load_file("lite.safetensors"), "lite.pt")

Models that decode in one step become the class OneStepCoD with zero noise, others DConv, PixNerDiT or DDT; --as chooses
otherwise. The tools for OneStepCoD read names that begin with net., those for the others ema_denoiser.; these are the
defaults of --prefix. What the published classes cannot represent (other widths of the condition encoder, other
attention, ...) is refused. The published CoD-Lite attends in windows that repeat border pixels, which models trained
here do not: add --any-attention for them; the published code then decodes pictures larger than a window a little
differently. The autoencoder of latent models is not written: the published tools load their own.
"""
SUFFIX = ".safetensors"


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="weights to write; ends in .safetensors")
    parser.add_argument("--config-output", metavar="FILE", help="YAML file to write for the published tools")
    parser.add_argument("--prefix", metavar="TEXT", help="what every name begins with; default: what the tools expect")
    parser.add_argument(
        "--as",
        dest="role",
        choices=("one-step", "denoiser"),
        help="one-step decoder or denoiser to sample with; default: as the model folder decodes",
    )
    parser.add_argument(
        "--any-attention",
        action="store_true",
        help="write the model even if the published code attends otherwise: CoD-Lite in windows, CoD globally",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")


def _run(args: argparse.Namespace) -> int:
    # Mistakes that show before JAX is imported, which takes seconds.
    outputs = [Path(name) for name in (args.output, args.config_output) if name]
    if outputs[0].suffix != SUFFIX:
        raise UserError(f"--output {args.output}: end the name in {SUFFIX}")
    for output in outputs:
        if output.exists() and not args.force:
            raise UserError(f"{output} already exists; choose another output or pass --force")
    places.check_place(Path(args.model))

    import safetensors.numpy

    from cod_jax.interop.cod_networks.description import published_network
    from cod_jax.interop.cod_networks.reference import state_dict_from_params
    from cod_jax.interop.cod_networks.yaml_file import network_yaml
    from cod_jax.model_folder.bundle import load_bundle
    from cod_jax.models import build_model

    bundle = load_bundle(args.model)
    one_step = args.role == "one-step"
    if args.role is None:
        # There is no published one-step decoder of latents.
        one_step = bundle.decoding.num_steps == 1 and not bundle.config.is_latent
    network = published_network(bundle.config, one_step=one_step, any_attention=args.any_attention)
    if args.prefix is not None:
        network = dataclasses.replace(network, checkpoint_prefix=args.prefix)
    prefix = network.checkpoint_prefix or ""
    tensors = state_dict_from_params(build_model(bundle.config), bundle.config, bundle.params)
    named = {prefix + name: array for name, array in tensors.items()}
    # "pt" tells other readers that arrays are laid out as in PyTorch.
    weights = safetensors.numpy.save(named, metadata={"format": "pt"})
    files.write_bytes(outputs[0], weights, replace=args.force)
    if args.config_output:
        files.write_bytes(outputs[1], network_yaml(network).encode(), replace=args.force)
    written = " and ".join(map(str, outputs))
    frame.say(f"wrote {written}: {network.class_name}, {len(named)} tensors, names begin with {prefix or 'nothing'}")
    return frame.DONE


COMMAND = Command("write a model's weights for the published code", _add_options, _run, EPILOG, device="shared")
