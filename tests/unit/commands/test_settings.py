from cod_jax.commands.main import main
from tests.training_fixtures import CONFIG


def test_the_options_and_fields_of_a_config_are_listed(capsys):
    assert main(["settings", "--config", f"{CONFIG}:2", "--config.seed=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{CONFIG}: Tiny codecs")
    assert {"    1, 2, 3, all", "    kind=lite, pixel, latent", "fields:"} <= set(lines)
    assert {"    --config.seed=7", "    --config.total_steps=100"} <= set(lines)
    assert "    --config.init_fresh=\"('codec/decoder/output/1/*',)\"" in lines


def test_what_is_listed_can_be_given(capsys):
    assert main(["settings", "--config", f"{CONFIG}:all"]) == 0
    printed = capsys.readouterr().out
    assert [f"fields of stage {stage}:" in printed for stage in ("1", "2", "3")] == [True, True, True]


def test_an_unusable_config_is_one_line(capsys):
    assert main(["settings", "--config", f"{CONFIG}:colour=red"]) == 2
    assert "unknown option 'colour'" in capsys.readouterr().err
