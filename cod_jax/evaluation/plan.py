"""Plan of an evaluation: pictures, curves and their rates, worked out before anything is coded."""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cod_jax import __version__, files
from cod_jax.coding import stream
from cod_jax.errors import UserError, WorkError, stops_one_file
from cod_jax.evaluation import baselines, coders
from cod_jax.evaluation.allocated import check_set_rates
from cod_jax.evaluation.metric_table import Described, Metric, with_metrics
from cod_jax.evaluation.patch_fid import MIN_PATCHES, SIZES, PatchFid, num_patches, patch_size
from cod_jax.evaluation.processes import one_device_each
from cod_jax.evaluation.stages import Work, read_original

# How models that cannot be guided are called among what is not measured.
GUIDANCE_OF = "guidance of "


class Picture(NamedTuple):
    """An original.

    Attributes:
        name: Its path below the folder of pictures.
        stem: The same without its suffix, where that tells it from the others.
        width: In pixels.
        height: In pixels.
        sha256: Of the file, 64 hex digits.
    """

    name: str
    stem: str
    width: int
    height: int
    sha256: str


class Point(NamedTuple):
    """A rate of a curve: its label, and the settings that it is coded and decoded with."""

    label: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A codec over its rates.

    Attributes:
        name: Its folder below those of coded and decoded pictures.
        kind: "model", "baseline" or "files", a folder of finished results.
        title: Its name for people.
        coder: What makes files and pictures.
        points: Its rates.
        about: JSON values that describe it.
        files: The folder of its files; curves that differ in decoding only share it.
    """

    name: str
    kind: Literal["model", "baseline", "files"]
    title: str
    coder: coders.Coder
    points: tuple[Point, ...]
    about: Mapping[str, Any]
    files: str

    def work(self, point: Point, picture: Picture, source: Path, output: Path) -> Work:
        """Return one picture at one rate."""
        return Work(
            self.coder,
            point.settings,
            picture.stem,
            source / picture.name,
            output / "files" / self.files / point.label / f"{picture.stem}{self.coder.suffix}",
            output / "decoded" / self.name / point.label / f"{picture.stem}.png",
            (picture.width, picture.height),
        )


class Request(NamedTuple):
    """The request of a user.

    Attributes:
        models: Model folders or compiled folders.
        qualities: Levels from 1; empty for all that a model has.
        set_rates: Bits per pixel over the whole set, at which each picture gets a level of its own.
        steps: Numbers of steps, a curve each; None is the model's own.
        guidances: Strengths of guidance, each with each number of steps above one; None is the model's own.
        decoding: Sampler and seed where they are not the model's.
        baselines: Names of `baselines.FORMATS`, each measured at all of `baselines.SCALES`.
        results: Folders of other codecs' results.
        metrics: Metrics of other packages.
        networks: Metrics that need weights.
        patch_fid: Patch-FID, of which the pictures decide the size; None where it is not measured.
        not_measured: Title and reason of metrics that cannot be measured, by name.
        max_pixels: The limit of the codecs; None is their own.
    """

    models: Sequence[str] = ()
    qualities: Sequence[int] = ()
    set_rates: Sequence[float] = ()
    steps: Sequence[int | None] = (None,)
    guidances: Sequence[float | None] = (None,)
    decoding: Mapping[str, Any] = {}
    baselines: Sequence[str] = ()
    results: Sequence[str] = ()
    metrics: Sequence[str] = ()
    networks: Sequence[Metric] = ()
    patch_fid: PatchFid | None = None
    not_measured: Mapping[str, tuple[str, str]] = {}
    max_pixels: int | None = None

    def table(self) -> tuple[Metric, ...]:
        """Return all metrics that are measured on single pictures.

        Raises:
            UserError: One of another package cannot be used.
        """
        return (*with_metrics(self.metrics), *self.networks)

    def described(self) -> tuple[Described, ...]:
        """Return all metrics that may be in the results, patch-FID at each size."""
        of_sets = () if self.patch_fid is None else map(self.patch_fid.of_size, SIZES)
        return (*self.table(), *of_sets)


class Plan(NamedTuple):
    """Everything that is measured.

    Attributes:
        pictures: The originals.
        unreadable: Why pictures of the folder are left out, by name.
        curves: What codes them.
        patch_fid: Patch-FID with patches of the size that fits the pictures; None where it is not measured.
        accelerators: Environment variables of the processes that run networks, one process for each GPU; () on a CPU,
            whose cores all of them share.
        not_measured: Title and reason of each curve and metric that cannot be measured here, by name.
        facts: JSON values that go into the results: versions, machine, options.
    """

    pictures: tuple[Picture, ...]
    unreadable: Mapping[str, str]
    curves: tuple[Curve, ...]
    patch_fid: PatchFid | None
    accelerators: tuple[Mapping[str, str], ...]
    not_measured: Mapping[str, tuple[str, str]]
    facts: Mapping[str, Any]

    def key(self) -> dict[str, Any]:
        """Return JSON values that are the same exactly if two runs measure the same."""
        curves = [
            {"name": curve.name, "points": [point.settings for point in curve.points], "about": curve.about}
            for curve in self.curves
        ]
        # An evaluation may go on on another machine.
        facts = {name: value for name, value in self.facts.items() if name != "machine"}
        pictures = [picture._asdict() for picture in self.pictures]
        return json.loads(json.dumps({"pictures": pictures, "curves": curves, **facts}))


def make_plan(request: Request, source: Path, names: Sequence[str], executor: Executor) -> Plan:
    """Read the pictures and ask the models.

    Args:
        request: What to measure.
        source: Folder of the pictures.
        names: Their names in it.
        executor: Runs what needs a model; models are not loaded into this process.

    Raises:
        UserError: A model, a folder or a setting cannot be used.
        WorkError: No picture can be read.
    """
    check_set_rates(request.set_rates, has_models=bool(request.models), qualities=request.qualities)
    curves, devices, not_measured = _model_curves(request, executor)
    for name in request.baselines:
        if reason := baselines.missing(name):
            not_measured[name] = (name, reason)
            continue
        for scale in baselines.SCALES:
            coder = baselines.Baseline(name, scale)
            points = tuple(Point(*point) for point in coder.points())
            curves.append(Curve(coder.name, "baseline", coder.title, coder, points, coder.about(), coder.name))
    for folder in request.results:
        coder = coders.Results(str(Path(folder).resolve()))
        points = tuple(Point(rate, {"folder": rate}) for rate in coder.rates())
        name = Path(coder.folder).name
        curves.append(Curve(name, "files", name, coder, points, {"files_sha256": coder.sha256()}, name))
    if not curves:
        raise UserError("expected something to measure, got nothing; name a model, a baseline or a folder of results")
    taken = [curve.name for curve in curves]
    if twice := {name for name in taken if taken.count(name) > 1}:
        raise UserError(f"expected curves with different names, got {min(twice)} twice; rename one of the folders")
    pictures, unreadable = _read_pictures(source, names)
    patch_fid, too_few = _patch_fid(request.patch_fid, pictures)
    needs_device = patch_fid is not None or bool(request.models)
    accelerators = executor.submit(_accelerators).result() if needs_device else ()
    facts = {
        "versions": {
            "cod_jax": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("jax", "numpy", "pillow")},
        },
        "machine": {**_machine(), "devices": devices},
        "options": {
            "metrics": [one.name for one in (*request.table(), *([patch_fid] if patch_fid else []))],
            # Only where there are some, so that evaluations of earlier versions go on.
            **({"metric_classes": list(request.metrics)} if request.metrics else {}),
        },
    }
    not_measured = {**not_measured, **request.not_measured, **too_few}
    return Plan(pictures, unreadable, tuple(curves), patch_fid, accelerators, not_measured, facts)


def _accelerators() -> tuple[Mapping[str, str], ...]:
    import jax

    platform = jax.default_backend()
    return () if platform == "cpu" else tuple(one_device_each(platform, jax.local_device_count(), os.environ))


def _patch_fid(
    asked: PatchFid | None, pictures: Sequence[Picture]
) -> tuple[PatchFid | None, dict[str, tuple[str, str]]]:
    """Return patch-FID with the size of the patches; None, with title and reason by name, where there are too few."""
    if asked is None:
        return None, {}
    sizes = [(picture.width, picture.height) for picture in pictures]
    chosen = asked.of_size(patch_size(sizes))
    number = num_patches(sizes, chosen.size)
    if number >= MIN_PATCHES:
        return chosen, {}
    side = chosen.size
    reason = f"the pictures have {number} patches of {side}x{side} pixels, and {MIN_PATCHES} are needed"
    return None, {chosen.name: (chosen.title, reason)}


def _model_curves(request: Request, executor: Executor) -> tuple[list[Curve], list[str], dict[str, tuple[str, str]]]:
    """Return a curve per model and way of decoding, the devices of the models, and what is left out and why."""
    curves: list[Curve] = []
    devices: list[str] = []
    left_out = {}
    decodings = [
        {**request.decoding, "steps": steps, "guidance": guidance}
        for steps in request.steps
        for guidance in request.guidances
    ]
    names = _distinct([Path(model).resolve() for model in request.models])
    for path, name in zip(request.models, names, strict=True):
        coder = coders.Model(str(Path(path).resolve()), request.max_pixels)
        found = executor.submit(coders.describe, coder, decodings).result()
        devices = found["devices"]
        levels = request.qualities or range(1, found["num_levels"] + 1)
        for quality in levels:
            stream.checked_quality(quality, found["num_levels"])
        if not found["can_guide"]:
            left_out[f"{GUIDANCE_OF}{name}"] = (f"guidance of {name}", coders.NO_GUIDANCE)
        several = len(found["decodings"]) > 1
        about = {**found["about"], "variant_of": name} if several else found["about"]
        num_guidances = len({decoding["guidance"] for decoding in found["decodings"] if decoding["steps"] > 1})
        for decoding in found["decodings"]:
            way = f"{decoding['steps']} step" + ("s" if decoding["steps"] > 1 else "")
            if num_guidances > 1 and decoding["steps"] > 1:
                way += f", guidance {decoding['guidance']:g}"
            points = tuple(Point(str(quality), {"quality": quality, **decoding}) for quality in levels)
            curve = f"{name}-{way.replace(',', '').replace(' ', '-')}" if several else name
            curves.append(Curve(curve, "model", f"{name} ({way})", coder, points, about, name))
    return curves, devices, left_out


def _distinct(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, with more of them where that is not enough to tell them apart."""
    for length in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = ["-".join(path.parts[-length:]).strip("/") for path in paths]
        if len(set(names)) == len(names):
            return names
    if paths:
        raise UserError(f"expected different models, got {paths[0]} twice")
    return []


def _read_pictures(source: Path, names: Sequence[str]) -> tuple[tuple[Picture, ...], dict[str, str]]:
    stems = files.without_suffixes([Path(name) for name in names])
    pictures: list[Picture] = []
    unreadable: dict[str, str] = {}
    for name, stem in zip(names, stems, strict=True):
        try:
            height, width, _ = read_original(source / name).shape
            digest = hashlib.sha256((source / name).read_bytes()).hexdigest()
            pictures.append(Picture(name, stem.as_posix(), width, height, digest))
        except Exception as error:
            if not stops_one_file(error):
                raise
            unreadable[name] = files.reason(error).removeprefix(f"{Path(name).name}: ")
    if not pictures:
        name, reason = next(iter(unreadable.items()))
        raise WorkError(f"no picture could be measured; the first of {len(names)}: {name}: {reason}")
    return tuple(pictures), unreadable


def _machine() -> dict[str, Any]:
    """Return JSON values about this machine: its processor, how many cores, its memory."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": processor, "cores": os.cpu_count(), "memory_bytes": memory, "system": platform.platform()}
