import colorsys
import json

import numpy as np
import pytest
import torch

from geoseg.config.run import AugmentConfig
from geoseg.data.augment import make_transform
from geoseg.data.augment_paper import distort, draw_size, shift_hsv
from geoseg.errors import DtypeMismatchError, InputError
from tests.conftest import ROOT

PLAIN = {"photometric": False, "flip": 0.0, "cat_max_ratio": 1.0}


def make_sample(image, mask):
    image, mask = torch.as_tensor(image).float(), torch.as_tensor(mask).long()
    return {"image": image, "mask": mask, "valid": torch.ones(mask.shape, dtype=torch.bool)}


def coordinates(height, width):
    """Return a sample whose bands are x, y and nothing; its classes are stripes of 5 px."""
    y, x = np.mgrid[:height, :width] + 0.5
    return make_sample(np.stack([x, y, 0 * x]), x // 5 % 7)


def test_a_ratio_of_one_resizes_as_the_test_protocol_does():
    cases = json.loads((ROOT / "tests/golden/protocol/resize_sizes.json").read_text("utf-8"))
    rng = np.random.default_rng(0)
    for case in cases:
        for name in ("2048x512", "2048x1024"):
            if name not in case:
                continue
            base = tuple(int(n) for n in name.split("x"))
            augment = AugmentConfig(scale=(1.0, 1.0), base_size_px=base)
            assert list(draw_size(case["in_hw"], augment, rng)) == case[name]["keep_ratio_hw"]


def test_resize_ratios_are_uniform():
    rng = np.random.default_rng(0)
    augment = AugmentConfig(scale=(0.5, 2.0), base_size_px=(2048, 512))
    ratios = np.array([draw_size((512, 700), augment, rng)[0] / 512 for _ in range(4000)])
    assert 0.5 <= ratios.min() < 0.51
    assert 1.99 < ratios.max() <= 2.0
    shares = np.histogram(ratios, 6, (0.5, 2.0))[0] / 4000
    assert np.abs(shares - 1 / 6).max() < 0.025


def test_the_sides_of_the_base_are_cut_to_whole_pixels_first():
    class Fixed:
        def uniform(self, low, high):
            return 0.7531

    # int(512 * 0.7531) = 385 over 500, not 512 * 0.7531 = 385.6 over 500.
    size = draw_size((500, 1000), AugmentConfig(base_size_px=(2048, 512)), Fixed())
    assert size == (385, 770)


def test_crops_lie_anywhere_with_equal_chance():
    transform = make_transform(AugmentConfig(crop_px=16, scale=(1.0, 1.0), **PLAIN), seed=0)
    places = np.array(
        [transform(coordinates(20, 21))["image"][:2, 0, 0].numpy() for _ in range(1500)]
    )
    for axis, count in ((0, 6), (1, 5)):
        values, shares = np.unique(places[:, axis], return_counts=True)
        assert values.tolist() == [n + 0.5 for n in range(count)]
        assert np.abs(shares / 1500 - 1 / count).max() < 0.04


def test_half_of_the_crops_are_mirrored():
    transform = make_transform(
        AugmentConfig(crop_px=16, scale=(0.7, 1.5), flip=0.5, photometric=False), seed=0
    )
    mirrored = 0
    for _ in range(600):
        crop = transform(coordinates(40, 50))
        x = crop["image"][0, 0]
        inside = crop["valid"][0]
        mirrored += int(x[inside][1] < x[inside][0])
        assert crop["image"][1, 1, 3] > crop["image"][1, 0, 3]  # never upside down
    assert abs(mirrored / 600 - 0.5) < 0.07


def test_labels_follow_the_image():
    transform = make_transform(AugmentConfig(crop_px=48, photometric=False), seed=0)
    for _ in range(30):
        crop = transform(coordinates(60, 80))
        valid = crop["valid"]
        x = crop["image"][0][valid]
        step = (crop["image"][0, 0, 1] - crop["image"][0, 0, 0]).abs()
        # OpenCV's nearest is up to a pixel of the crop off the centre of the image's pixel.
        near = [(((x + d * step) // 5).long() % 7) == crop["mask"][valid] for d in (-0.51, 0, 0.51)]
        assert torch.stack(near).any(0).float().mean() > 0.995


def test_small_images_are_padded_at_their_right_and_bottom():
    transform = make_transform(AugmentConfig(crop_px=64, scale=(1.0, 1.0)), seed=0)
    crop = transform(coordinates(20, 30))
    assert crop["valid"].sum() == 600
    assert crop["valid"][:20, :30].all()
    assert (crop["mask"][~crop["valid"]] == 255).all()
    assert (crop["image"][:, ~crop["valid"]] == 0).all()


def halves(share):
    """Return an image of two classes with that share of one of them, at the left."""
    mask = (np.arange(200) < 200 * share).astype(int)[None].repeat(40, 0)
    return make_sample(np.zeros((3, 40, 200)), mask)


def count_shares(cat_max_ratio, sample, draws=400):
    augment = AugmentConfig(
        crop_px=40, scale=(1.0, 1.0), cat_max_ratio=cat_max_ratio, photometric=False
    )
    transform = make_transform(augment, seed=0)
    return np.array([transform(sample)["mask"].float().mean() for _ in range(draws)])


def test_crops_that_one_class_fills_are_drawn_again():
    shares = count_shares(0.75, halves(0.5))
    # 19 of 161 places hold both classes and neither with 75 %: 11 draws miss them 1 time in 4.
    chance = (1 - 19 / 161) ** 11
    assert abs(((shares <= 0.25) | (shares >= 0.75)).mean() - chance) < 0.07
    assert ((shares > 0.25) & (shares < 0.75)).mean() > 0.6
    free = count_shares(1.0, halves(0.5))
    assert abs(((free > 0.25) & (free < 0.75)).mean() - 19 / 161) < 0.05


def test_a_crop_is_returned_even_where_there_is_one_class():
    assert (count_shares(0.75, halves(1.0), draws=5) == 1).all()


def test_where_there_is_enough_of_both_no_class_fills_a_crop():
    mask = np.indices((64, 64)).sum(0) // 8 % 2
    shares = count_shares(0.75, make_sample(np.zeros((3, 64, 64)), mask), draws=100)
    assert ((shares > 0.25) & (shares < 0.75)).all()


def reference_hsv(pixel):
    """Return OpenCV's 8-bit hue (of 180), saturation and value."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in pixel))
    return int(h * 180 + 0.5) % 180, int(s * 255 + 0.5), round(v * 255)


def reference_rgb(h, s, v):
    return [int(c * 255 + 1e-6) for c in colorsys.hsv_to_rgb(h / 180, s / 255, v / 255)]


def random_colours(count, seed=0):
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (count, 3))
    colours[: count // 3] //= 4  # dark
    colours[count // 3 : count // 2, 1:] = colours[count // 3 : count // 2, :1]  # grey
    return colours


def as_image(colours):
    return np.ascontiguousarray(colours.T[:, None].astype(np.float32))


@pytest.mark.parametrize(
    ("saturation", "hue"), [(1.0, 0), (0.5, 0), (1.5, 0), (1.0, 17), (1.2, -18)]
)
def test_hue_and_saturation_move_in_eight_bit_steps(saturation, hue):
    colours = random_colours(2000)
    image = as_image(colours)
    shift_hsv(image, saturation, hue)
    wanted = []
    for pixel in colours:
        h, s, v = reference_hsv(pixel)
        s = int(min(255, s * saturation)) if saturation != 1 else s
        wanted.append(reference_rgb((h + hue) % 180, s, v))
    difference = np.abs(image[:, 0].T - np.array(wanted))
    # A hue or saturation that lies halfway may be rounded either way.
    assert (difference <= 1).mean() > 0.99
    assert difference.max() <= 5


def published(pixels, rng):
    """Return colours distorted step by step, each through 8 bits, as published."""

    def stretched(pixels, factor, offset):
        return np.clip(pixels * factor + offset, 0, 255).astype(np.uint8).astype(float)

    def through_hsv(pixels, change):
        return np.array([reference_rgb(*change(*reference_hsv(p))) for p in pixels], float)

    if rng.random() < 0.5:
        pixels = stretched(pixels, 1, rng.uniform(-32, 32))
    is_first = rng.random() < 0.5
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else None
    if is_first and contrast is not None:
        pixels = stretched(pixels, contrast, 0)
    if rng.random() < 0.5:
        factor = rng.uniform(0.5, 1.5)
        pixels = through_hsv(pixels, lambda h, s, v: (h, int(min(255, s * factor)), v))
    if rng.random() < 0.5:
        turn = rng.integers(-18, 18)
        pixels = through_hsv(pixels, lambda h, s, v: ((h + turn) % 180, s, v))
    if not is_first and contrast is not None:
        pixels = stretched(pixels, contrast, 0)
    return pixels


def test_distorted_colours_are_those_of_the_published_chain():
    colours = random_colours(150)
    differences = []
    for seed in range(60):
        image = as_image(colours)
        distort(image, np.random.default_rng(seed))
        wanted = published(colours.astype(float), np.random.default_rng(seed))
        differences.append(image[:, 0].T - wanted)
        assert image.min() >= 0
        assert image.max() <= 255
        assert (image == np.floor(image)).all()
    differences = np.array(differences)
    assert abs(differences.mean()) < 0.2
    # Saturation and hue together are rounded once less than published.
    assert (np.abs(differences) <= 2).mean() > 0.97
    assert np.abs(differences).max() <= 12


def test_each_step_is_taken_half_of_the_time_and_in_its_range():
    grey = as_image(np.full((1, 3), 100))
    values = []
    for seed in range(2000):
        image = grey.copy()
        distort(image, np.random.default_rng(seed))
        values.append(float(image[0, 0, 0]))
    values = np.array(values)
    # Grey is moved by brightness and contrast alone: a quarter has neither.
    assert abs((values == 100).mean() - 0.25) < 0.04
    assert values.min() >= 34  # (100 - 32) / 2
    assert values.max() <= 198  # (100 + 32) * 1.5
    assert abs(values.mean() - 100) < 2


def test_colours_of_other_than_eight_bit_rgb_are_refused():
    with pytest.raises(DtypeMismatchError, match="expected uint8 .* got uint16. Set augment.photo"):
        make_transform(AugmentConfig(), seed=0, dtype="uint16")
    four = make_sample(np.zeros((4, 8, 8)), np.zeros((8, 8)))
    with pytest.raises(InputError, match=r"got 4 band\(s\). Set augment.photometric=false"):
        make_transform(AugmentConfig(crop_px=8), seed=0)(four)
    bright = make_sample(np.full((3, 8, 8), 3000), np.zeros((8, 8)))
    with pytest.raises(InputError, match="expected values up to 255 .* got 3000. Set augment"):
        make_transform(AugmentConfig(crop_px=8), seed=0)(bright)
    plain = AugmentConfig(crop_px=8, photometric=False, scale=(1.0, 1.0))
    assert make_transform(plain, seed=0, dtype="uint16")(bright)["image"].max() == 3000
