"""Settings every test relies on: eight virtual CPU devices, strict rank promotion, a compilation cache.

They are environment variables, set before JAX is imported, so that commands started by a test inherit them.
"""

import os
import sys
from pathlib import Path

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
