"""Discriminators of one-step codecs, which make reconstructions look real; see docs/method.md, One-step codec.

Both kinds judge every patch of a picture. All layers are spectrally normalised.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.features.dinov2 import DINOv2, DINOv2Config
from cod_jax.models.compute import Dtype
from cod_jax.models.fields import Part
from cod_jax.models.functional import Functional, Params
from cod_jax.nn.layers import Conv, Linear, fan_in_uniform
from cod_jax.nn.spectral_norm import init_singular_vectors, spectral_normalize

LEAKY_SLOPE = 0.2


class DiscriminatorConfig(Part):
    """Description of a discriminator; subclasses are frozen dataclasses.

    Attributes:
        kind: Name of this kind of discriminator.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "dinov2": "cod_jax.models.discriminator:DINOv2DiscriminatorConfig",
        "patch": "cod_jax.models.discriminator:PatchDiscriminatorConfig",
    }


@dataclasses.dataclass(frozen=True)
class DINOv2DiscriminatorConfig(DiscriminatorConfig):
    """Heads on features of the frozen DINOv2, as published.

    Attributes:
        kind: Name of this kind of discriminator.
        layers: Numbers of the blocks whose tokens are judged, each by its own head; 0 is the first block.
    """

    kind: Literal["dinov2"] = "dinov2"
    layers: tuple[int, ...] = (2, 5, 8, 11)

    def __post_init__(self):
        if not self.layers:
            raise UserError("layers must name at least one block of DINOv2, got none")


@dataclasses.dataclass(frozen=True)
class PatchDiscriminatorConfig(DiscriminatorConfig):
    """Convolutions from pixels to one logit per patch (Isola et al. 2017, section 3.2.2), without a weight file.

    Attributes:
        kind: Name of this kind of discriminator.
        widths: Output channels of the convolutions, each of which halves the size.
    """

    kind: Literal["patch"] = "patch"
    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self):
        if not self.widths or min(self.widths) < 1:
            raise UserError(
                f"widths must name at least one convolution, each with at least 1 channel, got {self.widths}"
            )


