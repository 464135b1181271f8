"""Measure in a fresh process."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cod_jax.errors import WorkError


def in_own_process(
    measure: Callable[[dict[str, Any]], dict[str, Any]],
    job: dict[str, Any],
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `measure(job)` in a fresh process; this one has not imported JAX, so the child starts small.

    Args:
        measure: The function, of a module.
        job: Its argument.
        environment: Variables of that process that this one does not have.

    Raises:
        UserError: The job cannot be done.
        WorkError: Its process died.
    """
    context = multiprocessing.get_context("spawn")
    os.environ.update(environment or {})  # the child gets a copy
    try:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(measure, job).result()
    except BrokenProcessPool:
        raise WorkError("the measuring process was killed; was there enough memory?") from None
    finally:
        for name in environment or {}:
            del os.environ[name]
