import pytest

from cod_jax.training.decoding_choice import choose_decoding

SETTINGS = {"num_sampling_steps": 25, "guidance_scale": 3.0}
SERVES = {
    "psnr_one_step": 25.0,
    "psnr_sampled": 22.0,
    "texture": 10.0,
    "texture_one_step": 5.0,
    "texture_sampled": 9.0,
}


def test_sampling_with_more_texture_at_the_cost_of_a_sample_serves():
    choice = choose_decoding(SETTINGS, SERVES)
    assert (choice.steps, choice.guidance) == (25, 3.0)
    assert "22.00 dB and 90% of the texture, one step 25.00 dB and 50%" in choice.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"psnr_sampled": 20.0},  # garish
        {"texture_sampled": 40.0},  # noise
        {"texture_sampled": 0.0, "texture_one_step": 0.0},  # both are grey
    ],
)
def test_sampling_that_was_not_trained_long_enough_gives_one_step(changes):
    assert choose_decoding(SETTINGS, {**SERVES, **changes}).steps is None


@pytest.mark.parametrize("missing", ["psnr_sampled", "texture"])
def test_what_was_not_measured_gives_one_step(missing):
    measured = {name: value for name, value in SERVES.items() if name != missing}
    assert choose_decoding({}, measured) == (None, None, "no validation measured more steps")


def test_one_sampling_step_in_validation_gives_one_step():
    assert choose_decoding({**SETTINGS, "num_sampling_steps": 1}, SERVES).steps is None
