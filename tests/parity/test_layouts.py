"""Names and shapes of published checkpoints."""

import functools
import math

import pytest

from cod_jax.interop.cod_networks.description import CLASS_NAMES, published_network, reference_config
from cod_jax.interop.cod_networks.reference import network_entries
from cod_jax.models import build_model, flatten_params
from cod_jax.models.functional import Functional, count_params
from cod_jax.models.heads import FeatureHead
from tests.parity.cases import layouts

NETWORKS = [name for name, layout in layouts().items() if layout["config"].get("class_name") in CLASS_NAMES]


@pytest.mark.parametrize("name", NETWORKS)
def test_configuration_implies_the_published_names_and_shapes(name):
    layout = layouts()[name]
    arguments = {key: value for key, value in layout["config"].items() if key not in ("class_name", "note")}
    config = reference_config(layout["config"]["class_name"], arguments)
    network = published_network(config, one_step=layout["config"]["class_name"] == "OneStepCoD")
    assert network.class_name == layout["config"]["class_name"]
    assert {**network.init_args, **arguments} == network.init_args
    functional = build_model(config)
    implied = {name: list(entry.shape) for name, entry in network_entries(functional, config).items()}
    assert implied == dict(layout["entries"])
    assert count_params(functional.shapes) == layout["n_params"]


HEADS = [name for name in layouts() if "heads_cod" in name or "loss_heads" in name]


@pytest.mark.parametrize("name", HEADS)
def test_training_heads_have_the_published_shapes(name):
    layout = layouts()[name]
    config = layout["config"]
    for module, num_params in layout["n_params_by_module"].items():
        out = math.prod(config["recon_dim"]) if module == "recon_codec" else config["proj_encoder_dim"]
        build = functools.partial(FeatureHead, config["proj_denoiser_dim"], out, dtype="float32")
        shapes = Functional(lambda rngs, build=build: build(rngs=rngs)).shapes
        ours = sorted(sorted(leaf.shape) for leaf in flatten_params(shapes).values())
        theirs = [shape for entry, shape in layout["entries"] if entry.startswith(f"{module}.")]
        assert ours == sorted(sorted(size for size in shape if size != 1) for shape in theirs)
        assert count_params(shapes) == num_params
