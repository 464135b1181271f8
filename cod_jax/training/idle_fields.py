"""Fields without effect: a setting that nothing would read is refused, so that nobody waits for its effect."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cod_jax.errors import UserError
from cod_jax.training.config import flatten
from cod_jax.training.field_names import PREFIX, field_of


class Idle(NamedTuple):
    """Fields that have no effect under a condition.

    Attributes:
        fields: Their dotted names.
        condition: The condition in words.
        holds: Whether it holds, given settings by dotted name. A setting that is missing gives None.
    """

    fields: tuple[str, ...]
    condition: str
    holds: Callable[[Callable[[str], Any]], bool]


# Details of what a run switches off on purpose, such as validation.num_images=0, are not mistakes and have no rule.
RULES = (
    Idle(("data.min_scale",), "with data.crop=center", lambda get: get("data.crop") == "center"),
    Idle(("data.min_scale",), "with data.crop=random", lambda get: get("data.crop") == "random"),
    Idle(
        ("objective.lora_alpha", "objective.lora_layers", "objective.adapt_pixel_condition"),
        "while objective.lora_rank is 0",
        lambda get: get("objective.lora_rank") == 0,
    ),
    Idle(
        ("objective.adapt_pixel_condition",),
        "with objective.lora_layers, which names all layers to adapt",
        lambda get: bool(get("objective.lora_layers")),
    ),
    Idle(
        ("objective.bottleneck.level_balance",),
        "with a single quality level",
        lambda get: len(get("objective.bottleneck.rate_weights") or ()) == 1,
    ),
    Idle(
        ("data.validation_modulus",),
        "with data.validation_source, which is all that is held out",
        lambda get: bool(get("data.validation_source")),
    ),
    Idle(
        ("validation.num_sampling_steps", "validation.guidance_scale"),
        "on objectives of one-step codecs",
        lambda get: get("objective.kind") in ("one_step", "distill"),
    ),
    Idle(
        ("objective.alignment_block",),
        "while objective.feature_alignment_weight is 0",
        lambda get: get("objective.feature_alignment_weight") == 0,
    ),
    Idle(
        ("objective.reconstruction.alignment_block",),
        "while objective.reconstruction.feature_alignment_weight is 0",
        lambda get: get("objective.reconstruction.feature_alignment_weight") == 0,
    ),
    Idle(
        ("objective.one_step_noise_level",),
        "while objective.one_step_weight and objective.one_step_fraction are 0",
        lambda get: get("objective.one_step_weight") == get("objective.one_step_fraction") == 0,
    ),
    Idle(
        ("objective.bottleneck.revive_usage",),
        "while objective.bottleneck.revive_codes_every is 0",
        lambda get: get("objective.bottleneck.revive_codes_every") == 0,
    ),
    Idle(
        tuple(
            f"objective.bottleneck.{name}"
            for name in ("commitment_weight", "revive_codes_every", "revive_usage", "rate_weight")
        ),
        "in a distillation, which does not train the bottleneck",
        lambda get: get("objective.kind") == "distill",
    ),
)


def check_effects(stages: Sequence[Mapping[str, Any]], changes: Iterable[str]) -> None:
    """Refuse to change a field that has no effect in any stage.

    Only what a command changes is looked at: a config file gives every field a value.

    Args:
        stages: Settings of each stage, changed.
        changes: Arguments of the trainer.

    Raises:
        UserError: A field has no effect.
    """
    flat = [flatten(settings) for settings in stages]
    for field in (field_of(argument) for argument in changes if argument.startswith("--")):
        reasons = [
            next((rule.condition for rule in RULES if field in rule.fields and rule.holds(settings.get)), None)
            for settings in flat
            if field in settings
        ]
        if reasons and None not in reasons:
            raise UserError(f"--{PREFIX}{field} has no effect {reasons[0]}; leave it out")
