"""Entropy models: one file for each mode of `.cod` files, behind the interface of `model.py`.

To add one, write its file, put it in `ENTROPY_MODELS`, give its mode a number in `container.MODES`, and describe its
payload in docs/bitstream.md. Another package adds one by inheriting from `EntropyModel`; a model folder then names it
in its prior, and files have the mode "custom".
"""

from cod_jax.coding.entropy.context import ContextModel
from cod_jax.coding.entropy.factorized import ChannelTables, FactorizedModel
from cod_jax.coding.entropy.fixed import FixedLengthModel
from cod_jax.coding.entropy.model import EntropyModel, Tables
from cod_jax.coding.entropy.predictive import PredictiveModel
from cod_jax.coding.entropy.prior import Prior
from cod_jax.coding.entropy.static import StaticModel
from cod_jax.coding.symbols import SymbolFormat
from cod_jax.errors import UserError
from cod_jax.plugins import resolve

__all__ = [
    "ENTROPY_MODELS",
    "ChannelTables",
    "ContextModel",
    "EntropyModel",
    "FactorizedModel",
    "FixedLengthModel",
    "PredictiveModel",
    "Prior",
    "StaticModel",
    "SymbolFormat",
    "Tables",
    "entropy_models",
    "largest_tables",
]

# Of equal payloads the first one is taken, so the one with the least work comes first.
ENTROPY_MODELS: tuple[type[EntropyModel], ...] = (
    FixedLengthModel,
    StaticModel,
    ContextModel,
    FactorizedModel,
    PredictiveModel,
)


def entropy_models(symbols: SymbolFormat, prior: Prior | None) -> tuple[EntropyModel, ...]:
    """Return the entropy models of a model, the one with the least work first.

    Args:
        symbols: The symbols to code.
        prior: The tables of the model's folder, which may be untrusted; None where it has none.

    Raises:
        UserError: Nothing codes the symbols, a table cannot be used, or the entropy model is of another package, which
            is not trusted or not installed.
    """
    tables: Tables = prior.tables if prior else {}
    if prior and prior.kind:
        # Those of this package that need no tables are offered too.
        custom = resolve(prior.kind, EntropyModel, trusted=False)
        found = _offered(ENTROPY_MODELS, symbols, {}) + _offered((custom,), symbols, tables)
    else:
        found = _offered(ENTROPY_MODELS, symbols, tables)
    unused = sorted(set(tables) - {name for model in found for name in model.arrays()})
    if unused:
        raise UserError(f"the tables {', '.join(unused)} are unknown, or not those of {symbols}")
    if not found:
        raise UserError(f"no tables code the {symbols}; load the model with its prior")
    return found


def largest_tables(symbols: SymbolFormat) -> dict[str, int]:
    """Return by name how many numbers each table of this package's entropy models has at most."""
    largest: dict[str, int] = {}
    for model in ENTROPY_MODELS:
        for name, size in model.largest_tables(symbols).items():
            largest[name] = max(size, largest.get(name, 0))
    return largest


def _offered(
    classes: tuple[type[EntropyModel], ...], symbols: SymbolFormat, tables: Tables
) -> tuple[EntropyModel, ...]:
    offers = (each.from_tables(symbols, tables) for each in classes)
    return tuple(model for model in offers if model is not None)
