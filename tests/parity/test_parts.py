"""Quantiser, embeddings and single blocks against the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cod_jax.models import DConvConfig
from cod_jax.models.bottlenecks.codebook import VectorQuantizer
from cod_jax.models.dconv import DiCoBlock, PixelBlock
from cod_jax.models.functional import Functional
from cod_jax.models.pixnerdit import NeuralFieldBlock
from cod_jax.nn.embeddings import TimestepEmbedding, pixel_position_features, timestep_features
from cod_jax.nn.layers import Linear, xavier_uniform
from cod_jax.nn.norms import RMSNorm
from cod_jax.nn.transformer import TransformerBlock, rotary_angles, rotate
from tests.parity.cases import Case, assert_close
from tests.parity.tolerances import LOSS_RELATIVE


def set_linear(layer: Linear, weights: dict[str, np.ndarray], name: str) -> None:
    kernel = weights[f"{name}.weight"]
    layer.kernel[...] = jnp.asarray(kernel.reshape(kernel.shape[0], -1).T)
    if layer.bias is not None:
        layer.bias[...] = jnp.asarray(weights[f"{name}.bias"])


def test_vector_quantizer_values_losses_and_gradients():
    case = Case("vq_losses_and_gradients")
    codebook = jnp.asarray(next(iter(case.listed_weights().values())))
    quantizer = Functional(lambda rngs: VectorQuantizer(*codebook.shape, rngs=rngs))
    z, downstream = case.nhwc("z_f16"), case.nhwc("downstream_weight_f16")

    def quantize(z, codebook):
        return quantizer.bind({"codebook": codebook})(z, jnp.zeros(z.shape[:1], jnp.int32))

    quantized = quantize(z, codebook)
    np.testing.assert_array_equal(quantized.symbols.reshape(-1), case.arrays["indices"])
    assert_close(jnp.moveaxis(quantized.values, -1, 1), case.arrays["z_q"])
    np.testing.assert_allclose(jnp.mean(quantized.penalty), case.arrays["vq_loss"], rtol=LOSS_RELATIVE)
    dz, dcodebook = jax.grad(lambda z, codebook: jnp.mean(quantize(z, codebook).penalty), argnums=(0, 1))(z, codebook)
    assert_close(jnp.moveaxis(dz, -1, 1), case.arrays["dloss_dz"])
    assert_close(dcodebook, case.arrays["dloss_dembedding"])
    ddown = jax.grad(lambda z, codebook: jnp.sum(quantize(z, codebook).values * downstream), argnums=(0, 1))
    dz, dcodebook = ddown(z, codebook)
    assert_close(jnp.moveaxis(dz, -1, 1), case.arrays["ddown_dz"])
    assert not np.any(dcodebook)


@pytest.mark.parametrize(("name", "base"), [("lite", 10000.0), ("cod", 10.0)])
def test_timestep_embedding(name, base):
    case = Case(f"embeddings_and_blocks_{name}")
    t = jnp.asarray(case.arrays["t"])
    assert_close(timestep_features(t, base), case.arrays[f"freq_features_period{base:.0f}"])
    weights = case.listed_weights(part="t_embedder")
    embedding = TimestepEmbedding(48, base=base, uniform_bias=False, dtype="float32", rngs=nnx.Rngs(0))
    set_linear(embedding.hidden, weights, "t_embedder.mlp.0")
    set_linear(embedding.out, weights, "t_embedder.mlp.2")
    assert_close(embedding(t), case.arrays[f"mlp_out_period{base:.0f}"])


def test_pixel_position_features(cod):
    assert_close(pixel_position_features(16), cod.arrays["nerf_pos_patch16"])
    assert_close(pixel_position_features(2), cod.arrays["nerf_pos_patch2"])


def test_rotary_positions(cod):
    for rows, columns, features in ((4, 6, 64), (3, 5, 72), (1, 1, 64)):
        angles = rotary_angles(rows, columns, features)
        name = f"rotary_d{features}_h{rows}_w{columns}"
        assert_close(np.cos(angles), cod.arrays[f"{name}_cos"])
        assert_close(np.sin(angles), cod.arrays[f"{name}_sin"])
    angles = rotary_angles(4, 6, 64)
    for name in ("q", "k"):
        assert_close(rotate(jnp.asarray(cod.arrays[f"rotary_{name}_in"]), angles), cod.arrays[f"rotary_{name}_out"])


def test_transformer_block(cod):
    weights = cod.listed_weights(part="blocks.0")
    block = TransformerBlock(64, 2, 4.0, dtype="float32", kernel_init=xavier_uniform, rngs=nnx.Rngs(0))
    layers = {
        "attn.proj": block.attention.out,
        "mlp.w1": block.mlp.gate,
        "mlp.w3": block.mlp.value,
        "mlp.w2": block.mlp.out,
        "adaLN_modulation.0": block.modulation,
    }
    norms = {
        "norm1": block.norm1,
        "norm2": block.norm2,
        "attn.q_norm": block.attention.q_norm,
        "attn.k_norm": block.attention.k_norm,
    }
    for name, layer in layers.items():
        set_linear(layer, weights, f"blocks.0.{name}")
    for name, norm in norms.items():
        norm.scale[...] = jnp.asarray(weights[f"blocks.0.{name}.weight"])
    block.attention.qkv[...] = jnp.asarray(weights["blocks.0.attn.qkv.weight"].reshape(3, 64, 64).transpose(2, 0, 1))
    x = jnp.asarray(cod.arrays["dit_block_in"]).reshape(2, 3, 4, 64)
    drive = jnp.asarray(cod.arrays["dit_block_cond"])[:, None]
    with jax.default_matmul_precision("highest"):
        out = block(x, drive)
    assert_close(out.reshape(2, 12, 64), cod.arrays["dit_block_out"])


def test_neural_field_block(cod):
    weights = cod.listed_weights(part="blocks.1")
    block = NeuralFieldBlock(64, 8, 2, dtype="float32", rngs=nnx.Rngs(0))
    set_linear(block.generate, weights, "blocks.1.param_generator1.0")
    block.norm.scale[...] = jnp.asarray(weights["blocks.1.norm.weight"])
    # Three patches of 5x5 pixels.
    x = jnp.asarray(cod.arrays["nerf_block_in"])[:, None, None]
    state = jnp.asarray(cod.arrays["nerf_block_s"])[:, None, None]
    assert_close(block(x, state)[:, 0, 0], cod.arrays["nerf_block_out"])


def test_condition_block(lite):
    weights = lite.listed_weights(part="blocks.0")
    block = DiCoBlock(24, 4.0, dtype="float32", rngs=nnx.Rngs(0))
    layers = {
        "conv1": block.expand,
        "conv3": block.project,
        "ca.1": block.channel_gate,
        "conv4": block.mlp_in,
        "conv5": block.mlp_out,
        "adaLN_modulation.1": block.modulation,
    }
    for name, layer in layers.items():
        set_linear(layer, weights, f"blocks.0.{name}")
    block.depthwise.kernel[...] = jnp.asarray(weights["blocks.0.conv2.weight"][:, 0].transpose(1, 2, 0))
    block.depthwise.bias[...] = jnp.asarray(weights["blocks.0.conv2.bias"])
    lite.check_network("dico_out", block(lite.nhwc("dico_in"), jnp.asarray(lite.arrays["dico_cond"])))


def test_pixel_blocks_and_final_layer(lite):
    weights = lite.listed_weights(part="dec_net") | lite.listed_weights(part="final_layer")
    config = DConvConfig(hidden=24, hidden_pixel=12, num_blocks=1, num_pixel_blocks=2)
    rngs = nnx.Rngs(0)
    drive = Linear(24, 16 * 12, axes=("embed", "mlp"), dtype="float32", rngs=rngs)
    project = Linear(12, 12, axes=("pixel", "pixel"), dtype="float32", rngs=rngs)
    set_linear(drive, weights, "dec_net.cond_embed")
    set_linear(project, weights, "dec_net.input_proj")
    # One patch of 4x4 pixels per example: [B, 1, 1, pixels, channels].
    x = project(jnp.asarray(lite.arrays["dec_in"]))[:, None, None]
    signal = jax.nn.silu(drive(jnp.asarray(lite.arrays["dec_cond"])).reshape(-1, 1, 1, 16, 12))
    for index in range(config.num_pixel_blocks):
        block = PixelBlock(12, dtype="float32", rngs=rngs)
        name = f"dec_net.res_blocks.{index}"
        block.norm.scale[...] = jnp.asarray(weights[f"{name}.in_ln.weight"])
        block.norm.bias[...] = jnp.asarray(weights[f"{name}.in_ln.bias"])
        set_linear(block.modulation, weights, f"{name}.adaLN_modulation.1")
        set_linear(block.mlp_in, weights, f"{name}.mlp.0")
        set_linear(block.mlp_out, weights, f"{name}.mlp.2")
        x = block(x, signal)
    assert_close(x[:, 0, 0], lite.arrays["dec_out"])
    norm, out = RMSNorm(12), Linear(12, 3, axes=("pixel", "features"), dtype="float32", rngs=rngs)
    norm.scale[...] = jnp.asarray(weights["final_layer.norm.weight"])
    set_linear(out, weights, "final_layer.linear")
    assert_close(out(norm(x[:, 0, 0])), lite.arrays["final_out"])
