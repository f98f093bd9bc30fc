import numpy as np
import pytest
import torch

from geoseg.config.run import AugmentConfig
from geoseg.data.augment import make_transform
from geoseg.data.augment_remote import Radiometry, blur, change_values

STILL = {"kind": "remote_sensing", "jitter": 0.0, "cat_max_ratio": 1.0}


def make_sample(image, mask=None):
    image = torch.as_tensor(image).float()
    mask = torch.zeros(image.shape[1:]) if mask is None else torch.as_tensor(mask)
    return {
        "image": image,
        "mask": mask.long(),
        "valid": torch.ones(mask.shape, dtype=torch.bool),
    }


def coordinates(height, width):
    """Return a sample whose bands are the x and y of the pixels' centres."""
    y, x = np.mgrid[:height, :width] + 0.5
    return make_sample(np.stack([x, y]))


def read_matrix(crop):
    """Return steps in the image, (x, y) by (column, row), from a crop of `coordinates`."""
    middle = crop["image"][:, 10:20, 10:20].double()
    columns = (middle[:, :, -1] - middle[:, :, 0]).mean(1) / 9
    rows = (middle[:, -1] - middle[:, 0]).mean(1) / 9
    return torch.stack([columns, rows], 1).numpy()


def draw_matrices(count=400, **options):
    transform = make_transform(AugmentConfig(crop_px=32, **STILL, **options), seed=0)
    sample = coordinates(200, 200)
    crops = [transform(sample) for _ in range(count)]
    assert all(crop["valid"].all() for crop in crops)
    return np.array([read_matrix(crop) for crop in crops])


