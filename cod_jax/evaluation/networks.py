"""Metrics of pictures in the features of a network, whose weights are in files of its authors."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from cod_jax.evaluation.metric_table import Metric, Number, Picture

# Title and reason of metrics that users expect and no evaluation has yet; results list them as not measured.
NOT_IMPLEMENTED = {
    "dists": ("DISTS", "it is not implemented yet"),
    "patch_fid": ("patch-FID", "the network of its features, Inception-v3, is not implemented yet"),
}
NO_WEIGHTS = "no weight files are given; name their folder with --weights"


@dataclasses.dataclass(frozen=True)
class LpipsAlex(Metric):
    """LPIPS v0.1 with AlexNet.

    Attributes:
        load: Function of a folder and a name of a trunk that returns the parameters, such as `interop.load_lpips`.
        folder: Folder of the weight files.
        weights_sha256: Of these files.
    """

    name: ClassVar[str] = "lpips_alex"
    title: ClassVar[str] = "LPIPS-Alex"
    shown: ClassVar[str] = "LPIPS {:.4f}"
    description: ClassVar[str] = (
        "LPIPS v0.1 with AlexNet (Zhang et al. 2018) of the whole picture at its own resolution, values from -1 to 1, "
        "float32."
    )
    higher_is_better: ClassVar[bool | None] = False

    load: Callable[..., Any]
    folder: str
    weights_sha256: str | None = None

    def measure(self, original: Picture, decoded: Picture, num_bytes: int) -> Number:
        """Return the distance.

        Raises:
            UserError: A side is shorter than the network takes.
        """
        return float(_distance(self.load, self.folder)(original, decoded))


@functools.lru_cache(maxsize=1)
def _distance(load: Callable[..., Any], folder: str) -> Callable[[Picture, Picture], Any]:
    import jax

    from cod_jax.features.lpips import ALEXNET, LPIPS
    from cod_jax.models.functional import Functional

    network = Functional(lambda rngs: LPIPS(ALEXNET, dtype="float32", rngs=rngs))
    params = jax.device_put(load(folder, "alex"))

    @jax.jit
    def measure(params: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return network.bind(params).distance(a[None], b[None])[0]

    def distance(original: Picture, decoded: Picture) -> Any:
        signed = (picture.astype(np.float32) / np.float32(127.5) - 1 for picture in (original, decoded))
        return measure(params, *signed)

    return distance
