from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cod_jax.parallel import (
    MeshConfig,
    batch_sharding,
    check_batch_size,
    global_batch,
    make_mesh,
    num_batch_shards,
    sharding_rows,
    spec,
    tree_shardings,
)
from cod_jax.parallel.mesh import by_process

RULES = {
    "embed": "fsdp",
    "mlp": ("tensor", None),
    "any": ("tensor", "fsdp", None),
    "norm": None,
    "strict": ("fsdp", "tensor"),
}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def test_devices_of_a_process_stay_together_whatever_their_numbers():
    devices = [SimpleNamespace(process_index=number % 2, id=number) for number in range(4)]
    assert [(device.process_index, device.id) for device in by_process(devices)] == [(0, 0), (0, 2), (1, 1), (1, 3)]


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), (1, 8, 1)),
        (MeshConfig(data=-1, fsdp=2, tensor=2), (2, 2, 2)),
        (MeshConfig(data=2, fsdp=2, tensor=2), (2, 2, 2)),
    ],
)
def test_one_axis_takes_the_devices_that_are_left(config, sizes):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), sizes, strict=True))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, "the mesh data 3 x fsdp 1 x tensor 1 does not fit 8 devices; the product of its axes must be 8"),
        ({"fsdp": 3}, "must divide 8"),
        ({"data": 0}, "mesh.data to be at least 1, or -1 for the remaining devices, got 0"),
        ({"tensor": -1}, "at most one mesh axis of -1, got data -1 x fsdp 1 x tensor -1"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((), (), PartitionSpec()),
        ((6, 5), ("embed", "norm"), PartitionSpec("fsdp", None)),
        ((6, 5), ("embed", "mlp"), PartitionSpec("fsdp", None)),
        ((4, 6), ("mlp", "any"), PartitionSpec("tensor", "fsdp")),
        ((4, 6), ("any", "any"), PartitionSpec("tensor", "fsdp")),
        ((4, 4, 4), ("any", "any", "any"), PartitionSpec("tensor", "fsdp", None)),
    ],
)
def test_each_dimension_takes_the_first_alternative_that_fits(mesh, shape, axes, expected):
    assert spec("w", shape, axes, RULES, mesh) == expected


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((4, 4), ("embed",), r"a/w: expected an axis name for each dimension of \(4, 4\), got \('embed',\)"),
        ((4,), ("embedd",), "a/w: no sharding rule for the axis 'embedd'; did you mean 'embed'"),
        ((4, 4), ("embed", "embed"), "a/w: axis 'embed' cannot be split: 'fsdp' already splits another dimension"),
        ((5,), ("embed",), "a/w: axis 'embed' cannot be split: 5 is not a multiple of the 2 devices of 'fsdp'"),
        ((5,), ("strict",), "of 'fsdp'; 5 is not a multiple of the 2 devices of 'tensor'"),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_array(mesh, shape, axes, message):
    with pytest.raises(ValueError, match=message):
        spec("a/w", shape, axes, RULES, mesh)


def test_a_rule_for_an_axis_that_the_mesh_lacks_is_refused(mesh):
    with pytest.raises(ValueError, match="rule 'embed' to name one of data, fsdp, tensor, got 'expert'"):
        spec("w", (4,), ("embed",), {"embed": "expert"}, mesh)


def test_nonsense_is_found_on_a_single_device_too():
    mesh = make_mesh(MeshConfig(data=1), devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="already splits another dimension"):
        spec("w", (4, 4), ("embed", "embed"), RULES, mesh)


def test_a_tree_with_optimizer_state_gets_its_shardings_and_its_table(mesh):
    params = {"layer": {0: jnp.zeros((4, 6)), 1: jnp.zeros((3,))}}
    axes = {"layer": {0: ("embed", "mlp"), 1: ("norm",)}}
    optimizer = optax.adam(1e-3)
    shapes = {"params": params, "optimizer": jax.eval_shape(optimizer.init, params), "step": jnp.int32(0)}
    optimizer_axes = optax.tree.map_params(
        optimizer, lambda _, names: names, shapes["optimizer"], axes, transform_non_params=lambda _: ()
    )
    tree = tree_shardings(shapes, {"params": axes, "optimizer": optimizer_axes, "step": ()}, RULES, mesh)
    assert tree["params"]["layer"][0].spec == PartitionSpec("fsdp", "tensor")
    assert tree["optimizer"][0].nu["layer"][0].spec == PartitionSpec("fsdp", "tensor")
    assert tree["step"].spec == PartitionSpec()
    rows = {row.name: row for row in sharding_rows(shapes, tree)}
    assert (rows["params/layer/0"].spec, rows["params/layer/0"].bytes_per_device) == ("(fsdp, tensor)", 4 * 24 // 4)
    assert (rows["params/layer/1"].spec, rows["params/layer/1"].bytes_per_device) == ("(-)", 12)
    axes["layer"][1] = ("norms",)
    with pytest.raises(ValueError, match="params/layer/1: no sharding rule for the axis 'norms'"):
        tree_shardings({"params": params}, {"params": axes}, RULES, mesh)


def test_a_batch_is_spread_over_several_axes_together(mesh):
    sharding = batch_sharding(mesh, ("data", "fsdp"))
    assert num_batch_shards(sharding) == 4
    images = np.arange(8, dtype=np.uint8)[:, None]
    array = global_batch({"image": images}, sharding)["image"]
    np.testing.assert_array_equal(np.asarray(array), images)
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 1)}
    check_batch_size("batch_size", 8, sharding)
    with pytest.raises(ValueError, match="batch_size to be a multiple of the 4 devices that share it, got 6"):
        check_batch_size("batch_size", 6, sharding)
    with pytest.raises(ValueError, match=r"sharding\.batch to name axes of data, fsdp, tensor, got 'model'"):
        batch_sharding(mesh, ("data", "model"))
    assert isinstance(sharding, NamedSharding)
