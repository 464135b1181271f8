import json
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from cod_jax.input.pipeline import build_train_batches, load_validation_images
from cod_jax.input.sources import FolderSource
from tests.input_fixtures import SIZE, colour_of, indices, plain_config, random_config, take, write_image, write_shards


def test_batches_have_the_promised_form(photos):
    batch = next(build_train_batches(random_config(photos), batch_size=4, seed=0))
    assert list(batch) == ["image"]
    assert batch["image"].shape == (4, 32, 32, 3)
    assert batch["image"].dtype == np.uint8


def test_every_epoch_shows_each_image_once_in_a_new_order(colours):
    batches = build_train_batches(plain_config(colours), batch_size=4, seed=1)
    assert batches.num_images == 12
    epochs = indices(batches, 9).reshape(3, 12)
    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(12))] * 3
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_one_image_is_enough(tmp_path):
    write_image(tmp_path / "only.png", colour_of(9))
    assert indices(build_train_batches(plain_config(tmp_path), batch_size=3, seed=0), 2).tolist() == [[9, 9, 9]] * 2


def test_the_seed_decides_everything_and_threads_nothing(photos):
    def run(seed, **changes):
        batches = build_train_batches(random_config(photos, **changes), batch_size=4, seed=seed)
        taken = take(batches, 5)
        batches.close()
        return taken

    np.testing.assert_array_equal(run(0), run(0, num_threads=3, prefetch=4))
    assert (run(0) != run(1)).any()


def test_crops_differ_between_epochs_and_half_the_images_are_mirrored(photos, tmp_path):
    Image.open(photos / "5-coffee.jpg").save(tmp_path / "only.png")
    examples = take(build_train_batches(random_config(tmp_path), batch_size=1, seed=0), 40)
    assert len(np.unique(examples.reshape(40, -1), axis=0)) > 35
    fixed = random_config(tmp_path, crop="center")
    examples = take(build_train_batches(fixed, batch_size=1, seed=0), 40)[:, 0]
    mirrored = [bool((example == examples[0, :, ::-1]).all()) for example in examples]
    assert 10 < sum(mirrored) < 30
    assert all((example == examples[0]).all() for example, other in zip(examples, mirrored, strict=True) if not other)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_batch_of_a_single_process(photos, process_count):
    def share(index, count):
        return build_train_batches(
            random_config(photos), batch_size=4, seed=3, process_index=index, process_count=count
        )

    whole = take(share(0, 1), 6)
    joined = np.concatenate([take(share(index, process_count), 6) for index in range(process_count)], axis=1)
    np.testing.assert_array_equal(joined, whole)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_resuming_continues_exactly(photos, num_threads):
    config = random_config(photos, num_threads=num_threads)
    batches = build_train_batches(config, batch_size=2, seed=5)
    before = take(batches, 7)
    state = json.loads(json.dumps(batches.get_state()))
    after = take(batches, 5)

    resumed = build_train_batches(config, batch_size=2, seed=5)
    resumed.set_state(state)
    assert resumed.get_state() == state
    np.testing.assert_array_equal(take(resumed, 5), after)
    resumed.set_step(3)  # backwards, with batches already in preparation
    np.testing.assert_array_equal(take(resumed, 4), before[3:])
    batches.close()
    resumed.close()


def test_a_state_fits_another_number_of_processes(photos):
    def share(index, count):
        return build_train_batches(
            random_config(photos), batch_size=4, seed=3, process_index=index, process_count=count
        )

    single = share(0, 1)
    take(single, 3)
    second_of_two = share(1, 2)
    second_of_two.set_state(single.get_state())
    np.testing.assert_array_equal(take(second_of_two, 2), take(single, 2)[:, 2:])


