"""The compiled attention equals the gathering form: values, gradients, borders, strides, bits."""

import pytest
import torch

from geoseg import _native
from geoseg.ops import neighborhood_attention, reference, rotary_neighborhood_attention
from geoseg.ops.neighborhood_attention import rope_angles

needs_library = pytest.mark.skipif(
    _native.library() is None, reason="no compiled library was built here"
)
FAST = ["torch", pytest.param("cpu", marks=needs_library)]

# (N, H, W, heads, d, kernel): map == window, one larger, odd sizes, widths around a vector.
SHAPES = [
    (1, 3, 3, 1, 2, 3),
    (2, 7, 8, 2, 4, 7),
    (1, 9, 11, 3, 5, 9),
    (1, 11, 14, 2, 36, 11),
    (1, 40, 37, 2, 20, 9),
    (1, 13, 13, 1, 24, 13),
    (1, 16, 33, 2, 28, 5),
    (1, 14, 70, 1, 32, 11),
]


def attention_inputs(n, h, w, heads, d, kernel, *, seed=0):
    """Return q, k, v and the bias, float64."""
    g = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, n, h, w, heads, d, generator=g, dtype=torch.float64)
    side = 2 * kernel - 1
    bias = torch.randn(heads, side, side, generator=g, dtype=torch.float64)
    return q, k, v, bias


def tables(h, w, d):
    g = torch.Generator().manual_seed(5)
    angles = [torch.randn(n, d // 4, generator=g, dtype=torch.float64) for n in (h, w)]
    return tuple(torch.stack([a.sin(), a.cos()], dim=-1) for a in angles)


def error(made, exact):
    made, exact = made.detach().double(), exact.detach()
    return float((made - exact).norm() / exact.norm())


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_equals_gathering(shape, biased, backend):
    q, k, v, bias = attention_inputs(*shape)
    bias = bias if biased else None
    exact = neighborhood_attention(q, k, v, shape[-1], bias=bias, backend="reference")
    single = [t.float() for t in (q, k, v)]
    made = neighborhood_attention(
        *single, shape[-1], bias=None if bias is None else bias.float(), backend=backend
    )
    assert error(made, exact) <= 1e-6
    assert error(neighborhood_attention(q, k, v, shape[-1], bias=bias, backend=backend), exact) <= (
        1e-13
    )


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_equal_gathering(shape, backend):
    leaves = [t.requires_grad_() for t in attention_inputs(*shape)]
    q, k, v, bias = leaves
    exact = neighborhood_attention(q, k, v, shape[-1], bias=bias, backend="reference")
    dy = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.autograd.grad(exact, leaves, dy)
    single = [t.detach().float().requires_grad_() for t in leaves]
    made = neighborhood_attention(*single[:3], shape[-1], bias=single[3], backend=backend)
    for name, ours, theirs in zip(
        ("q", "k", "v", "bias"), torch.autograd.grad(made, single, dy.float()), wanted, strict=True
    ):
        assert error(ours, theirs) <= 5e-6, name


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape", [(1, 9, 13, 3, 20, 5), (2, 11, 18, 2, 36, 9)], ids=str)
def test_rotation_on_load_equals_rotation_before(shape, backend):
    q, k, v, bias = attention_inputs(*shape)
    rope = tables(shape[1], shape[2], shape[4])
    leaves = [t.requires_grad_() for t in (q, k, v, bias)]
    sin, cos = rope_angles(rope)
    turned = [reference.rotate(t, sin, cos) for t in (q, k)]
    exact = neighborhood_attention(*turned, v, shape[-1], bias=bias, backend="reference")
    made = rotary_neighborhood_attention(q, k, v, shape[-1], rope=rope, bias=bias, backend=backend)
    assert error(made, exact) <= 1e-13
    dy = torch.randn_like(exact)
    for ours, theirs in zip(
        torch.autograd.grad(made, leaves, dy), torch.autograd.grad(exact, leaves, dy), strict=True
    ):
        assert error(ours, theirs) <= 1e-12


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_dilated_windows_see_their_residue_class(backend):
    q, k, v, bias = attention_inputs(1, 7, 8, 2, 4, 3)
    y = neighborhood_attention(q, k, v, 3, dilation=2, bias=bias, backend=backend)
    for i in range(2):
        for j in range(2):
            part = [t[:, i::2, j::2] for t in (q, k, v)]
            alone = neighborhood_attention(*part, 3, bias=bias, backend="reference")
            assert torch.allclose(y[:, i::2, j::2], alone, atol=1e-12)


@needs_library
def test_slices_of_one_map_are_read_in_place():
    qkv = torch.randn(2, 9, 12, 3, 2, 8)
    q, k, v = qkv.unbind(3)
    whole = neighborhood_attention(q.contiguous(), k.contiguous(), v.contiguous(), 5, backend="cpu")
    assert torch.equal(neighborhood_attention(q, k, v, 5, backend="cpu"), whole)
    # Channels that are not dense are copied first.
    last = [t.transpose(3, 4).contiguous().transpose(3, 4) for t in (q, k, v)]
    assert torch.equal(neighborhood_attention(*last, 5, backend="cpu"), whole)
    rest = (5, None, 8**-0.5, None, None)
    dy = torch.ones_like(whole)
    grads = torch.ops.geoseg.na2d_backward(dy, q, k, v, *rest)
    made = torch.ops.geoseg.na2d_backward(dy, *last, *rest)
    assert all(map(torch.equal, made, grads))


@needs_library
def test_gradcheck_in_double():
    for kernel in (3, 5):
        leaves = [t.requires_grad_() for t in attention_inputs(1, 5, 7, 1, 2, kernel)]

        def run(q, k, v, bias, kernel=kernel):
            return neighborhood_attention(q, k, v, kernel, bias=bias, backend="cpu")

        assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2.5e-3), (torch.float16, 3e-4)])
