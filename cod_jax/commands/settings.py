"""`cod settings`: list the options and the fields of a config file."""

import argparse

from cod_jax.commands import frame
from cod_jax.commands.frame import Command

EPILOG = """
examples:
  cod settings --config configs/pixel.py
  cod settings --config configs/pixel.py:2,size=114m
  cod settings --config configs/tiny.py:bottleneck=factorized --config.optimizer.learning_rate=1e-4

The fields are printed as arguments of cod train, with the values that a run would have. configs/base.py and
configs/presets.py say what they mean.
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:OPTIONS]", help="settings, as for cod train")


def _run(args: argparse.Namespace) -> int:
    from cod_jax.training.config import flatten
    from cod_jax.training.config_files import read_stages
    from cod_jax.training.config_list import describe, find_config
    from cod_jax.training.field_names import PREFIX

    path = args.config.partition(":")[0]
    stages = read_stages(args.config, args.settings)
    file = find_config(path)
    described = describe(file, path) if file else None
    if described:
        frame.say(f"{described.name}: {described.title}")
        if described.options:
            frame.say("options after the colon, separated by commas, the default first:")
        for choice in described.choices:
            frame.say(f"    {choice}")
    for stage, settings in stages.items():
        frame.say(f"fields{f' of stage {stage}' if stage else ''}:")
        for field, value in flatten(settings).items():
            frame.say(f"    {_argument(f'--{PREFIX}{field}', value)}")
    return frame.DONE


def _argument(name: str, value: object) -> str:
    text = str(value)
    return f'{name}="{text}"' if isinstance(value, tuple) or " " in text else f"{name}={text}"


COMMAND = Command(
    "list the options and fields of a config file", _add_options, _run, EPILOG, trainer_arguments="settings"
)
