"""The forms in PyTorch operations against the plain ones: every size, tail, border and dtype."""

import math

import pytest
import torch

from geoseg.ops import _torch_attention, _torch_scan, reference

LENGTHS = [1, 63, 64, 65, 1025]
MAPS = [(1, 1), (1, 7), (7, 9), (5, 13), (13, 5), (8, 8), (25, 41), (3, 61)]
# map, window: the smallest map, one axis of it, tiles that are moved inwards, inner tiles
WINDOWS = [
    ((3, 3), 3),
    ((3, 9), 3),
    ((17, 5), 5),
    ((9, 10), 5),
    ((7, 24), 7),
    ((12, 16), 7),
    ((19, 9), 9),
    ((24, 33), 9),
    ((11, 30), 11),
    ((26, 27), 11),
    ((13, 13), 13),
    ((31, 14), 13),
]


def error(made, exact):
    return float((made.detach().double() - exact.detach()).norm() / exact.detach().norm())


def draw(*shape, seed=0):
    g = torch.Generator().manual_seed(seed + math.prod(shape))
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def scan_inputs(height, width, *, batch=2, channels=6, rank=2):
    """Return x, q, weight, bias, A_logs and Ds = 0, float64: a skip would hide errors."""
    return [
        draw(batch, height, width, channels),
        draw(batch, height, width, 4, rank + 2, seed=1),
        0.5 * draw(4, channels, rank, seed=2),
        draw(4, channels, seed=3) - 2,
        0.5 * draw(4 * channels, 1, seed=4),
        torch.zeros(4 * channels, dtype=torch.float64),
    ]


def sequence_inputs(length, *, groups=2, channels=3, states=1):
    """Return u, delta, A, B, C, D = 0 and delta_bias, float64."""
    width = groups * channels
    return [
        draw(2, width, length),
        draw(2, width, length, seed=1),
        -draw(width, states, seed=2).exp(),
        draw(2, groups, states, length, seed=3),
        draw(2, groups, states, length, seed=4),
        torch.zeros(width, dtype=torch.float64),
        draw(width, seed=5),
    ]


def attention_inputs(size, kernel, *, batch=2, heads=2, width=8):
    """Return q, k, v as slices of one map, and a bias, float64."""
    qkv = draw(batch, *size, 3, heads, width)
    side = 2 * kernel - 1
    return [*qkv.unbind(3), draw(heads, side, side, seed=1)]


def tables(size, width=8):
    angles = [3 * draw(length, width // 4, seed=2) for length in size]
    return tuple(torch.stack([a.sin(), a.cos()], dim=-1) for a in angles)


def gathered(q, k, v, kernel, bias, scale, rope):
    """Return the plain attention of rotated queries and keys."""
    if rope is not None:
        rows, columns = rope
        shape = (len(rows), len(columns), -1, -1)
        pairs = torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], dim=2)
        q, k = (reference.rotate(t, *pairs.unbind(-1)) for t in (q, k))
    return reference.neighborhood_attention(q, k, v, kernel, bias, scale)