def test_a_state_of_other_data_is_refused_and_says_what_changed(colours, photos, tmp_path):
    for index, path in enumerate(sorted(colours.iterdir())):
        (tmp_path / f"renamed{index}.png").write_bytes(path.read_bytes())
    state = build_train_batches(plain_config(colours), batch_size=4, seed=0).get_state()
    for config, batch_size, seed, message in (
        (plain_config(photos), 4, 0, "there were 12 files to train on and there are 32, because files were added, rem"),
        (plain_config(tmp_path), 4, 0, "the 12 files to train on have different names; undo that"),
        (plain_config(colours), 2, 1, "batch_size was 4 and is 2, and seed was 0 and is 1; undo that, or start a new"),
    ):
        batches = build_train_batches(config, batch_size=batch_size, seed=seed)
        with pytest.raises(ValueError, match="changed since the checkpoint: " + message):
            batches.set_state(state)
    with pytest.raises(ValueError, match="step to be at least 0, got -1"):
        build_train_batches(plain_config(colours), batch_size=4, seed=0).set_step(-1)


def test_unusable_images_are_replaced_by_the_next_and_named(partly_broken, colours):
    expected = indices(build_train_batches(plain_config(colours), batch_size=4, seed=2), 6)
    for old, new in ((3, 4), (7, 9), (8, 9), (11, 0)):
        expected[expected == old] = new
    for num_threads in (0, 3):
        batches = build_train_batches(plain_config(partly_broken, num_threads=num_threads), batch_size=4, seed=2)
        np.testing.assert_array_equal(indices(batches, 6), expected)
        assert batches.num_images == 12
        assert sorted(batches.skipped) == ["03.png", "07.png", "08.png", "11.png"]
        assert batches.skipped["08.png"] == "100x7 is smaller than 8x8"
        assert "not an image" in batches.skipped["03.png"]
        batches.close()


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug")])
def test_a_bug_in_a_source_of_ones_own_is_not_hidden(colours, monkeypatch, error: Exception):
    def read(*_):
        raise error

    monkeypatch.setattr(FolderSource, "read", read)
    with pytest.raises(type(error), match="a bug"):
        build_train_batches(plain_config(colours), batch_size=4, seed=0)


def test_a_dangling_link_is_skipped_and_named(colours, tmp_path):
    (tmp_path / "00.png").write_bytes((colours / "00.png").read_bytes())
    (tmp_path / "01.png").symlink_to("nothing.png")
    batches = build_train_batches(plain_config(tmp_path), batch_size=2, seed=0)
    assert indices(batches, 1).tolist() == [[0, 0]]
    assert batches.skipped == {"01.png": "it is a link to a file that does not exist"}


def test_resuming_among_unusable_images_continues_exactly(partly_broken):
    config = random_config(partly_broken, image_size=SIZE)
    batches = build_train_batches(config, batch_size=3, seed=2)
    take(batches, 3)
    resumed = build_train_batches(config, batch_size=3, seed=2)
    resumed.set_state(batches.get_state())
    np.testing.assert_array_equal(take(resumed, 8), take(batches, 8))


def test_a_folder_without_a_usable_image_is_refused_at_once(colours):
    with pytest.raises(ValueError, match=r"none of the 12 files can be used \(for example 00.png: 8x8 is smaller"):
        build_train_batches(plain_config(colours, image_size=9), batch_size=1, seed=0)


