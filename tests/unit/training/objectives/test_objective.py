"""Which parameters train."""

import pytest

from cod_jax.errors import UserError
from cod_jax.models import flatten_params
from cod_jax.training.objectives.adaptation import without_frozen
from cod_jax.training.objectives.objective import Objective, ObjectiveContext
from cod_jax.training.objectives.pretrain import Pretrain, PretrainConfig
from tests.model_fixtures import tiny_model_config
from tests.objective_fixtures import one_step


def _pretrain(**fields) -> Objective:
    return Pretrain(PretrainConfig(**fields), ObjectiveContext(tiny_model_config()))


@pytest.mark.parametrize("make", [_pretrain, lambda **fields: one_step(lora_rank=0, **fields)])
def test_frozen_parameters_do_not_train(make):
    (update,) = make(freeze=("codec/*", "denoiser/blocks/*")).updates
    names = set(flatten_params(make().axes))
    frozen = {name for name in names if name.startswith(("model/codec/", "model/denoiser/blocks/"))}
    assert frozen
    assert set(update.trains) == names - frozen


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("codek/*",), "objective.freeze: no parameter that trains is named 'codek/\\*'; expected a pattern such as"),
        (("codec/*", "codec/decoder/*"), "no parameter that trains is named 'codec/decoder/\\*'"),
        (("*",), "objective.freeze names all parameters of the model; leave some to train"),
    ],
)
def test_patterns_without_use_are_refused(patterns: tuple[str, ...], message: str):
    names = ("model/codec/encoder/kernel", "model/denoiser/out/kernel", "heads/reconstruction/kernel")
    with pytest.raises(UserError, match=message):
        without_frozen(names, patterns)


def test_patterns_may_name_the_same_parameters():
    names = ("model/codec/encoder/kernel", "model/denoiser/out/kernel", "heads/reconstruction/kernel")
    assert without_frozen(names, ("codec/*", "codec/encoder/*", "codec/*")) == names[1:]
