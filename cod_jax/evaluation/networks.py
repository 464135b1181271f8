"""Metrics of pictures in the features of a network, whose weights are in files of its authors."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cod_jax.evaluation.metric_table import LastKept, Metric, Number, Picture

NO_WEIGHTS = "no weight files are given; name their folder with --weights"
# Patches that go through Inception-v3 at once. The last ones of a picture are filled up, so that one program does.
BATCH = 16


@dataclasses.dataclass(frozen=True)
class NetworkMetric(Metric):
    """The distance of two pictures in the features of a network.

    Attributes:
        load: Function of the folder that returns the parameters, such as `interop.load_dists`.
        folder: Folder of the weight files.
        weights_sha256: Of these files.
    """

    load: Callable[..., Any]
    folder: str
    weights_sha256: str | None = None

    @classmethod
    @abc.abstractmethod
    def build(cls, load: Callable[..., Any], folder: str) -> Callable[[Picture, Picture], Any]:
        """Return the distance as a function of two pictures [H, W, 3]."""

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the distance.

        Raises:
            UserError: A side is shorter than the network takes.
        """
        return float(_distance(type(self), self.load, self.folder)(original, decoded))


class LpipsAlex(NetworkMetric):
    """LPIPS v0.1 with AlexNet; its weights are loaded as those of the trunk "alex"."""

    name: ClassVar[str] = "lpips_alex"
    title: ClassVar[str] = "LPIPS-Alex"
    shown: ClassVar[str] = "LPIPS {:.4f}"
    description: ClassVar[str] = (
        "LPIPS v0.1 with AlexNet (Zhang et al. 2018) of the whole picture at its own resolution, values from -1 to 1, "
        "float32."
    )
    higher_is_better: ClassVar[bool | None] = False

    @classmethod
    def build(cls, load: Callable[..., Any], folder: str) -> Callable[[Picture, Picture], Any]:
        """Return the distance as a function of two pictures [H, W, 3]."""
        from cod_jax.features.lpips import LPIPS
        from cod_jax.features.trunk import ALEXNET

        call = _compiled(lambda rngs: LPIPS(ALEXNET, dtype="float32", rngs=rngs), load(folder, "alex"))

        def distance(original: Picture, decoded: Picture) -> Any:
            pair = (picture[None].astype(np.float32) / np.float32(127.5) - 1 for picture in (original, decoded))
            return call("distance", *pair)[0]

        return distance


class Dists(NetworkMetric):
    """DISTS."""

    name: ClassVar[str] = "dists"
    title: ClassVar[str] = "DISTS"
    shown: ClassVar[str] = "DISTS {:.4f}"
    description: ClassVar[str] = (
        "DISTS (Ding et al. 2020) of the whole picture at its own resolution, values from 0 to 1, float32. The "
        "authors' command line makes larger pictures smaller first, which gives other numbers."
    )
    higher_is_better: ClassVar[bool | None] = False

    @classmethod
    def build(cls, load: Callable[..., Any], folder: str) -> Callable[[Picture, Picture], Any]:
        """Return the distance as a function of two pictures [H, W, 3]."""
        from cod_jax.features.dists import DISTS

        call = _compiled(lambda rngs: DISTS(dtype="float32", rngs=rngs), load(folder))

        def features(picture: Picture) -> Any:
            return call("features", picture[None].astype(np.float32) / np.float32(255))

        # The features take nearly all of the time.
        of_original = LastKept(features)

        def distance(original: Picture, decoded: Picture) -> Any:
            return call("feature_distance", of_original(original), features(decoded))[0]

        return distance


@functools.lru_cache
def _distance(kind: type[NetworkMetric], load: Callable[..., Any], folder: str) -> Callable[[Picture, Picture], Any]:
    return kind.build(load, folder)


def _compiled(build: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """Return a function that calls a method of a network, given its name and its arguments."""
    import jax

    from cod_jax.models.functional import Functional

    network, params = Functional(build), jax.device_put(params)

    @functools.partial(jax.jit, static_argnums=0)
    def call(method: str, params: Any, *arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return getattr(network.bind(params), method)(*arguments)

    return lambda method, *arguments: call(method, params, *arguments)


@functools.lru_cache(maxsize=1)
def inception_features(
    load: Callable[[str], Any], folder: str
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Return a function from patches [N, S, S, 3] to features [N, 2048] of Inception-v3, as torchmetrics prepares them.

    Args:
        load: Function of the folder that returns the parameters, such as `interop.load_inception`.
        folder: Folder of the weight file.
    """
    import jax

    from cod_jax.features.inception import Inception, prepare
    from cod_jax.models.functional import Functional

    network, params = Functional(lambda rngs: Inception(dtype="float32", rngs=rngs)), jax.device_put(load(folder))

    @jax.jit
    def compute(params: Any, batch: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return network.bind(params).features(prepare(batch, "torchmetrics"))

    def features(patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows = []
        for start in range(0, len(patches), BATCH):
            batch = patches[start : start + BATCH]
            filled = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), np.uint8)])
            rows.append(np.asarray(compute(params, filled))[: len(batch)])
        return np.concatenate(rows)

    return features