def test_missing_and_empty_folders_are_refused(tmp_path):
    for source, error, message in (
        (tmp_path / "absent", FileNotFoundError, "absent does not exist; give"),
        (tmp_path, ValueError, r"holds no JPEG, .* give a folder"),
        ("", ValueError, "data.source is empty; set"),
    ):
        with pytest.raises(error, match=message):
            build_train_batches(plain_config(source), batch_size=1, seed=0)
    for source in (tmp_path / "absent", ""):
        with pytest.raises((OSError, ValueError), match=r"give|set"):
            load_validation_images(plain_config(source, validation_modulus=2), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 3, "process_count": 2}, "multiple of 2 processes, got 3"),
        ({"batch_size": 0}, "multiple of 1 processes, got 0"),
        ({"process_index": 1}, "process_index from 0 to 0, got 1"),
        ({"seed": -1}, "seed from 0 to .* got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(colours, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_train_batches(plain_config(colours), **({"batch_size": 4, "seed": 0} | arguments))


def test_validation_images_are_the_same_mixture_each_time(colours, partly_broken, caplog):
    config = plain_config(colours, validation_source=str(colours))
    whole = load_validation_images(config, 100)
    assert len(whole) == 12
    assert whole[:, 0, 0, 0].tolist() != sorted(whole[:, 0, 0, 0].tolist())
    np.testing.assert_array_equal(load_validation_images(config, 5), whole[:5])
    assert not caplog.records
    usable = load_validation_images(plain_config(colours, validation_source=str(partly_broken)), 100)
    assert sorted(usable[:, 0, 0, 0].tolist()) == [0, 1, 2, 4, 5, 6, 9, 10]
    assert "4 validation images were left out" in caplog.text
    assert "03.png" in caplog.text


def test_without_a_split_there_are_no_validation_images(colours):
    assert load_validation_images(plain_config(colours), 4).shape == (0, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="limit to be at least 0, got -1"):
        load_validation_images(plain_config(colours), -1)


def test_a_validation_folder_without_a_usable_image_is_refused(colours, tmp_path):
    write_image(tmp_path / "small.png", (0, 0, 0), (2, 2))
    with pytest.raises(ValueError, match="none of the 1 files"):
        load_validation_images(plain_config(colours, validation_source=str(tmp_path)), 4)


def test_all_images_in_validation_is_refused(tmp_path):
    name = next(f"{index}.png" for index in range(100) if zlib.crc32(f"{index}.png".encode()) % 5 == 0)
    write_image(tmp_path / name, (1, 2, 3))
    with pytest.raises(ValueError, match="all 1 files fall into validation"):
        build_train_batches(plain_config(tmp_path, validation_modulus=5), batch_size=1, seed=0)


def test_a_picture_replaced_under_its_name_is_noticed(colours, tmp_path, caplog):
    for path in colours.iterdir():
        shutil.copy2(path, tmp_path / path.name)
    state = build_train_batches(plain_config(tmp_path), batch_size=4, seed=0).get_state()

    def resume(state):
        build_train_batches(plain_config(tmp_path), batch_size=4, seed=0).set_state(state)

    resume(state)
    assert not caplog.text
    os.utime(tmp_path / "03.png", (0, 0))
    resume(state)
    assert "but other modification times" in caplog.text
    write_image(tmp_path / "03.png", (255, 0, 0), (20, 20))
    with pytest.raises(ValueError, match="some of the 12 files to train on were replaced by others of the same names"):
        resume(state)
    # Checkpoints of 0.1.0 have names only.
    resume({name: value for name, value in state.items() if name not in ("sizes_crc32", "times_crc32")})


def test_shards_made_again_of_other_pictures_are_noticed(colours, tmp_path):
    write_shards(tmp_path / "one", colours)
    state = build_train_batches(plain_config(tmp_path / "one"), batch_size=4, seed=0).get_state()
    build_train_batches(plain_config(tmp_path / "one"), batch_size=4, seed=0).set_state(state)
    (tmp_path / "changed").mkdir()
    for path in colours.iterdir():
        write_image(tmp_path / "changed" / path.name, (1, 2, 3))
    write_shards(tmp_path / "two", tmp_path / "changed")
    with pytest.raises(ValueError, match="were replaced by others of the same names"):
        build_train_batches(plain_config(tmp_path / "two"), batch_size=4, seed=0).set_state(state)


def test_a_replaced_picture_that_is_held_out_gives_a_warning(colours, tmp_path, caplog):
    for path in colours.iterdir():
        shutil.copy2(path, tmp_path / path.name)
    config = plain_config(tmp_path, validation_modulus=3)
    held_out = next(path for path in tmp_path.iterdir() if zlib.crc32(path.name.encode()) % 3 == 0)
    state = build_train_batches(config, batch_size=4, seed=0).get_state()
    write_image(held_out, (255, 0, 0), (20, 20))
    build_train_batches(config, batch_size=4, seed=0).set_state(state)
    assert "the held-out images are not those of the checkpoint" in caplog.text
    caplog.clear()
    build_train_batches(config, batch_size=4, seed=0).set_state(
        {name: value for name, value in state.items() if "held_out" not in name}
    )
    assert not caplog.text
