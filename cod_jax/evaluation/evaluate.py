"""Measure codecs on a folder of pictures: encode to files, decode them in other processes, compare.

Whatever is done is written down at once, so that the same command goes on where it was stopped, and ends with the same
tables.
"""

import datetime
import hashlib
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from cod_jax import files
from cod_jax.cores import num_cores
from cod_jax.errors import UserError, WorkError
from cod_jax.evaluation import results, stages
from cod_jax.evaluation.allocated import allocated_curve
from cod_jax.evaluation.bd import bd_rows
from cod_jax.evaluation.compare import check_comparable
from cod_jax.evaluation.dial import dial_rows, draw_dial, sample_sheets
from cod_jax.evaluation.folders import FORMAT, PLAN_FILE, RESULTS_FILE, checked_pictures
from cod_jax.evaluation.patch_fid import PatchFid
from cod_jax.evaluation.plan import Curve, Picture, Plan, Point, Request, make_plan
from cod_jax.evaluation.plots import draw
from cod_jax.evaluation.processes import fresh_processes
from cod_jax.evaluation.records import Records

RECORDS_FILE = "records.jsonl"
SECONDS_IN_LOG = 30


class _Task(NamedTuple):
    """One piece of work: its name in the records, the function that does it, and what that is given."""

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]


_Maker = Callable[[Curve, Point, Picture], _Task | None]


def evaluate(
    images_folder: str | Path,
    output: str | Path,
    request: Request,
    *,
    force: bool = False,
    processes: int | None = None,
    command: str = "",
    against: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda progress: None,
) -> dict[str, Any]:
    """Measure codecs on every picture below a folder and write the results.

    Args:
        images_folder: Folder of pictures.
        output: Folder of results. Without `force`, an evaluation of the same in it goes on.
        request: What to measure.
        force: Delete an evaluation in the output folder and begin again, even if it is of the same.
        processes: Processes for other codecs and for measuring; by default one per core. A model runs in one for each
            GPU, or in one that uses all cores.
        command: The command line, for the reader of the results.
        against: The results of an earlier evaluation that this one will be compared with.
        report: Gets a sentence about the progress every half a minute, for logs; terminals have a bar.

    Returns:
        The content of results.json; infinite numbers are still infinite.

    Raises:
        UserError: Something that was asked for cannot be used, the output holds another evaluation, or nothing could
            be compared with the earlier one.
        WorkError: No picture could be measured, or a process ended.
        OSError: A folder cannot be read or written.
    """
    source, folder = Path(images_folder).absolute(), Path(output)
    names = checked_pictures(images_folder, folder, force=force)  # named in messages as it was given
    request.table()
    with fresh_processes([{}]) as executor:
        plan = make_plan(request, source, names, executor)
    if against is not None:
        digests = {picture.name: picture.sha256 for picture in plan.pictures}
        check_comparable([curve.name for curve in plan.curves], digests, against)
    created = _open_folder(folder, plan, force)
    with Records(folder / RECORDS_FILE) as records:
        _do_all(plan, request, source, folder, records, processes or num_cores(), report)
        found = _assemble(plan, request, source, folder, records)
    found = {"format": FORMAT, "created": created, "command": command, **plan.facts, **found}
    write(folder, found, source)
    return found


def write(folder: Path, found: dict[str, Any], source: Path) -> None:
    """Write results.json, the tables, sample pictures, and plots where matplotlib is installed."""
    texts = {
        results.TABLE_FILE: results.per_image_table(found),
        results.SUMMARY_FILE: results.summary_table(found),
        results.BD_FILE: results.bd_table(found),
        RESULTS_FILE: results.as_json(found),
    }
    if found["dial"]:
        texts[results.DIAL_FILE] = results.dial_table(found)
    for name, text in texts.items():
        files.write_bytes(folder / name, text.encode(errors="surrogateescape"))
    pictures = sample_sheets(found, source, folder)
    if importlib.util.find_spec("matplotlib") is not None:
        pictures |= draw(found) | draw_dial(found)
    for name, data in pictures.items():
        files.write_bytes(folder / "plots" / name, data)


