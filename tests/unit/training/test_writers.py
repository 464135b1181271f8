import io
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cod_jax.training.writers import TensorBoardWriter


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_reads_scalars_pictures_texts_and_hyper_parameters(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    writer = TensorBoardWriter(tmp_path)
    writer.hyper_parameters({"optimizer.learning_rate": 1e-3, "data.source": "photos", "sharding.batch": ("data",)})
    writer.scalars(3, {"loss": 0.5, "loss/flow": 0.25})
    writer.images(3, {"validation/picture": picture})
    writer.texts(0, {"parameters": "a table"})
    writer.close()
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("loss/flow")] == [(3, 0.25)]
    encoded = events.Images("validation/picture")[0].encoded_image_string
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)
    assert events.Tensors("parameters")[0].tensor_proto.string_val[0] == b"a table"
    assert "_hparams_/session_start_info" in events.Tags()["tensors"]


def test_a_resumed_run_replaces_what_an_interrupted_one_wrote(tmp_path):
    for first, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (3, {3: 30.0})):
        writer = TensorBoardWriter(tmp_path, first_step=first)
        for step, value in values.items():
            writer.scalars(step, {"loss": value})
        writer.close()
    assert [event.value for event in read(tmp_path).Scalars("loss")] == [1.0, 2.0, 30.0]


def test_processes_beside_the_first_write_nothing():
    writer = TensorBoardWriter(None)
    writer.scalars(1, {"loss": 1.0})
    writer.close()
