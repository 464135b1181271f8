"""Settings that several config files share, by dotted name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from configs import base

# The three published stages of pre-training (arXiv 2511.18706, 2604.12525). The encoder's first convolution has stride
# 1 at 256 pixels and stride 2 at 512, where a symbol covers twice as many pixels in each direction. Where the condition
# would become too coarse, a new layer doubles its resolution.
STAGES = ("1", "2", "3")
BOTTLENECKS = ("codebook", "factorized")
_STAGES: dict[str, dict[str, Any]] = {
    "1": {"image_size": 256, "batch_size": 128, "learning_rate": 1e-4, "one_step_weight": 0.0, "init_weights": "ema"},
    "2": {"image_size": 512, "batch_size": 64, "learning_rate": 2e-5, "one_step_weight": 0.0, "init_weights": "raw"},
    "3": {"image_size": 512, "batch_size": 64, "learning_rate": 2e-5, "one_step_weight": 1.0, "init_weights": "ema"},
}
COD_STEPS = {"1": 400_000, "2": 100_000, "3": 50_000}
LITE_STEPS = {**COD_STEPS, "1": 600_000}
# Pixels per symbol at 512 pixels, by nominal bits per pixel. Symbols have 4 bits.
PITCHES = {"0.0039": 32, "0.00024": 128}
# The layers that double the condition's resolution, new in stage 2.
DOUBLING = ("codec/decoder/output/1/*",)

# Datasets of the published training, as `cod prepare --dataset` makes them, with millions of pictures before small ones
# are left out. At 512 pixels too many of ImageNet-21K would be.
DATASETS = {"imagenet21k": 13.2, "openimages": 1.7, "sa1b": 11.2}
DATA = ("own", "published")


def mixture(size: int, weights: Mapping[str, float]) -> str:
    """Return the `data.source` that mixes prepared datasets of a size, found in $TFDS_DATA_DIR.

    Args:
        size: Shorter side of the pictures, pixels.
        weights: Share of each dataset, by its name.
    """
    return "mix:" + ",".join(f"{weight}=tfds:{name}/{size}" for name, weight in weights.items())


def published_data(data: str, image_size: int) -> dict[str, Any]:
    """Return the settings of the data: "published" is the published mixture, "own" leaves `data.source` to be set."""
    weights = {name: DATASETS[name] for name in DATASETS if image_size < 512 or name != "imagenet21k"}
    return {"data.source": mixture(image_size, weights) if choose("data", data, DATA) == "published" else ""}


def published_stage(stage: str, pitch: int, steps: dict[str, int], data: str) -> dict[str, Any]:
    """Return the settings of a pre-training stage, for a model with this pitch at 512 pixels and data of `DATA`."""
    values = _STAGES[stage]
    input_stride = 1 if stage == "1" else 2
    return {
        **published_data(data, values["image_size"]),
        "data.image_size": values["image_size"],
        "data.crop": "center",
        "data.flip": False,
        "model.codec.pitch": pitch * input_stride // 2,
        "model.codec.input_stride": input_stride,
        "batch_size": values["batch_size"],
        "total_steps": steps[stage],
        "optimizer.learning_rate": values["learning_rate"],
        "objective.feature_alignment_weight": 0.5,
        "objective.condition_alignment_weight": 0.5,
        "objective.one_step_weight": values["one_step_weight"],
        "stage": int(stage),
        "init_weights": values["init_weights"],
        "init_fresh": DOUBLING if stage == "2" else (),
    }


# Options after the colon of pixel and latent CoD; the first value is the default.
COD_OPTIONS = {
    "stage": ("1", "2", "3"),
    "size": ("xl", "330m", "114m", "49m"),
    "rate": ("0.0039", "0.00024"),
    "bottleneck": ("codebook", "factorized"),
    "data": ("own", "published"),
}

# Denoisers by size. XL is published. For the others the papers give only the number of parameters; widths and depths
# were chosen here so that the denoiser has that number within 1 %.
PIXEL_DENOISERS = {
    "49m": {"hidden": 320, "num_heads": 5, "hidden_pixel": 32, "num_blocks": 22},
    "114m": {"hidden": 640, "num_heads": 10, "hidden_pixel": 32, "num_blocks": 13},
    "330m": {"hidden": 896, "num_heads": 14, "hidden_pixel": 32, "num_blocks": 21},
    "xl": {"hidden": 1152, "num_heads": 16, "hidden_pixel": 64, "num_blocks": 26},
}
LATENT_DENOISERS = {
    "49m": {"hidden": 320, "num_heads": 5, "num_blocks": 20},
    "114m": {"hidden": 512, "num_heads": 8, "num_blocks": 18},
    "330m": {"hidden": 832, "num_heads": 13, "num_blocks": 20},
    "xl": {"hidden": 1152, "num_heads": 16, "num_blocks": 22},
}


def pixel_denoiser(**fields: Any) -> dict[str, Any]:
    """Return all fields of pixel CoD's denoiser, for `config.model.denoiser`."""
    defaults = {
        "kind": "pixnerdit",
        "hidden": 1152,  # channels on the 16-pixel grid
        "num_heads": 16,
        "hidden_pixel": 64,  # channels per pixel
        "num_blocks": 26,  # transformer blocks
        "num_pixel_blocks": 4,  # neural-field blocks
        "mlp_ratio": 4.0,  # width of an MLP over hidden, before the two thirds of SwiGLU
        "pixel_mlp_ratio": 2,  # width of a neural field's MLP over hidden_pixel
        "prediction": "velocity",  # or "image"
    }
    return {**defaults, **fields}


