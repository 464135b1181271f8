"""The engine of model folders: the model's own code, compiled for each size of picture."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from cod_jax import images
from cod_jax.codec.engine import Engine, SamplerStates
from cod_jax.codec.refinement import Refinement
from cod_jax.diffusion.noise import seed_words, seeded_noise
from cod_jax.diffusion.samplers import (
    ORDER,
    PathSteps,
    SamplerPath,
    follow,
    path_steps,
    sample,
    sample_path,
    sampling_timesteps,
)
from cod_jax.errors import UserError
from cod_jax.model_folder.bundle import Bundle
from cod_jax.model_folder.decoding import DecodingConfig
from cod_jax.models import CoD, ComputeConfig, Functional, ModelConfig, build_model
from cod_jax.models.compute import matmul_precision
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.denoiser import PATCH_SIZE
from cod_jax.models.functional import count_params
from cod_jax.models.space import Space

# Accelerators run the pixel head on the whole picture up to this size (2.6 kilobytes per pixel), then row by row.
WHOLE_HEAD_PIXELS = 2**22


class ModelEngine(Engine):
    """Encodes and decodes with a model; see `Engine`.

    Args:
        bundle: A loaded model folder.

    Raises:
        UserError: The bundle lacks the autoencoder that its model needs, or the tables that code its symbols.
    """

    def __init__(self, bundle: Bundle):
        self.config, self.decoding, self.coder = bundle.config, bundle.decoding, bundle.symbol_coder()
        self.size_multiple = bundle.config.size_multiple
        self.summary = f"{count_params(bundle.params):,} parameters"
        functional = build_model(bundle.config, ComputeConfig(bundle.dtype))
        self._precision = matmul_precision(bundle.dtype)
        space = Space(bundle.config, bundle.dtype)
        if space.functional is not None:
            if not bundle.autoencoder:
                raise UserError(
                    "expected the autoencoder of the model's latents, got a folder without one; export the model again"
                )
            space.functional.check(bundle.autoencoder)
        self._params, self._autoencoder = jax.tree.map(jnp.asarray, (bundle.params, bundle.autoencoder))

        def encode(params, images_uint8, levels):
            codec = functional.bind(params).codec
            return codec.quantize(codec.encode(images.uint8_to_unit(images_uint8)), level=levels).symbols

        def latents(params, images_uint8):
            return functional.bind(params).codec.encode(images.uint8_to_unit(images_uint8))

        def condition(params, symbols, levels):
            codec = functional.bind(params).codec
            return codec.decode(codec.dequantize(symbols, level=levels))

        self._encode, self._latents, self._condition = jax.jit(encode), jax.jit(latents), jax.jit(condition)
        static = ("num_steps", "method", "guided")
        self._decode = jax.jit(_make_decode(bundle.config, functional, space), static_argnames=static)
        with_path = _make_decode(bundle.config, functional, space, with_path=True)
        self._decode_with_path = jax.jit(with_path, static_argnames=static)
        self._functional, self._training = functional, bundle.training

        def values(autoencoder, images_uint8):
            return space.encode(autoencoder, images.unit_to_signed(images.uint8_to_unit(images_uint8)))

        self._values = jax.jit(values)
        self._estimate = jax.jit(_make_estimate(functional))
        self._finish = jax.jit(_make_finish(functional, space), static_argnames="guided")

    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Accept all settings."""

    def bytes_per_pixel(self, decoding: DecodingConfig | None) -> float:
        """Return the approximate temporary memory per pixel; see `Engine.bytes_per_pixel`."""
        # Rounded down from what was measured with the published models, see `cod_jax.coding.sizes.MAX_PIXELS`.
        encoding = self.config.codec.encoding_bytes_per_pixel
        if decoding is None:
            return encoding
        plain = 3000.0 if self.config.is_latent else 100.0
        return max(plain, encoding) if _is_guided(decoding) else plain

    def encode(self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the symbols of pictures; see `Engine.encode`."""
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._encode(self._params, images_uint8, levels))

    def refine(
        self, images_uint8: npt.NDArray[np.uint8], levels: npt.NDArray[np.int32], effort: int
    ) -> npt.NDArray[np.int32]:
        """Return better symbols; see `Engine.refine`."""
        with jax.default_matmul_precision(self._precision):
            return self._refinement(self._params, images_uint8, levels, effort)

    @functools.cached_property
    def _refinement(self) -> Refinement:
        return Refinement(self._functional, self.coder, self._training)

    def decode(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures of symbols; see `Engine.decode`."""
        return np.asarray(self._run(self._decode, symbols, levels, decoding, seed))

    def latents(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the latents of pictures; see `Engine.latents`."""
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._latents(self._params, images_uint8), np.float32)

    def condition(self, symbols: npt.NDArray[np.int32], levels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Return the conditions of symbols; see `Engine.condition`."""
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._condition(self._params, symbols, levels), np.float32)

    def sampler_states(
        self,
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> SamplerStates:
        """Return what `decode` goes through; see `Engine.sampler_states`."""
        return SamplerStates(*map(np.asarray, self._run(self._decode_with_path, symbols, levels, decoding, seed)))

    def values(self, images_uint8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what the denoiser makes of pictures; see `Engine.values`."""
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._values(self._autoencoder, images_uint8), np.float32)

    def estimate(
        self, x_t: npt.NDArray[np.float32], t: float, condition: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return what the model expects at the end of the path; see `Engine.estimate`."""
        with jax.default_matmul_precision(self._precision):
            return np.asarray(self._estimate(self._params, x_t, np.float32(t), condition))

    def finish(
        self,
        x_t: npt.NDArray[np.float32],
        t: float,
        condition: npt.NDArray[np.float32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
    ) -> npt.NDArray[np.uint8]:
        """Return the pictures at the end of the path; see `Engine.finish`."""
        timesteps = t + (1 - t) * sampling_timesteps(decoding.num_steps)
        steps = path_steps(timesteps.astype(np.float32), order=ORDER if decoding.sampler == "adams" else 1)
        with jax.default_matmul_precision(self._precision):
            finished = self._finish(
                self._params,
                self._autoencoder,
                x_t,
                condition,
                levels,
                steps,
                np.float32(decoding.guidance_scale),
                guided=_is_guided(decoding) and bool(steps.is_guided.any()),
            )
            return np.asarray(finished)

    def _run(
        self,
        program: Callable[..., Any],
        symbols: npt.NDArray[np.int32],
        levels: npt.NDArray[np.int32],
        decoding: DecodingConfig,
        seed: int,
    ) -> Any:
        # One step is one program, whichever settings come with it: it does not use them.
        is_one = decoding.num_steps == 1
        with jax.default_matmul_precision(self._precision):
            return program(
                self._params,
                self._autoencoder,
                symbols,
                levels,
                seed_words(seed),
                np.float32(decoding.guidance_scale),
                num_steps=decoding.num_steps,
                method="euler" if is_one else decoding.sampler,
                guided=_is_guided(decoding),
            )


def _is_guided(decoding: DecodingConfig) -> bool:
    """Return whether settings ask for guidance, which has no effect on one step."""
    return decoding.num_steps > 1 and decoding.guidance_scale != 1.0


def _make_decode(
    config: ModelConfig, functional: Functional[CoD], space: Space, *, with_path: bool = False
) -> Callable[..., Any]:
    """Return a function of parameters, symbols, and what decides which of their pictures it makes.

    Of these `num_steps`, `method` and `guided` are static; the words of the seed, the guidance scale and the levels are
    not. It returns the pictures, or `with_path` the fields of `SamplerStates`.
    """

    def decode(params, autoencoder, symbols, levels, words, guidance_scale, *, num_steps, method, guided):
        model = functional.bind(params)
        condition = model.codec.decode(model.codec.dequantize(symbols, level=levels))
        batch, rows, columns, _ = condition.shape
        image_shape = (batch, rows * PATCH_SIZE, columns * PATCH_SIZE, 3)
        by_rows = _head_by_rows(condition, guided=guided)
        if num_steps == 1:
            values = model.one_step(condition, by_rows=by_rows)
            path = SamplerPath(jnp.array([0.0, 1.0]), jnp.stack([jnp.zeros_like(values), values]), values[None])
            return states_of(autoencoder, path) if with_path else pixels_of(autoencoder, values)
        unconditional = None
        if guided:
            unconditional = _null_condition(model, image_shape, levels)
        # The same noise for all pictures, so that each is decoded as it is alone.
        noise = seeded_noise(words, config.values_shape((1, *image_shape[1:])))
        found = (sample_path if with_path else sample)(
            functools.partial(model.velocity, by_rows=by_rows),
            jnp.broadcast_to(noise, (batch, *noise.shape[1:])),
            condition,
            unconditional,
            num_steps=num_steps,
            method=method,
            guidance_scale=guidance_scale if guided else 1.0,
        )
        return states_of(autoencoder, found) if isinstance(found, SamplerPath) else pixels_of(autoencoder, found)

    def pixels_of(autoencoder, values):
        return images.signed_to_uint8(space.decode(autoencoder, values))

    def states_of(autoencoder, path):
        # One after the other: an autoencoder takes much memory for each.
        pictures, estimates = (
            jax.lax.map(functools.partial(pixels_of, autoencoder), values) for values in (path.states, path.estimates)
        )
        return path.timesteps, path.states, pictures, estimates

    return decode


def _null_condition(model: CoD, image_shape: tuple[int, ...], levels: jax.Array) -> jax.Array:
    z = model.codec.encode(jnp.full(image_shape, NULL_CONDITION_VALUE))
    return model.codec.decode(model.codec.quantize(z, level=levels).values)


def _head_by_rows(condition: jax.Array, *, guided: bool) -> bool:
    """Return whether a pixel head works row by row, for conditions [B, h, w, C]; see `WHOLE_HEAD_PIXELS`.

    With guidance it sees every picture twice.
    """
    batch, rows, columns, _ = condition.shape
    pixels = batch * rows * columns * PATCH_SIZE**2 * (2 if guided else 1)
    return jax.default_backend() == "cpu" or pixels > WHOLE_HEAD_PIXELS


def _make_estimate(functional: Functional[CoD]) -> Callable[..., Any]:
    """Return a function of parameters, state, timestep and condition; see `Engine.estimate`."""

    def estimate(params, x_t, t, condition):
        by_rows = _head_by_rows(condition, guided=False)
        times = jnp.full(x_t.shape[:1], t)
        return x_t + (1 - t) * functional.bind(params).velocity(x_t, times, condition, by_rows=by_rows)

    return estimate


def _make_finish(functional: Functional[CoD], space: Space) -> Callable[..., Any]:
    """Return a function of parameters, a state, and what decides how it goes on; see `Engine.finish`."""

    def finish(params, autoencoder, x_t, condition, levels, steps: PathSteps, guidance_scale, *, guided):
        model = functional.bind(params)
        batch, rows, columns, _ = condition.shape
        image_shape = (batch, rows * PATCH_SIZE, columns * PATCH_SIZE, 3)
        finished = follow(
            functools.partial(model.velocity, by_rows=_head_by_rows(condition, guided=guided)),
            x_t,
            condition,
            _null_condition(model, image_shape, levels) if guided else None,
            steps,
            guidance_scale=guidance_scale if guided else 1.0,
        )
        return images.signed_to_uint8(space.decode(autoencoder, finished))

    return finish
