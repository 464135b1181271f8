"""Plans of runs."""

from collections.abc import Callable
from typing import Any

import jax
import pytest

from cod_jax.parallel import MeshConfig, batch_sharding, make_mesh
from cod_jax.training.config import TrainConfig
from cod_jax.training.plan import compile_step, make_plan
from tests.training_fixtures import small_compact_settings


@pytest.mark.parametrize(
    ("flags", "options"),
    [("", {"xla_cpu_prefer_vector_width": 512}), ("--xla_cpu_prefer_vector_width=256", None)],
)
def test_steps_on_a_cpu_use_the_widest_vectors_unless_another_width_is_chosen(monkeypatch, flags: str, options: Any):
    config = TrainConfig.from_dict(small_compact_settings())
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    plan = make_plan(config, mesh)
    given = []

    def compiled(_: Any, compiler_options: Any = None) -> Callable[..., Any]:
        given.append(compiler_options)
        return print

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)
    monkeypatch.setenv("XLA_FLAGS", flags)
    compile_step(plan, config, plan.objective.updates[0], batch_sharding(mesh, config.sharding.batch))
    assert given == [options]
