"""Settings of a run as frozen dataclasses, made from the command's ConfigDict and flags."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from cod_jax.errors import UserError
from cod_jax.input.config import DataConfig
from cod_jax.models.compute import ComputeConfig, Dtype
from cod_jax.models.config import ModelConfig, with_bottleneck
from cod_jax.models.fields import from_mapping, require, require_at_least
from cod_jax.parallel import MeshConfig, Rules
from cod_jax.training.objectives.objective import ObjectiveConfig
from cod_jax.training.optimizer import EmaConfig, OptimizerConfig
from cod_jax.training.ranking import DEFAULT, check_direction
from cod_jax.training.run_folder import STORAGE


@dataclasses.dataclass(frozen=True)
class ShardingConfig:
    """Settings of how arrays are split over the mesh.

    Attributes:
        rules: For each logical axis name a mesh axis, None, or alternatives such as ("fsdp", None); see
            `parallel.spec`.
        batch: Mesh axes that share the batch.
    """

    rules: Rules
    batch: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FrozenConfig:
    """Settings of the frozen networks: those that losses use, the autoencoder of latent models, and the teacher.

    Attributes:
        weights: Folder of the weight files as their authors published them, which may be an address of remote storage.
        dtype: Dtype of their parameters and computation. The teacher computes in the student's dtype, see `compute`.
        sharded: Whether the rules split their parameters over the devices; otherwise each device holds all of them.
    """

    weights: str
    dtype: Dtype
    sharded: bool


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Settings of checkpoints. A state is also saved after each validation and at the end.

    Attributes:
        every_steps: Steps between checkpoints.
        keep_latest: Number of newest checkpoints to keep; with 1 there is no way back from one that turns out to be
            damaged, or useless.
        keep_best: Number of further checkpoints to keep, the best by validation.
        fall_back: Whether a run goes on from an older checkpoint if the newest is damaged; otherwise it is refused.
        best_by: Name of the number of the validation that says which checkpoint is best: "loss", or one such as
            "psnr_one_step" or "quality_3/ms_ssim_one_step"; see `ranking`.
        address: Where checkpoints are kept instead of in the run folder, such as "gs://bucket/run"; "" is that folder.
    """

    every_steps: int
    keep_latest: int
    keep_best: int
    fall_back: bool = True
    best_by: str = DEFAULT
    address: str = ""

    def __post_init__(self):
        require(
            not self.address or self.address.startswith(STORAGE),
            f"checkpoint.address must begin with {' or '.join(STORAGE)}, got {self.address}; other storage must be "
            "mounted, and a folder of it be the --workdir",
        )
        require_at_least(self, 1, "every_steps", "keep_latest")
        require_at_least(self, 0, "keep_best")
        check_direction(self.best_by)


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Settings of the log.

    Attributes:
        every_steps: Steps between log lines; the losses are averaged over them.
    """

    every_steps: int

    def __post_init__(self):
        require_at_least(self, 1, "every_steps")


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Settings of the validation on held-out images, which uses the moving average of the parameters.

    Attributes:
        every_steps: Steps between validations; the last step is validated too. 0 switches validation off.
        num_images: Largest number of held-out images; 0 switches validation off.
        num_sampling_steps: Steps of the diffusion sampler for the sampled reconstruction.
        guidance_scale: Classifier-free guidance of the sampler; 1 switches it off.
        grid_images: Number of images in the grid of originals and reconstructions.
        metrics: Classes of further metrics, such as "my_package.metrics:MyMetric", which compare images with their
            reconstructions in one step; see `evaluation.metric_table.Metric`.
    """

    every_steps: int
    num_images: int
    num_sampling_steps: int
    guidance_scale: float
    grid_images: int
    metrics: tuple[str, ...] = ()

    def __post_init__(self):
        require_at_least(self, 1, "num_sampling_steps")
        require_at_least(self, 0, "every_steps", "num_images", "grid_images")

    @property
    def num_wanted(self) -> int:
        """Number of held-out images to read, 0 if nothing is to be validated."""
        return self.num_images if self.every_steps else 0


