"""Fit the tables of modes "static" and "context" to grids of symbols.

Counts are frequencies. The context tables are the weights of logistic regressions, one at each node of the tree of
codes, on which symbols the neighbours are; they maximise the likelihood with a Gaussian prior on the weights. Fitting
may use floats, and may come out differently on another machine: what it makes is frozen as integers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cod_jax.coding.entropy import context
from cod_jax.coding.entropy.context import LOGIT_LIMIT, LOGIT_UNIT, MAX_CONTEXT_BITS, ContextModel
from cod_jax.coding.entropy.prior import Prior
from cod_jax.coding.entropy.static import StaticModel
from cod_jax.coding.range_coder import TOTAL
from cod_jax.errors import UserError

ITERATIONS = 40
# Inverse variances of the weights, found by trial on the symbols of a small model, and barely critical.
PAIR_PRECISION, BIAS_PRECISION = 3.0, 0.1
# Curvature is not taken to be smaller, where all is known already, so that steps stay small.
MIN_CURVATURE = 0.02
_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


def fit_prior(grids: Sequence[npt.NDArray[np.int32]], codebook: npt.NDArray[np.floating]) -> Prior:
    """Fit a prior.

    Args:
        grids: Symbols of pictures [h, w, 1], of equal or different sizes; the more the better.
        codebook: Code vector of each symbol [K, channels], K a power of two; similar symbols get similar codes.

    Returns:
        The prior of mode "static", and of mode "context" for at most 256 symbols.

    Raises:
        UserError: There are no symbols.
    """
    size = len(codebook)
    occurrences = np.zeros(size)
    for grid in grids:
        occurrences += np.bincount(grid.reshape(-1), minlength=size)
    if not occurrences.any():
        raise UserError("there are no symbols to fit a prior to; give more pictures")
    static = StaticModel(_counts_out_of_total(occurrences + 0.5))
    if size > 2**MAX_CONTEXT_BITS:
        return Prior.of(static)

    codes = _codes_by_similarity(np.asarray(codebook, np.float64), occurrences + 1.0)
    bias = np.zeros((context.NUM_CLASSES, size), np.int16)
    pair = np.zeros((context.NUM_CLASSES, context.NUM_NEIGHBOURS, size + 1, size), np.int16)
    for kind, (neighbours, symbols) in enumerate(_observations([grid[..., 0] for grid in grids], size)):
        weights = _fit_class(neighbours, codes[symbols], size)
        bias[kind], pair[kind] = (_as_logits(values) for values in weights)
    centres = (np.arange(-LOGIT_LIMIT, LOGIT_LIMIT) + 0.5) / LOGIT_UNIT
    probabilities = np.clip(np.rint(TOTAL / (1 + np.exp(-centres))), 1, TOTAL - 1).astype(np.uint16)
    return Prior.of(static, ContextModel(codes, bias, pair, probabilities))


def _counts_out_of_total(frequencies: _Floats) -> npt.NDArray[np.int32]:
    """Round frequencies to counts of at least 1 that add up to 2^16."""
    spare = TOTAL - len(frequencies)
    shares = frequencies / frequencies.sum() * spare
    counts = np.floor(shares).astype(np.int32)
    largest_remainders = np.argsort(counts - shares, kind="stable")[: spare - int(counts.sum())]
    counts[largest_remainders] += 1
    return counts + 1


def _codes_by_similarity(codebook: _Floats, weights: _Floats) -> npt.NDArray[np.int32]:
    """Halve the codebook, and each half again, across the direction in which its vectors differ most."""
    codes = np.zeros(len(codebook), np.int32)

    def halve(symbols: _Indices, code: int) -> None:
        if len(symbols) == 1:
            codes[symbols] = code
            return
        centred = codebook[symbols] - np.average(codebook[symbols], axis=0, weights=weights[symbols])
        covariance = centred.T @ (centred * weights[symbols, None])
        direction = np.linalg.eigh(covariance).eigenvectors[:, -1]
        order = symbols[np.argsort(centred @ direction, kind="stable")]
        for bit, half in enumerate(np.split(order, 2)):
            halve(half, 2 * code + bit)

    halve(np.arange(len(codebook)), 0)
    return codes


def _observations(
    grids: Sequence[npt.NDArray[np.int32]], size: int
) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Neighbours [4, n] and symbols [n] of each class of batches."""
    found: list[list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]] = [[] for _ in range(context.NUM_CLASSES)]
    for grid in grids:
        bordered = context.with_border(grid, size)
        for batch in context.batches(*grid.shape):
            neighbours = np.stack([bordered[place].reshape(-1) for place in batch.neighbours])
            found[batch.kind].append((neighbours, grid[batch.place].reshape(-1)))
    none = (np.zeros((context.NUM_NEIGHBOURS, 0), np.int32), np.zeros(0, np.int32))
    return [
        (np.concatenate([n for n, _ in [none, *seen]], axis=1), np.concatenate([s for _, s in [none, *seen]]))
        for seen in found
    ]


def _fit_class(neighbours: npt.NDArray[np.int32], codes: npt.NDArray[np.int32], size: int) -> tuple[_Floats, _Floats]:
    """Fit the biases [K] and what the neighbours add to them [4, K + 1, K], in natural logits.

    Each step is Newton's for every weight alone, divided by how many weights a logit has: together these steps never
    go too far.
    """
    num_bits = size.bit_length() - 1
    shifts = np.arange(num_bits - 1, -1, -1)
    nodes = (size + codes[:, None] >> shifts + 1).reshape(-1)
    targets = (codes[:, None] >> shifts & 1).reshape(-1)
    places = [np.repeat(symbols, num_bits) * size + nodes for symbols in neighbours]
    bias, pair = np.zeros(size), np.zeros((len(places), (size + 1) * size))
    num_weights = 1 + len(places)

    def stepped(weights: _Floats, at: _Indices, errors: _Floats, curvatures: _Floats, precision: float) -> _Floats:
        gradient = np.bincount(at, errors, len(weights)) - precision * weights
        return weights + gradient / (num_weights * np.bincount(at, curvatures, len(weights)) + precision)

    for _ in range(ITERATIONS):
        logits = bias[nodes] + sum(weights[at] for weights, at in zip(pair, places, strict=True))
        ones = 1 / (1 + np.exp(-logits))
        errors, curvatures = targets - ones, np.maximum(ones * (1 - ones), MIN_CURVATURE)
        bias = stepped(bias, nodes, errors, curvatures, BIAS_PRECISION)
        for weights, at in zip(pair, places, strict=True):
            weights[:] = stepped(weights, at, errors, curvatures, PAIR_PRECISION)
    return bias, pair.reshape(len(places), size + 1, size)


def _as_logits(values: _Floats) -> npt.NDArray[np.int16]:
    return np.rint(np.clip(values * LOGIT_UNIT, -LOGIT_LIMIT, LOGIT_LIMIT)).astype(np.int16)
