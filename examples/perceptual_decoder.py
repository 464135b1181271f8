"""Fine-tune the decoder of another codec with a CoD model as perceptual loss, and show what changes.

    python examples/perceptual_decoder.py --photos PHOTOS --pictures KODAK --output perceptual

The other codec knows nothing of cod_jax: cells of 8x8 pixels become numbers that are rounded and cost what a logistic
prior says, and a small convolutional network decodes them. It is trained here for rate and squared error, as most
codecs are. Then its encoder is frozen, so that files stay what they are, and its decoder goes on with `CoDLoss`.
The output folder gets `pictures.png` (rows: originals, before, after) and `measures.csv`. See docs/perceptual.md.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from cod_jax.evaluation import metrics, ms_ssim, psnr, wasserstein_distortion
from cod_jax.perceptual import CoDLoss

CELL, LATENTS, FEATURES, NUM_BLOCKS = 8, 32, 64, 4
# What a number is multiplied with before it is rounded, at the start.
GAIN = 2.0
CROP, BATCH = 64, 16
# Steps of the critic alone: at first it is the teacher, and the loss has no gradient.
HEAD_START = 100
# Pictures that are compared, and the square of each.
SHOWN, SHOWN_FROM, SHOWN_TO = 4, 128, 384
Params = dict[str, Any]


# The other codec.


def fit(photos: list[np.ndarray]) -> Params:
    """Return its parameters at the start: principal components of cells, and networks that add nothing yet."""
    cells = np.concatenate([np.asarray(to_cells(photo[None] / 127.5 - 1)).reshape(-1, 3 * CELL**2) for photo in photos])
    mean = cells.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(cells - mean, rowvar=False))
    axes = axes[:, ::-1][:, :LATENTS].astype(np.float32)
    spreads = np.std((cells - mean) @ axes, axis=0)
    rng = np.random.default_rng(0)

    def convolution(size: int, inputs: int, outputs: int, gain: float = 1.0) -> np.ndarray:
        return (gain * rng.standard_normal((size, size, inputs, outputs)) / (size * inputs**0.5)).astype(np.float32)

    def network(inputs: int, outputs: int) -> Params:
        return {
            "lift": convolution(3, inputs, FEATURES),
            "blocks": [
                {"in": convolution(3, FEATURES, FEATURES), "out": convolution(1, FEATURES, FEATURES, gain=0.1)}
                for _ in range(NUM_BLOCKS)
            ],
            "out": np.zeros((3, 3, FEATURES, outputs), np.float32),
        }

    return {
        "mean": mean.astype(np.float32),
        "analysis": GAIN * axes,
        "log_scale": np.log(GAIN * spreads / 1.8).astype(np.float32),  # of a logistic distribution
        "encoder": network(3 * CELL**2, LATENTS),
        "synthesis": axes.T / GAIN,
        "decoder": network(LATENTS, 3 * CELL**2),
    }


def to_cells(images: Any) -> Any:
    """Return the values of cells [B, h, w, 192] of pictures [B, H, W, 3]."""
    batch, height, width, _ = images.shape
    grid = images.reshape(batch, height // CELL, CELL, width // CELL, CELL, 3)
    return grid.swapaxes(2, 3).reshape(batch, height // CELL, width // CELL, -1)


def encode(params: Params, images: jax.Array) -> jax.Array:
    """Return rounded numbers [B, h, w, 32] of pictures [B, H, W, 3] in [-1, 1]; rounding keeps their gradient."""
    cells = to_cells(images) - params["mean"][None, None, None]
    latents = jnp.einsum("bhwn,nc->bhwc", cells, params["analysis"]) + run(params["encoder"], cells)
    return latents + jax.lax.stop_gradient(jnp.round(latents) - latents)


def bits_per_pixel(params: Params, symbols: jax.Array) -> jax.Array:
    """Return what the symbols cost under the prior."""
    scale = jnp.exp(params["log_scale"])[None, None, None]
    mass = jax.nn.sigmoid((symbols + 0.5) / scale) - jax.nn.sigmoid((symbols - 0.5) / scale)
    return -jnp.log2(jnp.maximum(mass, 1e-9)).mean() * LATENTS / CELL**2


def decode(params: Params, symbols: jax.Array) -> jax.Array:
    """Return pictures [B, H, W, 3], about in [-1, 1], of symbols [B, h, w, 32]."""
    values = jnp.einsum("bhwc,cn->bhwn", symbols, params["synthesis"]) + run(params["decoder"], symbols / GAIN)
    batch, rows, columns, _ = values.shape
    grid = (values + params["mean"][None, None, None]).reshape(batch, rows, columns, CELL, CELL, 3)
    return grid.swapaxes(2, 3).reshape(batch, rows * CELL, columns * CELL, 3)


def run(network: Params, x: jax.Array) -> jax.Array:
    """Return what a network of residual blocks makes of [B, h, w, C]."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x = convolve(x, network["lift"])
    for block in network["blocks"]:
        x += convolve(jax.nn.gelu(convolve(x, block["in"])), block["out"])
    return convolve(x, network["out"])


