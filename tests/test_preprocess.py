"""Raw values become what the network eats, on the kernel exactly as by the reference."""

import numpy as np
import pytest
import torch

from geoseg import _native
from geoseg.preprocess import Preprocess, normalize_native, normalize_reference
from geoseg.spec import BandSpec

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
BANDS = (BandSpec("a", mean=3, std=2, scale=0.5, offset=1), BandSpec("b", mean=-1, std=4))


def test_scale_offset_mean_and_std():
    made = Preprocess(BANDS)(torch.tensor([[[[10]], [[7]]]], dtype=torch.uint8))
    assert made.flatten().tolist() == [(10 * 0.5 + 1 - 3) / 2, (7 + 1) / 4]


def test_a_declared_scaling_replaces_the_records():
    made = Preprocess(BANDS, [(2.0, 5.0), None])(torch.tensor([[[[10]], [[7]]]]))
    assert made.flatten().tolist() == [(10 * 2 + 5 - 3) / 2, 2.0]


def test_invalid_pixels_are_the_mean_whatever_lies_there():
    values = torch.tensor([[[[float("nan"), 5.0]], [[float("inf"), 7.0]]]])
    valid = torch.tensor([[[False, True]]])
    made = Preprocess(BANDS)(values, valid)
    assert made[0, :, 0, 0].tolist() == [0.0, 0.0]
    assert made[0, 1, 0, 1] == 2.0


def test_the_result_is_channels_last_and_leaves_no_state():
    preprocess = Preprocess(BANDS)
    made = preprocess(torch.randint(0, 9, (2, 2, 5, 6), dtype=torch.int16))
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert preprocess.state_dict() == {}


@pytest.mark.skipif(_native.library() is None, reason="no compiled kernels")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 33), (1, 4, 130, 17), (1, 1, 64, 64)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_kernel_equals_the_reference_to_the_bit(dtype, shape, masked):
    rng = np.random.default_rng(0)
    values = torch.from_numpy((rng.standard_normal(shape) * 100).astype(dtype))
    mask_shape = (shape[0], *shape[2:])
    valid = torch.from_numpy(rng.random(mask_shape) < 0.7) if masked else None
    gain, bias = torch.rand(shape[1]) + 0.1, torch.randn(shape[1])
    native = normalize_native(values, valid, gain, bias)
    assert torch.equal(native, normalize_reference(values, valid, gain, bias))


def test_views_of_larger_arrays_are_read_in_place():
    big = np.arange(3 * 50 * 60, dtype=np.uint16).reshape(3, 50, 60)
    part = torch.from_numpy(big)[None, :, 10:30, 5:50]
    bands = tuple(BandSpec(n, mean=100, std=7) for n in "abc")
    made = Preprocess(bands)(part)
    assert torch.allclose(made, (part.float() - 100) / 7, atol=1e-4)


def test_gradients_pass():
    values = torch.randn(1, 2, 4, 4, requires_grad=True)
    Preprocess(BANDS)(values).sum().backward()
    assert torch.allclose(values.grad[0, :, 0, 0], torch.tensor([0.25, 0.25]))


@pytest.mark.parametrize(
    ("bands", "valid", "message"),
    [
        (2, None, r"expected values \(N, 3, H, W\)"),
        (3, torch.ones(1, 4, 5), r"valid of shape \(1, 4, 5\), bool; .*float32"),
        (3, torch.ones(1, 1, 4, 5, dtype=torch.bool), r"got \(1, 1, 4, 5\)"),
        (3, torch.ones(1, 2, 2, dtype=torch.bool), r"got \(1, 2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(bands, valid, message):
    preprocess = Preprocess((*BANDS, BANDS[0]))
    with pytest.raises(ValueError, match=message):
        preprocess(torch.zeros(1, bands, 4, 5, dtype=torch.uint8), valid)