def latent_denoiser(**fields: Any) -> dict[str, Any]:
    """Return all fields of latent CoD's denoiser, for `config.model.denoiser`."""
    defaults = {
        "kind": "ddt",
        "hidden": 1152,  # channels on the 16-pixel grid
        "num_heads": 16,
        "num_blocks": 22,  # transformer blocks of the encoder
        "num_decoder_blocks": 6,
        "mlp_ratio": 4.0,  # width of an MLP over hidden, before the two thirds of SwiGLU
        "prediction": "velocity",  # or "image", the latents
        "autoencoder": "sd_vae",  # or "space_to_depth", a projection without weights, for trying things out
    }
    return {**defaults, **fields}


def factorized_bottleneck(**fields: Any) -> dict[str, Any]:
    """Return all fields of a factorized bottleneck, for `config.model.codec.bottleneck`."""
    defaults = {
        "kind": "factorized",
        "num_levels": 1,  # quality levels of the model; its training needs a lambda for each
        "training": "noise",  # stand-in for rounding in training; or "straight_through"
        "offset": "median",  # centre of a channel's bin 0; "none" is 0
        "tail_mass": 2.0**-16,  # share of a density that its coding table may leave out
    }
    return {**defaults, **fields}


def compact_codec(**fields: Any) -> dict[str, Any]:
    """Return all fields of the compact condition codec, for `config.model.codec`."""
    defaults = {
        "kind": "compact",
        "pitch": 16,  # pixels per latent in each direction; or 8
        "hidden": 160,  # channels of the encoder, on the 16-pixel grid
        "num_encoder_blocks": 2,
        "num_decoder_blocks": 2,  # blocks of the condition decoder
        "mlp_ratio": 3.0,  # width of a block's MLP over its channels
        "latent_channels": 64,
        "step": 0.4,  # width of a bin of the best quality level in pixel values of [-1, 1]
        "bottleneck": factorized_bottleneck(),
    }
    return {**defaults, **fields}


def compact_denoiser(**fields: Any) -> dict[str, Any]:
    """Return all fields of the compact denoiser, for `config.model.denoiser`."""
    defaults = {
        "kind": "compact",
        "hidden": 160,  # channels on the 16-pixel grid
        "num_blocks": 2,
        "mlp_ratio": 3.0,  # width of a block's MLP over its channels
        "refined": 48,  # channels of the refinement at 1/4 of the resolution
        "num_refine_blocks": 2,
        "prediction": "image",  # or "velocity"
        "num_texture_blocks": 0,  # of the network that adds texture where there are several steps
        "texture_features": 64,  # its channels, at 1/4 of the resolution
    }
    return {**defaults, **fields}


def codebook_training(**fields: Any) -> dict[str, Any]:
    """Return all fields of a codebook's training, for `config.objective.bottleneck`."""
    defaults = {
        "kind": "codebook",
        "commitment_weight": 0.25,  # quantisation loss
        "revive_codes_every": 0,  # steps between replacements of unused codes; 0 is never
        "revive_usage": 0.03,  # a code is unused below this share, over the codebook's size
        "rate_weight": 0.0,  # lambda, the weight of the bits per pixel; 0 does not estimate them
    }
    return {**defaults, **fields}


def factorized_training(**fields: Any) -> dict[str, Any]:
    """Return all fields of a factorized bottleneck's training, for `config.objective.bottleneck`."""
    defaults = {
        "kind": "factorized",
        "rate_weights": (1.0,),  # lambda, the weight of the bits per pixel, for each quality level, largest first
        "level_balance": 0.0,  # how much the losses of the levels are evened out, 0 to 1
    }
    return {**defaults, **fields}


