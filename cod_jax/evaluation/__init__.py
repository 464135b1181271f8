"""Measures of how close decoded pictures are to their originals, as functions on arrays, and tables of whole folders.

`from cod_jax import evaluation` and then `evaluation.psnr(original, decoded)`. Pictures are arrays [H, W, 3], the
original first. What is listed here is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cod_jax.evaluation.bd import Delta, bd_delta
    from cod_jax.evaluation.fid import frechet_distance, patches
    from cod_jax.evaluation.from_weights import dists, inception_features, lpips
    from cod_jax.evaluation.metrics import mean_squared_error, ms_ssim, psnr
    from cod_jax.evaluation.notebook import evaluate_folder
    from cod_jax.evaluation.reading import read_results
    from cod_jax.evaluation.results import mean_rows, per_image_rows
    from cod_jax.evaluation.wasserstein import wasserstein_distortion

_MODULES = {
    "Delta": "bd",
    "bd_delta": "bd",
    "dists": "from_weights",
    "evaluate_folder": "notebook",
    "frechet_distance": "fid",
    "inception_features": "from_weights",
    "lpips": "from_weights",
    "mean_rows": "results",
    "mean_squared_error": "metrics",
    "ms_ssim": "metrics",
    "patches": "fid",
    "per_image_rows": "results",
    "psnr": "metrics",
    "read_results": "reading",
    "wasserstein_distortion": "wasserstein",
}

__all__ = [
    "Delta",
    "bd_delta",
    "dists",
    "evaluate_folder",
    "frechet_distance",
    "inception_features",
    "lpips",
    "mean_rows",
    "mean_squared_error",
    "ms_ssim",
    "patches",
    "per_image_rows",
    "psnr",
    "read_results",
    "wasserstein_distortion",
]


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(f"cod_jax.evaluation.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
