"""Evaluations in this process, where tests can replace what is called."""

import contextlib
import csv
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any


class Inline(Executor):
    """An executor that does everything at once, in this process; what is no error of the work passes through."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (who waits for it raises it)
            future.set_exception(error)
        return future


@contextlib.contextmanager
def in_this_process(environments: Sequence[Mapping[str, str]]) -> Iterator[Executor]:
    """Stand in for `fresh_processes`."""
    yield Inline()


def results_of(tmp_path: Path) -> dict[str, Any]:
    """Return what `--output result` wrote."""
    return json.loads((tmp_path / "result" / "results.json").read_text())


def rows_of(tmp_path: Path, table: str = "per_image.csv") -> list[dict[str, str]]:
    """Return a table that `--output result` wrote."""
    with (tmp_path / "result" / table).open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
