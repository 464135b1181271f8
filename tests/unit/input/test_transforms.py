import numpy as np

from cod_jax.input import transforms


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


def test_random_places_of_a_square_cover_the_picture_and_keep_its_pixels():
    rng = np.random.default_rng(0)
    boxes = {transforms.random_place(6, 9, 4, rng) for _ in range(500)}
    assert boxes == {(left, top, 4) for left in range(6) for top in range(3)}
    assert {transforms.random_place(4, 4, 4, rng) for _ in range(5)} == {(0, 0, 4)}
    image_uint8 = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    for left, top, side in boxes:
        crop = transforms.crop_and_resize(image_uint8, (left, top, side), side)
        np.testing.assert_array_equal(crop, image_uint8[top : top + side, left : left + side])


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
