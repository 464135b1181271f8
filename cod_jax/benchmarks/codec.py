"""The codec on pictures: the plain model against the compiled one, and both from the start of a process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cod_jax.benchmarks import ceilings, timing
from cod_jax.benchmarks.process import in_own_process
from cod_jax.errors import WorkError

if TYPE_CHECKING:
    from cod_jax.runtime.folder import Part

CODECS = ("plain", "compiled")
# What is timed: the codecs from and to host memory, and the programs of the compiled one by themselves.
CALLS = (*CODECS, "on_device")


def report_on_codec(
    source: Mapping[str, str], sizes: Sequence[tuple[int, int]], dtype: str | None, repeats: int
) -> dict[str, Any]:
    """Measure a codec, each part in a process of its own.

    Args:
        source: "model" with a folder, or "preset".
        sizes: (width, height) of the pictures.
        dtype: As for `prepare`.
        repeats: Measured calls of each kind.

    Returns:
        JSON values: "system", "model", "peak_flops_per_second" and "results", one for each size.

    Raises:
        UserError: The model cannot be loaded or compiled.
        WorkError: A process died.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder:
        job = {**source, "folder": folder, "dtype": dtype, "sizes": sizes}
        prepared = in_own_process(prepare, job)
        peak = prepared["peak_flops_per_second"]
        for (width, height), flops in zip(sizes, prepared.pop("flops"), strict=True):
            one = {"folder": folder, "width": width, "height": height, "repeats": repeats}
            result = in_own_process(measure_calls, one)
            for part in ("encode", "decode"):
                result[part]["flops"] = flops[part]
                seconds = result[part]["on_device"]["median_seconds"]
                result[part]["roofline"] = ceilings.compared(
                    seconds, float(flops[part]), result[part]["program"]["bytes_accessed"], result[part]["ceilings"]
                )
                for call in CALLS:
                    rate = flops[part] / result[part][call]["median_seconds"]
                    result[part][call]["flops_per_second"] = rate
                    result[part][call]["share_of_peak"] = None if peak is None else rate / peak
            result["start"] = {codec: measure_start(folder, codec, width, height) for codec in CODECS}
            results.append(result)
    return {**prepared, "results": results, "memory_per_megapixel": memory_per_megapixel(results)}


def memory_per_megapixel(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]] | None:
    """Return by how many bytes the largest memory of a process grows with a megapixel; None of one size.

    Args:
        results: As `report_on_codec` returns them; the smallest size is compared with the largest.

    Returns:
        For each of `CODECS`, bytes per megapixel "encoded", and "decoded" after that.
    """
    small, large = min(results, key=_megapixels), max(results, key=_megapixels)
    more = _megapixels(large) - _megapixels(small)
    peaks = [{codec: result["start"][codec]["peak_memory_bytes"] for codec in CODECS} for result in (small, large)]
    if not more or None in (peak for one in peaks for codec in CODECS for peak in one[codec].values()):
        return None
    before, after = peaks
    return {
        codec: {name: (after[codec][name] - before[codec][name]) / more for name in ("encoded", "decoded")}
        for codec in CODECS
    }