def choose_bottleneck(config: config_dict.ConfigDict, bottleneck: str) -> None:
    """Give a config the bottleneck of this name, "codebook" or "factorized".

    Raises:
        ValueError: There is no such bottleneck.
    """
    if choose("bottleneck", bottleneck, BOTTLENECKS) == "factorized":
        base.replace_bottleneck(config, factorized_bottleneck(), factorized_training())


# Pixels per symbol and bits per symbol of one-step codecs, by nominal bits per pixel. All rates but 0.0625 and 0.25
# are published.
ONE_STEP_RATES = {
    "0.0039": (32, 4),
    "0.0078": (32, 8),
    "0.0156": (16, 4),
    "0.0312": (16, 8),
    "0.0625": (8, 4),
    "0.125": (8, 8),
    "0.25": (4, 4),
    "0.5": (4, 8),
}


def reconstruction_losses(**weights: float) -> dict[str, Any]:
    """Return all fields of the losses between images and one-step reconstructions."""
    defaults = {
        "squared_error_weight": 0.0,  # of values in [-1, 1]
        "l1_weight": 1.0,
        "ms_ssim_weight": 0.0,  # 1 - MS-SSIM, for images of at least 176 pixels
        "lpips_vgg_weight": 1.0,  # needs weight files; 0 switches it off, as for the terms below
        "lpips_alex_weight": 0.5,  # needs weight files
        "structural_weight": 0.0,  # structural distance, a substitute for LPIPS without weight files
        "feature_alignment_weight": 0.5,  # denoiser's features with DINOv2's; needs its weight file
        "alignment_block": 8,  # block whose output is aligned; 1 is the first
    }
    return {**defaults, **weights}


# Reconstruction losses that need no weight files.
WITHOUT_WEIGHT_FILES = reconstruction_losses(
    lpips_vgg_weight=0.0, lpips_alex_weight=0.0, structural_weight=1.0, feature_alignment_weight=0.0
)
ONE_STEP_LOSSES = {
    "published": reconstruction_losses(),
    "lpips": reconstruction_losses(feature_alignment_weight=0.0),
    "plain": WITHOUT_WEIGHT_FILES,
}
# Discriminators that go with these losses: heads on DINOv2's features, or a network on pixels.
_PATCH_DISCRIMINATOR = {"kind": "patch", "widths": (64, 128, 256, 512)}
DISCRIMINATORS = {
    "published": {"kind": "dinov2", "layers": (2, 5, 8, 11)},
    "lpips": _PATCH_DISCRIMINATOR,
    "plain": _PATCH_DISCRIMINATOR,
}


def one_step_objective(**fields: Any) -> dict[str, Any]:
    """Return all fields of the first stage of the one-step codec, for `config.objective`."""
    defaults = {
        "kind": "one_step",
        "reconstruction": reconstruction_losses(),
        "lora_rank": 32,  # rank of the adaptation of every linear map outside the codec; 0 trains all parameters
        "lora_alpha": 32.0,  # scale of the adaptations times their rank
        "lora_layers": (),  # patterns of other layers to adapt, such as ("denoiser/*",); the rest trains in full then
        "adapt_pixel_condition": False,  # also adapt the map from the condition to every pixel
        "bottleneck": codebook_training(),
        "freeze": (),  # patterns of the model's parameters that stay, such as ("codec/*",)
        "losses": (),  # loss terms of other packages, each {"kind": "package.module:Class", "weight": ...}
    }
    return {**defaults, **fields}


def pretrain_objective(**fields: Any) -> dict[str, Any]:
    """Return all fields of pre-training in configs/base.py, with some changed."""
    return {**base.get_config().to_dict()["objective"], **fields}


