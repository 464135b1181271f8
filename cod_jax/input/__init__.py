"""Training and validation images: where they are, how they are cropped, in which order they come."""

from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import TrainBatches, build_train_batches, load_validation_images

__all__ = ["DataConfig", "TrainBatches", "build_train_batches", "load_validation_images"]