# Its training, and the second one with the perceptual loss.


def train(params: Params, batches: Iterator[np.ndarray], steps: int, weight: float) -> Params:
    """Return the codec, trained for bits per pixel + weight x squared error."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    @jax.jit
    def step(params: Params, state: Any, images: jax.Array) -> tuple[Params, Any, jax.Array, jax.Array]:
        def loss(params: Params) -> tuple[jax.Array, Any]:
            symbols = encode(params, images)
            rate, error = bits_per_pixel(params, symbols), jnp.mean((decode(params, symbols) - images) ** 2)
            return rate + weight * error, (rate, error)

        gradient, (rate, error) = jax.grad(loss, has_aux=True)(params)
        changes, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, changes), state, rate, error  # pyright: ignore[reportReturnType]

    state = optimizer.init(params)
    for number in range(steps):
        params, state, rate, error = step(params, state, next(batches))
        if number % 200 == 199:
            print(f"codec {number + 1}: {rate:.3f} bits per pixel, {10 * np.log10(4 / error):.2f} dB", flush=True)
    return params


def tune(params: Params, batches: Iterator[np.ndarray], steps: int, model: str, weight: float) -> Params:
    """Return the codec with a decoder trained for squared error + weight x perceptual loss."""
    critic_optimizer = optax.adam(optax.warmup_constant_schedule(0, 2e-4, 50))
    perceptual = CoDLoss.load(model, guidance_scale=1.0, optimizer=critic_optimizer)
    frozen = {name: params[name] for name in ("mean", "analysis", "log_scale", "encoder")}
    decoder = {name: value for name, value in params.items() if name not in frozen}
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-4, steps))

    @jax.jit
    def update_critic(decoder: Params, critic: Any, key: jax.Array, images: jax.Array) -> Any:
        output = decode({**frozen, **decoder}, encode(params, images))
        return perceptual.update(critic, key, output, images)

    @jax.jit
    def step(decoder: Params, state: Any, critic: Any, key: jax.Array, images: jax.Array) -> tuple[Params, Any, Any]:
        symbols = encode(params, images)

        def loss(decoder: Params) -> tuple[jax.Array, jax.Array]:
            output = decode({**frozen, **decoder}, symbols)
            error = jnp.mean((output - images) ** 2)
            return error + weight * perceptual(critic, key, output, images), error

        gradient, error = jax.grad(loss, has_aux=True)(decoder)
        changes, state = optimizer.update(gradient, state)
        return optax.apply_updates(decoder, changes), state, error  # pyright: ignore[reportReturnType]

    critic, state, keys = perceptual.init(), optimizer.init(decoder), jax.random.key(1)
    for number in range(steps + HEAD_START):
        keys, key, key_critic = jax.random.split(keys, 3)
        critic, critic_loss = update_critic(decoder, critic, key_critic, next(batches))
        if number < HEAD_START:
            continue
        decoder, state, error = step(decoder, state, critic, key, next(batches))
        if number % 100 == 99:
            line = f"decoder {number + 1 - HEAD_START}: {10 * np.log10(4 / error):.2f} dB, critic {critic_loss:.3f}"
            print(line, flush=True)
    return {**frozen, **decoder}


def read(folder: Path, side: int) -> list[np.ndarray]:
    """Return photographs with sides of at least `side`, cut to multiples of 16 pixels, as uint8 [H, W, 3]."""
    if not folder.is_dir():
        raise SystemExit(f"expected a folder of photographs, got {folder}, which does not exist")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    photos = [photo[: photo.shape[0] // 16 * 16, : photo.shape[1] // 16 * 16] for photo in photos]
    photos = [photo for photo in photos if min(photo.shape[:2]) >= side]
    if not photos:
        raise SystemExit(f"expected a folder with .png or .jpg files of at least {side}x{side} pixels, got {folder}")
    return photos


def crops(photos: list[np.ndarray], seed: int) -> Iterator[np.ndarray]:
    """Yield batches of crops [16, 64, 64, 3] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    while True:
        chosen = [photos[rng.integers(len(photos))] for _ in range(BATCH)]
        corners = [(rng.integers(p.shape[0] - CROP + 1), rng.integers(p.shape[1] - CROP + 1)) for p in chosen]
        batch = [p[top : top + CROP, left : left + CROP] for p, (top, left) in zip(chosen, corners, strict=True)]
        yield np.stack(batch).astype(np.float32) / 127.5 - 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Fine-tune the decoder of another codec with CoDLoss.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs for training")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures to decode")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--model", default="compact", help="the teacher: an included model, or a folder")
    parser.add_argument("--steps", type=int, default=3000, help="steps of the codec's own training")
    parser.add_argument("--tune-steps", type=int, default=1200, help="steps with the perceptual loss")
    parser.add_argument(
        "--distortion-weight", type=float, default=25.0, help="of the squared error beside bits per pixel"
    )
    parser.add_argument("--perceptual-weight", type=float, default=0.1, help="beside the squared error")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train, fine-tune, and write what changed."""
    given = parser().parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    photos, pictures = read(given.photos, CROP), read(given.pictures, SHOWN_TO)
    batches = crops(photos, seed=0)
    before = train(fit(photos[:200]), batches, given.steps, given.distortion_weight)
    after = tune(before, batches, given.tune_steps, given.model, given.perceptual_weight)
    show(given.output, pictures, before, after)


def show(output: Path, pictures: list[np.ndarray], before: Params, after: Params) -> None:
    """Write the table of measures and a picture that compares."""
    rows, panels = [], [[picture] for picture in pictures]
    for name, params in (("before", before), ("after", after)):
        found = []
        for picture, panel in zip(pictures, panels, strict=True):
            symbols = encode(params, jnp.asarray(picture[None], jnp.float32) / 127.5 - 1)
            decoded = np.asarray(jnp.round((decode(params, symbols)[0].clip(-1, 1) + 1) * 127.5).astype(np.uint8))
            panel.append(decoded)
            share = metrics.texture(decoded) / metrics.texture(picture)
            wasserstein = wasserstein_distortion(picture, decoded)
            rate = float(bits_per_pixel(params, symbols))
            found.append((rate, psnr(picture, decoded), ms_ssim(picture, decoded), wasserstein, share))
        rows.append((name, *np.round(np.mean(found, axis=0), 4)))
    header = ("decoder", "bits per pixel", "PSNR", "MS-SSIM", "Wasserstein distortion", "texture")
    with (output / "measures.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for row in (header, *rows):
        print("  ".join(f"{value!s:>22}" for value in row))
    square = slice(SHOWN_FROM, SHOWN_TO)
    columns = [np.concatenate([view[square, square] for view in panel]) for panel in panels[:SHOWN]]
    Image.fromarray(np.concatenate(columns, axis=1)).save(output / "pictures.png")


if __name__ == "__main__":
    main()