def _open_folder(folder: Path, plan: Plan, force: bool) -> str:
    """Make the output folder, or check that what is there is a part of the same evaluation.

    Returns:
        When the evaluation began.

    Raises:
        UserError: It holds another evaluation, and `force` is not set.
    """
    path, key = folder / PLAN_FILE, plan.key()
    if path.exists() and force:
        if (folder / RECORDS_FILE).exists():
            Records.check_unused(folder / RECORDS_FILE)
        shutil.rmtree(folder)
    elif path.exists():
        earlier = _read_plan(path)
        created = earlier.pop("created", "")
        if earlier == key:
            return created
        other = ", ".join(name for name in key if earlier.get(name) != key[name])
        raise UserError(
            f"{folder} holds an evaluation with other {other}; choose another output, or pass --force to delete it"
        )
    created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files.make_directory(folder)
    files.write_bytes(path, json.dumps({"created": created, **key}, indent=1).encode())
    return created


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        return {}


def _do_all(
    plan: Plan,
    request: Request,
    source: Path,
    folder: Path,
    records: Records,
    processes: int,
    report: Callable[[str], None],
) -> None:
    """Do what is not done yet. Models come first, alone, so that their times are not disturbed."""

    def encode(curve: Curve, point: Point, picture: Picture) -> _Task | None:
        work = curve.work(point, picture, source, folder)
        return _Task(_name(work.file, folder), stages.encode, (work,))

    def decode(curve: Curve, point: Point, picture: Picture) -> _Task | None:
        work = curve.work(point, picture, source, folder)
        coded = records.get(_name(work.file, folder))
        ok = coded is not None and "error" not in coded
        return _Task(_name(work.decoded, folder), stages.decode, (work,)) if ok else None

    def measure(curve: Curve, point: Point, picture: Picture) -> _Task | None:
        work = curve.work(point, picture, source, folder)
        name = _name(work.decoded, folder)
        coded, decoded = records.get(_name(work.file, folder)), records.get(name)
        if coded is None or decoded is None or "error" in decoded:
            return None
        return _Task(
            f"metrics of {name}", stages.measure, (work, coded["bytes"], list(request.metrics), list(request.networks))
        )

    models = [[curve] for curve in plan.curves if curve.kind == "model"]
    others = [curve for curve in plan.curves if curve.kind != "model"]
    cores: list[Mapping[str, str]] = [{}] * processes
    devices = list(plan.accelerators) or cores[:1]
    parts = [(function, curves, devices) for curves in models for function in (encode, decode)]
    parts += [(encode, others, cores), (decode, others, cores), (measure, plan.curves, cores)]
    if plan.patch_fid is not None:
        of_original, of_decoded, distance = _patch_fid_tasks(plan, plan.patch_fid, source, folder, records)
        networks = list(plan.accelerators) or cores
        parts += [(of_original, plan.curves, networks), (of_decoded, plan.curves, networks)]
        parts.append((distance, plan.curves, cores))
    num_all = len(plan.pictures) * sum(len(curve.points) for _, curves, _ in parts for curve in curves)
    with tqdm(total=num_all, unit="step", leave=False, disable=None, smoothing=0) as bar:
        told, done = time.monotonic(), 0
        for make, curves, environments in parts:
            tasks: dict[str, _Task] = {}
            for picture, curve, point in _everything(plan.pictures, curves):
                task = make(curve, point, picture)
                if task is None or task.name in tasks or records.get(task.name) is not None:
                    done += 1
                    bar.update()
                else:
                    tasks[task.name] = task
            if not tasks:
                continue
            with fresh_processes(environments[: len(tasks)]) as executor:
                futures = {executor.submit(task.function, *task.arguments): name for name, task in tasks.items()}
                try:
                    for future in as_completed(futures):
                        records.add(futures[future], future.result())
                        done += 1
                        bar.update()
                        if time.monotonic() - told >= SECONDS_IN_LOG:
                            told = time.monotonic()
                            report(f"{done} of {num_all} steps")
                except BrokenProcessPool as error:
                    raise WorkError(
                        "a process ended before its work was done, perhaps for lack of memory; the same command "
                        "resumes, without --force"
                    ) from error


