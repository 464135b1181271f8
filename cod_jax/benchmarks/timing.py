"""Clocks, memory of a device, and the machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cod_jax.cores import num_cores

WARMUP_CALLS = 1


def time_calls(calls: Mapping[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time calls that return when their work is done, in turn, so that what disturbs one disturbs the others.

    Args:
        calls: The calls by name.
        repeats: Measured calls of each, after the first and a warm-up.

    Returns:
        Timings and last results by name.
    """
    first, results = {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        results[name] = call()
        first[name] = time.perf_counter() - start
        for _ in range(WARMUP_CALLS):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            results[name] = call()
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - start_cpu)
    return {name: _timing(seconds[name], cpu_seconds[name], first[name]) for name in calls}, results


def _timing(seconds: list[float], cpu_seconds: list[float], first: float) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "median_seconds": median,
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "seconds": seconds,
        # Of all threads; hardly changes when other programs share the cores, as the time on the clock does.
        "median_cpu_seconds": statistics.median(cpu_seconds),
        # With tracing and compiling, and other work that is done once, such as reading a compiled model.
        "first_call_seconds": first,
    }


def disable_compilation_cache() -> None:
    """Switch JAX's cache off before the first compilation, so that compiling is measured and not reading."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


def peak_device_memory_bytes() -> int | None:
    """Largest memory in use on an accelerator so far; None on a CPU."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def system() -> dict[str, Any]:
    """The machine and the versions of what computes."""
    import platform

    import jax

    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "processor": processor,
        "cores": num_cores(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
