"""What a model is: frozen, validated descriptions that are stored with its weights."""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from cod_jax.errors import UserError
from cod_jax.nn.attention import AttentionMode
from cod_jax.nn.stack import Remat

Prediction = Literal["image", "velocity"]
Dtype = Literal["float32", "bfloat16"]


def matmul_precision(dtype: Dtype) -> str:
    """Precision in use of the products of a network that computes in `dtype`, for `jax.default_matmul_precision`.

    In float32 the highest: in TF32 the symbols of a picture would depend on the device. Products of bfloat16 numbers
    are exact either way, and XLA has faster kernels for those that do not ask for more; the float32 products that
    matter in a bfloat16 network ask for the highest themselves.
    """
    return "highest" if dtype == "float32" else "default"


Config = TypeVar("Config")

# Pixels per side of a condition cell; every published model uses this grid.
PATCH_SIZE = 16
# The latents of latent CoD: every 8x8 pixels are 4 numbers, so that a condition cell is 2x2 of them.
LATENT_STRIDE = 8
LATENT_CHANNELS = 4
LATENT_PATCH_SIZE = PATCH_SIZE // LATENT_STRIDE
# Downsamplings of the encoder after its first convolution; six is the deep encoder of the 64-bit models.
ENCODER_DEPTHS = (1, 2, 3, 4, 6)
# Far beyond any sensible model: a description from an untrusted file must not build for hours.
MAX_WIDTH = 2**14
MAX_BLOCKS = 1024
MAX_PIXEL_BLOCKS = 64
MAX_LEVELS = 64


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _require_range(config: Any, largest: Mapping[str, int]) -> None:
    for name, limit in largest.items():
        value = getattr(config, name)
        _require(1 <= value <= limit, f"{name} is {value}; it must be 1 to {limit}")


def _require_mlp_ratio(mlp_ratio: float, hidden: int) -> None:
    # Two thirds of it are SwiGLU's width.
    _require(hidden * mlp_ratio >= 2, f"mlp_ratio is {mlp_ratio}; an MLP over {hidden} channels has no width then")
    _require(mlp_ratio <= 64, f"mlp_ratio is {mlp_ratio}; it must be at most 64")


def _require_heads(hidden: int, num_heads: int) -> None:
    _require(
        hidden % (4 * num_heads) == 0,
        f"hidden {hidden} is not a multiple of 4 num_heads, {4 * num_heads}: rotary positions need heads of 4, 8, ... "
        "channels",
    )


@dataclasses.dataclass(frozen=True)
class FactorizedConfig:
    """A bottleneck that rounds latents and learns the density of each channel (spec section 6).

    Attributes:
        num_levels: Qualities of the model: each has widths of its own for the bins, one per channel, all learned; 1
            rounds to bins of width 1.
        training: What stands for rounding in training: "noise", uniform noise of a bin's width; "straight_through",
            rounding for the condition decoder, with a gradient as if it were none, and noise for the rate.
        offset: Where the bins are: "median", with a channel's bin 0 in the middle of its density, so that a channel
            that says nothing costs next to nothing; "none", with bin 0 around 0.
        tail_mass: Share of a density that its coding table may leave out; see `factorized_prior.coding_tables`.
    """

    num_levels: int = 1
    training: Literal["noise", "straight_through"] = "noise"
    offset: Literal["median", "none"] = "median"
    tail_mass: float = 2.0**-16

    def __post_init__(self):
        _require_range(self, {"num_levels": MAX_LEVELS})
        _require(
            1e-9 <= self.tail_mass <= 0.1, f"tail_mass is {self.tail_mass}; it must be 1e-9 to 0.1, such as 1.5e-5"
        )


