import re

import pytest

from cod_jax.commands.train import read_arguments
from cod_jax.errors import UserError
from cod_jax.launch import hyper
from cod_jax.launch.plan import check_data, load_points, plan, point_names
from tests.sweep_fixtures import BITS, RATE


def test_values_are_written_as_the_trainer_reads_them(sweep_folder):
    values = "[1, 1e-5, True, 'two words', ('a', 1), ['a'], __import__('numpy').float32(0.5)]"
    points = load_points(sweep_folder.file(f"hyper.sweep('config.x', {values})"))
    assert [point["config.x"] for point in points] == ["1", "1e-05", "True", "two words", "('a', 1)", "('a',)", "0.5"]


def test_a_point_that_is_there_twice_is_taken_once(sweep_folder):
    points = load_points(sweep_folder.file("hyper.chainit([hyper.sweep(BITS, [4, 8]), hyper.sweep(BITS, [8, 6])])"))
    assert [point[BITS] for point in points] == ["4", "8", "6"]


def test_a_run_has_a_folder_and_all_settings(sweep_folder):
    (run,) = sweep_folder.runs("hyper.sweep(RATE, [0.1])", "--config.total_steps=5")
    assert run.workdir == sweep_folder.workdir / "learning_rate=0.1"
    assert run.settings["total_steps"] == 5
    assert run.settings["optimizer"]["learning_rate"] == 0.1
    assert run.trainer_arguments == [
        f"--config={sweep_folder.config}",
        "--config.total_steps=5",
        f"--{RATE}=0.1",
        f"--workdir={run.workdir}",
    ]


def test_folders_are_named_after_what_varies():
    points = hyper.product([hyper.sweep(BITS, ["4", "8"]), hyper.fixed("config.seed", "1"), hyper.sweep(RATE, ["0.1"])])
    assert point_names(points) == ["bits=4", "bits=8"]
    assert point_names(points[:1]) == ["bits=4,seed=1,learning_rate=0.1"]
    ends_alike = [{"config.log.every_steps": str(n), "config.checkpoint.every_steps": str(2 * n)} for n in (1, 2)]
    assert point_names(ends_alike) == [
        "log.every_steps=1,checkpoint.every_steps=2",
        "log.every_steps=2,checkpoint.every_steps=4",
    ]
    assert point_names([{"config.a": "1"}, {"config.a": "1", "config.b": "2"}, {}]) == ["a=1", "a=1,b=2", "default"]


def test_a_folder_that_version_0_1_named_goes_on(sweep_folder):
    old = sweep_folder.workdir / "codebook_bits=4,learning_rate=0.1"
    old.mkdir(parents=True)
    points = "hyper.product([hyper.sweep(BITS, [4, 8]), hyper.sweep(RATE, [0.1, 0.2])])"
    names = [run.workdir.name for run in sweep_folder.runs(points)]
    assert names == [old.name, "bits=4,learning_rate=0.2", "bits=8,learning_rate=0.1", "bits=8,learning_rate=0.2"]
    (sweep_folder.workdir / "bits=4,learning_rate=0.1").mkdir()
    assert sweep_folder.runs(points)[0].name == "bits=4,learning_rate=0.1"


def test_folder_names_are_safe_and_unique():
    values = ["a/b", "a b", "A B", "../x", "", "x" * 300, "x" * 301, "('a', 'b')", "$(rm)", "-1"]
    points = [{"config.x": value} for value in values]
    names = point_names(points)
    assert len({name.casefold() for name in names}) == len(values)
    assert all(re.fullmatch(r"x=[A-Za-z0-9._+,=~-]+", name) for name in names)
    assert max(map(len, names)) < 170
    assert names[-1] == "x=-1"
    assert names == point_names(points)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("hyper.sweep('optimizer.learning_rate', [1])", f"sets optimizer.learning_rate; write {RATE}, as on"),
        ("hyper.sweep(RATE, [None])", "as values, got None"),
        ("hyper.sweep('config.data.source', ['a\\nb'])", "a value of one line, got 'a\\nb'"),
        ("hyper.sweep(RATE, [])", f"cannot be used: {RATE} has no values"),
        ("hyper.cross([])", "cannot be used: AttributeError"),
        ("hyper.product([])", "gives no points"),
        ("[]", "gives no points"),
        ("5", "cannot be used: TypeError"),
    ],
)
def test_sweep_files_that_cannot_be_used_are_refused(sweep_folder, expression, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_points(sweep_folder.file(expression))


@pytest.mark.parametrize(
    ("expression", "extra", "message"),
    [
        ("hyper.sweep('config.optimizer.learning_rat', [1])", [], f"field --{RATE[:-1]}; did you mean --{RATE}?"),
        ("hyper.sweep(BITS, [4, 4.5])", [], "point bits=4.5: "),
        ("hyper.sweep(BITS, [4, 'x'])", [], "point bits=x: "),
        ("hyper.sweep('config.batch_size', [4, 0])", [], "point batch_size=0: config: batch_size must be at least 1"),
        ("hyper.sweep(RATE, [1])", [f"--{RATE}=2"], "is given after -- but the sweep sets it"),
        ("hyper.sweep(RATE, [1])", ["--workdir", "x"], "--workdir is an option of the sweep; give it before --"),
        ("hyper.sweep(RATE, [1])", ["--config.sed=2"], "unknown field --config.sed; did you mean"),
        ("hyper.sweep(RATE, [1])", ["photos"], "unrecognized arguments: photos; see cod train --help"),
    ],
)
def test_points_that_the_trainer_could_not_use_are_refused(sweep_folder, expression, extra, message):
    with pytest.raises(UserError, match=re.escape(message)):
        sweep_folder.runs(expression, *extra)


def test_missing_files_are_named(sweep_folder, tmp_path):
    with pytest.raises(UserError, match=r"there is no sweep file absent\.py"):
        load_points("absent.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"it does not define get_hyper\(hyper\)"):
        load_points(str(tmp_path / "empty.py"))
    with pytest.raises(UserError, match=r"there is no config file absent\.py"):
        plan([{RATE: "1"}], "absent.py", tmp_path, [], read_arguments)


@pytest.mark.parametrize(
    ("expression", "extra", "message"),
    [
        (
            "hyper.sweep(RATE, [0.1])",
            ["--config.data.source="],
            "point learning_rate=0.1 has no data.source; add -- ",
        ),
        ("hyper.sweep(RATE, [0.1])", ["--config.data.source=absent"], "absent does not exist; give a folder of images"),
        ("hyper.sweep('config.data.source', ['photos', 'empty'])", [], "empty holds no JPEG, PNG, "),
        ("hyper.sweep('config.data.validation_source', ['', 'photos', 'absent'])", [], "absent does not exist"),
    ],
)
def test_runs_without_images_are_refused(sweep_folder, tmp_path, monkeypatch, expression, extra, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises((UserError, OSError), match=re.escape(message)):
        check_data(sweep_folder.runs(expression, *extra), here=True)


def test_images_of_another_machine_and_datasets_are_left_to_the_trainer(sweep_folder):
    check_data(sweep_folder.runs("hyper.sweep(RATE, [0.1])", "--config.data.source=tfds:nothing"), here=True)
    check_data(sweep_folder.runs("hyper.sweep(RATE, [0.1])", "--config.data.source=absent"), here=False)
