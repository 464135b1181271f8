"""Settings every test relies on: eight virtual CPU devices, strict rank promotion, a compilation cache.

They are environment variables, set before JAX is imported, so that commands started by a test inherit them.
"""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_DEVICES = 8

if "jax" in sys.modules:
    raise RuntimeError("jax was imported before tests/conftest.py could set its flags; remove the plugin that does so")

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Compiling is most of a test's time, and what the programs are compiled to does not have to be fast.
FLAGS = f"--xla_force_host_platform_device_count={NUM_DEVICES} --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes about cached programs are no findings of a test

# Compiled programs of all tests of a process together can take more memory than a machine has.
MAX_RESIDENT_BYTES = 6e9


@pytest.fixture(scope="module", autouse=True)
def programs_fit_into_memory() -> Iterator[None]:
    """Forget compiled programs after a file of tests, if they take much memory."""
    yield
    pages = Path("/proc/self/statm")
    if "jax" in sys.modules and pages.exists():
        resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > MAX_RESIDENT_BYTES:
            sys.modules["jax"].clear_caches()
            gc.collect()
            if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc keeps what is freed otherwise
                libc.malloc_trim(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for runs with little time."""
    parser.addoption("--stop-at", type=float, metavar="SECONDS", help="skip tests from this time on (since 1970)")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test for which no time is left."""
    stop_at = item.config.getoption("--stop-at")
    if stop_at is not None and time.time() > stop_at:
        pytest.skip("no time was left for it (--stop-at)")
