"""The same models by both engines: of model folders and of compiled ones."""

from pathlib import Path

import numpy as np
import pytest

import cod_jax
from cod_jax.codec import Codec, from_bundle
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.models import FactorizedConfig, build_model
from cod_jax.specialize.folder import write_compiled
from tests.model_fixtures import numpy_params, tiny_bundle, tiny_codec, tiny_model_config

ENGINES = ["model", "compiled"]


@pytest.fixture(scope="session")
def compiled_folder(tmp_path_factory) -> Path:
    """Return the tiny model as a compiled folder."""
    path = tmp_path_factory.mktemp("compiled") / "tiny"
    write_compiled(path, tiny_bundle(), platforms=["cpu"], dtype="float32")
    return path


@pytest.fixture(scope="session")
def compiled_codec(compiled_folder: Path) -> Codec:
    """Return the tiny model, compiled."""
    return cod_jax.load(compiled_folder)


@pytest.fixture(scope="session", params=ENGINES)
def codec(request: pytest.FixtureRequest) -> Codec:
    """Return the tiny model by one engine and by the other."""
    return tiny_codec() if request.param == "model" else request.getfixturevalue("compiled_codec")


@pytest.fixture(scope="session")
def factorized_folder(tmp_path_factory) -> Path:
    """Return a model without a codebook, with two quality levels, as the folders "model" and "compiled"."""
    config = tiny_model_config(bottleneck=FactorizedConfig(num_levels=2))
    params = numpy_params(build_model(config).shapes)
    # Tables around the latents, which are about one; a gain of 1 and one of 4.
    params["codec"]["bottleneck"]["log_gains"][:] = np.log([[1.0], [4.0]])
    folder = tmp_path_factory.mktemp("factorized")
    save_bundle(folder / "model", config, params, training={})
    write_compiled(folder / "compiled", load_bundle(folder / "model"), platforms=["cpu"], dtype="float32")
    return folder


@pytest.fixture(scope="session")
def factorized_model(factorized_folder: Path) -> Codec:
    """Return the factorized model by its own code."""
    return cod_jax.load(factorized_folder / "model")


@pytest.fixture(scope="session")
def factorized_compiled(factorized_folder: Path) -> Codec:
    """Return the factorized model, compiled."""
    return cod_jax.load(factorized_folder / "compiled")


@pytest.fixture(scope="session", params=ENGINES)
def factorized(request: pytest.FixtureRequest) -> Codec:
    """Return the factorized model by one engine and by the other."""
    return request.getfixturevalue(f"factorized_{request.param}")


@pytest.fixture(params=ENGINES)
def limited(request: pytest.FixtureRequest, compiled_folder: Path) -> Codec:
    """Return the tiny model for pictures of at most 400 pixels."""
    if request.param == "model":
        return from_bundle(tiny_bundle(), max_pixels=400)
    return cod_jax.load(compiled_folder, max_pixels=400)
