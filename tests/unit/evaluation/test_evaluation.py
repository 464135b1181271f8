"""What the package of evaluation offers to users."""

import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cod_jax import evaluation
from cod_jax.errors import UserError
from cod_jax.evaluation import from_weights, networks
from tests.model_fixtures import gradient_image
from tests.unit.evaluation.test_networks import load


@pytest.mark.parametrize("name", evaluation.__all__)
def test_what_is_offered_is_there_and_described(name: str):
    offered = getattr(evaluation, name)
    assert (offered.__name__, callable(offered)) == (name, True)
    assert offered.__doc__
    assert name in dir(evaluation)


def test_nothing_offered_has_the_name_of_a_module():
    # Importing that module would put it in the place of what is offered.
    modules = {module.name for module in pkgutil.iter_modules(evaluation.__path__)}
    assert not modules & set(evaluation.__all__)
    assert set(evaluation._MODULES) == set(evaluation.__all__)
    assert set(evaluation._MODULES.values()) <= modules
    assert not hasattr(evaluation, "no_such_name")


def test_the_package_imports_what_is_used_only():
    script = "import json, sys; from cod_jax import evaluation; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"jax", "numpy", "PIL", "flax"}.isdisjoint(json.loads(result.stdout))


def test_lpips_takes_pictures_and_the_folder_of_its_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(from_weights, "load_lpips", load)
    picture = gradient_image(40, 48)
    assert evaluation.lpips(picture, picture, weights="weights") == 0
    assert evaluation.lpips(picture, picture[::-1].copy(), weights="weights") > 0
    with pytest.raises(UserError, match=r"expected two uint8 pictures of one shape, got uint8 .* and float32 "):
        evaluation.lpips(picture, picture / np.float32(255), weights="weights")


def test_dists_takes_pictures_and_the_folder_of_its_weights(monkeypatch: pytest.MonkeyPatch):
    def compiled(build: object, params: int) -> Callable[..., Any]:
        methods = {"features": np.sum, "feature_distance": lambda a, b: [a - b + params]}
        return lambda method, *arguments: methods[method](*arguments)

    monkeypatch.setattr(networks, "_compiled", compiled)
    monkeypatch.setattr(from_weights, "load_dists", lambda folder: len(Path(folder).name))
    white = np.full((2, 2, 3), 255, np.uint8)
    assert evaluation.dists(white, 0 * white, weights="of_dists") == 12 + 8
    changing = white.copy()
    assert evaluation.dists(changing, white, weights="of_dists") == 8
    changing[:] = 0
    assert evaluation.dists(changing, white, weights="of_dists") == 8 - 12
    with pytest.raises(UserError, match=r"got uint8 \[2, 2, 3\] and uint8 \[1, 2, 3\]; convert them"):
        evaluation.dists(white, white[:1], weights="of_dists")


def test_inception_takes_patches_and_the_folder_of_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path):
    patches = evaluation.patches(gradient_image(64, 128), 64)
    with pytest.raises(FileNotFoundError, match="Inception-v3 of FID needs pt_inception-2015-12-05"):
        evaluation.inception_features(patches, weights=tmp_path)
    monkeypatch.setattr(networks, "inception_features", lambda load, folder: lambda cut: cut[:, 0, 0] / np.float32(2))
    assert evaluation.inception_features(patches, weights="weights").shape == (2, 3)
    for wrong in (patches[:0], patches[0], patches / 255):
        with pytest.raises(UserError, match=r"expected patches uint8 \[N, H, W, 3\], got "):
            evaluation.inception_features(wrong, weights="weights")


def test_lpips_says_where_missing_weights_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="alexnet"):
        evaluation.lpips(gradient_image(40, 48), gradient_image(40, 48), weights=tmp_path)
