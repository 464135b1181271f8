import json
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from cod_jax.input import DataConfig, build_train_batches, load_validation_images, records, sources, transforms

SIZE = 8


def write_image(path, colour, size=(SIZE, SIZE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)


def colour_of(index):
    return (index, 2 * index, 255 - index)


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A folder of 12 pictures of one colour each; the red value is the position by name."""
    folder = tmp_path_factory.mktemp("colours")
    for index in range(12):
        write_image(folder / f"{index:02d}.png", colour_of(index))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 32 pieces of photographs, larger than the crops."""
    folder = tmp_path_factory.mktemp("photos")
    for name, photograph in (("astronaut.png", photographs.astronaut()), ("coffee.jpg", photographs.coffee())):
        for piece in range(16):
            top, left = 90 * (piece // 4), 100 * (piece % 4)
            Image.fromarray(photograph[top : top + 48, left : left + 60]).save(folder / f"{piece}-{name}")
    return folder


def write_shards(folder, images_folder, per_shard=5):
    folder.mkdir()
    names = sorted(path.name for path in images_folder.iterdir())
    shards = records.write_shards(folder, [(name, (images_folder / name).read_bytes()) for name in names], per_shard)
    records.write_manifest(folder, shards, {}, {})
    return shards


def plain_config(source, **changes):
    """Nothing random but the order, so that pixels tell which image it is."""
    fields = {"image_size": SIZE, "crop": "center", "flip": False, "validation_modulus": 0, "num_threads": 0}
    return DataConfig(source=str(source), **(fields | changes))


def random_config(source, **changes):
    return plain_config(source, **({"image_size": 32, "crop": "random_resized", "flip": True} | changes))


def take(batches, count):
    return np.stack([next(batches)["image"] for _ in range(count)])


def indices(batches, count):
    return take(batches, count)[..., 0, 0, 0]


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
        (plain_config(tmp_path), 4, 0, "the names of the 12 files to train on are others than they were; undo that"),
        (plain_config(colours), 2, 1, "batch_size was 4 and is 2, and seed was 0 and is 1; undo that, or start a new"),
    ):
        batches = build_train_batches(config, batch_size=batch_size, seed=seed)
        with pytest.raises(ValueError, match="changed since the checkpoint: " + message):
            batches.set_state(state)
    with pytest.raises(ValueError, match="step is -1"):
        build_train_batches(plain_config(colours), batch_size=4, seed=0).set_step(-1)


@pytest.fixture
def partly_broken(colours, tmp_path):
    for path in colours.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "03.png").write_bytes(b"no image")
    (tmp_path / "07.png").write_bytes((colours / "07.png").read_bytes()[:50])
    write_image(tmp_path / "08.png", colour_of(8), (100, SIZE - 1))
    (tmp_path / "11.png").write_bytes(b"")
    return tmp_path


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
        ({"batch_size": 3, "process_count": 2}, "batch_size is 3"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"process_index": 1}, "process_index is 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(colours, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_train_batches(plain_config(colours), **({"batch_size": 4, "seed": 0} | arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0},
        {"crop": "middle"},
        {"min_scale": 0.0},
        {"min_scale": 1.5},
        {"validation_modulus": 1},
        {"num_threads": -1},
        {"prefetch": 0},
    ],
)
def test_config_fields_out_of_range_are_refused(change):
    with pytest.raises((ValueError, TypeError), match=next(iter(change))):
        DataConfig(**change)


def test_the_split_goes_by_the_checksum_of_the_file_name(tmp_path):
    names = [f"photo{index}.png" for index in range(40)]
    for index, name in enumerate(names):
        write_image(tmp_path / ("a" if index % 2 else "b/c") / name, colour_of(index))
    held_out = {index for index, name in enumerate(names) if zlib.crc32(name.encode()) % 4 == 0}
    config = plain_config(tmp_path, validation_modulus=4)
    batches = build_train_batches(config, batch_size=40 - len(held_out), seed=0)
    assert set(indices(batches, 1)[0].tolist()) == set(range(40)) - held_out
    validation = load_validation_images(config, 100)
    assert validation.shape == (len(held_out), SIZE, SIZE, 3)
    assert set(validation[:, 0, 0, 0].tolist()) == held_out


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
    with pytest.raises(ValueError, match="limit is -1"):
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


def test_shards_give_the_same_batches_and_split_as_the_folder(colours, tmp_path):
    write_shards(tmp_path / "shards", colours)
    for modulus in (0, 3):
        folder = plain_config(colours, validation_modulus=modulus)
        shards = plain_config(tmp_path / "shards", validation_modulus=modulus)
        np.testing.assert_array_equal(load_validation_images(shards, 9), load_validation_images(folder, 9))
        from_folder = build_train_batches(folder, batch_size=4, seed=0)
        from_shards = build_train_batches(shards, batch_size=4, seed=0)
        assert from_shards.get_state() == from_folder.get_state()
        np.testing.assert_array_equal(take(from_shards, 7), take(from_folder, 7))


