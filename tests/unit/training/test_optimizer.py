"""Learning-rate schedules and the moving average's decay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.training.optimizer import AdamWConfig, EmaConfig, MuonConfig, OptimizerConfig, clip_by_running_norm
from cod_jax.training.state import init_state, state_axes
from tests.objective_fixtures import one_step


def test_average_warms_up_so_that_short_runs_forget_their_start():
    slow, warm = EmaConfig(0.9999), EmaConfig(0.9999, warmup=True)
    assert slow.decay_at(jnp.int32(0)) == pytest.approx(0.9999)
    assert warm.decay_at(jnp.int32(0)) == pytest.approx(0.1)
    assert warm.decay_at(jnp.int32(90)) == pytest.approx(0.91)
    assert warm.decay_at(jnp.int32(10**7)) == pytest.approx(0.9999)


def test_learning_rate_rises_then_falls():
    schedule = AdamWConfig(learning_rate=1e-3, warmup_steps=10, schedule="cosine").build_schedule(110)
    assert float(np.asarray(schedule(0))) == pytest.approx(1e-4)
    assert float(np.asarray(schedule(10))) == pytest.approx(1e-3)
    assert float(np.asarray(schedule(60))) == pytest.approx(0.5 * (1e-3 + 1e-5), rel=1e-3)
    assert float(np.asarray(schedule(110))) == pytest.approx(1e-5)
    assert float(np.asarray(AdamWConfig(learning_rate=2e-3).build_schedule(5)(4))) == pytest.approx(2e-3)


def _clipped_norms(factor: float, norms: list[float]) -> list[float]:
    """Return the norms of gradients of two arrays after clipping, one after the other."""
    transform = clip_by_running_norm(factor)
    state = transform.init({})
    found = []
    for norm in norms:
        gradients = {"a": jnp.full((2,), norm / 2), "b": jnp.full((2,), -norm / 2)}
        updates, state = transform.update(gradients, state)
        first, second = (np.asarray(leaf)[0] for leaf in jax.tree.leaves(updates))
        assert second == pytest.approx(-first)
        found.append(2 * float(first))
    return found


def test_a_gradient_far_above_the_running_average_is_clipped():
    assert _clipped_norms(2.0, [0.01] * 50 + [5.0, 0.01, 0.015])[-4:] == pytest.approx([0.01, 0.02, 0.01, 0.015])


def test_the_average_follows_larger_gradients_slowly():
    norms = _clipped_norms(2.0, [1.0] * 500 + [10.0] * 400)
    assert norms[499] == pytest.approx(1.0)
    assert norms[500:510] == sorted(norms[500:510])
    assert norms[500] == pytest.approx(2.0, rel=1e-3)
    assert norms[-1] == pytest.approx(10.0)


def test_gradients_of_zero_do_not_stop_a_run():
    assert _clipped_norms(1.5, [0.0, 0.0, 3.0, 3.0]) == pytest.approx([0.0, 0.0, 3.0, 1.5], rel=0.02)


def test_the_relative_clip_leaves_the_state_of_other_runs_as_it_was():
    params = {"a": jnp.zeros((2,))}
    plain, clipped = (jax.tree.leaves(AdamWConfig(relative_clip=factor).build().init(params)) for factor in (0.0, 2.0))
    # The running norm and its weight come first.
    assert len(clipped) == len(plain) + 2
    with pytest.raises(ValueError, match=r"relative_clip must be at least 0, got -1\.0"):
        AdamWConfig(relative_clip=-1.0)


def _direction(optimizer: OptimizerConfig, gradients: dict[str, jax.Array]) -> Any:
    transformation = optimizer.build()
    return transformation.update(gradients, transformation.init(gradients), gradients)[0]


def test_muon_orthogonalises_the_matrices_of_blocks_and_leaves_the_rest_to_adam():
    generator = np.random.default_rng(0)
    shapes = {
        "model/blocks/block/mlp/kernel": (2, 6, 16),
        "model/blocks/block/mlp/bias": (2, 16),
        "model/blocks/block/depthwise/kernel": (2, 3, 3, 6),
        "model/out/kernel": (6, 16),
    }
    gradients = {name: jnp.asarray(generator.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    found, expected = _direction(MuonConfig(), gradients), _direction(AdamWConfig(), gradients)
    matrices = "model/blocks/block/mlp/kernel"
    for name in set(shapes) - {matrices}:
        np.testing.assert_array_equal(found[name], expected[name])
    for gradient, direction in zip(gradients[matrices], found[matrices], strict=True):
        left, _, right = np.linalg.svd(gradient, full_matrices=False)
        # Newton-Schulz iterations bring all singular values near to one.
        singular = np.linalg.svd(direction, compute_uv=False) / (0.2 * 4)
        assert singular.min() > 0.6
        assert singular.max() < 1.3
        assert np.sum(direction * (left @ right)) > 0.9 * np.linalg.norm(direction) * np.linalg.norm(left @ right)
        assert 0.14 < np.sqrt(np.mean(direction**2)) < 0.26


def test_the_state_of_muon_has_the_axes_of_its_parameters():
    objective = one_step(lora_rank=0)
    optimizers = {"model": MuonConfig().build()}
    shapes = jax.eval_shape(lambda: init_state(objective, optimizers, jax.random.key(0)))
    axes = state_axes(objective, optimizers)
    checked = jax.tree.map(lambda leaf, names: len(names) == leaf.ndim, shapes.optimizer, axes.optimizer)
    assert all(jax.tree.leaves(checked))


def test_settings_of_muon_are_checked():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got 1.0"):
        MuonConfig(momentum=1.0)
