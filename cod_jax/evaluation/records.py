"""The log of an evaluation: a line for every piece of work that is done, so that a stopped run goes on."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from cod_jax import files
from cod_jax.errors import UserError
from cod_jax.locks import lock


class Records:
    """A file to which lines of JSON are appended; each is written before the next piece of work counts as done.

    A process that is killed while it writes leaves a line without its end. Such a line is cut off when the file is
    opened again, and its work is done again.

    Args:
        path: The file; it is made if it is missing.

    Raises:
        UserError: The file holds something else, or another process has it open.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path):
        # Without a buffer, which would be written once more when the file is closed on a full disk.
        self._file = path.open("a+b", buffering=0)
        if not lock(self._file):
            self._file.close()
            raise _in_use(path)
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._found: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                work = record.pop("work")
                # What failed is tried again: there may have been too little memory.
                if "error" not in record:
                    self._found[work] = record
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._file.close()
                raise UserError(f"{path}, line {number}: expected a record of an evaluation; use --force") from error
        self._file.truncate(len(whole))

    @staticmethod
    def check_unused(path: Path) -> None:
        """Refuse a file that another process has open.

        Raises:
            UserError: One has.
        """
        with path.open("r+b") as file:
            if not lock(file):
                raise _in_use(path)

    def __enter__(self) -> "Records":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, work: str) -> dict[str, Any] | None:
        """Return what is known of a piece of work, None if it is not done."""
        return self._found.get(work)

    def add(self, work: str, record: dict[str, Any]) -> None:
        """Write down that a piece of work is done.

        Args:
            work: Its name.
            record: JSON values; numbers may be infinite.
        """
        files.append(self._file, json.dumps({"work": work, **record}).encode() + b"\n")
        self._found[work] = record


def _in_use(path: Path) -> UserError:
    return UserError(f"{path.parent} is in use by another evaluation; wait for it or choose another output")