def test_a_single_shard_can_be_the_source(colours, tmp_path):
    shards = write_shards(tmp_path / "shards", colours)
    batches = build_train_batches(plain_config(tmp_path / "shards" / shards[1].file), batch_size=5, seed=0)
    assert sorted(indices(batches, 1)[0].tolist()) == [5, 6, 7, 8, 9]


def test_shards_without_a_manifest_cannot_be_split(colours, tmp_path):
    write_shards(tmp_path / "shards", colours)
    (tmp_path / "shards" / "manifest.json").unlink()
    assert build_train_batches(plain_config(tmp_path / "shards"), batch_size=4, seed=0).num_images == 12
    with pytest.raises(ValueError, match=r"no manifest\.json.*data\.prepare"):
        build_train_batches(plain_config(tmp_path / "shards", validation_modulus=4), batch_size=4, seed=0)


def test_a_damaged_record_is_skipped_and_named(colours, tmp_path):
    shards = write_shards(tmp_path / "shards", colours, per_shard=12)
    path = tmp_path / "shards" / shards[0].file
    content = bytearray(path.read_bytes())
    for name in ("04.png", "05.png"):
        pixels = (colours / name).read_bytes()
        place = content.index(pixels) + len(pixels) // 2
        content[place] ^= 0xFF
    path.write_bytes(content)
    batches = build_train_batches(plain_config(tmp_path / "shards"), batch_size=12, seed=0)
    assert sorted(indices(batches, 1)[0].tolist()) == [0, 1, 2, 3, 6, 6, 6, 7, 8, 9, 10, 11]
    assert sorted(batches.skipped) == ["04.png", "05.png"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "images-00001.array_record").unlink(), "is missing"),
        (lambda folder: (folder / "images-00001.array_record").write_bytes(b"short"), "has 5 bytes"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": "x", "version": 2, "shards": []}'), "'x'"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"00.png",', "")
            ),
            "names 11 images but the shards hold 12",
        ),
    ],
)
def test_damaged_shards_are_refused(colours, tmp_path, damage, message):
    write_shards(tmp_path / "shards", colours)
    damage(tmp_path / "shards")
    with pytest.raises((ValueError, FileNotFoundError), match=f"{message}.*prepare the images again"):
        sources.open_source(str(tmp_path / "shards"))


def test_a_damaged_shard_without_a_manifest_is_refused(tmp_path):
    (tmp_path / "a.array_record").write_bytes(b"x" * 100)
    for source in (tmp_path, tmp_path / "a.array_record"):
        with pytest.raises(ValueError, match="a shard is damaged"):
            sources.open_source(str(source))


def test_random_boxes_stay_inside_and_cover_the_range_of_areas():
    rng = np.random.default_rng(0)
    boxes = np.array([transforms.random_box(100, 150, 40, 0.25, rng) for _ in range(2000)])
    left, top, side = boxes.T
    assert left.min() >= 0
    assert top.min() >= 0
    assert (left + side).max() <= 150
    assert (top + side).max() <= 100
    np.testing.assert_allclose((side / 100.0) ** 2, np.clip((side / 100.0) ** 2, 0.25, 1), atol=0.01)
    np.testing.assert_allclose(np.mean((side / 100.0) ** 2), 0.625, atol=0.02)


def test_random_boxes_are_never_smaller_than_the_crop():
    rng = np.random.default_rng(0)
    sides = {transforms.random_box(50, 48, 48, 0.1, rng)[2] for _ in range(20)}
    assert sides == {48}


def test_crops_are_cut_exactly_and_resized_without_aliasing():
    image_uint8 = np.zeros((64, 80, 3), np.uint8)
    image_uint8[::2] = 255
    np.testing.assert_array_equal(transforms.crop_and_resize(image_uint8, (3, 5, 32), 32), image_uint8[5:37, 3:35])
    small = transforms.crop_and_resize(image_uint8, transforms.center_box(64, 80), 16)
    assert np.abs(small[2:-2].astype(int) - 127).max() <= 2
    small = transforms.resize_short_edge(image_uint8, 16)
    assert small.shape == (16, 20, 3)
    assert np.abs(small[2:-2].astype(int) - 127).max() <= 2


def test_the_center_crop_is_the_middle_square():
    assert transforms.center_box(10, 21) == (5, 0, 10)
    assert transforms.center_box(21, 10) == (0, 5, 10)