def distill_objective(**fields: Any) -> dict[str, Any]:
    """Return all fields of the second stage of the one-step codec, for `config.objective`."""
    defaults = {
        "kind": "distill",
        "teacher": "",  # model folder, included model, or run folder, of a model on pixels that has learned to sample
        "reconstruction": reconstruction_losses(),
        "distribution_matching_weight": 2.0,
        "adversarial_weight": 0.01,
        "guidance_scale": 3.0,  # of the teacher; 1 is none, for one without null condition, as the included model
        "time_shift": 1.0,  # 1 leaves the times as they are
        "critic_updates": 4,  # updates of critic and discriminator before each update of the student
        "critic_optimizer": optimizer(learning_rate=1e-5, schedule="tenth"),
        "discriminator": DISCRIMINATORS["published"],
        "lora_rank": 0,  # rank of low-rank adaptations, which train in the place of layers; 0 is none
        "lora_alpha": 32.0,  # scale of the adaptations times their rank
        "lora_layers": (),  # patterns of the layers, such as ("denoiser/*",)
        "bottleneck": codebook_training(),  # its loss term is logged; the bottleneck itself is not trained
        "freeze": (),  # patterns of the model's parameters that stay, such as ("codec/*",)
        "losses": (),  # loss terms of other packages, each {"kind": "package.module:Class", "weight": ...}
    }
    return {**defaults, **fields}


def optimizer(**fields: Any) -> dict[str, Any]:
    """Return all fields of the optimizer in configs/base.py, with some changed."""
    return {**base.get_config().to_dict()["optimizer"], **fields}


def cod(
    argument: str,
    sizes: Mapping[str, dict[str, Any]],
    denoiser: Callable[..., dict[str, Any]],
    guidance: Mapping[str, float],
) -> config_dict.ConfigDict:
    """Return all settings of a published stage of CoD, on pixels or on latents.

    Args:
        argument: Options after the colon of the config file, those of `COD_OPTIONS`.
        sizes: Fields of the denoiser by size.
        denoiser: Function that completes these fields.
        guidance: Published guidance scale by rate.
    """
    chosen = options(argument, COD_OPTIONS)
    stage = choose("stage", chosen["stage"], STAGES)
    size = choose("size", chosen["size"], sizes)
    pitch = choose("rate", chosen["rate"], PITCHES)
    config = base.get_config()
    base.replace_denoiser(config, denoiser(**size))
    base.apply(
        config,
        published_stage(stage, pitch, COD_STEPS, chosen["data"]),
        {
            "model.codec.decoder_depth": 3,
            "model.codec.attention": "global",
            "compute.remat": "dots",
            "validation.guidance_scale": guidance[chosen["rate"]],
        },
    )
    choose_bottleneck(config, chosen["bottleneck"])
    return config


def options(argument: str, choices: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Read the options after the colon of a config file: "2,size=114m" means stage 2 and size 114m.

    Args:
        argument: The stage, without a name, and name=value pairs; all may be left out.
        choices: Values of each option; the first is the default. `cod train --help` lists them.

    Raises:
        ValueError: An option or its value is unknown.
    """
    chosen = {name: values[0] for name, values in choices.items()}
    for part in filter(None, argument.split(",")):
        name, equals, value = part.partition("=")
        name, value = (name, value) if equals else ("stage", name)
        if name not in choices:
            known = "; ".join(f"{key}={', '.join(filter(None, values))}" for key, values in choices.items())
            raise ValueError(f"unknown option {name!r} after the config file; it takes {known}")
        chosen[name] = choose(name, value, choices[name])
    return chosen


def choose(what: str, value: str, choices: Any) -> Any:
    """Return `choices[value]`, or `value` if the choices are a list.

    Raises:
        ValueError: There is no such choice.
    """
    if value not in choices:
        more = ", or all with cod train" if what == "stage" else ""
        raise ValueError(f"there is no {what} {value!r}; choose one of {', '.join(filter(None, choices))}{more}")
    return choices[value] if isinstance(choices, dict) else value


# 1.6 million parameters with the denoiser, for trying things out on a CPU.
TINY_CODEC = {
    "model.codec.pitch": 16,
    "model.codec.input_stride": 2,
    "model.codec.encoder_width": 16,
    "model.codec.latent_channels": 16,
    "model.codec.num_groups": 4,
}
TINY_DENOISER = {
    "model.denoiser.hidden": 64,
    "model.denoiser.hidden_pixel": 16,
    "model.denoiser.num_blocks": 4,
    "model.denoiser.num_pixel_blocks": 2,
    "model.denoiser.bottleneck_width": 32,
}

# Settings of short runs. The published ones suit hundreds of thousands of steps.
SHORT_RUN = {
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 20,
    "optimizer.schedule": "cosine",
    "optimizer.gradient_clip": 1.0,
    "ema.warmup": True,
    # The output of the codec starts at zero. Until the denoiser uses the condition, the quantisation loss alone would
    # pull all latents together; only the loss that reads the image from the condition prevents this.
    "objective.reconstruction_weight": 10.0,
    "objective.bottleneck.revive_codes_every": 10,
    "objective.bottleneck.revive_usage": 0.5,
    "compute.dtype": "float32",
}
