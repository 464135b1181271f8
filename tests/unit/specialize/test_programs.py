"""Programs of compiled models: platforms, sizes, and models that cannot be compiled."""

import dataclasses
import itertools
import re

import pytest
from jax import export

from cod_jax.models import (
    DConvConfig,
    PixNerDiTConfig,
    build_model,
)
from cod_jax.models.cod_codec import WINDOW
from cod_jax.nn.attention import MAX_WHOLE_QUERIES
from cod_jax.runtime.folder import Part, Platform, Sizes
from cod_jax.runtime.programs import calls_other_code
from cod_jax.specialize.programs import check_supported, export_program, size_ranges, split
from tests.model_fixtures import (
    numpy_params,
    tiny_compact_config,
    tiny_latent_config,
    tiny_model_config,
    tiny_pixel_config,
)
from tests.unit.specialize.decoders import decoder

# What a program moves and repeats: transpositions of pictures, and loops over equal blocks and over the chunks of a
# pixel head. Latents of cells are patches of one position, so their transposition moves nothing.
TRANSPOSITIONS: dict[str, dict[Part, int]] = {
    "dconv": {"encode": 0, "decode": 1},
    "pixnerdit": {"encode": 0, "decode": 1},
    "compact": {"encode": 2, "decode": 3},
}
LOOPS: dict[str, dict[Part, int]] = {
    "dconv": {"encode": 0, "decode": 2},
    "pixnerdit": {"encode": 0, "decode": 3},
    "compact": {"encode": 1, "decode": 3},
}


@pytest.mark.parametrize(
    ("config", "platforms"),
    [
        (tiny_model_config(), ("cuda", "tpu")),
        (tiny_compact_config(), ("cuda",)),
        pytest.param(tiny_pixel_config(), ("cuda",), marks=pytest.mark.slow),
    ],
    ids=["dconv", "compact", "pixnerdit"],
)
def test_programs_for_every_platform_are_made_anywhere(config, platforms: tuple[Platform, ...]):
    kind = config.denoiser.kind
    params = numpy_params(build_model(config).shapes)
    for half, platform in itertools.product(split(config, params, "bfloat16"), platforms):
        data = export_program(half, size_ranges(config, half.part)[0], platform)
        assert len(data) < 2**17, "weights belong beside it"
        exported = export.deserialize(bytearray(data))
        assert exported.platforms == (platform,)
        assert not calls_other_code(exported), "the runtime would refuse it"
        text = exported.mlir_module()
        assert "f64" not in text
        products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", text)
        assert products
        # Fast kernels do not take bfloat16 products that ask for more; float32 ones must ask for it.
        assert all(("bf16" in line) != ("HIGHEST" in line) for line in products)
        # The distances from code vectors, and a pixel head's last layer.
        assert kind == "compact" or any("HIGHEST" in line for line in products)
        # Means and variances of norms, and sums of attention weights.
        sums = re.findall(r"stablehlo\.reduce\(.*", text)
        assert sums
        assert not any("bf16" in line for line in sums)
        moved = re.findall(r"stablehlo\.transpose .*\[0, 1, 3, 2, 4, 5\] : \(tensor<\?", text)
        assert len(moved) == TRANSPOSITIONS[kind][half.part]
        assert text.count("stablehlo.while") == LOOPS[kind][half.part]
        pictures = next(taken for taken in reversed(exported.in_avals) if taken.ndim >= 3)
        assert all(map(export.is_symbolic_dim, pictures.shape[:3]))


@pytest.mark.parametrize("denoiser", [DConvConfig(), PixNerDiTConfig()], ids=["dconv", "pixnerdit"])
@pytest.mark.parametrize("attention", ["global", "window_published", "window_masked"])
@pytest.mark.parametrize("pitch", [4, 8, 16, 32])
@pytest.mark.parametrize("part", ["encode", "decode"])
def test_every_size_has_one_program_and_every_program_is_another(part: Part, attention, pitch, denoiser):
    config = dataclasses.replace(tiny_model_config(pitch=pitch, attention=attention), denoiser=denoiser)
    ranges = size_ranges(config, part)
    decisions: dict[Sizes, set[tuple[bool, ...]]] = {}
    for grid in [(rows, columns) for rows in range(1, 70, 3) for columns in range(1, 70)] + [(1, 10**6), (10**6, 1)]:
        (sizes,) = (sizes for sizes in ranges if grid in sizes)
        symbols = [side * (max(pitch, 16) // pitch) for side in grid]
        patches = grid[0] * grid[1] * (max(pitch, 16) // 16) ** 2
        is_cut = [side > WINDOW for side in symbols] if attention != "global" else [False, False]
        # A side that is cut makes that of the other indifferent.
        decision = [is_cut[0], not is_cut[0] and is_cut[1]]
        if attention == "global":
            decision.append(symbols[0] * symbols[1] > MAX_WHOLE_QUERIES)
        if part == "decode" and denoiser.kind == "pixnerdit":
            decision.append(patches > MAX_WHOLE_QUERIES)
        decisions.setdefault(sizes, set()).add(tuple(decision))
    assert len(decisions) == len(ranges)
    assert all(len(made) == 1 for made in decisions.values()), "one program does one thing"
    assert len(set.union(*decisions.values())) == len(ranges), "two programs do the same"


def test_models_on_latents_are_refused():
    config = tiny_latent_config()
    with pytest.raises(
        ValueError, match=r"only models on pixels can be compiled, got one on latents \(denoiser.kind ddt\)"
    ):
        check_supported(config)
    with pytest.raises(ValueError, match="expected a denoiser of kind compact, dconv or pixnerdit, got ddt"):
        decoder(config=config)


def test_the_deep_codec_is_refused():
    with pytest.raises(ValueError, match=r"the deep codec \(pitch 128\) cannot be compiled"):
        check_supported(tiny_model_config(pitch=128))
