"""Datasets of tensorflow-datasets as a source of images, without TensorFlow."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cod_jax.input import sources
from cod_jax.input.pipeline import build_train_batches, load_validation_images
from tests.input_fixtures import SIZE, colour_of, plain_config
from tests.storage_fixtures import bucket as bucket
from tests.storage_fixtures import put_folder


def encoded(index):
    """A picture of one colour; the red value is its index."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), colour_of(index)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def prepare(tmp_path_factory):
    """A function that prepares a dataset of 12 and 3 pictures and returns its folder."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")

    wanted = {}

    class CodColours(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(wanted))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for index in range(count):
                yield (
                    index,
                    {name: index if feature is np.int64 else encoded(index) for name, feature in wanted.items()},
                )

    def run(features=None):
        wanted.clear()
        wanted.update(features or {"image": tfds.features.Image(), "label": np.int64})
        builder = CodColours(data_dir=tmp_path_factory.mktemp("datasets"), file_format="array_record")
        builder.download_and_prepare()
        return Path(builder.data_dir)

    return run


@pytest.fixture(scope="session")
def dataset(prepare):
    return prepare()


@pytest.fixture
def copied(dataset, tmp_path):
    """The folder of a dataset that may be damaged."""
    return Path(shutil.copytree(dataset, tmp_path / "1.0.0"))


def reds(source, **changes):
    """The red values of an epoch."""
    batches = build_train_batches(plain_config(source, **changes), batch_size=1, seed=0)
    return [int(next(batches)["image"][0, 0, 0, 0]) for _ in range(batches.num_images)]


def test_a_split_gives_the_encoded_images(dataset):
    source = sources.open_source(f"tfds:{dataset}")
    assert len(source.names) == len(set(source.names)) == 12
    found = {source.read(index) for index in range(12)}
    assert found == {encoded(index) for index in range(12)}
    assert "tensorflow" not in sys.modules


def test_the_same_pipeline_reads_it(dataset):
    source = f"tfds:{dataset}"
    assert sorted(reds(source)) == list(range(12))
    assert sorted(reds(f"{source}:test")) == [0, 1, 2]
    assert len(reds(f"{source}:train[:25%]")) == 3
    assert len(reds(f"{source}:train+test")) == 15
    validation = load_validation_images(plain_config(source, validation_source=f"{source}:test"), 9)
    assert sorted(validation[:, 0, 0, 0].tolist()) == [0, 1, 2]


def test_a_dataset_at_an_address_is_read_in_part(dataset, bucket: str):
    put_folder(dataset, f"{bucket}/cod_colours/1.0.0")
    source = f"tfds:{bucket}/cod_colours/1.0.0"
    for part in ("", ":test", ":train[:25%]"):
        assert sorted(reds(f"{source}{part}")) == sorted(reds(f"tfds:{dataset}{part}"))
    validation = load_validation_images(plain_config(source, validation_source=f"{source}:test"), 9)
    assert sorted(validation[:, 0, 0, 0].tolist()) == [0, 1, 2]


def test_resuming_continues_exactly(dataset):
    config = plain_config(f"tfds:{dataset}", num_threads=2)
    batches = build_train_batches(config, batch_size=4, seed=1)
    before = [next(batches)["image"] for _ in range(5)]
    resumed = build_train_batches(config, batch_size=4, seed=1)
    resumed.set_state({**batches.get_state(), "step": 3})
    np.testing.assert_array_equal(next(resumed)["image"], before[3])
    other_part = build_train_batches(plain_config(f"tfds:{dataset}:train[:6]"), batch_size=4, seed=1)
    with pytest.raises(ValueError, match="changed since the checkpoint"):
        other_part.set_state(batches.get_state())
    batches.close()
    resumed.close()


def test_what_is_held_out_does_not_depend_on_the_part_of_the_split(dataset):
    def split(part):
        source = sources.open_source(f"tfds:{dataset}:{part}")
        train, held_out = sources.split_by_name(source, 3)
        return [{source.names[index] for index in indices} for indices in (train, held_out)]

    train, held_out = split("train")
    assert train
    assert held_out
    assert len(train) + len(held_out) == 12
    some_train, some_held_out = split("train[5:]")
    assert some_train <= train
    assert some_held_out <= held_out
    assert len(some_train) + len(some_held_out) == 7
    config = plain_config(f"tfds:{dataset}", validation_modulus=3)
    assert len(load_validation_images(config, 12)) == len(held_out)
    assert len(reds(f"tfds:{dataset}", validation_modulus=3)) == len(train)


def test_a_dataset_is_found_by_its_name(dataset, monkeypatch):
    from tensorflow_datasets.core import constants

    monkeypatch.setattr(constants, "DATA_DIR", dataset.parent.parent)
    for name in ("cod_colours", "cod_colours:1.0.0", "cod_colours:1.*.*"):
        assert len(sources.open_source(f"tfds:{name}").names) == 12
        assert len(sources.open_source(f"tfds:{name}:test").names) == 3
    for name in ("cod_colours:2.0.0", "cod_colors"):
        with pytest.raises(FileNotFoundError, match=f"no dataset {name} is prepared in .*TFDS_DATA_DIR"):
            sources.open_source(f"tfds:{name}:test")


def test_the_only_picture_is_taken_under_any_name(prepare):
    import tensorflow_datasets as tfds

    folder = prepare(
        {"photo": tfds.features.Image(encoding_format="png"), "mask": tfds.features.LabeledImage(labels=3)}
    )
    assert sources.open_source(f"tfds:{folder}").read(0)[:4] == b"\x89PNG"


def test_a_dataset_without_a_usable_picture_is_refused(prepare):
    import tensorflow_datasets as tfds

    for features, message in (
        ({"label": np.int64}, "8 bits per channel, got none"),
        (
            {"image": tfds.features.Image(dtype=np.uint16, encoding_format="png")},
            "8 bits per channel, got none",
        ),
        ({"left": tfds.features.Image(), "right": tfds.features.Image()}, "got several: left, right; choose"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.open_source(f"tfds:{prepare(features)}")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("tfds:", "expected tfds:NAME or .* got 'tfds:'"),
        ("tfds:Bad Name!", "cannot be opened .* check the name"),
        ("tfds:{dataset}:valid", "the split 'valid' cannot be read .*; the dataset has test, train"),
        ("tfds:{dataset}:train[", "the dataset has test, train"),
        ("tfds:{dataset}:train[:0]", "holds no images; name another split"),
        ("tfds:{dataset}:train[40:50]", "the dataset has test, train"),
    ],
)
def test_names_without_a_dataset_or_split_are_refused(dataset, location, message):
    with pytest.raises(ValueError, match=message) as error:
        sources.open_source(location.format(dataset=dataset))
    assert "\n" not in str(error.value)


def test_a_folder_without_a_dataset_is_refused(dataset):
    with pytest.raises(FileNotFoundError, match=r"holds no dataset_info\.json; give the folder of a prepared dataset"):
        sources.open_source(f"tfds:{dataset.parent}")


def test_files_of_another_format_are_refused(copied):
    info = copied / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"got tfrecord; .*file_format='array_record'"):
        sources.open_source(f"tfds:{copied}")


def test_damage_is_named(copied):
    shard = next(copied.glob("*-train.*"))
    content = bytearray(shard.read_bytes())
    place = content.index(encoded(3)) + 20
    content[place] ^= 0xFF
    shard.write_bytes(content)
    batches = build_train_batches(plain_config(f"tfds:{copied}"), batch_size=12, seed=0)
    assert 3 not in next(batches)["image"][:, 0, 0, 0]
    assert "the record is damaged" in next(iter(batches.skipped.values()))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="is missing; prepare the dataset again"):
        sources.open_source(f"tfds:{copied}")
    (copied / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot be opened .* prepare the dataset again"):
        sources.open_source(f"tfds:{copied}")


def test_without_the_package_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"tfds:mnist needs the package tensorflow_datasets; .*'cod_jax\[tfds\]'"):
        build_train_batches(plain_config("tfds:mnist"), batch_size=1, seed=0)
