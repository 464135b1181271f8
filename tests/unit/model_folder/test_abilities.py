"""What a model has learned, by facts that may be anything."""

import json
from typing import Any

import pytest

from cod_jax.errors import UserError
from cod_jax.model_folder.abilities import Abilities, abilities, check_teacher
from cod_jax.model_folder.included import model_path

FLOW = {"kind": "pretrain", "null_condition_probability": 0.1}
ALONE = {"kind": "pretrain", "null_condition_probability": 0.0}
FROM_SCRATCH = {"kind": "one_step", "lora_rank": 0}


def trained(objective: Any) -> dict[str, Any]:
    return {"config": {"objective": objective}}


@pytest.mark.parametrize(
    ("facts", "samples", "knows_null"),
    [
        ({}, True, True),
        ({"config": None, "texture": 3}, True, True),
        (trained(["anything"]), True, True),
        ({"class": "PixNerDiT"}, True, True),
        ({"class": "OneStepCoD"}, False, True),
        (trained(FLOW), True, True),
        (trained({}), True, True),  # of the first version
        (trained({"kind": "my_package:Mine"}), True, True),
        (trained(ALONE), True, False),
        (trained(FROM_SCRATCH), False, False),
        (trained({"kind": "one_step", "lora_rank": 32}), False, True),
        (trained({"kind": "distill"}), False, True),
        ({**trained(FROM_SCRATCH), "texture": trained(ALONE)}, True, False),
    ],
)
def test_the_facts_of_its_training_tell_what_a_model_has_learned(facts, samples: bool, knows_null: bool):
    assert abilities(facts) == Abilities(samples, knows_null)


def test_the_included_model_is_a_teacher_without_guidance():
    facts = json.loads((model_path("compact") / "model.json").read_text())["training"]
    assert abilities(facts) == Abilities(samples=True, knows_null=False)
    check_teacher(facts, 1.0, "the teacher")
    for scale in (0.0, 3.0):
        with pytest.raises(UserError, match=f"expected guidance_scale 1 of the teacher, .*, got {scale:g}; set guid"):
            check_teacher(facts, scale, "the teacher")
