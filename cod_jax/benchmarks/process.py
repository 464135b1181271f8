"""Measure in a fresh process."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cod_jax.errors import WorkError


def in_own_process(measure: Callable[[dict[str, Any]], dict[str, Any]], job: dict[str, Any]) -> dict[str, Any]:
    """Run `measure(job)` in a fresh process; this one has not imported JAX, so the child starts small.

    Raises:
        UserError: The job cannot be done.
        WorkError: Its process died.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool:
            raise WorkError("the measuring process was killed; was there enough memory?") from None
