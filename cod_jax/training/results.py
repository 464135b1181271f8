"""Results of a run's validations as a file of lines, for programs that compare runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from cod_jax import files
from cod_jax.training.ranking import DEFAULT, rank

RESULTS_FILE = "validation.jsonl"


def keep_results(workdir: Path, last_step: int) -> None:
    """Drop the results of later steps, which a run that starts after `last_step` takes again.

    Raises:
        OSError: The file cannot be written.
    """
    if jax.process_index() == 0 and (workdir / RESULTS_FILE).exists():
        kept = [result for result in read_results(workdir) if result["step"] <= last_step]
        files.write_bytes(workdir / RESULTS_FILE, "".join(json.dumps(result) + "\n" for result in kept).encode())


def append_result(workdir: Path, step: int, scalars: Mapping[str, float]) -> None:
    """Add the results of a validation; only the first process writes.

    Args:
        workdir: Folder of the run.
        step: Number of steps done.
        scalars: Results by name, such as "loss" and "psnr_one_step" (dB).

    Raises:
        OSError: The file cannot be written.
    """
    if jax.process_index() == 0:
        with (workdir / RESULTS_FILE).open("ab", buffering=0) as file:
            files.append(file, json.dumps({"step": step, **scalars}).encode() + b"\n")


def read_results(workdir: Path) -> list[dict[str, Any]]:
    """Return the results of a run's validations in the order of steps, each with its "step"; [] if there are none.

    What was cut off when the disk was full is left out.
    """
    try:
        lines = (workdir / RESULTS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    results: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            result = json.loads(line)
            results[int(result["step"])] = result
        except (ValueError, KeyError, TypeError):
            continue
    return [results[step] for step in sorted(results)]


def best_result(workdir: Path, best_by: str = DEFAULT) -> dict[str, Any] | None:
    """Return the best result by a number of it, whose checkpoint an export takes, else the newest, else None."""
    # The later of equal ones, so the newest if nothing ranks them.
    return min(reversed(read_results(workdir)), key=lambda result: rank(result, best_by), default=None)
