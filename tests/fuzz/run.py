"""Fuzz a reader of untrusted files: `python -m tests.fuzz.run NAME --seconds 60`.

With atheris inputs are guided by the code that they reach; --plain, or no atheris, changes the seeds at random. The run
ends with an error at the first input that shows a fault, which is kept in the folder. `cod` reads `.cod` files; the
other names are in `readers.READERS`.
"""

import argparse
import importlib
import importlib.util
import logging
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target

NAMES = ("cod", "torch", "zip", "legacy", "safetensors", "yaml", "model_json", "compiled", "prior")
# Packages whose branches guide the fuzzer.
GUIDES = ["cod_jax.coding", "cod_jax.interop", "cod_jax.model_folder", "cod_jax.runtime", "json", "yaml", "zipfile"]
# An input that takes longer, or more memory, shows a fault too.
MAX_SECONDS, MAX_MEGABYTES = 20, 4096
MAX_LENGTH = 2**13
# What damage by single bits rarely makes.
TOKENS = (
    b"\0",
    b"\xff" * 4,
    b"\xff" * 8,
    b"0",
    b"-1",
    b"1e999",
    b"9" * 30,
    b"[",
    b"{",
    b'"',
    b"}",
    b"(",
    b"q\0h\0",
    b":1:1",
)


def build(name: str, scratch: Path) -> Target:
    """Return the target of a name, which may write into the folder."""
    if name == "cod":
        return importlib.import_module("tests.fuzz.cod_files").make_target()
    return importlib.import_module("tests.fuzz.readers").READERS[name](scratch)


def mutated(seeds: Sequence[bytes], generator: random.Random) -> bytes:
    """Return a seed after one to six random changes."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(1, 6)):
        place = generator.randint(0, len(data))
        end = min(len(data), place + generator.choice((1, 2, 4, 8, 64)))
        match generator.randrange(6):
            case 0 if place < len(data):
                data[place] ^= 1 << generator.randrange(8)
            case 1:
                data[place:end] = generator.randbytes(end - place)
            case 2:
                del data[place:end]
            case 3:
                data[place:place] = data[place:end] * generator.choice((1, 2, 50))
            case 4:
                data[place:end] = generator.choice(TOKENS)
            case _:
                other = generator.choice(seeds)
                start = generator.randint(0, len(other))
                data[place:end] = other[start : start + generator.choice((1, 4, 16, 64))]
    return bytes(data[: max(MAX_LENGTH, len(max(seeds, key=len)))])


def run_plain(target: Target, folder: Path, *, seconds: float, seed: int = 0, most: int = sys.maxsize) -> int:
    """Read mutations for a time and return how many.

    Args:
        target: The reader.
        folder: Where the input that shows a fault is kept.
        seconds: The time.
        seed: Seed of the mutations; the same seed gives the same.
        most: Largest number of mutations.
    """
    generator = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    for data in target.seeds:
        target.read(data)
    while time.monotonic() < end and count < most:
        data = mutated(target.seeds, generator)
        start = time.process_time()
        try:
            target.read(data)
            if time.process_time() - start > MAX_SECONDS:
                raise RuntimeError(f"an input takes more than {MAX_SECONDS} seconds")
        except BaseException:
            (folder / "fault").write_bytes(data)
            raise
        count += 1
    return count


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="keeps the inputs that reach new code, and the one with a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    return parser


def main() -> None:
    """Run a target as the command line says."""
    args = parser().parse_args()
    logging.disable(logging.WARNING)  # of what is skipped
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "inputs"
        folder.mkdir(parents=True, exist_ok=True)
        if args.plain or importlib.util.find_spec("atheris") is None:
            count = run_plain(build(args.name, Path(scratch)), folder, seconds=args.seconds, seed=args.seed)
            print(f"Done: {count} inputs in {args.seconds} s")  # noqa: T201
        else:
            _run_guided(args, Path(scratch), folder)


def _run_guided(args: argparse.Namespace, scratch: Path, folder: Path) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=GUIDES):
        target = build(args.name, scratch)
    for number, data in enumerate(target.seeds):
        (folder / f"seed{number}").write_bytes(data)
    limits = [f"-max_total_time={args.seconds}", f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MEGABYTES}"]
    options = [*limits, f"-max_len={MAX_LENGTH}", f"-seed={args.seed + 1}", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], str(folder), *options], target.read)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
