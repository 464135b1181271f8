"""Reads the parity fixtures: inputs, expected outputs, synthetic weights.

Two collections of files have formats of their own: `portable` holds cases of the CoD networks and their training,
`helpers` those of the frozen networks. Larger cases of both kinds lie outside the project; they are tested where the
environment variable COD_JAX_SHARED names their folder.
"""

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.parity.portable.synthetic_images import degraded_image, synthetic_image
from tests.parity.portable.synthetic_weights import synthetic_state_dict
from tests.parity.tolerances import NETWORK_MAX, NETWORK_RMS

PORTABLE = Path(__file__).parent / "portable"
HELPERS = Path(__file__).parent / "helpers"
SHARED = Path(os.environ["COD_JAX_SHARED"]) / "parity" if os.environ.get("COD_JAX_SHARED") else None

_ONLY_LARGER = [
    pytest.mark.skipif(SHARED is None, reason="COD_JAX_SHARED does not name the folder of the larger cases"),
    pytest.mark.slow,
]
# Values of a parameter `is_larger`.
WITH_LARGER = [False, pytest.param(True, marks=_ONLY_LARGER)]


def relative_error(actual: Any, expected: Any) -> float:
    """Return the L2 norm of the difference over that of `expected`."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def assert_close(actual: Any, expected: Any, rms: float = NETWORK_RMS, largest: float = NETWORK_MAX) -> None:
    """Compare the shapes, the root mean square of the difference and the largest difference, both relative."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    difference = actual - expected
    assert np.sqrt(np.mean(difference**2)) <= rms * np.sqrt(np.mean(expected**2))
    assert np.max(np.abs(difference)) <= largest * np.max(np.abs(expected))


def signed(image_uint8: np.ndarray) -> np.ndarray:
    """Return a picture in [-1, 1]."""
    return image_uint8.astype(np.float32) / np.float32(127.5) - 1


def _read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


# --- CoD networks and their training


def layouts() -> dict[str, Any]:
    """Return names and shapes of published state dicts, by layout."""
    return _read(PORTABLE / "layouts.json.gz")


def cases(*patterns: str, fast: tuple[str, ...] = ()) -> list[Any]:
    """Return folder and name of every case of these patterns as parameters; all but the `fast` ones are slow."""
    parameters = []
    for folder in filter(None, (PORTABLE, SHARED)):
        lead = "" if folder == PORTABLE else "larger-"
        for name in sorted({path.stem for pattern in patterns for path in folder.glob(f"{pattern}.npz")}):
            marks = [] if folder == PORTABLE and name in fast else [pytest.mark.slow]
            parameters.append(pytest.param(folder, name, marks=marks, id=lead + name))
    return parameters


class Case:
    """One fixture file with its weights and images; arrays in NHWC unless said otherwise."""

    def __init__(self, name: str, folder: Path = PORTABLE):
        self.arrays = np.load(folder / f"{name}.npz")
        self.meta = json.loads(str(self.arrays["meta"]))
        self.config = self.meta.get("config", {})

    def weights(self, key: str = "layout_json") -> dict[str, np.ndarray]:
        """Return the network's synthetic weights by published name."""
        if self.meta.get("layout"):
            layout = layouts()[self.meta["layout"]]["entries"]
        elif self.meta.get("layout_file"):
            layout = layouts()[self.meta["layout_file"].split(" ")[0]]["entries"]
        else:
            return self.listed_weights(key)
        if self.meta.get("class") == "Codec":
            layout = [entry for entry in layout if entry[0].startswith("y_embedder.")]
        return synthetic_state_dict(layout)

    def listed_weights(self, key: str = "layout_json", *, part: str = "", lead: str = "") -> dict[str, np.ndarray]:
        """Return the synthetic weights whose names and shapes the file lists.

        Args:
            key: Name of the list.
            part: Beginning of the name of one list, where there are several under the key.
            lead: Put before the names, which decide about the numbers.
        """
        layout = json.loads(str(self.arrays[key]))
        if part:
            layout = next(entries for name, entries in layout.items() if name.startswith(part))
        return synthetic_state_dict([[lead + name, shape] for name, shape in layout])

    def image01(self) -> np.ndarray:
        """Return the case's pictures as float32 [B, H, W, 3] in [0, 1]."""
        return self.images_uint8().astype(np.float32) / 255

    def images_uint8(self) -> np.ndarray:
        """Return the case's pictures [B, H, W, 3]."""
        if "image_u8" in self.arrays:
            return np.moveaxis(self.arrays["image_u8"], 1, -1)
        return np.stack([synthetic_image(i["height"], i["width"], i["seed"]) for i in self.meta["images"]])

    def nhwc(self, name: str) -> jax.Array:
        """Return a stored array as float32 with channels last."""
        return jnp.moveaxis(jnp.asarray(self.arrays[name], jnp.float32), -3, -1)

    def stored_part(self, name: str, full: Any) -> np.ndarray:
        """Return what the file keeps of an array [..., H, W, C], with channels first."""
        full = np.moveaxis(np.asarray(full), -1, -3)
        slices = self.meta.get("slices", {}).get(name)
        return full if slices is None else full[tuple(slice(*part) for part in slices)]

    def check_network(self, name: str, full: Any, rms: float = NETWORK_RMS, largest: float = NETWORK_MAX) -> None:
        """Compare with the stored array `name`: relative root mean square, and the largest difference."""
        assert_close(self.stored_part(name, full), self.arrays[name], rms, largest)