def _megapixels(result: Mapping[str, Any]) -> float:
    return result["width"] * result["height"] / 1e6


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Write the model that is measured as a model folder and as a compiled one.

    Args:
        job: "folder" to write into; "model" (a folder) or "preset"; "dtype" or None for the model's own, which for a
            preset is float32 on CPUs and bfloat16 elsewhere; "sizes" as (width, height).

    Returns:
        JSON values: "system", "model", "peak_flops_per_second" (None if the device's is not known, or for float32), and
        "flops" of encoding and decoding a picture of each size, counted on the compiled programs.

    Raises:
        UserError: The model cannot be loaded, or not be compiled.
    """
    import jax

    from cod_jax.model_folder.bundle import Bundle, load_bundle, save_bundle
    from cod_jax.models import CodebookConfig, ConditionCodecConfig, ModelConfig, build_model
    from cod_jax.models.functional import count_params
    from cod_jax.runtime.platforms import current_platform
    from cod_jax.specialize.folder import write_compiled
    from cod_jax.specialize.programs import split
    from cod_jax.training.flops import count_flops, peak_flops_per_second

    if "model" in job:
        name, bundle = job["model"], load_bundle(job["model"])
    else:
        # The published CoD-Lite at 0.0312 bits per pixel.
        name, config = (
            job["preset"],
            ModelConfig(ConditionCodecConfig(16, 2, bottleneck=CodebookConfig(bits=8), attention="window_published")),
        )
        params = jax.jit(build_model(config).init)(jax.random.key(0))
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        bundle = Bundle(config, jax.device_get(params), fingerprint="", dtype=dtype, training={})
    config, dtype = bundle.config, job["dtype"] or bundle.dtype
    folder = Path(job["folder"])
    save_bundle(folder / "plain", config, bundle.params, training={}, dtype=dtype)
    platform = current_platform()
    # Both without a fitted prior, so that both write the same files.
    bundle = load_bundle(folder / "plain")
    write_compiled(folder / "compiled", bundle, platforms=[platform], dtype=dtype)

    flops = []
    # In float32 for every measured dtype: fused attention, which float32 never takes, would hide its products.
    halves = split(config, bundle.params, "float32")
    for width, height in job["sizes"]:
        cells = -(-height // config.size_multiple), -(-width // config.size_multiple)
        one = {"width": width, "height": height}
        for half in halves:

            def apply(weights, batch, half=half):
                return half.apply(weights, batch, platform)

            one[half.part] = count_flops(apply, half.weights, half.cells_to_input(1, *cells))
        flops.append(one)
    return {
        "system": timing.system(),
        "model": {
            "name": name,
            "parameters": count_params(build_model(config).shapes),
            "dtype": dtype,
            "config": config.to_dict(),
        },
        # Known for bfloat16 only.
        "peak_flops_per_second": peak_flops_per_second(jax.devices()[0].device_kind) if dtype == "bfloat16" else None,
        "flops": flops,
    }


def measure_calls(job: dict[str, Any]) -> dict[str, Any]:
    """Time encoding and decoding of one picture size, in turn plain, compiled and compiled on the device.

    The first two go from and to arrays in host memory, with checks, padding and copies. The last finds its padded input
    on the device and leaves its output there: the time is that of the program, until it is done.

    Args:
        job: "folder" of `prepare`, "width" and "height" in pixels, "repeats".

    Returns:
        JSON values: the size, and for "encode" and "decode" a timing for each of `CALLS`, "ratio", the plain median
        over the compiled one, the "ceilings" of the device, timed in turn with the calls (see `ceilings`), and of the
        "program" by the compiler's estimate "bytes_accessed", and "memory_bytes" beside its weights.
    """
    timing.disable_compilation_cache()
    import jax
    import numpy as np

    from cod_jax import codec, images
    from cod_jax.codec.compiled_engine import CompiledEngine
    from cod_jax.runtime.programs import Programs

    folder, width, height = Path(job["folder"]), job["width"], job["height"]
    pixels = width * height
    plain = codec.load(folder / "plain", max_pixels=pixels)
    compiled = codec.load_compiled(folder / "compiled", max_pixels=pixels)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    engine = compiled.engine
    if not isinstance(engine, CompiledEngine):
        raise TypeError(f"expected a compiled model, got {compiled}")
    about = engine.description
    programs = {part: Programs(folder / "compiled", about, part) for part in ("encode", "decode")}
    cells = -(-height // about.size_multiple), -(-width // about.size_multiple)
    levels = (np.full(1, compiled.num_levels - 1, np.int32),) if about.takes_levels else ()

    def program_call(part: "Part", batch: Any) -> Callable[[], Any]:
        """Its input is on the device before any clock starts."""
        given = jax.block_until_ready(jax.device_put((batch, *levels) if levels else batch))
        return lambda: jax.block_until_ready(programs[part].on_device(given, cells))

    limits = ceilings.calls(about.dtype)
    encode, symbols = timing.time_calls(
        {
            **limits,
            "plain": lambda: plain.encode(image),
            "compiled": lambda: compiled.encode(image),
            "on_device": program_call("encode", images.pad_to_multiple(image[None], about.size_multiple)),
        },
        job["repeats"],
    )
    indices = symbols["plain"]
    decode, _ = timing.time_calls(
        {
            **limits,
            "plain": lambda: plain.decode(indices, steps=1),
            "compiled": lambda: compiled.decode(indices),
            "on_device": program_call("decode", symbols["on_device"]),
        },
        job["repeats"],
    )
    inputs: dict[Part, Any] = {
        "encode": images.pad_to_multiple(image[None], about.size_multiple),
        "decode": symbols["on_device"],
    }
    measured: dict[Part, dict[str, Any]] = {"encode": encode, "decode": decode}
    for part, timings in measured.items():
        of_limits = {name: timings.pop(name) for name in limits}
        for one in timings.values():
            one["pixels_per_second"] = pixels / one["median_seconds"]
        timings["ratio"] = timings["plain"]["median_seconds"] / timings["compiled"]["median_seconds"]
        timings["ceilings"] = ceilings.rates(of_limits, jax.default_backend())
        batch = inputs[part]
        program = programs[part].compiled((batch, *levels) if levels else batch, cells)
        timings["program"] = {"bytes_accessed": ceilings.bytes_of(program), "memory_bytes": _memory_bytes(program)}
    return {"width": width, "height": height, **measured}


def _memory_bytes(compiled: Any) -> int | None:
    """Return the bytes that a program takes for what is between its input and its output, and for the output."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def measure_start(folder: str, codec: str, width: int, height: int) -> dict[str, Any]:
    """Time processes that compress and decompress one picture each, with an empty and with a filled cache.

    Args:
        folder: That of `prepare`.
        codec: One of `CODECS`.
        width: pixels.
        height: pixels.

    Returns:
        JSON values: "cold_seconds" and "warm_seconds" from the start of a process to its end, the same of all its
        threads as "cold_cpu_seconds" and "warm_cpu_seconds", and the largest memory of the second one, which compiles
        nothing: "peak_memory_bytes" when it had "encoded" and when it had "decoded", and "peak_device_memory_bytes".

    Raises:
        WorkError: A process failed.
    """
    command = [
        sys.executable,
        "-m",
        "cod_jax.benchmarks.start",
        codec,
        str(Path(folder) / codec),
        str(width),
        str(height),
    ]
    measured = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_TRACEBACK_FILTERING": "off",  # then the last line of an error says what it is
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        for cache_state in ("cold", "warm"):
            start, start_cpu = time.perf_counter(), _cpu_seconds_of_children()
            result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            measured[f"{cache_state}_seconds"] = time.perf_counter() - start
            measured[f"{cache_state}_cpu_seconds"] = _cpu_seconds_of_children() - start_cpu
            if result.returncode:
                last = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()[-1]
                raise WorkError(f"the process that measures the start of the {codec} codec failed: {last}")
            measured |= json.loads(result.stdout.splitlines()[-1])
    return measured


def _cpu_seconds_of_children() -> float:
    """CPU time of the processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system
