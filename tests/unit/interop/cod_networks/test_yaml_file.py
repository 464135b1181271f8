"""Networks that YAML files describe."""

import time

import pytest
import yaml

from cod_jax.errors import UserError
from cod_jax.interop.cod_networks.description import PublishedNetwork, published_decoding, reference_config
from cod_jax.interop.cod_networks.yaml_file import MAX_YAML_BYTES, read_network
from cod_jax.models import PixNerDiTConfig
from tests.published_networks import LITE_ARGUMENTS, PIXEL_ARGUMENTS, write_yaml


def test_arguments_that_do_not_change_the_network_are_passed_over(tmp_path):
    more = {"fix_encoder": True, "net_ckpt_path": None, "pretrain_prefix": "net.", "teacher": {"class_path": "a.B"}}
    path = write_yaml(tmp_path / "a.yaml", "main_stage1.FinetunedOneStepCoD", {**LITE_ARGUMENTS, **more}, "net")
    assert read_network(path) == PublishedNetwork("OneStepCoD", {**LITE_ARGUMENTS, "noise_level": 0.0}, None)
    assert published_decoding(read_network(path)).num_steps == 1


def test_the_file_of_one_step_cod_names_its_prefix_and_no_class(tmp_path):
    arguments = dict(PIXEL_ARGUMENTS)
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"ckpt_prefix": "student.", "model": {"init_args": arguments}}))
    network = read_network(path)
    assert network == PublishedNetwork("OneStepCoD", arguments, "student.")
    assert isinstance(reference_config(network.class_name, network.init_args).denoiser, PixNerDiTConfig)
    del arguments["num_groups"]
    path.write_text(yaml.safe_dump({"ckpt_prefix": "student.", "model": {"init_args": arguments}}))
    assert read_network(path).init_args["num_groups"] == 12


def test_anchors_and_saved_keyword_arguments(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "model:\n  denoiser:\n    class_path: cod.models.pixel_dit.PixNerDiT\n    init_args:\n"
        "      hidden_size: &hidden 1152\n    dict_kwargs: {ds: 32}\n  trainer: {dim: *hidden}\n"
    )
    assert read_network(path).init_args == {"hidden_size": 1152, "ds": 32}


# Each level repeats the one before nine times: half a kilobyte that stands for gigabytes.
LEVELS = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
MERGES = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10))]
DCONV_WITH = "model: {denoiser: {class_path: a.DConv, init_args: {num_blocks: 6, num_cond_blocks: 4, pred: %s}}}"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([*LEVELS, DCONV_WITH % "*a9"]),
        "\n".join([*MERGES, DCONV_WITH % "*a9"]),
        "a: &a [*a]",
        "a: &a {b: *a}",
    ],
)
def test_repeated_lists_and_mappings_are_refused(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml: cannot be read as YAML \(it repeats a list or mapping by \*name"):
        read_network(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text",
    [
        f"b: &b {'x' * 10_000}\n" + DCONV_WITH % f"[{', '.join(['*b'] * 1000)}]",
        DCONV_WITH % ("x" * 10_000),
        DCONV_WITH % ("[" * 50 + "]" * 50),
        DCONV_WITH % f"x, ? {'y' * 10_000} : 1",
        DCONV_WITH % f"0x{'f' * 10_000}",
        DCONV_WITH % f"x, hidden_size: {'1' * 4000}",
        f"model: {{denoiser: {{class_path: a.{'B' * 10_000}}}}}",
    ],
)
def test_values_of_a_file_are_cut_short_in_messages(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    network = read_network(tmp_path / "a.yaml")
    with pytest.raises(
        ValueError, match=r"expects pred to be|no argument y|hidden_size to be at most 1000000, got 1+\.\.\.1+|class 'B"
    ) as error:
        reference_config(network.class_name, network.init_args)
    assert len(str(error.value)) < 400


def test_long_files_are_refused_unread(tmp_path):
    (tmp_path / "a.yaml").write_text("#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(ValueError, match="at most 16384 bytes, got 16385"):
        read_network(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "1:" * 180 + "1.5",
        "1:1e400",
        "-._",
        "0b_",
        "+_1",
        "0_8",
        "9999-99-99",
        "2001-12-14 21:59:43 +99:99",
        "!!binary x",
        "!!timestamp x",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!python/object:os.system {}",
        "[" * 5000,
        "{{[]: 1}: 2}",
    ],
)
def test_values_that_yaml_cannot_make_are_refused(value, tmp_path):
    (tmp_path / "a.yaml").write_text(f"a: {value}\n{DCONV_WITH % 'x'}")
    try:
        read_network(tmp_path / "a.yaml")  # some are text
    except UserError as error:
        assert "cannot be read as YAML" in str(error)  # noqa: PT017
        assert len(str(error)) < 800  # noqa: PT017


def test_the_slowest_yaml_takes_little_time(tmp_path):
    for text in ("[" * MAX_YAML_BYTES, "!!set {" + "a," * (MAX_YAML_BYTES // 2 - 4) + "}", "a: " + "1:" * 8000 + "1"):
        (tmp_path / "a.yaml").write_text(text)
        start = time.process_time()
        with pytest.raises(UserError):
            read_network(tmp_path / "a.yaml")
        assert time.process_time() - start < 3
