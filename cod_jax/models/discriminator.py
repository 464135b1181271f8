"""Discriminators: what a one-step codec is trained against, so that reconstructions look real (spec section 5).

Both kinds judge every patch of a picture; all their layers are spectrally normalised.
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
    """Description of a discriminator.

    Attributes:
        kind: Which discriminator this is.
    """

    FAMILY: ClassVar[Mapping[str, str]] = {
        "dinov2": "cod_jax.models.discriminator:DINOv2DiscriminatorConfig",
        "patch": "cod_jax.models.discriminator:PatchDiscriminatorConfig",
    }


@dataclasses.dataclass(frozen=True)
class DINOv2DiscriminatorConfig(DiscriminatorConfig):
    """Heads on features of the frozen DINOv2, as published.

    Attributes:
        kind: Which discriminator this is.
        layers: Numbers of the blocks whose tokens are judged, each by a head of its own; 0 is the first block.
    """

    kind: Literal["dinov2"] = "dinov2"
    layers: tuple[int, ...] = (2, 5, 8, 11)

    def __post_init__(self):
        if not self.layers:
            raise UserError("layers is empty; name at least one block of DINOv2")


@dataclasses.dataclass(frozen=True)
class PatchDiscriminatorConfig(DiscriminatorConfig):
    """Convolutions from pixels to one logit per patch (Isola et al. 2017, section 3.2.2); needs no weight file.

    Attributes:
        kind: Which discriminator this is.
        widths: Output channels of the convolutions, each of which halves the size.
    """

    kind: Literal["patch"] = "patch"
    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self):
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"widths are {self.widths}; name at least one convolution, each with at least 1 channel")


class TokenHead(nnx.Module):
    """3x3, 1x1 and 1x1 convolutions with LeakyReLU in between: tokens of one layer to a logit per position.

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
    """A head for each of several layers of tokens."""

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
        """Map pictures in [-1, 1] to logits [B, H / 2^n, W / 2^n, 1], rounded down, n the number of widths; float32.

        Raises:
            UserError: A side has less than 2^n pixels.
        """
        _, height, width, _ = image.shape
        smallest = 2 ** len(self.convs)
        if min(height, width) < smallest:
            raise UserError(
                f"picture of {height}x{width} pixels; both sides must have at least {smallest} for a discriminator of "
                f"{len(self.convs)} convolutions with stride 2"
            )
        x = image
        for conv in self.convs:
            x = jax.nn.leaky_relu(conv(x), LEAKY_SLOPE)
        return self.out(x).astype(jnp.float32)


class Discriminator:
    """Either kind of discriminator as a pure function of nested dicts.

    Args:
        config: Which kind.
        dtype: Dtype of the trained layers' computation.
        dinov2: What DINOv2 is; another one than the published serves tests.
        frozen_dtype: Dtype of DINOv2's computation.

    Attributes:
        functional: The trained layers.
        axes: Logical axis names of the parameters.
        state_axes: Logical axis names of the state.
        frozen: The frozen networks that are needed by name: "dinov2" or none.
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
                        f"discriminator.layers has {wrong[0]}; DINOv2 has blocks 0 to {network.num_blocks - 1}"
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
        """Judge every patch: the higher the logit, the more it looks like one of a picture.

        Args:
            params: Parameters of the trained layers.
            vectors: Their singular vectors, as `spectral_norm.init_singular_vectors` makes and `spectral_normalize`
                moves them.
            image: Pictures in [-1, 1]; their sides are multiples of 16 for DINOv2.
            frozen: Parameters of the frozen networks by name.

        Returns:
            Logits, float32.

        Raises:
            UserError: The pictures' size does not fit.
        """
        normalized, _ = spectral_normalize(params, vectors, train=False)
        network = self.functional.bind(normalized)
        if isinstance(self.config, DINOv2DiscriminatorConfig):
            dinov2 = self.frozen["dinov2"].bind(frozen["dinov2"])
            return network(dinov2.discriminator_layers(image, self.config.layers))
        return network(image)