def _everything(pictures: Sequence[Picture], curves: Sequence[Curve]) -> Iterator[tuple[Picture, Curve, Point]]:
    """Yield every picture at every rate; all rates of a picture come together, so that it is read once."""
    return ((picture, curve, point) for picture in pictures for curve in curves for point in curve.points)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _patch_fid_tasks(plan: Plan, patch_fid: PatchFid, source: Path, folder: Path, records: Records) -> list[_Maker]:
    """Return what makes the tasks of patch-FID: features of originals, features of decoded pictures, and distances."""

    def features(curve: Curve, point: Point, picture: Picture) -> tuple[Path, Path]:
        work = curve.work(point, picture, source, folder)
        return _features(work.stem, _name(work.decoded, folder), folder)

    def of_original(curve: Curve, point: Point, picture: Picture) -> _Task | None:
        path, _ = features(curve, point, picture)
        return _Task(_name(path, folder), stages.save_features, (source / picture.name, path, patch_fid))

    def of_decoded(curve: Curve, point: Point, picture: Picture) -> _Task | None:
        work, (_, path) = curve.work(point, picture, source, folder), features(curve, point, picture)
        record = records.get(_name(work.decoded, folder))
        if record is None or "error" in record:
            return None
        return _Task(_name(path, folder), stages.save_features, (work.decoded, path, patch_fid))

    def distance(curve: Curve, point: Point, picture: Picture) -> _Task | None:
        if picture is not plan.pictures[0]:  # it is one of all pictures
            return None
        works = [curve.work(point, one, source, folder) for one in plan.pictures]
        works = [work for work in works if not _error(_found(work, plan, folder, records))]
        decoded = [_name(work.decoded, folder) for work in works]
        pairs = [_features(work.stem, name, folder) for work, name in zip(works, decoded, strict=True)]
        name = _name_of_set(patch_fid, curve.name, point.label, decoded)
        return _Task(name, stages.compare_sets, (pairs, patch_fid)) if pairs else None

    return [of_original, of_decoded, distance]


def _name_of_set(patch_fid: PatchFid, curve: str, label: str, decoded: Sequence[str]) -> str:
    """Return the name of a number of several pictures, of which it says which ones: one that failed may come later."""
    members = hashlib.sha256(json.dumps(decoded).encode()).hexdigest()
    return f"{patch_fid.name} of {curve}/{label}, pictures {members[:16]}"


def _features(stem: str, decoded: str, folder: Path) -> tuple[Path, Path]:
    """Return where the features of an original and of its decoded picture are kept."""
    return folder / "features" / "original" / f"{stem}.npy", folder / "features" / Path(decoded).with_suffix(".npy")


def _found(work: stages.Work, plan: Plan, folder: Path, records: Records) -> list[dict[str, Any]]:
    """Return the records of one picture at one rate: encoding, decoding, measuring, and those of its features."""
    decoded = _name(work.decoded, folder)
    names = [_name(work.file, folder), decoded, f"metrics of {decoded}"]
    if plan.patch_fid is not None:
        names += [_name(path, folder) for path in _features(work.stem, decoded, folder)]
    return [records.get(name) or {} for name in names]


def _error(found: Sequence[dict[str, Any]]) -> str | None:
    """Return the reason why a picture could not be done, None if it could."""
    return next((record["error"] for record in found if "error" in record), None)


def _add_patch_fid(point: dict[str, Any], patch_fid: PatchFid, record: dict[str, Any] | None) -> None:
    """Put the number of a set into the mean of a point, or among what failed."""
    if record and "error" in record:
        point["failed"] = {**point.get("failed", {}), patch_fid.title: record["error"]}
    else:
        point["mean"] |= record or {}


