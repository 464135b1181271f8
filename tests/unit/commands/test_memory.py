import jax
import pytest

from cod_jax.commands.main import main
from cod_jax.commands.memory import _describe, _duration
from cod_jax.parallel import AXES, MeshConfig, abstract_mesh
from cod_jax.parallel.collectives import Traffic
from cod_jax.training.config import TrainConfig
from cod_jax.training.memory import Step
from cod_jax.training.plan import make_plan
from configs import base, pixel, tiny
from tests.training_fixtures import CONFIG


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    jax.devices()  # the devices of the tests come first: the command sets the variables for a process of its own
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_bytes_per_device_are_those_of_the_shapes(capsys):
    assert main(["memory", f"--config={CONFIG}", "--mesh", "1x1x1", "1x4x1"]) == 0
    header, _, whole, split = rows(capsys.readouterr().out)
    assert header == ["mesh", "devices", "parameters", "average", "optimizer", "frozen", "total"]
    plan = make_plan(TrainConfig.from_dict(tiny.get_config().to_dict()), abstract_mesh(MeshConfig(1, 1, 1)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(plan.shapes.params)) * 4
    assert whole[2] == f"{parameters / 2**20:,.1f}"
    assert float(whole[4]) == pytest.approx(2 * float(whole[2]), abs=0.1)
    assert float(whole[2]) / 4 <= float(split[2]) < float(whole[2]) / 2


def test_xl_fits_256_devices_by_shape_alone():
    config = pixel.get_config("2")
    base.apply(config, {"mesh.data": 8, "mesh.fsdp": 32, "batch_size": 256})
    plan = make_plan(TrainConfig.from_dict(config.to_dict()), abstract_mesh(MeshConfig(8, 32, 1)))
    kernel = plan.shardings.params["model"]["denoiser"]["blocks"]["block"]["modulation"]["kernel"]
    assert kernel.shard_shape((26, 1152, 6912)) == (26, 36, 6912)
    assert kernel.mesh.axis_names == AXES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh", "1x8"], "expected data x fsdp x tensor, such as 1x8x1, got '1x8'"),
        (["--mesh", "0x1x1"], "at least one device"),
        (["--on", "NVIDIA H200"], "--on needs the compiled step; add --compile"),
        (["--efficiency", "0"], "expected a number above 0 and at most 1, got '0'"),
        (["--efficiency", "-0.4"], "expected a number above 0 and at most 1, got '-0.4'"),
        (["--efficiency", "40"], "expected a number above 0 and at most 1, got '40'"),
        (["--efficiency", "nan"], "expected a number above 0 and at most 1, got 'nan'"),
        (["--on", "Abacus", "--compile"], "expected --on to be one of NVIDIA A100, "),
        (["--steps", "3"], "unrecognized arguments: --steps"),
        (["--config.batch_siz=3"], "did you mean --config.batch_size"),
        (
            ["--config.objective.teacher=x"],
            "unknown field --config.objective.teacher; configs/base.py lists",
        ),
    ],
)
def test_unusable_arguments_are_refused(arguments, message, capsys):
    assert main(["memory", f"--config={CONFIG}", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_time_of_a_step_follows_from_its_products_and_what_it_sends(capsys):
    # 8 devices of 989e12 operations per second at 40 %, and 450e9 bytes per second.
    step = Step(2**20, [Traffic("all-gather", 3, 9 * 10**9), Traffic("all-reduce", 1, 9 * 10**8)], 8 * 989e12 * 0.04)
    _describe((1, 8, 1), step, "NVIDIA H200", 0.4, 86_400_000)
    sent, predicted = capsys.readouterr().out.splitlines()
    assert sent == (
        "1x8x1: each device sends 9,441.4 MiB in a step (3 all-gather 8,583.1, 1 all-reduce 858.3); "
        "3,996 operations per byte sent"
    )
    assert predicted == (
        "1x8x1 of NVIDIA H200: 0.1 s of products at 40 % of their peak and 0.022 s of sending, so 0.1 to 0.122 s a "
        "step, 100 days to 122 days for 86,400,000 steps"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0234, "0.0234 s"), (90.0, "90 s"), (9000.0, "2.5 hours"), (1e6, "11.6 days"), (1e8, "1,157 days")],
)
def test_durations_are_in_units_for_people(seconds, text):
    assert _duration(seconds) == text


def test_a_mesh_that_cannot_share_the_batch_is_named(capsys):
    arguments = ["--mesh", "3x1x1", "2x1x1", "4x1x1", "--config.batch_size=8", "--config.accumulation_steps=4"]
    assert main(["memory", f"--config={CONFIG}", *arguments]) == 0
    first, second = [line for line in capsys.readouterr().out.splitlines() if "a run would end" in line]
    assert first.startswith(
        "3x1x1: a run would end: expected batch_size / accumulation_steps to be a multiple of the 3"
    )
    assert second.startswith("4x1x1: ")
