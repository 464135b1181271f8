"""A trained CoD as a perceptual loss for any decoder of pictures, in optax's style; see docs/perceptual.md.

The loss is distribution matching: a decoder's pictures should look to the model like pictures. A critic, a copy of the
model's denoiser, learns beside the decoder what its pictures look like now.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cod_jax.errors import UserError
from cod_jax.losses.matching import Noised, critic_loss, guided, matching_loss, noised
from cod_jax.model_folder.abilities import check_teacher
from cod_jax.model_folder.bundle import Bundle, load_bundle
from cod_jax.model_folder.included import model_path
from cod_jax.models import ComputeConfig, build_model
from cod_jax.models.condition_codec import NULL_CONDITION_VALUE
from cod_jax.models.functional import Params


class CoDLossState(NamedTuple):
    """Everything that the loss computes with: pass it to jitted functions, and save it with your own parameters.

    Attributes:
        teacher: Parameters of the model; they do not change.
        critic: Parameters of the critic's denoiser.
        optimizer: State of the critic's optimizer.
    """

    teacher: Params
    critic: Params
    optimizer: optax.OptState


class CoDLoss:
    """The surrogate loss of distribution matching with a CoD model as teacher.

    The functions are pure and can be jitted: they take a state and return values. Images are float arrays
    [B, H, W, 3] in [-1, 1] whose sides are multiples of `size_multiple`.

    Args:
        bundle: The teacher, a loaded model folder; `CoDLoss.load` reads one. It must work on pixels, and have learned
            to predict pictures from noise.
        guidance_scale: Classifier-free guidance of the teacher; 1 switches it off and takes half of its time. Teachers
            that have not learned pictures without a condition, such as the included model, need 1.
        time_shift: Shift of the timesteps, see `flow.shift_time`.
        optimizer: Optimizer of the critic; AdamW with a learning rate of 1e-5 by default.

    Raises:
        UserError: The teacher works on latents, is a one-step codec or cannot be guided, or the guidance or the shift
            is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        guidance_scale: float = 3.0,
        time_shift: float = 1.0,
        optimizer: optax.GradientTransformation | None = None,
    ):
        if bundle.config.is_latent:
            raise UserError("expected a teacher that works on pixels, got one on latents; give a pixel model")
        if not 0 <= guidance_scale <= 1000:
            raise UserError(f"expected guidance_scale from 0 to 1000, got {guidance_scale}")
        if not 0 < time_shift < float("inf"):
            raise UserError(f"expected a positive time_shift, got {time_shift}")
        check_teacher(bundle.training, guidance_scale, "the teacher")
        self.size_multiple = bundle.config.size_multiple
        self._params, self._guidance_scale, self._time_shift = bundle.params, guidance_scale, time_shift
        self._model = build_model(bundle.config, ComputeConfig(bundle.dtype))
        self._optimizer = optimizer or optax.adamw(1e-5, weight_decay=0.0)

    @classmethod
    def load(cls, model: str, **settings: Any) -> "CoDLoss":
        """Return the loss of a model folder, or of an included model.

        Args:
            model: Its path, or its name.
            **settings: Those of the constructor.

        Raises:
            UserError: It is not a model folder, or cannot be the teacher.
        """
        return cls(load_bundle(model_path(model), with_prior=False), **settings)

    def init(self) -> CoDLossState:
        """Return the state at the start, when the critic is the teacher and the loss has no gradient yet.

        Its arrays share no memory with each other or with the model, so a jitted function may donate it.
        """
        teacher, critic = jax.tree.map(jnp.array, (self._params, self._params["denoiser"]))
        return CoDLossState(teacher, critic, self._optimizer.init(critic))

    def __call__(
        self,
        state: CoDLossState,
        key: jax.Array,
        output: Float[Array, "B H W 3"],
        image: Float[Array, "B H W 3"],
    ) -> Float[Array, ""]:
        """Return the loss of a decoder's output; only its gradient in the output has a meaning.

        The gradient points from what the critic expects of the noised output to what the teacher does, both given the
        condition of the original (Yin et al. 2024, equations 7 and 8). It has a size of about 2 / output.size for each
        number, whatever the images, so add it to other losses with a weight.

        Args:
            state: What `init` or `update` returned; it has no gradient.
            key: Randomness of timesteps and noise; a new one in every step.
            output: The decoder's images.
            image: The originals.

        Raises:
            UserError: The shapes differ, or a side is not a multiple of `size_multiple`.
        """
        state = jax.lax.stop_gradient(state)
        at = self._noised(state, key, output, image)
        unconditional = None
        if self._guidance_scale != 1.0:
            null = jnp.full((1, *image.shape[1:]), NULL_CONDITION_VALUE, jnp.float32)
            unconditional = self._model.bind(state.teacher).codec.condition(null)
        teacher = guided(self._model.bind(state.teacher).velocity, unconditional, self._guidance_scale)
        return matching_loss(output, at, teacher=teacher, critic=self._critic(state.teacher, state.critic).velocity)

    def update(
        self,
        state: CoDLossState,
        key: jax.Array,
        output: Float[Array, "B H W 3"],
        image: Float[Array, "B H W 3"],
    ) -> tuple[CoDLossState, Float[Array, ""]]:
        """Train the critic on a decoder's output, and return the new state and the critic's loss.

        Four updates for each of the decoder's are usual, with new images if there are enough.

        Args:
            state: The state so far.
            key: Randomness of timesteps and noise.
            output: The decoder's images.
            image: The originals.

        Raises:
            UserError: As for a call.
        """
        at = self._noised(state, key, output, image)

        def loss(critic: Params) -> Float[Array, ""]:
            network = self._critic(state.teacher, critic)
            return critic_loss(output, at, critic=network.velocity, prediction=network.prediction)

        value, gradient = jax.value_and_grad(loss)(state.critic)
        changes, optimizer = self._optimizer.update(gradient, state.optimizer, state.critic)
        critic: Any = optax.apply_updates(state.critic, changes)
        return CoDLossState(state.teacher, critic, optimizer), value

    def _critic(self, teacher: Params, critic: Params) -> Any:
        return self._model.bind({"codec": teacher["codec"], "denoiser": critic})

    def _noised(self, state: CoDLossState, key: jax.Array, output: jax.Array, image: jax.Array) -> Noised:
        if output.shape != image.shape or any(side % self.size_multiple for side in image.shape[1:3]):
            raise UserError(
                f"expected images of one shape whose sides are multiples of {self.size_multiple}, got "
                f"{list(output.shape)} and {list(image.shape)}; crop them"
            )
        key_time, key_noise = jax.random.split(key)
        return noised(
            output,
            self._model.bind(state.teacher).codec.condition((image + 1) / 2),
            time=jax.random.normal(key_time, image.shape[:1]),
            noise=jax.random.normal(key_noise, image.shape),
            time_shift=self._time_shift,
        )
