"""Two processes of four devices each read, join their rows and train a line, as one process does."""

import json
import os
import subprocess
import sys

import numpy as np

from cod_jax.launch.local import free_port
from tests.training_fixtures import REPOSITORY, write_photographs

BATCH, SIDE, STEPS = 8, 8, 3
SCRIPT = """
import json, sys

import jax
import jax.numpy as jnp
import numpy as np

from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import build_train_batches
from cod_jax.parallel.batches import global_batch
from cod_jax.parallel.mesh import MeshConfig, make_mesh
from cod_jax.parallel.processes import join_processes
from cod_jax.parallel.sharding import batch_sharding, put, tree_shardings

address, number, source, batch, side, steps = json.loads(sys.argv[1])
join_processes(True, address, 2, number, join_seconds=50)
mesh = make_mesh(MeshConfig(data=2, fsdp=4))
rows = batch_sharding(mesh, ("data", "fsdp"))
shapes = {"w": jax.ShapeDtypeStruct((3 * side * side, 4), jnp.float32)}
split = tree_shardings(shapes, {"w": ("features", "latent")}, {"features": "fsdp", "latent": None}, mesh)
params = {"w": put(np.full(shapes["w"].shape, 0.01, np.float32), split["w"])}
data = DataConfig(source=source, image_size=side, validation_modulus=0, num_threads=0)
batches = build_train_batches(data, batch_size=batch, seed=0, process_index=number, process_count=2)

def loss(params, image):
    x = image.astype(jnp.float32).reshape(len(image), -1) / 127.5 - 1
    return jnp.mean((x @ params["w"] - 1) ** 2)

@jax.jit
def step(params, image):
    value, gradient = jax.value_and_grad(loss)(params, image)
    new = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    return jax.lax.with_sharding_constraint(new, split), value

losses = []
for _ in range(steps):
    params, value = step(params, global_batch(next(batches), rows)["image"])
    losses.append(float(value))
shares = sorted({shard.data.shape for shard in params["w"].addressable_shards})
kept = jax.config.values["jax_enable_compilation_cache"]
print(json.dumps([jax.process_count(), jax.device_count(), kept, shares, losses]))
"""


def expected_losses(source) -> list[float]:
    from cod_jax.input.config import DataConfig
    from cod_jax.input.pipeline import build_train_batches

    data = DataConfig(source=str(source), image_size=SIDE, validation_modulus=0, num_threads=0)
    batches = build_train_batches(data, batch_size=BATCH, seed=0)
    w = np.full((3 * SIDE * SIDE, 4), 0.01)
    losses = []
    for _ in range(STEPS):
        x = next(batches)["image"].reshape(BATCH, -1) / 127.5 - 1
        error = x @ w - 1
        losses.append(np.mean(error**2))
        w = w - 0.1 * 2 * x.T @ error / error.size
    return losses


def test_two_processes_that_join_compute_what_one_does(tmp_path):
    source = write_photographs(tmp_path / "photographs")
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(REPOSITORY)}
    address = f"localhost:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps([address, number, str(source), BATCH, SIDE, STEPS])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ended
    for output, _ in ended:
        num_processes, num_devices, kept, shares, losses = json.loads(output.splitlines()[-1])
        assert (num_processes, num_devices) == (2, 8)
        assert not kept  # otherwise the first finds programs that the others still compile, and gives up waiting
        assert shares == [[3 * SIDE * SIDE // 4, 4]]
        np.testing.assert_allclose(losses, expected_losses(source), rtol=1e-5)
