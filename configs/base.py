"""All settings of a training run, with their defaults and units.

The other files of this folder start from `get_config` and change what they need. A field is set on the command line by
its dotted name: `--config.optimizer.learning_rate=2e-5`.
"""

from typing import Any

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    """Return the settings of CoD-Lite's published first stage, on 256-pixel crops; `data.source` must be set."""
    return config_dict.ConfigDict(
        {
            "model": {
                "codec": {
                    "kind": "cod",  # for the fields of "compact" see configs/presets.py
                    "pitch": 16,  # pixels per symbol in each direction
                    "input_stride": 1,  # stride of the first convolution; 2 in models trained at 512 pixels
                    "encoder_width": 128,  # channels of the encoder's first level
                    "latent_channels": 128,  # channels of what the bottleneck quantises
                    "decoder_depth": 2,  # pairs of residual block and attention
                    "num_groups": 32,  # groups of the group normalisations
                    "attention": "window_masked",  # windows of 32 x 32 positions; or "window_published", "global"
                    "bottleneck": {
                        "kind": "codebook",  # for the fields of "factorized" see configs/presets.py
                        "bits": 4,  # bits per symbol; the codebook has 2^bits vectors
                    },
                },
                "denoiser": {
                    "kind": "dconv",  # for the fields of "pixnerdit" and "ddt" see configs/presets.py
                    "hidden": 384,  # channels on the 16-pixel grid
                    "hidden_pixel": 32,  # channels per pixel
                    "num_blocks": 21,
                    "num_pixel_blocks": 3,
                    "bottleneck_width": 128,  # channels of the patch embedding
                    "mlp_ratio": 4.0,  # width of an MLP over hidden
                    "prediction": "image",  # or "velocity"
                },
            },
            "objective": {
                "kind": "pretrain",  # for the fields of "one_step" and "distill" see configs/presets.py
                "null_condition_probability": 0.1,  # share of images without a condition
                "time_shift": 1.0,  # 1 leaves the times as they are
                "reconstruction_weight": 1.0,  # loss that reads the image from the condition
                "feature_alignment_weight": 0.0,  # denoiser's features with DINOv2's; 0.5 in the published recipes
                "condition_alignment_weight": 0.0,  # condition with DINOv2's features; 0.5 in the published recipes
                "alignment_block": 8,  # block whose output is aligned; 1 is the first
                "one_step_weight": 0.0,  # extra pass at t = 0; 0 switches it off
                "one_step_ms_ssim_weight": 0.0,  # 1 - MS-SSIM of the pictures of that pass
                "one_step_fraction": 0.0,  # share of images trained at t = 0
                "one_step_noise_level": 1.0,  # scale of the noise at t = 0
                "bottleneck": {
                    "kind": "codebook",  # same kind as the model's; for "factorized" see configs/presets.py
                    "commitment_weight": 0.25,  # quantisation loss
                    "revive_codes_every": 0,  # steps between replacements of unused codes; 0 is never
                    "revive_usage": 0.03,  # a code is unused below this share, over the codebook's size
                    "rate_weight": 0.0,  # lambda, the weight of the bits per pixel; 0 does not estimate them
                },
                "lora_rank": 0,  # rank of low-rank adaptations, which train in the place of layers; 0 is none
                "lora_alpha": 32.0,  # scale of the adaptations times their rank
                "lora_layers": (),  # patterns of the layers, such as ("denoiser/*",)
                "freeze": (),  # patterns of the model's parameters that stay, such as ("codec/*",)
                "losses": (),  # loss terms of other packages, each {"kind": "package.module:Class", "weight": ...}
            },
            "optimizer": {
                "kind": "adamw",  # or "muon", for the matrices of blocks; it also has "momentum", by default 0.95
                "learning_rate": 1e-4,
                "warmup_steps": 0,
                "schedule": "constant",  # or "cosine", or "tenth": a tenth of the rate in the second half
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "gradient_clip": 0.0,  # largest gradient norm; 0 does not clip
                "relative_clip": 0.0,  # largest gradient norm over its running average; 0 does not clip
            },
            "ema": {
                "decay": 0.9999,
                "warmup": False,  # for short runs: min(decay, (1 + n) / (10 + n)) at step n
            },
            "frozen": {
                "weights": "",  # folder of the published weight files, for alignment and for latent models
                "dtype": "float32",
                "sharded": False,  # split their parameters over the devices; otherwise each device holds all of them
            },
            "data": {
                # Folder of pictures, ArrayRecord file or folder, or "tfds:NAME[:SPLIT]", a dataset that
                # tensorflow-datasets has prepared as ArrayRecord files ("tfds:/its/folder[:SPLIT]" by its folder).
                # Or a mixture of these: "mix:WEIGHT=SOURCE,WEIGHT=SOURCE".
                "source": "",
                "validation_source": "",  # the same for held-out images; "" holds out some files of the source
                "validation_modulus": 20,  # one file in this many is held out; 0 holds out none
                "image_size": 256,  # pixels per side of a training image
                "crop": "random_resized",  # or "random", not resized; or "center", as in the papers
                "min_scale": 0.5,  # smallest area of a random crop over the largest possible
                "flip": True,  # mirror half of the images
                "num_threads": 4,  # threads that read and crop, per process
                "num_workers": 0,  # worker processes that read, for each training process
                "prefetch": 2,  # batches made ahead
            },
            "batch_size": 128,  # images per step over all devices and processes
            "accumulation_steps": 1,  # parts of a batch computed one after the other
            "images_per_device": 0,  # most images that a device computes at once, in more parts if need be; 0 is all
            "total_steps": 600_000,
            "seed": 0,
            "stage": 1,  # in a recipe; later stages need init_from, and draw other random numbers from the same seed
            "compute": {
                "dtype": "bfloat16",  # "float32" on a CPU
                "remat": "none",  # work that the backward pass repeats to save memory: "none", "dots" or "full"
                "unroll": False,  # compile equal blocks one by one instead of as a loop
            },
            # Devices per mesh axis; -1 takes all that are left.
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "sharding": {
                # Mesh axis of each logical axis; the first alternative that fits is used.
                "rules": {
                    "kernel": (None,),
                    "conv_in": ("tensor", None),
                    "conv_out": ("fsdp", None),
                    "embed": ("fsdp", None),
                    "mlp": ("tensor", None),
                    "mixer": ("tensor", None),
                    "modulation": ("tensor", None),
                    "pixel": (None,),
                    "latent": (None,),
                    "codebook": (None,),
                    "norm": (None,),
                    "layers": (None,),
                    "timestep": (None,),
                    "features": (None,),
                    "key": (None,),
                },
                "batch": ("data", "fsdp"),  # mesh axes that share the batch
            },
            "checkpoint": {
                "every_steps": 5000,
                "keep_latest": 2,
                "keep_best": 1,  # by validation
                "fall_back": True,  # to an older checkpoint if the newest is damaged
                "best_by": "loss",  # or another number of the validation, such as "psnr_one_step"
                "address": "",  # "gs://bucket/run" or "s3://..." keeps them there instead of in the run folder
            },
            "log": {"every_steps": 100},
            "validation": {
                "every_steps": 5000,  # 0 switches validation off
                "num_images": 64,  # at most
                "num_sampling_steps": 25,
                "guidance_scale": 1.0,  # 1 switches guidance off
                "grid_images": 4,  # images in the grid of originals and reconstructions
                "metrics": (),  # classes of further metrics, for example ("my_package.metrics:MyMetric",)
            },
            "init_from": "",  # model folder, included model, or run folder of another run
            "init_weights": "ema",  # start from a run's moving average; "raw" continues parameters and average
            "init_fresh": (),  # patterns of parameters that may stay fresh, for example ("codec/decoder/up/*",)
            "max_consecutive_skipped": 20,  # number of steps in a row without finite gradients that stops the run
            "limits": {
                "step_seconds": 3600.0,  # longest time without a step before the stacks are printed; 0 is forever
                "join_seconds": 300,  # longest time in which all processes have to start
                "heartbeat_seconds": 100,  # a process without a sign of life for so long counts as lost
            },
        }
    )