class TokenHead(nnx.Module):
    """Convolutions (3x3, 1x1, 1x1) with LeakyReLU from the tokens of one layer to a logit per position.

    Args:
        features: Channels of a token.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, features: int, *, dtype: str, rngs: nnx.Rngs):
        init: dict[str, Any] = {"dtype": dtype, "kernel_init": fan_in_uniform, "rngs": rngs}
        self.conv = Conv(features, features, **init)
        self.project = Linear(features, features // 2, axes=("embed", "mlp"), **init)
        self.out = Linear(features // 2, 1, axes=("mlp", "features"), **init)

    def __call__(self, tokens: Float[Array, "B h w C"]) -> Float[Array, "B h w 1"]:
        """Map tokens [B, h, w, features] to logits, float32."""
        x = jax.nn.leaky_relu(self.conv(tokens), LEAKY_SLOPE)
        x = jax.nn.leaky_relu(self.project(x), LEAKY_SLOPE)
        return self.out(x).astype(jnp.float32)


class TokenHeads(nnx.Module):
    """One head for each of several layers of tokens."""

    def __init__(self, num_layers: int, features: int, *, dtype: str, rngs: nnx.Rngs):
        self.heads = nnx.List([TokenHead(features, dtype=dtype, rngs=rngs) for _ in range(num_layers)])

    def __call__(self, layers: Float[Array, "L B h w C"]) -> Float[Array, "B h w L"]:
        """Map tokens [L, B, h, w, features] to logits, one channel per layer, float32."""
        return jnp.concatenate([head(tokens) for head, tokens in zip(self.heads, layers, strict=True)], axis=-1)


class PatchNetwork(nnx.Module):
    """4x4 convolutions with stride 2 and LeakyReLU, then a 3x3 convolution to one logit per position.

    Args:
        widths: Output channels of the convolutions with stride 2.
        dtype: Dtype of the computation.
        rngs: Source of the initial values.
    """

    def __init__(self, widths: tuple[int, ...], *, dtype: str, rngs: nnx.Rngs):
        init: dict[str, Any] = {"dtype": dtype, "kernel_init": fan_in_uniform, "rngs": rngs}
        inputs = (3, *widths[:-1])
        padding = ((1, 1), (1, 1))
        self.convs = nnx.List(
            [Conv(i, o, 4, stride=2, padding=padding, **init) for i, o in zip(inputs, widths, strict=True)]
        )
        self.out = Conv(widths[-1], 1, **init)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w 1"]:
        """Map pictures in [-1, 1] to float32 logits [B, H / 2^n, W / 2^n, 1] for n widths, sides rounded down.

        Raises:
            UserError: A side has fewer than 2^n pixels.
        """
        _, height, width, _ = image.shape
        smallest = 2 ** len(self.convs)
        if min(height, width) < smallest:
            raise UserError(
                f"both sides of a picture must have at least {smallest} pixels for {len(self.convs)} convolutions with "
                f"stride 2, got {height}x{width}; use larger pictures or fewer discriminator.widths"
            )
        x = image
        for conv in self.convs:
            x = jax.nn.leaky_relu(conv(x), LEAKY_SLOPE)
        return self.out(x).astype(jnp.float32)


class Discriminator:
    """A discriminator of either kind as a pure function of nested dicts.

    Args:
        config: Description of the discriminator.
        dtype: Dtype of the trained layers' computation.
        dinov2: Description of DINOv2, by default the published one; tests use a small network.
        frozen_dtype: Dtype of DINOv2's computation.

    Attributes:
        functional: The trained layers.
        axes: Logical axis names of the parameters.
        state_axes: Logical axis names of the state.
        frozen: Required frozen networks by name: "dinov2", or none.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        *,
        dtype: Dtype = "float32",
        dinov2: DINOv2Config | None = None,
        frozen_dtype: Dtype = "float32",
    ):
        self.config = config
        self.functional: Functional[Any]
        self.frozen: dict[str, Functional[Any]] = {}
        match config:
            case DINOv2DiscriminatorConfig(layers=layers):
                network = dinov2 or DINOv2Config()
                wrong = [layer for layer in layers if not 0 <= layer < network.num_blocks]
                if wrong:
                    raise UserError(
                        f"discriminator.layers must be between 0 and {network.num_blocks - 1}, the blocks of DINOv2, "
                        f"got {wrong[0]}"
                    )
                self.frozen["dinov2"] = Functional(lambda rngs: DINOv2(network, dtype=frozen_dtype, rngs=rngs))
                self.functional = Functional(
                    lambda rngs: TokenHeads(len(layers), network.width, dtype=dtype, rngs=rngs)
                )
            case PatchDiscriminatorConfig(widths=widths):
                self.functional = Functional(lambda rngs: PatchNetwork(widths, dtype=dtype, rngs=rngs))
        self.axes: Params = self.functional.axes
        state = jax.eval_shape(lambda p: init_singular_vectors(p, jax.random.key(0)), self.functional.shapes)
        self.state_axes: Params = jax.tree.map(lambda _: ("features",), state)

    def logits(
        self, params: Params, vectors: Params, image: Float[Array, "B H W 3"], frozen: Mapping[str, Params]
    ) -> Float[Array, "B h w L"]:
        """Judge every patch; a higher logit means that the patch looks more like an original.

        Args:
            params: Parameters of the trained layers.
            vectors: Their singular vectors, as `spectral_norm.init_singular_vectors` and `spectral_normalize` return
                them.
            image: Pictures in [-1, 1]; for DINOv2 their sides are multiples of 16.
            frozen: Parameters of the frozen networks by name.

        Returns:
            Logits, float32.

        Raises:
            UserError: The size of the pictures does not fit the network.
        """
        normalized, _ = spectral_normalize(params, vectors, train=False)
        network = self.functional.bind(normalized)
        if isinstance(self.config, DINOv2DiscriminatorConfig):
            dinov2 = self.frozen["dinov2"].bind(frozen["dinov2"])
            return network(dinov2.discriminator_layers(image, self.config.layers))
        return network(image)
