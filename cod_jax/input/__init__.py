"""Training and validation images: reading, cropping and ordering them."""

from cod_jax.input.config import DataConfig
from cod_jax.input.pipeline import TrainBatches, build_train_batches, load_validation_images

__all__ = ["DataConfig", "TrainBatches", "build_train_batches", "load_validation_images"]
