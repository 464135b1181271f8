import collections
import contextlib

import pytest

from cod_jax.errors import UserError
from cod_jax.input.config import DataConfig
from cod_jax.input.mixture import MixedSource
from cod_jax.input.pipeline import build_train_batches
from cod_jax.input.source import Source
from cod_jax.input.sources import open_source, split_by_name
from tests.training_fixtures import write_photographs


class Numbers(Source):
    """A source of as many images as its argument says; their content is their name."""

    def __init__(self, argument: str) -> None:
        super().__init__(argument)
        self.names = [f"of{argument}/{number}.jpg" for number in range(int(argument))]

    def identity(self, indices):
        return {"sizes_crc32": sum(indices)}

    def read(self, index: int) -> bytes:
        return self.names[index].encode()


@pytest.mark.parametrize(
    ("weights", "counts"), [((2, 1), [40, 20]), ((1, 1), [40, 40]), ((1, 3), [40, 120]), ((19, 1), [95, 5])]
)
def test_sources_have_their_shares_of_an_epoch_with_every_image(weights, counts):
    source = MixedSource(f"mix:{weights[0]}=40,{weights[1]}=5", Numbers)
    epoch = source.epoch(range(45))
    assert set(epoch) == set(range(45))
    parts = [[index for index in epoch if (index >= 40) == second] for second in (False, True)]
    assert [len(part) for part in parts] == counts
    for part in parts:  # no image comes much more often than another
        times = collections.Counter(part).values()
        assert max(times) - min(times) <= 1


def test_images_are_those_of_their_sources_and_held_out_by_their_own_names():
    source, one = MixedSource("mix:1=7,1=3", Numbers), Numbers("7")
    assert source.read(6) == b"of7/6.jpg"
    assert source.read(7) == b"of3/0.jpg"
    held_out = split_by_name(source, 3)[1]
    assert [index for index in held_out if index < 7] == split_by_name(one, 3)[1]
    assert source.identity([0, 7, 8]) == source.identity([8, 0, 7]) != source.identity([0, 7, 9])
    with pytest.raises(UserError, match="3 holds no images to train on; leave it out of the mixture"):
        source.epoch(range(7))


@pytest.mark.parametrize("text", ["mix:", "mix:photos", "mix:0=a,1=b", "mix:1=a,-1=b", "mix:nan=a", "mix:1=,2=b"])
def test_a_mixture_without_weights_is_refused(text):
    with pytest.raises(
        UserError, match="expected mix:WEIGHT=SOURCE,WEIGHT=SOURCE with weights above 0, such as mix:2="
    ):
        open_source(text)


def test_a_run_reads_a_mixture_of_folders(tmp_path):
    first, second = (write_photographs(tmp_path / name, count) for name, count in (("first", 6), ("second", 2)))
    source = f"mix:1={first},1={second}"
    config = DataConfig(source=source, image_size=32, validation_modulus=0, num_threads=0)
    with contextlib.closing(build_train_batches(config, batch_size=4, seed=0)) as batches:
        assert batches.num_images == 12
        assert next(batches)["image"].shape == (4, 32, 32, 3)