def replace_codec(config: config_dict.ConfigDict, fields: dict[str, Any]) -> None:
    """Replace the condition codec by one with these fields; see configs/presets.py."""
    config["model"]["codec"] = config_dict.ConfigDict(fields)  # pyright: ignore[reportArgumentType, reportIndexIssue, reportOptionalSubscript, reportCallIssue]


def replace_denoiser(config: config_dict.ConfigDict, fields: dict[str, Any]) -> None:
    """Replace the denoiser by one with these fields; see configs/presets.py."""
    config["model"]["denoiser"] = config_dict.ConfigDict(fields)  # pyright: ignore[reportArgumentType, reportIndexIssue, reportOptionalSubscript, reportCallIssue]


def replace_bottleneck(config: config_dict.ConfigDict, fields: dict[str, Any], training: dict[str, Any]) -> None:
    """Replace the bottleneck and its training by those with these fields; see configs/presets.py."""
    config["model"]["codec"]["bottleneck"] = config_dict.ConfigDict(fields)  # pyright: ignore[reportArgumentType, reportIndexIssue, reportOptionalSubscript, reportCallIssue]
    config["objective"]["bottleneck"] = config_dict.ConfigDict(training)  # pyright: ignore[reportArgumentType, reportIndexIssue, reportOptionalSubscript, reportCallIssue]


def replace_objective(config: config_dict.ConfigDict, fields: dict[str, Any]) -> None:
    """Replace the objective by one with these fields; see configs/presets.py."""
    config["objective"] = config_dict.ConfigDict(fields)  # pyright: ignore[reportArgumentType]


def apply(config: config_dict.ConfigDict, *changes: dict[str, Any]) -> None:
    """Set fields by dotted name; a name that does not exist raises `KeyError`."""
    for change in changes:
        config.update_from_flattened_dict(change)