@dataclasses.dataclass(frozen=True)
class LimitsConfig:
    """Settings of how long a process waits before it gives up.

    Attributes:
        step_seconds: Longest time in which nothing moves: no step ends, and no other phase of the run. Then all stacks
            are printed, and the process ends with status 1. 0 waits forever.
        join_seconds: Longest time in which all processes of a run have to start.
        heartbeat_seconds: Time after which a process without a sign of life counts as lost, and the others end.
    """

    step_seconds: float = 3600.0
    join_seconds: int = 300
    heartbeat_seconds: int = 100

    def __post_init__(self):
        require_at_least(self, 0, "step_seconds")
        require_at_least(self, 1, "join_seconds", "heartbeat_seconds")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All settings of a run except its folder; configs/base.py lists the fields with their defaults.

    Attributes:
        model: Description of the model.
        objective: Objective, such as pre-training or one of the stages of the one-step codec.
        optimizer: Optimizer and learning rate.
        ema: Moving average of the parameters.
        frozen: Frozen networks.
        data: Training and held-out images.
        batch_size: Images per step over all devices and processes.
        accumulation_steps: Parts of a batch that are computed one after the other.
        images_per_device: Largest number of images that a device computes at once. A batch then has as many parts as
            the devices of the run need, at least `accumulation_steps`. 0 sets no limit.
        total_steps: Steps of the whole run.
        seed: Root of all randomness, including the order of the data; see also `stage_seed`.
        compute: Settings of the computation; parameters, their average and the losses are always float32.
        mesh: Devices per mesh axis.
        sharding: Rules that split arrays over the mesh.
        checkpoint: Settings of checkpoints.
        log: Settings of the log.
        validation: Settings of the validation on held-out images.
        init_from: Model folder, name of an included model, or run folder of another run, to start from if the run
            has no checkpoint yet; "" starts from scratch.
        init_weights: Weights to take from a run. "raw" continues its parameters and their average; "ema" starts both
            from the average.
        init_fresh: Wildcard patterns of parameters that keep their fresh values if `init_from` does not fit them.
        max_consecutive_skipped: Number of steps in a row without finite gradients that stops the run.
        limits: How long a process waits before it gives up.
        stage: Number of the stage that this is in a recipe. Later stages must start from a model, and have random
            numbers of their own.
    """

    model: ModelConfig
    objective: ObjectiveConfig
    optimizer: OptimizerConfig
    ema: EmaConfig
    frozen: FrozenConfig
    data: DataConfig
    batch_size: int
    accumulation_steps: int
    total_steps: int
    seed: int
    compute: ComputeConfig
    mesh: MeshConfig
    sharding: ShardingConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    validation: ValidationConfig
    init_from: str
    init_weights: Literal["ema", "raw"]
    init_fresh: tuple[str, ...]
    max_consecutive_skipped: int
    limits: LimitsConfig = LimitsConfig()
    images_per_device: int = 0
    stage: int = 1

    def __post_init__(self):
        require_at_least(self, 1, "batch_size", "accumulation_steps", "total_steps", "max_consecutive_skipped", "stage")
        require_at_least(self, 0, "images_per_device")
        require(0 <= self.seed < 2**32, f"seed must be between 0 and 2^32 - 1, got {self.seed}")
        require(self.total_steps < 2**31, f"total_steps must be below 2^31, got {self.total_steps}")
        require(
            self.batch_size % self.accumulation_steps == 0,
            f"batch_size must be a multiple of accumulation_steps {self.accumulation_steps}, got {self.batch_size}",
        )
        multiple = self.model.size_multiple
        require(
            self.data.image_size % multiple == 0,
            f"data.image_size must be a multiple of {multiple}, the larger of model.codec.pitch and 16, got "
            f"{self.data.image_size}",
        )

    @property
    def stage_seed(self) -> int:
        """Seed of this stage: the first has `seed` itself, and no later one repeats the order and noise of another."""
        if self.stage == 1:
            return self.seed
        return int(np.random.SeedSequence([self.seed, self.stage]).generate_state(1)[0])

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files, such as "autoencoder" and "dinov2"."""
        autoencoder = ("autoencoder",) if self.model.has_learned_autoencoder else ()
        return (*autoencoder, *self.objective.frozen_names)

    def shared_by(self, num_shards: int) -> "TrainConfig":
        """Return the settings with the `accumulation_steps` that `images_per_device` asks for.

        The batch stays what it is, so a run may go on with fewer devices, and later with more.

        Args:
            num_shards: Number of devices that share a batch.

        Raises:
            UserError: No number of parts fits the batch and the devices.
        """
        if not self.images_per_device:
            return self
        for parts in range(self.accumulation_steps, self.batch_size + 1):
            size, rest = divmod(self.batch_size, parts)
            if not rest and not size % num_shards and size <= self.images_per_device * num_shards:
                return dataclasses.replace(self, accumulation_steps=parts)
        raise UserError(
            f"expected a batch_size that {num_shards} devices can share in parts of at most {self.images_per_device} "
            f"images each, got {self.batch_size}; use a multiple of {num_shards}, or another number of devices"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, in the form that checkpoints store."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, trusted: bool = False) -> "TrainConfig":
        """Build the settings from nested plain values, such as `ConfigDict.to_dict()`.

        Args:
            values: All settings, with the names of this version or an earlier one.
            trusted: Whether kinds of other packages may be imported, which settings that a user wrote may ask for, and
                those that a folder stores may not.

        Raises:
            UserError: A field is unknown or missing, or has the wrong type or an unusable value. The message is one
                line.
        """
        values = upgraded(values)
        _require_all(cls, values, "config")
        return from_mapping(cls, values, "config", trusted=trusted)


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the names of this version; those of old checkpoints may have others.

    The fields of the bottleneck and of its training used to be in the condition codec, in the objective and in the
    objective's reconstruction losses.
    """
    values = {**values, "model": with_bottleneck(values.get("model"))}
    objective = values.get("objective")
    if not isinstance(objective, Mapping) or "bottleneck" in objective or not isinstance(values["model"], Mapping):
        return values
    kind = _mapping(_mapping(values["model"], "codec"), "bottleneck").get("kind", "codebook")
    names = {
        "codebook": ("commitment_weight", "revive_codes_every", "revive_usage"),
        "factorized": ("rate_weights",),
    }
    moved = {name for group in names.values() for name in group}
    reconstruction = _mapping(objective, "reconstruction")
    given = {name: value for name, value in {**reconstruction, **objective}.items() if name in names.get(kind, ())}
    objective = {name: value for name, value in objective.items() if name not in moved}
    if reconstruction:
        objective["reconstruction"] = {name: value for name, value in reconstruction.items() if name not in moved}
    return {**values, "objective": {**objective, "bottleneck": {"kind": kind, **given}}}


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name."""
    flat = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted names of the fields that differ, with both values."""
    before, after = flatten(_plain(_with_defaults(old))), flatten(_plain(new))
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _with_defaults(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return stored settings with the fields that descriptions have gained since, if this version takes the rest."""
    try:
        return TrainConfig.from_dict(stored).to_dict()
    except UserError:
        return upgraded(stored)


def _plain(value: Any) -> Any:
    """Return a value as JSON would return it, so that stored and new settings compare."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _require_all(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Check that no field without a default is missing."""
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name not in values:
            if required:
                raise UserError(f"{where}.{field.name} is missing; start from the fields of configs/base.py")
        elif dataclasses.is_dataclass(field.type) and isinstance(values[field.name], Mapping):
            _require_all(field.type, values[field.name], f"{where}.{field.name}")
