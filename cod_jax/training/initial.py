"""The state that a run starts with: fresh, or with the weights of another run or of a model folder."""

import contextlib
import dataclasses
import fnmatch
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from cod_jax.errors import UserError
from cod_jax.input.pipeline import build_train_batches
from cod_jax.input.source import Source
from cod_jax.model_folder.bundle import load_bundle
from cod_jax.model_folder.included import model_path
from cod_jax.models import flatten_params, unflatten_params
from cod_jax.models.functional import Params, mismatch_message
from cod_jax.models.patch_transform import patch_moments
from cod_jax.parallel import put
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import Plan
from cod_jax.training.run_folder import errors_that_name, latest_step
from cod_jax.training.saved_models import Weights, load_weights
from cod_jax.training.state import TrainState

_logger = logging.getLogger(__name__)

# Pictures whose patches a fresh model may be fitted to.
_FITTED_IMAGES = 512
# Longer lists are hard to read in one line of a log.
_MAX_NAMES = 20
_BOTTLENECK = "model/codec/bottleneck/"


class Initial(NamedTuple):
    """Start of a run, by names such as "model/codec/..." or "heads/...".

    Attributes:
        params: Parameters to start with.
        ema: Moving average to start with, with the same names.
        grown: Parameters of new layers, which the source does not have.
        fresh: Parameters that have another shape in the source.
        left_out: Parameters of the source that this model and its heads do not have.
    """

    params: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    grown: list[str]
    fresh: list[str]
    left_out: list[str]

    @property
    def has_bottleneck(self) -> bool:
        """Whether the whole bottleneck comes from the source."""
        missing = (*self.grown, *self.fresh)
        return any(name.startswith(_BOTTLENECK) for name in self.params) and not any(
            name.startswith(_BOTTLENECK) for name in missing
        )

    def summary(self) -> str:
        """Return a line for logs on what was loaded, grown, left fresh or left out; long lists count by module."""
        lists = {
            f"{len(self.params)} parameters carried": _by_module(self.params),
            "grown (new layers)": _by_module(self.grown),
            "fresh (another shape)": _by_module(self.fresh),
            "left out (not in this model)": _by_module(self.left_out),
        }
        return "; ".join(f"{title}: {', '.join(names) or 'none'}" for title, names in lists.items())


def _by_module(names: Collection[str]) -> list[str]:
    """Return the names, or if there are many their modules with counts."""
    if len(names) <= _MAX_NAMES:
        return list(names)
    modules = Counter("/".join(name.split("/")[:3]) for name in names)
    return [f"{module} ({count})" for module, count in modules.items()]


def check_start(config: TrainConfig) -> None:
    """Check that the settings of a run without a checkpoint say what it starts from.

    Raises:
        UserError: The objective or the stage needs a model, or settings of `init_from` are given without it.
    """
    if config.init_from:
        return
    if config.objective.starts_from_model:
        raise UserError(
            f"init_from must name a pre-trained model for objective.kind {config.objective.kind}, got nothing; give a "
            "model folder or a run folder"
        )
    if config.objective.freeze:
        raise UserError(
            f"init_from must name a model with objective.freeze {config.objective.freeze}, since what is frozen would "
            "keep its random values, got nothing; give a model folder or a run folder, or leave objective.freeze out"
        )
    if config.init_fresh or config.init_weights != "ema":
        raise UserError(
            "init_from must name a model with init_fresh or init_weights=raw, as a second stage has them, got nothing; "
            "give a model folder or a run folder, or start from scratch with --config.init_fresh='()' "
            f"--config.init_weights=ema{' --config.stage=1' if config.stage > 1 else ''}"
        )
    if config.stage > 1:
        raise UserError(
            f"init_from must name a model in stage {config.stage} of a recipe, which goes on from the one before, got "
            "nothing; give a model folder or a run folder, or start from scratch with --config.stage=1"
        )


def initial_state(
    config: TrainConfig, plan: Plan, key: jax.Array, frozen: Mapping[str, Params], source: Source
) -> TrainState:
    """Return a fresh state, or one with the parameters of `init_from`, of which no copy stays in host memory."""
    initial = _load_initial(config, plan.shapes) if config.init_from else None
    state = fresh_state(plan, key, frozen)
    trained = {name for update in plan.objective.updates for name in update.trains}
    if initial is None:
        if not config.model.codec.fits_pictures:
            return state
        _logger.info("fitting the linear path of the fresh model to training pictures")
        return with_initial(state, plan.shardings, load_fitted(config, state.params["model"], source), trained, {})
    buffers = plan.objective.carried_buffers(state.buffers) if initial.has_bottleneck else {}
    return with_initial(state, plan.shardings, initial, trained, buffers)


def fresh_state(plan: Plan, key: jax.Array, frozen: Mapping[str, Params]) -> TrainState:
    """Create the initial state with its sharding, never whole on one device.

    Parts that start from a frozen network take its parameters as given, before they are rounded for its computation.
    """
    # This program runs once, and on a CPU optimising it takes longer than running it. This halves the compile time.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    begin = time.monotonic()
    state = jax.jit(plan.init, out_shardings=plan.shardings, compiler_options=options)(key)
    parts = plan.objective.parts_from(frozen)
    where = {part: plan.shardings.params[part] for part in parts}
    placed = jax.tree.map(lambda value, sharding: put(np.asarray(value, np.float32), sharding), parts, where)
    state = dataclasses.replace(state, params={**state.params, **placed})
    _logger.info("initialised the state in %.1f s", time.monotonic() - begin)
    return state