# --- frozen networks


def frozen_cases(*fast: str, slow: tuple[str, ...] = (), larger: tuple[str, ...] = ()) -> list[Any]:
    """Return name and `is_larger` of the parts of a file, as parameters of a test."""
    return [
        *((name, False) for name in fast),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in slow),
        *(pytest.param(name, True, marks=_ONLY_LARGER) for name in larger),
    ]


def frozen_layout(network: str) -> list[tuple[str, list[int]]]:
    """Return names and shapes of an official file, in its order."""
    return _read(HELPERS / "layouts.json.gz")[network]


def sd_vae_aliases() -> list[tuple[str, str, str, list[int]]]:
    """Return published name, name in diffusers, name in the original release and shape there of each tensor."""
    return _read(HELPERS / "sd_vae_aliases.json.gz")


def frozen_state_dict(network: str) -> dict[str, np.ndarray]:
    """Return synthetic weights of an official file, larger where the plain rule leaves too little to see."""
    entries = [(name, shape) for name, shape in frozen_layout(network) if not name.startswith("classifier.")]
    weights = {name: _adapted(network, name, array) for name, array in synthetic_state_dict(entries).items()}
    checks = _read(HELPERS / "weights_check.json.gz")[network]
    for name, array in weights.items():
        if not name.endswith(".num_batches_tracked"):
            np.testing.assert_allclose(array.flat[[0, -1]], checks[name][2:], rtol=2e-6, err_msg=name)
    return weights


def _adapted(network: str, name: str, array: np.ndarray) -> np.ndarray:
    if name.endswith(".gamma"):
        return 5 * array
    if network.startswith("lpips") or network == "dists":
        return np.abs(array)
    if name.endswith(".num_batches_tracked"):
        return np.zeros_like(array)
    if name.endswith(".running_var"):
        return 1 + np.abs(array)
    if network in ("vgg16", "alexnet", "inception") and name.endswith(".weight") and array.ndim > 1:
        return array * np.float32(2**0.5)
    return array


class FrozenCase:
    """One fixture file of a frozen network: its arrays, channels last, and its pictures."""

    def __init__(self, file: str, *, is_larger: bool = False):
        folder = HELPERS
        if is_larger:
            assert SHARED is not None
            folder = SHARED / "helpers"
        self.file, self.is_larger = file, is_larger
        self.arrays = np.load(folder / f"{file}.npz")
        self._pictures = json.loads((folder / "cases.json").read_text())[file]

    def image_uint8(self, name: str) -> np.ndarray:
        """Return a picture as [1, H, W, 3]."""
        entry = self._pictures[name]
        if self.is_larger:
            assert SHARED is not None
            photograph = np.asarray(Image.open(SHARED.parent / "data" / "kodak" / f"{entry['image']}.png"))
            image = photograph[entry["y"] : entry["y"] + entry["h"], entry["x"] : entry["x"] + entry["w"]]
        else:
            image = synthetic_image(entry["height"], entry["width"], entry["seed"])
            assert zlib.crc32(image.tobytes()) == entry["crc32"]
        return image[None]

    def pair_uint8(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture and its degraded copy, both [1, H, W, 3]."""
        if self.is_larger:
            return self.arrays[f"{name}_img0"][None], self.arrays[f"{name}_img1"][None]
        entry, image = self._pictures[name], self.image_uint8(name)
        degraded = degraded_image(image[0], entry["degradation"], entry["degradation_seed"])
        assert zlib.crc32(degraded.tobytes()) == entry["degraded_crc32"]
        return image, degraded[None]

    def image01(self, name: str) -> np.ndarray:
        """Return a picture as [1, H, W, 3] in [0, 1]."""
        return self.image_uint8(name).astype(np.float32) / 255

    def image(self, name: str) -> np.ndarray:
        """Return a picture as [1, H, W, 3] in [-1, 1]."""
        return signed(self.image_uint8(name))

    def error(self, name: str, full: Any) -> float:
        """Return the relative error against a stored array, which may hold every n-th entry along each axis."""
        expected = np.asarray(self.arrays[name], np.float64)
        actual = np.asarray(full, np.float64)
        assert actual.ndim == expected.ndim
        steps = [_step(size, kept) for size, kept in zip(actual.shape, expected.shape, strict=True)]
        return relative_error(actual[tuple(slice(None, None, step) for step in steps)], expected)


def _step(size: int, kept: int) -> int:
    return next(step for step in range(1, size + 1) if -(-size // step) == kept)
