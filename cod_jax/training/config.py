"""The settings of a run as frozen dataclasses; below the command nobody sees a ConfigDict or a flag."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from cod_jax.errors import UserError
from cod_jax.input.config import DataConfig
from cod_jax.models.config import ComputeConfig, Dtype, ModelConfig, from_mapping
from cod_jax.parallel import MeshConfig, Rules
from cod_jax.training.objectives.distill import DistillConfig
from cod_jax.training.objectives.one_step import OneStepConfig
from cod_jax.training.objectives.pretrain import PretrainConfig
from cod_jax.training.optimizer import EmaConfig, OptimizerConfig


@dataclasses.dataclass(frozen=True)
class ShardingConfig:
    """How arrays are split over the mesh.

    Attributes:
        rules: Logical axis name to mesh axis, None, or alternatives such as ("fsdp", None); see `parallel.spec`.
        batch: Mesh axes that share the batch.
    """

    rules: Rules
    batch: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FrozenConfig:
    """The frozen networks: those that losses compare with, the autoencoder of latent models, and the teacher.

    Attributes:
        weights: Folder of the weight files as their authors published them.
        dtype: Dtype of their parameters and their computation; the teacher is computed as the student is, see
            `compute`.
        sharded: Whether their parameters are split over the devices by the rules, instead of whole on each.
    """

    weights: str
    dtype: Dtype
    sharded: bool


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When states are saved and which are kept; a state is also saved after each validation and at the end.

    Attributes:
        every_steps: Steps between checkpoints.
        keep_latest: How many of the newest are kept.
        keep_best: How many of those with the lowest validation loss are kept besides.
    """

    every_steps: int
    keep_latest: int
    keep_best: int

    def __post_init__(self):
        _at_least(self, 1, "every_steps", "keep_latest")
        _at_least(self, 0, "keep_best")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """When numbers are written.

    Attributes:
        every_steps: Steps between log lines; the losses are averaged over them.
    """

    every_steps: int

    def __post_init__(self):
        _at_least(self, 1, "every_steps")


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """What is measured on the held-out images, with the moving average of the parameters.

    Attributes:
        every_steps: Steps between validations; the last step is always validated.
        num_images: Held-out images to use, at most; 0 validates nothing.
        num_sampling_steps: Steps of the diffusion sampler for the sampled reconstruction.
        guidance_scale: Its classifier-free guidance; 1 is none.
        grid_images: Images in the picture of originals and reconstructions.
    """

    every_steps: int
    num_images: int
    num_sampling_steps: int
    guidance_scale: float
    grid_images: int

    def __post_init__(self):
        _at_least(self, 1, "every_steps", "num_sampling_steps")
        _at_least(self, 0, "num_images", "grid_images")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything about a run but where it is written; configs/base.py lists the fields with their defaults.

    Attributes:
        model: What is trained.
        objective: What the training is: pre-training, or either stage of the one-step codec.
        optimizer: Learning rate and AdamW.
        ema: Moving average of the parameters.
        frozen: Frozen networks.
        data: Training and held-out images.
        batch_size: Images per step over all devices and processes.
        accumulation_steps: Parts of a batch that are computed one after the other.
        total_steps: Steps of the whole run.
        seed: Root of all randomness, of the data's order too.
        compute: Dtype of the computation and what the backward pass computes again; parameters, their average and the
            losses are float32 always.
        mesh: Devices per mesh axis.
        sharding: How arrays are split over the mesh.
        checkpoint: When states are saved.
        log: When numbers are written.
        validation: What is measured on held-out images.
        init_from: Model folder, or work folder of another run, to start from if the run has no checkpoint yet; "" is a
            fresh start.
        init_weights: What to take from a run: "raw" continues its parameters and their average, "ema" starts both from
            the average.
        init_fresh: Patterns (as in file names) of parameters that keep their fresh values where `init_from` does not
            fit.
        max_consecutive_skipped: Steps in a row without finite gradients that stop the run.
    """

    model: ModelConfig
    objective: PretrainConfig | OneStepConfig | DistillConfig
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

    def __post_init__(self):
        _at_least(self, 1, "batch_size", "accumulation_steps", "total_steps", "max_consecutive_skipped")
        _at_least(self, 0, "seed")
        if self.batch_size % self.accumulation_steps:
            raise UserError(
                f"batch_size {self.batch_size} is not a multiple of accumulation_steps {self.accumulation_steps}"
            )
        multiple = self.model.size_multiple
        if self.data.image_size % multiple:
            raise UserError(
                f"data.image_size is {self.data.image_size}; it must be a multiple of {multiple}, the larger of "
                "model.codec.pitch and of 16"
            )

    @property
    def frozen_names(self) -> tuple[str, ...]:
        """Names of the frozen networks that come from weight files, such as "autoencoder" and "dinov2"."""
        autoencoder = ("autoencoder",) if self.model.has_learned_autoencoder else ()
        return (*autoencoder, *self.objective.frozen_names)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as stored with every checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Build the settings from nested plain values, such as `ConfigDict.to_dict()`.

        Raises:
            UserError: In one line, a field that is unknown, missing, of another type, or has an unusable value.
        """
        _require_all(cls, values, "config")
        return from_mapping(cls, values, "config")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    flat = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted names of the fields that differ, with both values."""
    before, after = flatten(_plain(old)), flatten(_plain(new))
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _plain(value: Any) -> Any:
    """The value as it comes back from JSON, so that stored and new settings compare."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _require_all(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Refuse values that leave out a field without a default."""
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name not in values:
            if required:
                raise UserError(f"{where}.{field.name} is missing; start from the fields of configs/base.py")
        elif dataclasses.is_dataclass(field.type) and isinstance(values[field.name], Mapping):
            _require_all(field.type, values[field.name], f"{where}.{field.name}")


def _at_least(config: Any, smallest: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < smallest:
            raise UserError(f"{name} is {getattr(config, name)}; it must be at least {smallest}")