def _load_initial(config: TrainConfig, shapes: TrainState) -> Initial:
    """Read `init_from`."""
    fresh = (*config.init_fresh, *config.model.denoiser.OPTIONAL)
    initial = load_initial(config.init_from, config.init_weights, shapes.params, fresh)
    _logger.info("started from %s, %s weights: %s", config.init_from, config.init_weights, initial.summary())
    return initial


def load_initial(path: str | os.PathLike[str], weights: Weights, shapes: Params, fresh: Sequence[str]) -> Initial:
    """Read the parameters of a model folder, or of a run's newest checkpoint, that fit a model and its heads.

    Args:
        path: Model folder or the address of one, name of an included model, or run folder.
        weights: Weights to take from a run. "raw" continues its parameters and its moving average; "ema" starts both
            from its moving average. A model folder has one set, which serves for both.
        shapes: Abstract parameters of the new run, {"model": ..., "heads": ...}.
        fresh: Wildcard patterns of the model's parameters that may be missing in the source or differ in shape.
            Training heads always may.

    Raises:
        UserError: The folder cannot be read, or a parameter outside `fresh` does not fit. The message lists the names.
    """
    sources = _load_sources(path)
    ema = sources["ema"]
    # Parameters without an average, such as the critic of a distillation, belong to the run and not to its model.
    params = {name: value for name, value in sources[weights].items() if name in ema}
    wanted = {name: tuple(leaf.shape) for name, leaf in flatten_params(shapes).items()}
    given = {name: value.shape for name, value in params.items()}
    grown = [name for name in wanted if name not in given]
    changed = [name for name in wanted if name in given and given[name] != wanted[name]]
    unexpected = [name for name in given if name not in wanted]

    def refused(names: list[str]) -> list[str]:
        own = [name.removeprefix("model/") for name in names if name.startswith("model/")]
        return [name for name in own if not any(fnmatch.fnmatchcase(name, pattern) for pattern in fresh)]

    if any(map(refused, (grown, unexpected, changed))):
        wrong_shape = [
            f"{name} {given[f'model/{name}']} instead of {wanted[f'model/{name}']}" for name in refused(changed)
        ]
        message = mismatch_message(refused(grown), refused(unexpected), wrong_shape)
        raise UserError(f"init_from {path}: {message}; list the parameters that may start fresh in init_fresh")
    carried = [name for name in wanted if given.get(name) == wanted[name]]
    params, ema = ({name: values[name] for name in carried} for values in (params, ema))
    return Initial(params, ema, grown, changed, unexpected)


def load_fitted(config: TrainConfig, params: Params, source: Source) -> Initial:
    """Return the parameters of a fresh model, fitted to training pictures; see `CodecConfig.fit`.

    Every process reads the same pictures, and all take the results of the first.

    Args:
        config: Settings of the run.
        params: Fresh parameters of the model.
        source: The training pictures.
    """
    batches = build_train_batches(config.data, batch_size=config.batch_size, seed=config.stage_seed, source=source)
    with contextlib.closing(batches):
        read = itertools.islice(batches, -(-_FITTED_IMAGES // config.batch_size))
        moments = patch_moments(image for batch in read for image in batch["image"])
    fresh = jax.tree.map(np.asarray, multihost_utils.process_allgather(params, tiled=True))
    fitted = config.model.codec.fit(fresh, moments, config.model.denoiser)
    fitted = multihost_utils.broadcast_one_to_all(jax.tree.map(np.float32, fitted))
    flat = {f"model/{name}": np.asarray(value) for name, value in flatten_params(fitted).items()}
    return Initial(flat, flat, [], [], [])


def with_initial(
    state: TrainState,
    shardings: TrainState,
    initial: Initial,
    trained: Collection[str],
    buffers: Mapping[str, np.ndarray],
) -> TrainState:
    """Return a fresh training state with other parameters and another moving average.

    Args:
        state: A fresh training state.
        shardings: Shardings of its arrays.
        initial: Parameters and average to start from.
        trained: Names of the parameters that training changes. For all others the average is the parameter itself,
            because it stays and the trained parameters adapt to it.
        buffers: Arrays that replace the fresh buffers of the same names.
    """
    average = {name: (initial.ema if name in trained else initial.params)[name] for name in initial.ema}

    def placed(current: Params, where: Params, values: Mapping[str, np.ndarray], *, copies: bool) -> Params:
        flat, flat_where = flatten_params(current), flatten_params(where)
        fresh = {name: value.copy() if copies else value for name, value in flat.items() if name not in values}
        merged = {name: fresh[name] if name in fresh else put(values[name], flat_where[name]) for name in flat}
        return unflatten_params(merged, current)

    # The step donates its inputs, so parameters and average must not share memory.
    return dataclasses.replace(
        state,
        params=placed(state.params, shardings.params, initial.params, copies=False),
        ema=placed(state.ema, shardings.ema, average, copies=True),
        buffers={**state.buffers, **{name: put(value, shardings.buffers[name]) for name, value in buffers.items()}},
    )


def _load_sources(source: str | os.PathLike[str]) -> dict[Weights, dict[str, np.ndarray]]:
    step = latest_step(source)
    if step is not None:
        return load_weights(source, step)
    path = model_path(source)
    with errors_that_name(f"init_from {source}", path):
        bundle = load_bundle(path)
    model = {f"model/{name}": np.asarray(value) for name, value in flatten_params(bundle.params).items()}
    return {"raw": model, "ema": model}
