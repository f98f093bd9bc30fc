import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geoseg.data.augment_paper import make_grid
from geoseg.data.crops import Grid, is_mixed, read_image, read_labels


def coordinates(height, width):
    """Return an image whose two bands are the x and y of the pixels' centres."""
    y, x = np.mgrid[:height, :width] + 0.5
    return torch.from_numpy(np.stack([x, y])).float()


def upright(y, x, step_px=1.0):
    return Grid(np.asarray(y, float)[:, None], np.asarray(x, float)[None], step_px)


@pytest.mark.parametrize("resized", [(211, 152), (833, 600), (300, 417), (299, 1000)])
@pytest.mark.parametrize("place", [(0, 0), (31, 77)])
def test_a_crop_equals_the_crop_of_the_resized_image(resized, place):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 300, 417))).float()
    valid = torch.ones(300, 417, dtype=torch.bool)
    whole = F.interpolate(image[None], size=resized, mode="bilinear")[0]
    wanted = whole[:, place[0] : place[0] + 64, place[1] : place[1] + 64]
    found, found_valid = read_image(image, valid, make_grid((300, 417), resized, place, 64))
    assert found_valid.all()
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)


def test_rotated_points_read_the_values_at_their_place():
    image = coordinates(60, 80)
    angle = 0.4
    steps = np.arange(20) - 9.5
    x = 41.3 + np.cos(angle) * steps - np.sin(angle) * steps[:, None]
    y = 27.9 + np.sin(angle) * steps + np.cos(angle) * steps[:, None]
    values, inside = read_image(image, torch.ones(60, 80, dtype=torch.bool), Grid(y, x))
    assert inside.all()
    np.testing.assert_allclose(values[0], x, atol=1e-3)
    np.testing.assert_allclose(values[1], y, atol=1e-3)


@pytest.mark.parametrize("step", [1.6, 2.0, 3.1])
def test_averaging_shifts_nothing(step):
    image = coordinates(90, 120)
    y, x = 30 + step * np.arange(12), 40 + step * np.arange(9)
    grid = upright(y, x, step)
    values, _ = read_image(image, torch.ones(90, 120, dtype=torch.bool), grid)
    np.testing.assert_allclose(values[0], np.broadcast_to(x, (12, 9)), atol=1e-3)
    np.testing.assert_allclose(values[1], np.broadcast_to(y[:, None], (12, 9)), atol=1e-3)


def test_coarse_pixels_are_means_and_not_samples():
    board = torch.from_numpy(np.indices((64, 64)).sum(0) % 2 * 100.0).float()[None]
    grid = upright(10 + 2 * np.arange(20), 10 + 2 * np.arange(20), 2.0)
    values, _ = read_image(board, torch.ones(64, 64, dtype=torch.bool), grid)
    torch.testing.assert_close(values, torch.full((1, 20, 20), 50.0))


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_unscaled_crops_copy_pixels(quarters, mirror):
    image = torch.rand(4, 30, 40) * 1e4
    mask = np.random.default_rng(0).integers(0, 9, (30, 40), dtype=np.uint8)
    grid = upright(np.arange(8) + 5.5, np.arange(8) + 11.5).turned(quarters)
    wanted, labels = image[:, 5:13, 11:19].rot90(quarters, (1, 2)), mask[5:13, 11:19]
    labels = np.rot90(labels, quarters)
    if mirror:
        grid, wanted, labels = grid.mirrored(), wanted.flip(2), labels[:, ::-1]
    values, _ = read_image(image, torch.ones(30, 40, dtype=torch.bool), grid)
    assert torch.equal(values, wanted)
    assert np.array_equal(read_labels(mask, grid), labels)


@pytest.mark.parametrize("secret", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("step", [0.7, 1.0, 2.0])
def test_values_under_invalid_pixels_reach_no_valid_pixel(secret, step):
    valid = torch.ones(50, 50, dtype=torch.bool)
    valid[20:28, 11:40] = False
    image = torch.full((2, 50, 50), 7.0)
    image[:, ~valid] = secret
    places = 25 + step * (np.arange(24) - 11.7)
    values, usable = read_image(image, valid, upright(places, places, step))
    assert 0.3 < usable.float().mean() < 0.9
    torch.testing.assert_close(values[:, usable], torch.full((2, int(usable.sum())), 7.0))
    assert values.isfinite().all()


def test_points_off_the_image_are_invalid():
    grid = upright(np.arange(12) - 3.5, np.arange(12) - 3.5)
    values, inside = read_image(torch.ones(1, 5, 6), torch.ones(5, 6, dtype=torch.bool), grid)
    assert values.shape == (1, 12, 12)
    assert inside.sum() == 5 * 6
    assert inside[4:9, 4:10].all()


@pytest.mark.parametrize(
    ("labels", "mixed"),
    [
        ([0, 0, 1, 1], True),
        ([0, 0, 0, 1], False),
        ([0, 0, 0, 0], False),
        ([255, 255, 255, 255], False),
        ([255, 255, 255, 3], False),
        ([255, 255, 5, 3], True),
        ([0, 1, 2, 254], True),
    ],
)
def test_mixed_means_two_classes_and_none_with_the_share_or_more(labels, mixed):
    assert is_mixed(np.array([labels], np.uint8), 0.75) is mixed


def test_labels_are_those_of_pixels():
    mask = np.array([[3, 250]], np.uint8)
    found = read_labels(mask, upright([0.5], np.linspace(-1, 3, 50)))
    assert set(found.ravel().tolist()) == {3, 250}