def single(tensors):
    return [t if t is None else t.float() for t in tensors]


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Run with all steps or tiles at once, and with few at a time."""
    if request.param == "many blocks":
        monkeypatch.setattr(_torch_scan, "_BLOCK_CPU", 100)
        monkeypatch.setattr(_torch_attention, "_BLOCK_CPU", 1000)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("size", MAPS, ids=str)
def test_map_scan_equals_the_loop(size):
    inputs = scan_inputs(*size)
    exact = reference.ss2d_scan(*inputs)
    assert error(_torch_scan.ss2d_scan(*inputs), exact) <= 1e-12
    assert error(_torch_scan.ss2d_scan(*single(inputs)), exact) <= 1e-6


def test_map_scan_adds_the_skip():
    inputs = scan_inputs(4, 6)
    without = _torch_scan.ss2d_scan(*inputs)
    inputs[-1] = draw(24, seed=9)
    skip = inputs[-1].view(4, 6).sum(0) * inputs[0]
    torch.testing.assert_close(_torch_scan.ss2d_scan(*inputs), without + skip)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (5, 13), (8, 8)], ids=str)
def test_map_scan_has_the_gradients_of_the_loop(size):
    leaves = [t.requires_grad_() for t in scan_inputs(*size)]
    dy = draw(2, *size, 6, seed=7)
    wanted = torch.autograd.grad(reference.ss2d_scan(*leaves), leaves, dy)
    made = torch.autograd.grad(_torch_scan.ss2d_scan(*leaves), leaves, dy)
    for ours, theirs in zip(made, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wanted", range(6), ids=["x", "q", "weight", "bias", "A", "D"])
def test_each_input_of_the_scan_may_be_the_only_one_with_a_gradient(wanted):
    inputs = scan_inputs(5, 6)
    inputs[wanted].requires_grad_()
    exact = torch.autograd.grad(reference.ss2d_scan(*inputs).square().sum(), inputs[wanted])
    made = torch.autograd.grad(_torch_scan.ss2d_scan(*inputs).square().sum(), inputs[wanted])
    torch.testing.assert_close(made, exact)


def test_extreme_steps_stay_finite():
    x, q, weight, bias, A_logs, Ds = scan_inputs(16, 17)
    q[..., :2] = torch.linspace(-40, 40, q[..., :2].numel()).view(q[..., :2].shape)
    weight = torch.ones_like(weight) / 2
    inputs = single([x, q, weight, torch.zeros_like(bias), 2 * A_logs, Ds])
    exact = reference.ss2d_scan(*(t.double() for t in inputs))
    made = _torch_scan.ss2d_scan(*inputs)
    assert made.isfinite().all()
    assert error(made, exact) <= 1e-6


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_selective_scan_equals_the_loop(length, states):
    inputs = sequence_inputs(length, states=states)
    exact = reference.selective_scan(*inputs, delta_softplus=True)
    assert error(_torch_scan.selective_scan(*inputs, True), exact) <= 1e-12
    assert error(_torch_scan.selective_scan(*single(inputs), True), exact) <= 1e-6


@pytest.mark.parametrize("softplus", [False, True])
def test_selective_scan_without_skip_and_bias(softplus):
    u, delta, A, B, C, _, _ = sequence_inputs(70, states=2)
    inputs = (u, delta.abs(), A, B, C, None, None)
    exact = reference.selective_scan(*inputs, delta_softplus=softplus)
    torch.testing.assert_close(_torch_scan.selective_scan(*inputs, softplus), exact)


@pytest.mark.parametrize("length", [1, 65])
def test_selective_scan_has_the_gradients_of_the_loop(length):
    inputs = sequence_inputs(length, states=2)
    inputs[5] = draw(6, seed=8)
    leaves = [t.requires_grad_() for t in inputs]
    dy = draw(2, 6, length, seed=7)
    exact = reference.selective_scan(*leaves, delta_softplus=True)
    wanted = torch.autograd.grad(exact, leaves, dy)
    made = torch.autograd.grad(_torch_scan.selective_scan(*leaves, True), leaves, dy)
    for ours, theirs in zip(made, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_chunks_divide_the_sequence_where_a_near_divisor_exists():
    assert [_torch_scan.chunk_steps(n) for n in (1, 2, 64, 1024, 16384)] == [1, 2, 8, 32, 128]
    assert 30 % _torch_scan.chunk_steps(30) == 0
    assert _torch_scan.chunk_steps(1021) == 32  # a prime: the last chunk is filled up


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("rotary", [False, True], ids=["no rope", "rope"])
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(("size", "kernel"), WINDOWS, ids=str)
def test_attention_equals_gathering(size, kernel, biased, rotary):
    q, k, v, bias = attention_inputs(size, kernel)
    bias, rope = bias if biased else None, tables(size) if rotary else None
    exact = gathered(q, k, v, kernel, bias, 0.3, rope)
    assert error(_torch_attention.na2d(q, k, v, kernel, bias, 0.3, rope), exact) <= 1e-12
    q, k, v, bias = single([q, k, v, bias])
    rope = None if rope is None else tuple(single(rope))
    made = _torch_attention.na2d(q, k, v, kernel, bias, 0.3, rope)
    assert made.is_contiguous()
    assert error(made, exact) <= 1e-6


@pytest.mark.parametrize(("size", "kernel"), [((3, 3), 3), ((9, 21), 5), ((14, 13), 11)], ids=str)
def test_attention_has_the_gradients_of_gathering(size, kernel):
    leaves = [t.detach().requires_grad_() for t in attention_inputs(size, kernel)]
    rope, dy = tables(size), draw(2, *size, 2, 8, seed=7)
    q, k, v, bias = leaves
    exact = gathered(q, k, v, kernel, bias, 0.3, rope)
    wanted = torch.autograd.grad(exact, leaves, dy)
    made = torch.autograd.grad(_torch_attention.na2d(q, k, v, kernel, bias, 0.3, rope), leaves, dy)
    for ours, theirs in zip(made, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_heads_of_any_width():
    q, k, v, bias = attention_inputs((10, 12), 7, heads=3, width=5)
    exact = gathered(q, k, v, 7, bias, 0.4, None)
    assert error(_torch_attention.na2d(q, k, v, 7, bias, 0.4, None), exact) <= 1e-12


def test_rotation_in_real_numbers_equals_that_in_complex_ones():
    q, k, _, _ = attention_inputs((6, 7), 3)
    sin, cos = draw(6, 7, 1, 4), draw(6, 7, 1, 4, seed=1)
    products = [
        (turn(q, sin, cos) * turn(k, sin, cos)).sum(-1)
        for turn in (_torch_attention._turned, _torch_attention._turned_apart)
    ]
    torch.testing.assert_close(*products)


def test_rotation_takes_maps_that_complex_numbers_cannot_lie_on():
    padded = draw(1, 6, 7, 1, 9)
    odd = padded[..., 1:]
    sin, cos = draw(6, 7, 1, 4), draw(6, 7, 1, 4, seed=1)
    wanted = _torch_attention._turned(odd.contiguous(), sin, cos)
    assert torch.equal(_torch_attention._turned(odd, sin, cos), wanted)


def test_every_pixel_and_its_window_are_computed():
    plan = _torch_attention.plan_tiles(19, 30, 7)
    computed = torch.cat([torch.from_numpy(group.queries).flatten() for group in plan.groups])
    assert torch.equal(computed[torch.from_numpy(plan.places)], torch.arange(19 * 30))
    for group in plan.groups:
        assert ((~group.outside).sum(1) == 49).all()


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.bfloat16, 2.5e-3), (torch.float16, 3e-4)], ids=str
)
def test_half_precision_is_rounded_at_the_end_only(dtype, limit):
    x, *rest = scan_inputs(9, 14)
    x = x.to(dtype)
    made = _torch_scan.ss2d_scan(x, *single(rest))
    assert made.dtype == dtype
    assert error(made, reference.ss2d_scan(x.double(), *rest)) <= limit

    u, delta, A, B, C, D, bias = sequence_inputs(100)
    u, delta, B, C = (t.to(dtype) for t in (u, delta, B, C))
    made = _torch_scan.selective_scan(u, delta, *single([A]), B, C, *single([D, bias]), True)
    wide = [t.double() for t in (u, delta, A, B, C, D, bias)]
    assert made.dtype == dtype
    assert error(made, reference.selective_scan(*wide, delta_softplus=True)) <= limit

    *qkv, bias = attention_inputs((12, 20), 7)
    q, k, v = (t.to(dtype) for t in qkv)
    rope = tables((12, 20))
    made = _torch_attention.na2d(q, k, v, 7, bias.float(), 0.3, tuple(single(rope)))
    exact = gathered(q.double(), k.double(), v.double(), 7, bias, 0.3, rope)
    assert made.dtype == dtype
    assert error(made, exact) <= limit


def test_autocast_changes_nothing():
    inputs, (*qkv, bias) = single(scan_inputs(6, 7)), single(attention_inputs((9, 8), 5))
    sequences = single(sequence_inputs(20))

    def run():
        return (
            _torch_scan.ss2d_scan(*inputs),
            _torch_scan.selective_scan(*sequences, True),
            _torch_attention.na2d(*qkv, 5, bias, 0.3, tuple(single(tables((9, 8))))),
        )

    plain = run()
    with torch.autocast("cpu", torch.bfloat16):
        cast = run()
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_what_inference_mode_leaves_behind_serves_training():
    q, k, v, bias = single(attention_inputs((9, 11), 5))
    inputs = single(scan_inputs(6, 7))
    with torch.inference_mode():
        before = _torch_attention.na2d(q, k, v, 5, bias, 0.3, None)
        y = _torch_scan.ss2d_scan(*inputs)
    leaf = q.clone().requires_grad_()
    after = _torch_attention.na2d(leaf, k, v, 5, bias, 0.3, None)
    after.sum().backward()
    assert torch.equal(before, after.detach())
    torch.testing.assert_close(_torch_scan.ss2d_scan(*inputs), y)


def test_empty_batches_pass_in_both_directions():
    x, *rest = scan_inputs(5, 6, batch=0)
    q, k, v, bias = attention_inputs((5, 6), 3, batch=0)
    u, delta, A, B, C, D, delta_bias = sequence_inputs(8)
    x, q, u = (t.detach().requires_grad_() for t in (x, q, u[:0]))
    y = _torch_scan.ss2d_scan(x, *rest)
    z = _torch_attention.na2d(q, k, v, 3, bias, 0.3, tables((5, 6)))
    s = _torch_scan.selective_scan(u, delta[:0], A, B[:0], C[:0], D, delta_bias, True)
    assert (y.shape, z.shape, s.shape) == ((0, 5, 6, 6), (0, 5, 6, 2, 8), (0, 6, 8))
    (y.sum() + z.sum() + s.sum()).backward()
    assert (x.grad.shape, q.grad.shape, u.grad.shape) == (x.shape, q.shape, u.shape)


def test_one_input_gives_one_result_and_one_gradient():
    q, k, v, bias = (t.float().requires_grad_() for t in attention_inputs((20, 21), 7))
    inputs = [t.float().requires_grad_() for t in scan_inputs(20, 21)]

    def run():
        y = _torch_attention.na2d(q, k, v, 7, bias, 0.3, None)
        z = _torch_scan.ss2d_scan(*inputs)
        loss = y.square().sum() + z.square().sum()
        return [y, z, *torch.autograd.grad(loss, [q, k, v, bias, *inputs])]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