@dataclasses.dataclass(frozen=True)
class ConditionCodecConfig:
    """Condition encoder, bottleneck and condition decoder (spec section 1).

    Attributes:
        pitch: Pixels per symbol in each direction, a power of two.
        input_stride: Stride of the encoder's first convolution, 1 or 2 (2 in the models trained at 512 pixels).
        encoder_width: Channels of the encoder's first level.
        latent_channels: Channels of a symbol's code vector; of a position's symbols with a factorized bottleneck.
        codebook_bits: Bits of a symbol; the codebook has 2^bits vectors. 0 with a factorized bottleneck, which has
            none.
        decoder_depth: Pairs of residual block and attention in the condition decoder, 2 (CoD-Lite) or 3 (CoD).
        num_groups: Groups of every group normalisation.
        attention: How the codec attends, in training and in use. The published CoD-Lite trains globally and cuts
            windows in use only, which no setting does.
        factorized: The factorized bottleneck; None is vector quantisation.
    """

    pitch: int = 32
    input_stride: int = 2
    encoder_width: int = 128
    latent_channels: int = 128
    codebook_bits: int = 4
    decoder_depth: int = 2
    num_groups: int = 32
    attention: AttentionMode = "global"
    factorized: FactorizedConfig | None = None

    def __post_init__(self):
        _require(self.input_stride in (1, 2), f"input_stride is {self.input_stride}; it must be 1 or 2")
        _require(
            self.pitch > 0 and self.pitch % self.input_stride == 0 and self.pitch & (self.pitch - 1) == 0,
            f"pitch is {self.pitch}; it must be a power of two and a multiple of input_stride {self.input_stride}",
        )
        _require(
            self.num_downsamples in ENCODER_DEPTHS,
            f"pitch {self.pitch} with input_stride {self.input_stride} needs {self.num_downsamples} downsamplings; "
            f"the encoder has {', '.join(map(str, ENCODER_DEPTHS[:-1]))} or {ENCODER_DEPTHS[-1]}: change the pitch",
        )
        _require(
            4 <= self.pitch <= 128 and (self.pitch <= 32 or self.num_downsamples == 6),
            f"pitch is {self.pitch}; it must be 4 to 32, or 64 or 128 with six downsamplings",
        )
        if self.factorized is None:
            _require(1 <= self.codebook_bits <= 16, f"codebook_bits is {self.codebook_bits}; it must be 1 to 16")
        else:
            _require(
                self.codebook_bits == 0,
                f"codebook_bits is {self.codebook_bits}; it must be 0, because a factorized bottleneck has no codebook",
            )
        _require(self.decoder_depth in (2, 3), f"decoder_depth is {self.decoder_depth}; it must be 2 or 3")
        _require_range(self, {"latent_channels": MAX_WIDTH, "encoder_width": MAX_WIDTH, "num_groups": MAX_WIDTH})
        _require(
            self.encoder_width % self.num_groups == 0,
            f"encoder_width {self.encoder_width} is not a multiple of num_groups {self.num_groups}",
        )

    @property
    def num_downsamples(self) -> int:
        """Stride-2 layers of the encoder after its first convolution."""
        return int(math.log2(max(self.pitch, 1) // self.input_stride))

    @property
    def is_deep(self) -> bool:
        """Whether this is the deep codec of the 64-bit models (published ds 128)."""
        return self.num_downsamples == ENCODER_DEPTHS[-1]

    @property
    def codebook_size(self) -> int:
        """Vectors in the codebook.

        Raises:
            UserError: The bottleneck is factorized.
        """
        _require(self.factorized is None, "a factorized bottleneck has no codebook, so the codebook has no size")
        return 2**self.codebook_bits

    @property
    def nominal_bits_per_pixel(self) -> float:
        """Bits of the symbols per pixel, without header, padding or entropy coding.

        Raises:
            UserError: The bottleneck is factorized: every picture has a rate of its own.
        """
        _require(self.factorized is None, "a factorized bottleneck has no nominal rate: each picture has its own")
        return self.codebook_bits / self.pitch**2


@dataclasses.dataclass(frozen=True)
class DConvConfig:
    """The convolutional denoiser of CoD-Lite (spec section 2).

    Attributes:
        kind: Which denoiser this is.
        hidden: Channels on the patch grid, also of the condition.
        hidden_pixel: Channels per pixel in the pixel head.
        num_blocks: Condition blocks.
        num_pixel_blocks: Residual blocks of the pixel head.
        bottleneck_width: Channels of the patch embedding before it meets the condition.
        mlp_ratio: Width of a block's MLP over `hidden`.
        prediction: What the network outputs, "image" or "velocity".
    """

    kind: Literal["dconv"] = "dconv"
    hidden: int = 384
    hidden_pixel: int = 32
    num_blocks: int = 21
    num_pixel_blocks: int = 3
    bottleneck_width: int = 128
    mlp_ratio: float = 4.0
    prediction: Prediction = "image"

    def __post_init__(self):
        widths = dict.fromkeys(("hidden", "hidden_pixel", "bottleneck_width"), MAX_WIDTH)
        _require_range(self, {**widths, "num_blocks": MAX_BLOCKS, "num_pixel_blocks": MAX_PIXEL_BLOCKS})
        _require_mlp_ratio(self.mlp_ratio, self.hidden)


@dataclasses.dataclass(frozen=True)
class PixNerDiTConfig:
    """The transformer denoiser of pixel CoD (spec section 2); the defaults are the published XL.

    Attributes:
        kind: Which denoiser this is.
        hidden: Channels on the patch grid, also of the condition.
        num_heads: Attention heads; the channels of one are a multiple of 4.
        hidden_pixel: Channels per pixel.
        num_blocks: Transformer blocks.
        num_pixel_blocks: Neural-field blocks.
        mlp_ratio: Width of a transformer block's MLP over `hidden`, before the two thirds of SwiGLU.
        pixel_mlp_ratio: Width of a neural field's MLP over `hidden_pixel`.
        prediction: What the network outputs, "image" or "velocity".
    """

    kind: Literal["pixnerdit"] = "pixnerdit"
    hidden: int = 1152
    num_heads: int = 16
    hidden_pixel: int = 64
    num_blocks: int = 26
    num_pixel_blocks: int = 4
    mlp_ratio: float = 4.0
    pixel_mlp_ratio: int = 2
    prediction: Prediction = "velocity"

    def __post_init__(self):
        widths = dict.fromkeys(("hidden", "num_heads", "hidden_pixel"), MAX_WIDTH)
        blocks = {"num_blocks": MAX_BLOCKS, "num_pixel_blocks": MAX_PIXEL_BLOCKS, "pixel_mlp_ratio": 64}
        _require_range(self, {**widths, **blocks})
        _require_mlp_ratio(self.mlp_ratio, self.hidden)
        _require_heads(self.hidden, self.num_heads)


@dataclasses.dataclass(frozen=True)
class DDTConfig:
    """The transformer denoiser of latent CoD (spec section 2); the defaults are the published XL.

    Attributes:
        kind: Which denoiser this is.
        hidden: Channels on the patch grid, also of the condition.
        num_heads: Attention heads; the channels of one are a multiple of 4.
        num_blocks: Transformer blocks of the encoder.
        num_decoder_blocks: Transformer blocks of the decoder.
        mlp_ratio: Width of a block's MLP over `hidden`, before the two thirds of SwiGLU.
        prediction: What the network outputs, "image" (the latents) or "velocity".
        autoencoder: Where latents come from: "sd_vae", or "space_to_depth", a fixed projection that needs no weights
            and is good for trying things out only.
    """

    kind: Literal["ddt"] = "ddt"
    hidden: int = 1152
    num_heads: int = 16
    num_blocks: int = 22
    num_decoder_blocks: int = 6
    mlp_ratio: float = 4.0
    prediction: Prediction = "velocity"
    autoencoder: Literal["sd_vae", "space_to_depth"] = "sd_vae"

    def __post_init__(self):
        widths = dict.fromkeys(("hidden", "num_heads"), MAX_WIDTH)
        _require_range(self, {**widths, "num_blocks": MAX_BLOCKS, "num_decoder_blocks": MAX_BLOCKS})
        _require_mlp_ratio(self.mlp_ratio, self.hidden)
        _require_heads(self.hidden, self.num_heads)


DenoiserConfig = DConvConfig | PixNerDiTConfig | DDTConfig


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How a model is computed; it changes neither the parameters nor, but for rounding, the results.

    Attributes:
        dtype: Dtype of the computation; parameters are float32.
        remat: What the backward pass computes again: "none"; "dots", all but matrix products with weights; "full",
            everything inside a block. It saves memory and costs time.
        unroll: Whether equal blocks are compiled one after the other instead of as a loop: longer to compile.
    """

    dtype: Dtype = "float32"
    remat: Remat = "none"
    unroll: bool = False


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model: condition codec and denoiser."""

    codec: ConditionCodecConfig = dataclasses.field(default_factory=ConditionCodecConfig)
    denoiser: DenoiserConfig = dataclasses.field(default_factory=DConvConfig)

    def __post_init__(self):
        _require(
            self.denoiser.hidden % self.codec.num_groups == 0,
            f"denoiser.hidden {self.denoiser.hidden} is not a multiple of codec.num_groups {self.codec.num_groups}",
        )

    @property
    def is_latent(self) -> bool:
        """Whether the denoiser works on latents of a frozen autoencoder instead of pixels."""
        return isinstance(self.denoiser, DDTConfig)

    @property
    def has_learned_autoencoder(self) -> bool:
        """Whether the latents come from a network with weights of its own."""
        return isinstance(self.denoiser, DDTConfig) and self.denoiser.autoencoder == "sd_vae"

    @property
    def patch_size(self) -> int:
        """Side of a patch in what the denoiser works on: pixels or latents."""
        return LATENT_PATCH_SIZE if self.is_latent else PATCH_SIZE

    @property
    def channels(self) -> int:
        """Channels of what the denoiser works on."""
        return LATENT_CHANNELS if self.is_latent else 3

    def values_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Shape of what is denoised for images [B, H, W, 3] whose sides are multiples of `size_multiple`."""
        batch, height, width, _ = image_shape
        scale = PATCH_SIZE // self.patch_size
        return batch, height // scale, width // scale, self.channels

    @property
    def size_multiple(self) -> int:
        """Both sides of a picture must be multiples of this many pixels."""
        return max(self.codec.pitch, PATCH_SIZE)

    @property
    def sampling_method(self) -> Literal["euler", "adams"]:
        """The sampler that suits the prediction: Adams for velocities, Euler for images."""
        return "adams" if self.denoiser.prediction == "velocity" else "euler"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as stored in a model folder; with a codebook as from before there was another choice."""
        values = dataclasses.asdict(self)
        if self.codec.factorized is None:
            del values["codec"]["factorized"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Undo `to_dict`; missing fields take their defaults.

        Raises:
            UserError: A field is unknown or has an unusable value.
        """
        return from_mapping(cls, values, "model")


def from_mapping(cls: type[Config], values: Any, where: str) -> Config:
    """Build a (nested) config dataclass from plain values.

    Args:
        cls: A dataclass whose fields are plain values, tuples or config dataclasses.
        values: Field names and values; missing ones take their defaults.
        where: Dotted name of this mapping, for messages.

    Raises:
        UserError: A field is unknown, of another type, or refused by the dataclass; the message starts with its name.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; it must hold the fields {', '.join(fields)}")
    arguments = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {where}.{near[0]}?" if near else f"known fields are {', '.join(fields)}"
            raise UserError(f"unknown field {where}.{name}; {hint}")
        arguments[name] = _converted(fields[name].type, value, f"{where}.{name}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _chosen(union: Any, value: Any, where: str) -> Any:
    """The member of a union of config dataclasses that a value's `kind` names; the first one where it names none."""
    members = {member.kind: member for member in get_args(union)}
    if type(value) in members.values():
        return type(value)
    kind = value.get("kind", next(iter(members))) if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in members:
        raise UserError(f"{where}.kind is {kind!r}; it must be one of {', '.join(members)}")
    return members[kind]


def _converted(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        if types.NoneType in get_args(kind):
            (other,) = (member for member in get_args(kind) if member is not types.NoneType)
            return None if value is None else _converted(other, value, where)
        return _converted(_chosen(kind, value, where), value, where)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_mapping(kind, value, where)  # pyright: ignore[reportArgumentType]
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(f"{where} is {value!r}; it must be one of {', '.join(map(str, get_args(kind)))}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{where} is a number of {len(str(value))} digits; it is too large") from None
    if kind in (int, float, str, bool) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise UserError(f"{where} is {value!r}; it must be of type {kind.__name__}")
    return tuple(value) if isinstance(value, list) else value
