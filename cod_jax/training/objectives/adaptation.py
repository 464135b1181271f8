"""Which parameters of a model train: all, without those that are frozen, or low-rank adaptations in their place."""

import fnmatch
from collections.abc import Iterable, Sequence

import jax

from cod_jax.errors import UserError
from cod_jax.models.fields import require
from cod_jax.models.functional import Functional, Params
from cod_jax.models.lora import adapted_names, init_lora, lora_axes, merge


class Adaptation:
    """Low-rank adaptations that train in place of some kernels of a model; without kernels there is nothing to add.

    Args:
        functional: The model.
        names: Flat names of the kernels, such as those of `named_layers`.
        rank: Rank of every adaptation.
        alpha: Scale of the adaptations times their rank.

    Attributes:
        axes: Logical axis names of the adaptations as {"lora": ...}, or {} without any.
    """

    def __init__(self, functional: Functional, names: Sequence[str], rank: int, alpha: float):
        self._shapes, self._names, self._rank, self._scale = functional.shapes, names, rank, alpha / max(rank, 1)
        lora = jax.eval_shape(lambda key: init_lora(key, self._shapes, names, rank), jax.random.key(0))
        # A checkpoint has no place for an empty part.
        self.axes: Params = {"lora": lora_axes(functional.axes, lora)} if lora else {}

    def init(self, key: jax.Array) -> Params:
        """Return fresh adaptations, which add nothing, as {"lora": ...}, or {} without any."""
        return {"lora": init_lora(key, self._shapes, self._names, self._rank)} if self._names else {}

    def merged(self, params: Params) -> Params:
        """Return the model's parameters with the adaptations added.

        Args:
            params: {"model": ..., "lora": ...}, other parts of the parameters are ignored.
        """
        return merge(params["model"], params.get("lora", {}), self._scale)

    def trained(self, names: Iterable[str]) -> list[str]:
        """Return names of parameters without the kernels, which stay because their adaptations train."""
        kernels = {f"model/{name}" for name in self._names}
        return [name for name in names if name not in kernels]


def named_layers(shapes: Params, patterns: Sequence[str], *, exclude: Sequence[str] = ()) -> list[str]:
    """Return the flat names of the kernels of some layers.

    Args:
        shapes: Parameters of the model or their shapes, nested.
        patterns: Shell-style patterns of names of layers, such as "denoiser/*" or "*/mlp_in".
        exclude: Patterns of parameters that are left out.

    Raises:
        UserError: A pattern names no linear map.
    """
    kernels = adapted_names(shapes, exclude)

    def named(pattern: str) -> set[str]:
        return {name for name in kernels if any(fnmatch.fnmatchcase(one, pattern) for one in (name, _layer(name)))}

    found = {pattern: named(pattern) for pattern in patterns}
    if nothing := [repr(pattern) for pattern, names in found.items() if not names]:
        parts = sorted({"/".join(name.split("/")[:2]) for name in kernels})
        raise UserError(
            f"objective.lora_layers: no linear map is named {' or '.join(nothing)}; expected patterns such as "
            f"'denoiser/*'; linear maps are in {', '.join(parts)}"
        )
    return [name for name in kernels if any(name in names for names in found.values())]


def check_lora(rank: int, layers: Sequence[str]) -> None:
    """Check that the layers to adapt and a rank are given together.

    Raises:
        ValueError: One is missing.
    """
    require(rank > 0 or not layers, f"lora_rank must be at least 1 with lora_layers, got {rank}")
    require(
        bool(layers) or rank == 0,
        f"lora_layers must name the layers that get adaptations of rank {rank}, such as ('denoiser/*',), got nothing",
    )


def without_frozen(names: Iterable[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of parameters that train, which are those that no pattern names.

    Args:
        names: Names of parameters, as `flatten_params` gives them; the model's begin with "model/".
        patterns: Shell-style patterns of the model's names without "model/", such as "codec/*". Adaptations train
            whatever the patterns are.

    Raises:
        UserError: A pattern names no parameter, or nothing is left to train.
    """
    names = list(names)
    frozen: set[str] = set()
    for pattern in patterns:
        named = fnmatch.filter(names, f"model/{pattern}")
        if not named:
            of_model = sorted({"/".join(name.split("/")[1:3]) for name in names if name.startswith("model/")})
            raise UserError(
                f"objective.freeze: no parameter that trains is named {pattern!r}; expected a pattern such as "
                f"{of_model[0] + '/*'!r}; the model's parts are {', '.join(of_model)}"
            )
        frozen.update(named)
    trained = tuple(name for name in names if name not in frozen)
    if not any(name.startswith(("model/", "lora/")) for name in trained):
        raise UserError("objective.freeze names all parameters of the model; leave some to train")
    return trained


def _layer(name: str) -> str:
    return name.removesuffix("/kernel")
