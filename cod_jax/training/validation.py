"""Validation on held-out images: losses, one-step and sampled reconstructions, rate and use of the bottleneck."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, UInt8

from cod_jax import files
from cod_jax.diffusion.samplers import sample
from cod_jax.errors import UserError
from cod_jax.images import signed_to_uint8, uint8_to_unit, unit_to_signed
from cod_jax.losses.similarity import ms_ssim_per_image, psnr_per_image
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.functional import Params
from cod_jax.parallel import Rules, gathered, gathering_blocks, global_batch, num_batch_shards, replicated
from cod_jax.training.config import TrainConfig, ValidationConfig
from cod_jax.training.keys import side_key
from cod_jax.training.picture_metrics import PictureMetric, name_of
from cod_jax.training.plan import Plan
from cod_jax.training.ranking import DEFAULT, check_measured

# PSNR of equal pictures in dB, so that a mean over pictures is finite.
_LARGEST_PSNR = 100.0
_STATISTICS = "statistics/"
_PICTURES = ("one_step", "sampled")

_logger = logging.getLogger(__name__)


class Validator:
    """Validation of parameters on a fixed set of images with fixed randomness.

    Args:
        plan: Plan of the run.
        config: Settings of the validation.
        images_uint8: Held-out images [N, S, S, 3], the same in every process; N may be 0.
        rules: Mesh axes of the logical axes, see `parallel.spec`.
        batch_size: Largest number of images at a time over all devices.
        key: Randomness of the losses and of the sampler's noise, the same at every validation.
        batch: Sharding of a batch, on the plan's mesh.
        metrics: Further metrics, measured on the host by comparing images with their reconstructions in one step.
    """

    def __init__(
        self,
        plan: Plan,
        config: ValidationConfig,
        images_uint8: UInt8[np.ndarray, "N S S 3"],
        *,
        rules: Rules,
        batch_size: int,
        key: jax.Array,
        batch: NamedSharding,
        metrics: Sequence[PictureMetric] = (),
    ):
        self._metrics = metrics
        self._images = images_uint8
        self._config = config
        self._codec = plan.objective.model_config.codec
        self._key = key
        self._batch = batch
        shards = num_batch_shards(batch)
        # A small set makes a small batch. The last batch is filled up with images of the set.
        self._size = min(batch_size, -(-max(len(images_uint8), 1) // shards) * shards)
        everywhere = replicated(batch.mesh)
        self._measure = jax.jit(
            gathering_blocks(rules, batch.mesh)(make_measure(plan, config)),
            in_shardings=(plan.shardings.params, plan.frozen_shardings, batch, batch, everywhere),
            out_shardings=everywhere,
        )

    @property
    def enabled(self) -> bool:
        """Whether there are held-out images."""
        return len(self._images) > 0

    def __call__(self, params: Params, frozen: Params) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Measure parameters, given those of the frozen networks.

        Returns:
            Scalars by name, including "loss" if the objective ranks checkpoints by it, and pictures uint8 [H, W, 3] by
            name.
        """
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, len(self._images), self._size):
            rows = np.arange(start, start + self._size) % len(self._images)
            local = np.split(rows, jax.process_count())[jax.process_index()]
            inputs = global_batch({"image": self._images[local], "index": local.astype(np.uint32)}, self._batch)
            parts.append(jax.device_get(self._measure(params, frozen, inputs["image"], inputs["index"], self._key)))
        num = len(self._images)
        joined = {name: np.concatenate([part[name] for part in parts])[:num] for name in parts[0]}
        scalars = {name: float(joined[name].mean()) for name in joined if _is_scalar(name)} | self._rate(joined)
        for metric in self._metrics:
            pairs = zip(self._images, joined["one_step"], strict=True)
            # There are no files here, and so no length of one.
            average = metric.average([metric.measure(*pair, 0) for pair in pairs])
            if average is not None:
                scalars[name_of(metric)] = float(average)
        num_grid = min(self._config.grid_images, num)
        if num_grid == 0:
            return scalars, {}
        names = [name for name in _PICTURES if name in joined]
        columns = [self._images[:num_grid], *(joined[name][:num_grid] for name in names)]
        return scalars, {"_".join(["original", *names]): picture_grid(columns)}

    def names(self, params: Params, frozen: Params) -> list[str]:
        """Return the names of the scalars, worked out from the shapes of the parameters alone."""
        size, side = self._size, self._images.shape[1]
        images = jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)
        measured = jax.eval_shape(
            self._measure, params, frozen, images, jax.ShapeDtypeStruct((size,), jnp.uint32), self._key
        )
        rate = self._rate({name: np.ones(leaf.shape, leaf.dtype) for name, leaf in measured.items()})
        return [*filter(_is_scalar, measured), *rate, *map(name_of, self._metrics)]

    def _rate(self, joined: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the nominal rate, if there is one, and the bottleneck's metrics, also at its lower quality levels."""
        by_scope: dict[str, dict[str, jax.Array]] = {}
        for name, values in joined.items():
            if name.startswith(_STATISTICS):
                scope, _, statistic = name.removeprefix(_STATISTICS).rpartition("/")
                by_scope.setdefault(scope, {})[statistic] = jnp.asarray(values.mean(axis=0))
        metrics = {
            f"{scope}/{name}" if scope else name: float(value)
            for scope, means in by_scope.items()
            for name, value in self._codec.bottleneck.metrics(means).items()
        }
        nominal = self._codec.nominal_bits_per_pixel
        return metrics if nominal is None else {"nominal_bits_per_pixel": nominal, **metrics}


def build_validator(
    config: TrainConfig,
    plan: Plan,
    held_out: np.ndarray,
    metrics: Sequence[PictureMetric],
    key: jax.Array,
    batch: NamedSharding,
) -> Validator:
    """Return the validation of a run.

    Args:
        config: Settings of the run.
        plan: Plan of the run.
        held_out: Held-out images [N, S, S, 3].
        metrics: Further metrics.
        key: Root of the run's randomness.
        batch: Sharding of a batch, on the plan's mesh.

    Raises:
        UserError: It does not measure the number that ranks the checkpoints.
    """
    validate = Validator(
        plan,
        config.validation,
        held_out,
        rules=config.sharding.rules,
        batch_size=config.batch_size // config.accumulation_steps,
        key=side_key(key, 0),
        batch=batch,
        metrics=metrics,
    )
    # The loss of an objective that has none ranks nothing, which is what its recipe wants.
    if validate.enabled and config.checkpoint.best_by != DEFAULT:
        averaged = {**plan.shapes.params, **plan.shapes.ema}
        check_measured(config.checkpoint.best_by, validate.names(averaged, plan.frozen_shapes))
    return validate


@contextlib.contextmanager
def saving_if_it_fails(save: Callable[[None], bool] | None) -> Iterator[None]:
    """Save the state if a validation fails: without that, the next start would repeat its steps.

    Args:
        save: Function that saves the state and returns whether it did; it gets None in the place of the numbers of a
            validation. None where nothing may be saved: after the last step, because the next start would take the run
            for done, and in one of several processes, because the others may still validate.
    """
    try:
        yield
    except Exception as error:
        if save is not None:
            try:
                kept = "the steps before it are saved" if save(None) else "the steps before it may not be saved yet"
            except UserError as failure:
                kept = f"saving the steps before it failed too ({failure})"
            _logger.error("the validation failed (%s); %s", files.reason(error), kept)
        raise


def _is_scalar(name: str) -> bool:
    return name not in _PICTURES and not name.startswith(_STATISTICS)


def make_measure(
    plan: Plan, config: ValidationConfig
) -> Callable[[Params, Params, jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]:
    """Return a function that measures a batch of images; trace it inside `parallel.gathering_blocks`.

    Its arguments are parameters, those of the frozen networks, images uint8 [B, S, S, 3], their indices [B], and a key.
    For each image it returns the losses, reconstructions in uint8, their PSNR in dB and MS-SSIM, the mean differences
    of neighbouring pixels as a measure of texture, and the statistics of the bottleneck at its best quality. A model
    with several quality levels adds PSNR and statistics of each in one step, as "quality_1/..." for the lowest.
    The randomness of an image depends on its index, so the results do not depend on how images share batches or
    devices.
    """
    objective = plan.objective

    def measure(params: Params, frozen: Params, image_uint8: jax.Array, index: jax.Array, key: jax.Array):
        params = gathered(params, plan.shardings.params, objective.axes)
        frozen = gathered(frozen, plan.frozen_shardings, plan.frozen_axes)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)

        def losses_of(image: jax.Array, key: jax.Array) -> Mapping[str, jax.Array]:
            return objective.validation_losses(params, frozen, image[None], key)

        losses = jax.vmap(losses_of)(image_uint8, keys)
        model = objective.functional.bind(objective.exported(params))
        image01 = uint8_to_unit(image_uint8)

        def condition_of(latents: jax.Array, level: jax.Array | None = None):
            quantized = model.codec.quantize(latents, level=level)
            return model.codec.decode(quantized.values), quantized

        values_shape = objective.model_config.values_shape(image01.shape)

        def picture(values: jax.Array) -> jax.Array:
            return signed_to_uint8(objective.space.decode(frozen.get("autoencoder", {}), values))

        def compared(name: str, picture: jax.Array) -> dict[str, Any]:
            pair = (unit_to_signed(uint8_to_unit(image)) for image in (picture, image_uint8))
            return {
                name: picture,
                f"psnr_{name}": psnr_per_image(picture, image_uint8, limit=_LARGEST_PSNR),
                f"ms_ssim_{name}": ms_ssim_per_image(*pair),
                f"texture_{name}": texture_per_image(picture),
            }

        latents = model.codec.encode(image01)
        condition, quantized = condition_of(latents)
        measured = {
            **losses,
            **compared("one_step", picture(model.one_step(condition))),
            "texture": texture_per_image(image_uint8),
            **{f"{_STATISTICS}{name}": values for name, values in quantized.statistics.items()},
        }

        def at_level(level: jax.Array) -> dict[str, Any]:
            condition, quantized = condition_of(latents, jnp.full(image01.shape[:1], level, jnp.int32))
            psnr = psnr_per_image(picture(model.one_step(condition)), image_uint8, limit=_LARGEST_PSNR)
            return {"psnr_one_step": psnr, **{f"{_STATISTICS}{n}": v for n, v in quantized.statistics.items()}}

        num_levels = model.codec.num_levels
        if num_levels > 1:
            # A loop, so that the program does not grow with the number of levels.
            for name, values in jax.lax.map(at_level, jnp.arange(num_levels, dtype=jnp.int32)).items():
                prefix = _STATISTICS if name.startswith(_STATISTICS) else ""
                for level in range(num_levels):
                    measured[f"{prefix}quality_{level + 1}/{name.removeprefix(prefix)}"] = values[level]
        if not objective.samples:
            return measured
        null = None
        if config.guidance_scale != 1.0:
            null, _ = condition_of(model.codec.encode(jnp.full_like(image01, NULL_CONDITION_VALUE)))
        sampled = sample(
            model.velocity,
            jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), values_shape[1:]))(keys),
            condition,
            null,
            num_steps=config.num_sampling_steps,
            method=objective.model_config.sampling_method,
            guidance_scale=config.guidance_scale,
            time_shift=objective.time_shift,
        )
        return {**measured, **compared("sampled", picture(sampled))}

    return measure


def texture_per_image(image_uint8: UInt8[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Return the mean absolute difference of neighbouring pixels, from 0 to 255; blurred pictures have small ones."""
    x = image_uint8.astype(jnp.float32)
    return sum((jnp.mean(jnp.abs(jnp.diff(x, axis=axis)), axis=(1, 2, 3)) for axis in (1, 2)), start=jnp.float32(0)) / 2


def picture_grid(columns: list[np.ndarray]) -> UInt8[np.ndarray, "H W 3"]:
    """Join lists of pictures [N, S, S, 3] into one picture, with an image per row and a list per column."""
    return np.concatenate([np.concatenate(list(column), axis=0) for column in columns], axis=1)
