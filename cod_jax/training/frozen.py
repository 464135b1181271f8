"""Frozen networks of a run, placed on the mesh, and checked to be the same in all processes and after a resume."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cod_jax.coding.digests import digest_arrays
from cod_jax.errors import UserError
from cod_jax.models.functional import Params, flatten_params
from cod_jax.parallel import put
from cod_jax.parallel.agreement import differing
from cod_jax.training.objectives.objective import Objective
from cod_jax.training.plan import Plan


def placed(plan: Plan, given: Mapping[str, Params]) -> Params:
    """Return the frozen networks' parameters on the mesh, in the dtype of their computation.

    Args:
        plan: Plan of the run.
        given: Parameters in host memory by the networks' names; networks that the run does not need are ignored.

    Raises:
        UserError: A network is missing, or its parameters do not fit.
    """
    for name, network in plan.objective.frozen.items():
        if name not in given:
            raise UserError(
                f"expected parameters of the frozen networks {', '.join(plan.objective.frozen)}, got none of {name}; "
                "load_frozen must return them"
            )
        network.check(given[name])
    return jax.tree.map(
        lambda value, shape, sharding: put(np.asarray(value, shape.dtype), sharding),
        {name: given[name] for name in plan.objective.frozen},
        plan.frozen_shapes,
        plan.frozen_shardings,
    )


def digests(objective: Objective, given: Mapping[str, Params]) -> dict[str, str]:
    """Return the SHA-256 of each frozen network's description and parameters, as they were given.

    Raises:
        UserError: The processes were given different networks.
    """
    by_name = {name: _digest(given[name], objective.frozen_configs.get(name)) for name in sorted(objective.frozen)}
    if found := differing({name: bytes.fromhex(digest) for name, digest in by_name.items()}):
        names = ", ".join(found)
        raise UserError(f"the processes were given different weights of {names}; give all of them the same files")
    return by_name


def _digest(params: Params, config: Mapping[str, Any] | None = None) -> str:
    def header(name: str, array: np.ndarray) -> bytes:
        return f"{name} {np.atleast_1d(array).shape} {array.dtype}".encode()

    return digest_arrays(flatten_params(params), header, start=json.dumps(config, sort_keys=True).encode())


def check_same(workdir: str | Path, meta: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Check that the frozen networks are those of a checkpoint, because a critic follows one teacher.

    Args:
        workdir: Folder of the run, for the message.
        meta: Plain values of its checkpoint.
        given: Digests of the networks that are given now, see `digests`.

    Raises:
        UserError: A network differs.
    """
    stored = meta.get("frozen", {})
    if changed := sorted(name for name in given if stored.get(name, given[name]) != given[name]):
        raise UserError(
            f"{workdir} was trained with other weights of the frozen {', '.join(changed)} than those given now; give "
            "the same weights, or use another --workdir"
        )
