"""Whether a model can be a teacher, and be guided, as its training tells."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cod_jax.errors import UserError

# Objectives, and a class of the published code, of models that decode in one step and nothing else.
_ONE_STEP_OBJECTIVES = ("one_step", "distill")
_ONE_STEP_CLASS = "OneStepCoD"


class Abilities(NamedTuple):
    """What a model can do: everything, if nothing is known about its training.

    Attributes:
        samples: Predicts pictures from any amount of noise, as a sampler and a teacher must.
        knows_null: Does so without a condition too, which classifier-free guidance needs.
    """

    samples: bool
    knows_null: bool


def abilities(training: Mapping[str, Any]) -> Abilities:
    """Return what a model can do.

    Args:
        training: Facts of its training. They are not part of the model's fingerprint, so they may be anything. Those of
            a network for texture that was trained by itself are in "texture".
    """
    found = [objective for facts in (training, training.get("texture")) if (objective := _objective(facts)) is not None]
    sampling = [one for one in found if one.get("kind", "pretrain") not in _ONE_STEP_OBJECTIVES]
    samples = training.get("class") != _ONE_STEP_CLASS and (bool(sampling) or not found)
    return Abilities(samples, all(map(_knows_null, sampling or found)))


def check_teacher(training: Mapping[str, Any], guidance_scale: float, where: str) -> None:
    """Refuse a model as the teacher of distribution matching if the facts of its training say that it cannot be one.

    Args:
        training: Facts of its training.
        guidance_scale: Guidance of the teacher.
        where: What names the model, for messages.

    Raises:
        UserError: It is a one-step codec, or is to be guided and cannot be.
    """
    learned = abilities(training)
    if not learned.samples:
        raise UserError(
            f"{where} must be a diffusion model, got a one-step codec, which has not learned to sample; give a "
            "pre-trained CoD or CoD-Lite"
        )
    if guidance_scale != 1 and not learned.knows_null:
        raise UserError(
            f"expected guidance_scale 1 of {where}, which has not learned pictures without a condition, got "
            f"{guidance_scale:g}; set guidance_scale to 1, or give another teacher"
        )


def _objective(facts: Any) -> Mapping[str, Any] | None:
    match facts:
        case {"config": {"objective": {**objective}}}:
            return objective
    return None


def _knows_null(objective: Mapping[str, Any]) -> bool:
    from_scratch = objective.get("kind") == "one_step" and objective.get("lora_rank") == 0
    return not from_scratch and objective.get("null_condition_probability") != 0
