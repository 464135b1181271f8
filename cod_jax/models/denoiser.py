"""What every denoiser is to the rest of the program."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float


class Denoised(NamedTuple):
    """What a denoiser returns.

    Attributes:
        prediction: Image or latents, or their velocity, like x_t, float32.
        features: State [B, h, w, hidden] after the block asked for, or None.
    """

    prediction: Float[Array, "B H W C"]
    features: Float[Array, "B h w hidden"] | None


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts the image or the velocity from x_t, the timestep and the condition."""

    def __call__(
        self,
        x_t: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        condition: Float[Array, "B h w hidden"],
        *,
        features_after: int | None = None,
        by_rows: bool = False,
    ) -> Denoised:
        """Predict.

        Args:
            x_t: Noisy image or latents.
            t: Timesteps in [0, 1].
            condition: Condition on the patch grid.
            features_after: Number of the block whose output is returned too; 1 is the first.
            by_rows: Spare memory where a head works pixel by pixel, see `PixelHead`.
        """
        ...
