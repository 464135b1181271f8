"""The frozen networks of a run: put on the mesh, and the same in all processes and after a resume."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cod_jax.errors import UserError
from cod_jax.models.functional import Params, flatten_params
from cod_jax.parallel import put
from cod_jax.training.objectives.objective import Objective
from cod_jax.training.plan import Plan


def placed(plan: Plan, given: Mapping[str, Params]) -> Params:
    """The frozen networks' parameters on the mesh, in the dtype they are computed in.

    Args:
        plan: The run.
        given: Parameters in host memory by the networks' names; what the run does not need is left out.

    Raises:
        UserError: A network is missing, or its parameters are another's.
    """
    for name, network in plan.objective.frozen.items():
        if name not in given:
            raise UserError(f"the frozen network {name!r} is missing; this objective and this model need it")
        network.check(given[name])
    return jax.tree.map(
        lambda value, shape, sharding: put(np.asarray(value, shape.dtype), sharding),
        {name: given[name] for name in plan.objective.frozen},
        plan.frozen_shapes,
        plan.frozen_shardings,
    )


def digests(objective: Objective, given: Mapping[str, Params]) -> dict[str, str]:
    """SHA-256 of what each frozen network is and of its parameters, as they were given.

    Raises:
        UserError: The processes were given different ones.
    """
    by_name = {name: _digest(given[name], objective.frozen_configs.get(name)) for name in sorted(objective.frozen)}
    if by_name and jax.process_count() > 1:
        own = np.frombuffer(bytes.fromhex("".join(by_name.values())), np.uint8).reshape(len(by_name), -1)
        of_all = np.asarray(multihost_utils.process_allgather(own))
        differ = (of_all != of_all[0]).any(axis=(0, 2))
        if differ.any():
            names = ", ".join(np.array(list(by_name))[differ])
            raise UserError(f"the processes were given different weights of {names}; give all of them the same files")
    return by_name


def _digest(params: Params, config: Mapping[str, Any] | None = None) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(flatten_params(params).items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


def check_same(workdir: Path, meta: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Refuse to go on with other frozen networks than a checkpoint was trained with: a critic follows one teacher.

    Args:
        workdir: Folder of the run, for the message.
        meta: The plain values of its checkpoint.
        given: Digests of the networks that are given now, see `digests`.

    Raises:
        UserError: One of them is another.
    """
    stored = meta.get("frozen", {})
    if changed := sorted(name for name in given if stored.get(name, given[name]) != given[name]):
        raise UserError(
            f"{workdir} was trained with other weights of the frozen {', '.join(changed)} than are given now; give the "
            "same ones, or use another --workdir"
        )
