"""Two commands, or one command of two checkouts, timed pair by pair.

Machines are shared and change their speed within minutes. So both run in turn, first one and then the other ahead, and
what counts is the ratio within each pair.
"""

import math
import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cod_jax.errors import UserError, WorkError

# Of the interval that holds the median of all pairs.
CONFIDENCE = 0.95


def compare_commands(first: str, second: str, repeats: int) -> dict[str, Any]:
    """Time two commands.

    Args:
        first: Command line, split as a shell does, but no shell runs it.
        second: The command that it is compared with.
        repeats: Pairs that count; one more comes before them and fills the caches.

    Returns:
        JSON values: for "first" and "second" the command, "seconds" and "median_seconds"; "ratio", the median over the
        pairs of the second's time over the first's, and "interval", in which the median of all pairs lies with 95 %
        confidence; its ends are None where there are too few pairs to say.

    Raises:
        UserError: A command cannot be started.
        WorkError: A command failed.
    """
    return _compare({"first": (first, os.environ), "second": (second, os.environ)}, repeats)


def compare_checkouts(first: Path, second: Path, command: str, repeats: int) -> dict[str, Any]:
    """Time a command with the package of one checkout and with that of another; see `compare_commands`.

    Args:
        first: Folder that holds the folder cod_jax.
        second: The folder that it is compared with.
        command: Command line. Python finds the package of the checkout first.
        repeats: Pairs that count.

    Raises:
        UserError: A folder is not a checkout, or the command cannot be started.
        WorkError: The command failed.
    """
    for folder in (first, second):
        if not (folder / "cod_jax" / "__init__.py").is_file():
            raise UserError(f"expected {folder} to hold the folder cod_jax; give the root of a checkout")

    def environment(folder: Path) -> Mapping[str, str]:
        paths = [str(folder.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    jobs = {"first": (command, environment(first)), "second": (command, environment(second))}
    return _compare(jobs, repeats) | {"checkouts": [str(first), str(second)]}


def _compare(jobs: Mapping[str, tuple[str, Mapping[str, str]]], repeats: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for pair in tqdm(range(repeats + 1), unit="pair", leave=False, disable=None):
        for name in jobs if pair % 2 else reversed(list(jobs)):
            taken = _run(*jobs[name])
            if pair:
                seconds[name].append(taken)
    ratios = [b / a for a, b in zip(seconds["first"], seconds["second"], strict=True)]
    found = {
        name: {"command": command, "seconds": seconds[name], "median_seconds": statistics.median(seconds[name])}
        for name, (command, _) in jobs.items()
    }
    return found | {"ratio": statistics.median(ratios), "interval": median_interval(ratios)}


def _run(command: str, environment: Mapping[str, str]) -> float:
    """Run a command to its end and return the seconds that it took."""
    start = time.perf_counter()
    try:
        done = subprocess.run(shlex.split(command), check=False, capture_output=True, text=True, env=environment)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{command!r} cannot be started ({error}); correct the command") from error
    taken = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise WorkError(f"{command!r} failed: {last}")
    return taken


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
    """Return the interval that holds the median of what values are drawn from, by order statistics.

    Whether a value lies below the median is the throw of a coin, so the number of those below is binomial.

    Args:
        values: Independent values.
        confidence: How often such an interval holds the median, at least.
    """
    ordered, number = sorted(values), len(values)
    outside = (1 - confidence) / 2
    below, rank = 0.0, 0
    while rank < number and (below := below + math.comb(number, rank) / 2**number) <= outside:
        rank += 1
    return (ordered[rank - 1], ordered[number - rank]) if rank else (None, None)