def test_half_precision_rounds_the_output_only(dtype, limit, backend):
    *given, bias = attention_inputs(1, 12, 17, 2, 20, 7)
    rounded = [t.to(dtype) for t in given]
    exact = neighborhood_attention(
        *[t.double() for t in rounded], 7, bias=bias, backend="reference"
    )
    made = neighborhood_attention(*rounded, 7, bias=bias.float(), backend=backend)
    assert made.dtype == dtype
    assert error(made, exact) <= limit


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_keys_and_values_may_be_of_another_type(dtype, backend):
    q, k, v, _ = (t.float() for t in attention_inputs(1, 5, 7, 2, 4, 3))
    leaves = [q, k.to(dtype), v.to(dtype)]
    exact = neighborhood_attention(*leaves, 3, backend="reference")
    leaves = [t.requires_grad_() for t in leaves]
    made = neighborhood_attention(*leaves, 3, backend=backend)
    assert made.dtype == torch.float32
    assert error(made, exact.double()) <= 1e-6
    grads = torch.autograd.grad(made.sum(), leaves)
    assert [grad.dtype for grad in grads] == [torch.float32, dtype, dtype]


@needs_library
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_whatever_the_threads(threads):
    leaves = [t.float().requires_grad_() for t in attention_inputs(2, 13, 18, 3, 12, 7)]
    q, k, v, bias = leaves
    dy = torch.randn(q.shape)

    def run():
        y = neighborhood_attention(q, k, v, 7, bias=bias, backend="cpu")
        return [y, *torch.autograd.grad(y, leaves, dy)]

    own = torch.get_num_threads()
    first = run()
    try:
        torch.set_num_threads(threads)
        again = run()
    finally:
        torch.set_num_threads(own)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs_library
def test_what_lies_far_away_changes_nothing():
    q, k, v, _ = (t.float() for t in attention_inputs(1, 20, 40, 1, 8, 5))
    y = neighborhood_attention(q, k, v, 5, backend="cpu")
    k, v = k.clone(), v.clone()
    k[:, :, 20:], v[:, :, 20:] = 1e4, -1e4
    assert torch.equal(neighborhood_attention(q, k, v, 5, backend="cpu")[:, :, :18], y[:, :, :18])


def test_what_cannot_be_is_refused():
    q, k, v, bias = attention_inputs(1, 7, 8, 2, 4, 7)
    with pytest.raises(ValueError, match="maps of at least 9 pixels a side.*got 7x8"):
        neighborhood_attention(q, k, v, 9)
    with pytest.raises(ValueError, match="maps of at least 14 pixels a side"):
        neighborhood_attention(q, k, v, 7, dilation=2)
    with pytest.raises(ValueError, match="odd kernel_size from 3 to 13"):
        neighborhood_attention(q, k, v, 4)
    with pytest.raises(ValueError, match=r"bias of shape \(2, 9, 9\); got \(2, 13, 13\)"):
        neighborhood_attention(q, k, v, 5, bias=bias)
    with pytest.raises(ValueError, match="q, k and v of one shape"):
        neighborhood_attention(q, k[:, :, :7], v, 5)
    with pytest.raises(ValueError, match=r"whole numbers for kernel_size and dilation; got 3\.0"):
        neighborhood_attention(q, k, v, 3.0)
    rows, columns = tables(7, 8, 4)
    for rope in ((rows[:5], columns), (rows, columns[:, :0]), (columns, rows)):
        with pytest.raises(ValueError, match=r"rope of shapes \(7, 1, 2\) and \(8, 1, 2\)"):
            rotary_neighborhood_attention(q, k, v, 5, rope=rope)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("backend", FAST)
def test_what_has_diverged_shows(backend, index, sign):
    """The sign of a NaN is set in those that processors make, of infinity minus itself."""
    inputs = [t.float() for t in attention_inputs(1, 7, 9, 2, 12, 5)]
    inputs[index] = torch.full_like(inputs[index], torch.nan).copysign(torch.tensor(sign * 1.0))
    q, k, v, bias = inputs
    assert neighborhood_attention(q, k, v, 5, bias=bias, backend=backend).isnan().all()