def _compare_allocated(
    curve: dict[str, Any], pictures: Sequence[Picture], patch_fid: PatchFid, folder: Path, records: Records
) -> None:
    """Measure patch-FID at rates of the whole set, from the features of each picture at its level."""
    stems = {picture.name: picture.stem for picture in pictures}
    for point in curve["points"]:
        name = _name_of_set(patch_fid, curve["name"], point["label"], [row["decoded"] for row in point["images"]])
        if records.get(name) is None:
            pairs = [_features(stems[row["name"]], row["decoded"], folder) for row in point["images"]]
            records.add(name, stages.compare_sets(pairs, patch_fid))
        _add_patch_fid(point, patch_fid, records.get(name))


def _assemble(plan: Plan, request: Request, source: Path, folder: Path, records: Records) -> dict[str, Any]:
    """Return curves and metrics for the results."""
    table = request.table()
    curves = []
    for curve in plan.curves:
        points, memory = [], {}
        for point in curve.points:
            rows, num_pixels, failed = [], [], {}
            for picture in plan.pictures:
                work = curve.work(point, picture, source, folder)
                found = _found(work, plan, folder, records)
                for stage, record in zip(("encode", "decode"), found, strict=False):
                    memory[stage] = max(memory.get(stage, 0), record.get("peak_memory_bytes", 0))
                if error := _error(found):
                    failed[picture.name] = error
                    continue
                num_pixels.append(picture.width * picture.height)
                row = results.row_of(num_pixels[-1], *found[:3])
                paths = {"decoded": _name(work.decoded, folder)}
                paths |= {"file": _name(work.file, folder)} if "bytes" in row else {}
                rows.append({"name": picture.name, **row, **paths})
            mean = results.mean_of(rows, num_pixels, table) if rows else {"num_images": 0}
            one = {"label": point.label, "settings": dict(point.settings), "mean": mean, "images": rows}
            points.append(one | ({"failed": failed} if failed else {}))
            if plan.patch_fid is not None:
                decoded = [row["decoded"] for row in rows]
                record = records.get(_name_of_set(plan.patch_fid, curve.name, point.label, decoded))
                _add_patch_fid(points[-1], plan.patch_fid, record)
        about = {**curve.about, **({"peak_memory_bytes": memory} if curve.kind == "model" else {})}
        curves.append({"name": curve.name, "kind": curve.kind, "title": curve.title, "about": about, "points": points})
    if not any(point["images"] for curve in curves for point in curve["points"]):
        name, reason = next(iter(curves[0]["points"][0]["failed"].items()))
        raise WorkError(f"no picture could be measured; the first of {len(plan.pictures)}: {name}: {reason}")
    # The rates of the set are not part of the plan, because they need no work: others can be asked for later.
    sizes = {picture.name: picture.width * picture.height for picture in plan.pictures}
    models = [curve for curve in curves if curve["kind"] == "model"] if request.set_rates else []
    for model in models:
        allocated = allocated_curve(model, request.set_rates, sizes, table)
        curves.insert(curves.index(model) + 1, allocated)
        if plan.patch_fid is not None:
            _compare_allocated(allocated, plan.pictures, plan.patch_fid, folder, records)
    metrics = results.describe_metrics([*table, *([plan.patch_fid] if plan.patch_fid else [])])
    return {
        "protocol": results.PROTOCOL,
        "images": [
            {key: value for key, value in picture._asdict().items() if key != "stem"} for picture in plan.pictures
        ],
        "failed": dict(plan.unreadable),
        "metrics": metrics,
        "not_measured": [
            {"name": name, "title": title, "reason": reason} for name, (title, reason) in plan.not_measured.items()
        ],
        "curves": curves,
        "bd": bd_rows(curves, metrics, len(plan.pictures)),
        "dial": dial_rows(curves),
    }
