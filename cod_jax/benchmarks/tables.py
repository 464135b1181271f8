"""The reports for people."""

from typing import Any

from cod_jax.benchmarks.codec import CALLS, CODECS


def table(report: dict[str, Any]) -> str:
    """A report as lines of text."""
    if report["benchmark"] == "compare":
        return "\n".join(_comparison_lines(report))
    if report["benchmark"] == "input":
        return "\n".join(_input_lines(report))
    if report["benchmark"] == "device":
        return "\n".join(_device_lines(report))
    system, load, model = report["system"], report["load_average"], report["model"]
    lines = [
        f"device: {system['device']}; {system['processor']}, {system['cores']} cores; jax {system['jax']}",
        f"load average: {load['before']:.1f} before, {load['after']:.1f} after",
        f"model: {model['name']}, {model['parameters'] / 1e6:.1f}M parameters, {model['dtype']}",
    ]
    lines += _codec_lines(report) if report["benchmark"] == "codec" else _training_lines(report)
    return "\n".join(lines)


def _codec_lines(report: dict[str, Any]) -> list[str]:
    layout = "{:>10} {:6} {:9} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>8} {:>10}"
    head = ("size", "", "", "median ms", "min ms", "max ms", "CPU ms", "Mpixel/s", "GFLOP/s", "of peak", "first s")
    lines = [layout.format(*head)]
    for result in report["results"]:
        size = f"{result['width']}x{result['height']}"
        for part in ("encode", "decode"):
            for call in CALLS:
                timing = result[part][call]
                milliseconds = ("median_seconds", "min_seconds", "max_seconds", "median_cpu_seconds")
                share = timing["share_of_peak"]
                lines.append(
                    layout.format(
                        size,
                        part,
                        call.replace("_", " "),
                        *(f"{1e3 * timing[name]:.1f}" for name in milliseconds),
                        f"{timing['pixels_per_second'] / 1e6:.3f}",
                        f"{timing['flops_per_second'] / 1e9:.1f}",
                        "-" if share is None else f"{100 * share:.1f} %",
                        f"{timing['first_call_seconds']:.1f}",
                    )
                )
            lines.append(layout.format(size, part, "ratio", f"{result[part]['ratio']:.2f}", *[""] * 7).rstrip())
            lines.append(f"{size:>10} {part:6} on device: {_roofline(result[part])}{_program_memory(result, part)}")
        for codec in CODECS:
            start = result["start"][codec]
            memory = start["peak_memory_bytes"]
            lines.append(
                f"{size:>10} start  {codec:9} cold {start['cold_seconds']:.1f} s (CPU time "
                f"{start['cold_cpu_seconds']:.1f} s), warm {start['warm_seconds']:.1f} s "
                f"({start['warm_cpu_seconds']:.1f} s); "
                f"peak memory {_gigabytes(memory['encoded'])} encoded, {_gigabytes(memory['decoded'])} decoded"
                + _device_memory(start)
            )
    for codec, grown in (report["memory_per_megapixel"] or {}).items():
        lines.append(
            f"each megapixel more, {codec}: {grown['encoded'] / 1e6:.0f} MB encoded, {grown['decoded'] / 1e6:.0f} MB "
            "decoded"
        )
    return lines


def _program_memory(result: dict[str, Any], part: str) -> str:
    taken = result[part]["program"]["memory_bytes"]
    megapixels = result["width"] * result["height"] / 1e6
    return "" if taken is None else f"; {taken / 1e6 / megapixels:.0f} MB per megapixel beside the weights"


def _training_lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for result in report["results"]:
        step, share = result["step"], result["share_of_peak"]
        lines += [
            f"step of {result['update']}: batch of {result['batch_size']} images of "
            f"{result['image_size']}x{result['image_size']}; loss: {', '.join(result['loss_terms'])}",
            f"  images per second: {result['images_per_second']:.2f}, without waiting between steps",
            f"  one step: {1e3 * step['median_seconds']:.1f} ms ({1e3 * step['min_seconds']:.1f} to "
            f"{1e3 * step['max_seconds']:.1f}), CPU time {1e3 * step['median_cpu_seconds']:.1f} ms",
            f"  {_roofline(result)}",
            *([] if share is None else [f"  model FLOPs utilisation: {100 * share:.1f} %"]),
            f"  compile: {result['compile_seconds']:.1f} s (CPU time {result['compile_cpu_seconds']:.1f} s)",
            f"  peak memory: {_gigabytes(result['peak_memory_bytes'])}" + _device_memory(result),
        ]
    return lines


def _comparison_lines(report: dict[str, Any]) -> list[str]:
    checkouts = report.get("checkouts", ["", ""])
    lines = [
        f"{name:6} {report[name]['median_seconds']:8.3f} s  {' '.join(filter(None, (report[name]['command'], where)))}"
        for name, where in zip(("first", "second"), (f"({one})" if one else "" for one in checkouts), strict=True)
    ]
    low, high = report["interval"]
    between = "too few pairs for an interval" if low is None else f"{low:.3f} to {high:.3f} with 95 % confidence"
    pairs = len(report["first"]["seconds"])
    return [*lines, f"second over first: {report['ratio']:.3f} ({between}, {pairs} pairs)"]


def _input_lines(report: dict[str, Any]) -> list[str]:
    measured, load = report["input"], report["load_average"]
    side = measured["image_size"]
    workers = f"{measured['num_workers']} worker processes with " if measured["num_workers"] else ""
    lines = [
        f"load average: {load['before']:.1f} before, {load['after']:.1f} after; {measured['num_cores']} cores",
        f"input: {measured['source']}, {measured['crop']} crops of {side}x{side}",
        f"  one core: {measured['images_per_core_second']:.0f} images per second",
        f"  {workers}{measured['num_threads']} threads here: {measured['images_per_second']:.0f} images per second",
    ]
    if "rate" in measured:
        lines.append(
            f"  {measured['rate']} images per second need {measured['cores_needed']:.1f} cores; here the steps would "
            f"wait {100 * measured['waiting_share']:.0f} % of the time"
        )
    return lines


def _device_lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for one in report["measured"]:
        variables = [f"{name}={value!r}" for name, value in one["environment"].items()]
        command = " ".join([*variables, "cod benchmark", *one["arguments"]])
        lines += [f"{one['name']}: {one['state']} after {one['seconds']:.0f} s", f"  {command}"]
        lines += [f"  {line}" for line in one["printed"]]
    return lines


def _roofline(result: dict[str, Any]) -> str:
    reached, ceiling = result["roofline"], result["ceilings"]
    return (
        f"{reached['flops'] / 1e9:.2f} GFLOP at {reached['flops_per_second'] / 1e9:.1f} GFLOP/s, "
        f"{100 * reached['share_of_matrix_product']:.0f} % of this device's matrix products "
        f"({ceiling['flops_per_second'] / 1e9:.1f} GFLOP/s) and {100 * reached['share_of_roofline']:.0f} % of its "
        f"roofline (copies at {ceiling['bytes_per_second'] / 1e9:.1f} GB/s)"
    )


def _device_memory(measured: dict[str, Any]) -> str:
    device = measured["peak_device_memory_bytes"]
    return "" if device is None else f", of the device {_gigabytes(device)}"


def _gigabytes(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 1e9:.2f} GB"