def test_turns_and_mirror_images_are_all_as_frequent():
    matrices = draw_matrices(800, scale=(1.0, 1.0)).round().astype(int)
    kinds, counts = np.unique(matrices.reshape(-1, 4), axis=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 70
    assert counts.max() < 135


def test_scales_are_log_uniform_and_aspects_moderate():
    matrices = draw_matrices(scale=(0.5, 2.0))
    ratio = 1 / np.sqrt(np.abs(np.linalg.det(matrices)))
    assert 0.49 < ratio.min() < 0.55
    assert 1.85 < ratio.max() < 2.01
    assert abs((ratio < 1).mean() - 0.5) < 0.08
    columns, rows = np.linalg.norm(matrices, axis=1).T
    aspect = np.log(columns / rows)
    assert 0.13 < np.abs(aspect).max() < 0.16


def test_a_base_size_is_what_a_ratio_of_one_resizes_to():
    matrices = draw_matrices(5, scale=(1.0, 1.0), base_size_px=(400, 400))
    np.testing.assert_allclose(np.abs(np.linalg.det(matrices)), 0.25, rtol=1e-3)


def test_free_rotations_take_all_angles_and_leave_no_corner_empty():
    matrices = draw_matrices(scale=(0.8, 1.2), free_rotation=1.0)
    angles = np.degrees(np.arctan2(matrices[:, 1, 1], matrices[:, 0, 1])) % 360
    assert np.histogram(angles, 6, (0, 360))[0].min() > 40
    assert np.unique(np.round(angles)).size > 200


def test_rotations_that_would_leave_the_image_are_not_taken():
    transform = make_transform(
        AugmentConfig(crop_px=32, **STILL, scale=(1.0, 1.0), free_rotation=1.0), seed=0
    )
    for _ in range(30):
        assert transform(coordinates(33, 34))["valid"].all()


def test_unscaled_crops_are_copies():
    transform = make_transform(AugmentConfig(crop_px=16, **STILL, scale=(1.0, 1.0)), seed=0)
    sample = make_sample(np.random.default_rng(0).integers(0, 65536, (5, 30, 40)))
    known = set(sample["image"].flatten(1).T.tolist().__str__().split("], ["))
    for _ in range(5):
        found = transform(sample)["image"].flatten(1).T.tolist()
        assert set(str(found).strip("[]").split("], [")) <= {k.strip("[]") for k in known}


@pytest.mark.parametrize("free_rotation", [0.0, 1.0])
def test_a_mark_and_its_label_stay_together(free_rotation):
    y, x = np.mgrid[:120, :120]
    mask = ((x - 55) ** 2 + (y - 67) ** 2 < 100).astype(int)
    options = STILL | {"crop_px": 60, "scale": (0.7, 1.5), "free_rotation": free_rotation}
    transform = make_transform(AugmentConfig(**options), seed=0)
    shifts = []
    for _ in range(100):
        crop = transform(make_sample(mask[None] * 100.0, mask))
        image, label = crop["image"][0] / 100, crop["mask"].float()
        rim = torch.cat([image[[0, -1]].flatten(), image[:, [0, -1]].flatten()])
        if rim.any() or not label.any():
            continue  # a mark that is cut off has its centre elsewhere
        places = torch.stack(torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij"))
        centres = [(places * v).sum((1, 2)) / v.sum() for v in (image, label)]
        shifts.append((centres[0] - centres[1]).numpy())
    assert len(shifts) > 10
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.05
    assert np.abs(shifts).max() < 0.35  # whole pixels leave that much


def test_images_smaller_than_the_crop_lie_in_it_whole_and_the_rest_is_ignored():
    transform = make_transform(AugmentConfig(crop_px=48, **STILL, scale=(1.0, 1.0)), seed=0)
    places = set()
    for _ in range(20):
        crop = transform(make_sample(np.full((2, 20, 30), 9.0), np.full((20, 30), 3)))
        assert crop["valid"].sum() == 600
        assert (crop["mask"][crop["valid"]] == 3).all()
        assert (crop["mask"][~crop["valid"]] == 255).all()
        places.add(tuple(crop["valid"].nonzero()[0].tolist()))
    assert len(places) > 10


def test_rotated_images_smaller_than_the_crop_have_ignored_corners():
    transform = make_transform(
        AugmentConfig(crop_px=64, **STILL, scale=(1.0, 1.0), free_rotation=1.0), seed=0
    )
    for _ in range(10):
        crop = transform(make_sample(np.full((1, 40, 40), 9.0), np.full((40, 40), 3)))
        assert 0.9 < crop["valid"].sum() / 1600 < 1.1
        assert (crop["mask"][~crop["valid"]] == 255).all()


def test_nodata_inside_of_an_image_is_ignored_and_stays_out_of_the_values():
    sample = make_sample(np.full((3, 80, 80), 50.0), np.ones((80, 80)))
    sample["valid"][20:60, 30:50] = False
    sample["image"][:, ~sample["valid"]] = float("nan")
    transform = make_transform(
        AugmentConfig(kind="remote_sensing", crop_px=64, free_rotation=0.5), seed=0, std=(10,) * 3
    )
    for _ in range(40):
        crop = transform(sample)
        assert crop["image"].isfinite().all()
        assert (crop["mask"][~crop["valid"]] == 255).all()
        assert (crop["mask"][crop["valid"]] == 1).all()
        values = crop["image"][:, crop["valid"]]
        assert (values - 50).abs().max() < 20


def test_crops_that_one_class_fills_are_drawn_again():
    mask = (np.arange(400) < 300).astype(int)[None].repeat(60, 0)
    sample = make_sample(np.zeros((1, 60, 400)), mask)

    def count(ratio):
        augment = AugmentConfig(
            kind="remote_sensing", crop_px=48, scale=(1.0, 1.0), cat_max_ratio=ratio
        )
        transform = make_transform(augment, seed=0)
        shares = np.array([transform(sample)["mask"].float().mean() for _ in range(200)])
        return ((shares > 0.25) & (shares < 0.75)).mean()

    assert count(1.0) < 0.12
    assert count(0.75) > 0.35


def jitter(image, seed, valid=None, **options):
    image = np.array(image, np.float32)
    valid = torch.ones(image.shape[1:], dtype=torch.bool) if valid is None else valid
    radiometry = Radiometry(**({"strength": 1.0} | options))
    change_values(image, valid, radiometry, np.random.default_rng(seed))
    return image


def bands(count, scale=1.0, offset=0.0):
    rng = np.random.default_rng(1)
    fields = rng.gamma(3.0, 20.0, (count, 5, 5)).repeat(8, 1).repeat(8, 2)
    return (fields * scale + offset).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", None])
def test_any_band_and_type_keeps_finite_values_in_its_range(count, dtype):
    scale = {"uint8": 1.0, "uint16": 300.0, "int16": 150.0, None: 1e-3}[dtype]
    for seed in range(30):
        found = jitter(bands(count, scale).clip(0, 250 * scale), seed, dtype=dtype)
        assert np.isfinite(found).all()
        if dtype is not None:
            assert found.min() >= np.iinfo(dtype).min
            assert found.max() <= np.iinfo(dtype).max
        # No band ends flat: a third and more of its contrast is left.
        assert (found.std((1, 2)) > 0.33 * bands(count, scale).std((1, 2))).all()


def test_jitter_does_not_know_units():
    for seed in range(20):
        one = jitter(bands(4), seed)
        other = jitter(bands(4, 100.0, 5000.0), seed)
        np.testing.assert_allclose(other, one * 100 + 5000, rtol=2e-3, atol=2)


def test_the_unit_of_the_jitter_is_that_of_the_training_set_where_known():
    flat = np.full((2, 40, 40), 100.0)
    np.testing.assert_allclose(jitter(flat, 3), flat, rtol=1e-6)  # nothing varies
    moved = [jitter(flat, seed, std=(20.0, 40.0)).mean((1, 2)) - 100 for seed in range(200)]
    moved = np.array(moved) / [20, 40]
    assert 0.4 < np.abs(moved).max() < 0.65
    assert abs(moved.mean()) < 0.05


@pytest.mark.parametrize(("low", "high"), [(0, 60), (190, 255), (60, 200)])
def test_light_leaves_dark_and_bright_images_their_detail(low, high):
    image = np.random.default_rng(0).uniform(low, high, (3, 64, 64))
    for seed in range(60):
        found = jitter(image, seed, dtype="uint8", std=(60.0, 60.0, 60.0))
        assert ((found == 0) | (found == 255)).mean() < 0.08


def test_strength_zero_is_still_and_strength_scales():
    image = bands(3)
    assert np.array_equal(jitter(image, 0, strength=0.0), image)
    weak = np.mean([np.abs(jitter(image, s, strength=0.2) - image).mean() for s in range(40)])
    usual = np.mean([np.abs(jitter(image, s) - image).mean() for s in range(40)])
    assert 2.5 < usual / weak < 8


def test_only_three_bands_turn_grey_and_now_and_then():
    def share(count):
        found = [jitter(bands(count), seed) for seed in range(300)]
        # Grey bands differ by gain and bias alone, so that they correlate but for the noise.
        return np.mean([np.corrcoef(f[0].ravel(), f[1].ravel())[0, 1] > 0.9 for f in found])

    assert share(2) == share(4) == 0
    assert 0.05 < share(3) < 0.16


def test_light_is_measured_on_valid_pixels():
    image, valid = bands(2), torch.ones(40, 40, dtype=torch.bool)
    valid[:, 20:] = False
    hidden = image.copy()
    hidden[:, :, 20:] = 0.0
    for seed in range(20):
        one, other = (jitter(i, seed, valid)[:, :, :19] for i in (image, hidden))
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_without_a_valid_pixel_nothing_changes():
    image = bands(2)
    nothing = torch.zeros(40, 40, dtype=torch.bool)
    assert np.array_equal(jitter(image, 0, nothing), image)


def test_blurring_takes_fine_contrast_and_shifts_nothing():
    board = (np.indices((40, 40)).sum(0) % 2 * 100).astype(np.float32)[None]
    blur(board)
    assert (board[0, 2:-2, 2:-2] == 50).all()
    ramp = np.arange(40, dtype=np.float32)[None, None].repeat(30, 1)
    moved = ramp.copy()
    blur(moved)
    assert np.array_equal(moved, ramp)


def test_noise_is_normal_and_new_in_each_row():
    flat = np.full((1, 200, 200), 100.0)
    noisy = [jitter(flat, seed, std=(50.0,)) for seed in range(60)]
    noisy = [n[0] for n in noisy if n.std() > 1]
    assert 4 <= len(noisy) <= 22
    z = (noisy[0] - noisy[0].mean()) / noisy[0].std()
    assert abs((z**4).mean() - 3) < 0.2
    assert np.abs(np.corrcoef(z)[np.triu_indices(200, 1)]).mean() < 0.1
