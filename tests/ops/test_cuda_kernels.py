"""The CUDA kernels' bodies, run by a grid emulator, equal the float64 reference.

D is 0 where errors are measured, or the skip term would hide them. Every buffer starts as NaN, and
every launch is repeated with its blocks and threads in the reverse order: same bits.
"""

import importlib

import pytest
import torch

from geoseg import ops
from geoseg.errors import BackendUnavailableError
from geoseg.ops import _cuda, _cuda_attention, _cuda_driver, _cuda_ss2d, reference
from tests.ops.emulator import Emulator

FORWARD, BACKWARD = 1e-6, 5e-6
# Rounding of the output alone.
ROUNDED = {torch.bfloat16: 2.5e-3, torch.float16: 3e-4}


@pytest.fixture(autouse=True)
def poisoned():
    """Let torch fill what it does not initialise with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    assert torch.ones(1).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(made, exact):
    exact = exact.detach()
    size = exact.norm()
    # What vanishes exactly, such as dA of a single step, has no relative error.
    return float((made.double() - exact).norm() / (size if size > 0 else 1))


def both_orders(emulator, operation, *inputs):
    """Return a result after checking that the order of blocks and threads does not matter."""
    made = operation(*inputs)
    emulator.reversed = True
    again = operation(*inputs)
    emulator.reversed = False
    as_tuple = made if isinstance(made, tuple) else (made,)
    again = again if isinstance(again, tuple) else (again,)
    for one, other in zip(as_tuple, again, strict=True):
        assert one is other is None or torch.equal(one, other)
    return made


def check_gradients(grads, exact_output, leaves, dy):
    """Compare gradients with autograd's of the reference, in the shapes of what they belong to."""
    kept = [leaf for leaf in leaves if leaf is not None]
    exact = iter(torch.autograd.grad(exact_output, kept, dy.double()))
    for grad, leaf in zip(grads, leaves, strict=True):
        if leaf is None:
            assert grad is None
            continue
        assert grad.shape == leaf.shape
        assert grad.is_contiguous()  # what the fake versions promise
        assert error(grad, next(exact)) <= BACKWARD


def doubles(*tensors):
    return [None if t is None else t.double().requires_grad_() for t in tensors]


def scan_inputs(n, h, w, c, r, *, skip=0.0, spread=1.0):
    return (
        draw(0, n, h, w, c),
        draw(1, n, h, w, 4, r + 2),
        spread * draw(2, 4, c, r) / r**0.5,
        2 * draw(3, 4, c) - 2,
        0.5 * draw(4, 4 * c, 1),
        skip * (1 + draw(5, 4 * c)),
    )


# (N, H, W, C, R): tails in channels, in steps and in the rows of q; chunks of both passes.
SCANS = [
    (1, 13, 29, 36, 3),
    (2, 5, 7, 8, 1),
    (1, 16, 16, 40, 6),
    (1, 3, 70, 33, 2),
    (2, 9, 31, 70, 5),
    (1, 1, 1, 5, 4),
    (1, 65, 1, 4, 2),
]


@pytest.mark.parametrize("shape", SCANS, ids=str)
def test_ss2d_equals_the_loop(emulator, shape):
    inputs = scan_inputs(*shape)
    leaves = doubles(*inputs)
    exact = reference.ss2d_scan(*leaves)
    made = both_orders(emulator, _cuda.ss2d_scan, *inputs)
    assert error(made, exact) <= FORWARD
    dy = draw(9, *made.shape)
    grads = both_orders(emulator, _cuda.ss2d_scan_backward, dy, *inputs)
    check_gradients(grads, exact, leaves, dy)


@pytest.mark.parametrize("side", [8, 16])
@pytest.mark.parametrize("shape", SCANS, ids=str)
def test_ss2d_takes_large_and_small_squares(emulator, monkeypatch, shape, side):
    monkeypatch.setattr(_cuda_ss2d, "ENOUGH_SQUARES", 1 if side == 16 else 10**9)
    inputs = scan_inputs(*shape, skip=1.0)
    made = both_orders(emulator, _cuda.ss2d_scan, *inputs)
    assert error(made, reference.ss2d_scan(*doubles(*inputs))) <= FORWARD
    assert {entry for entry, _ in emulator.launches} == {
        *(f"ss2d_sum_{side}", "ss2d_join_chunks", f"ss2d_output_{side}")
    }


def test_ss2d_squares_do_not_depend_on_the_batch(emulator, monkeypatch):
    monkeypatch.setattr(_cuda_ss2d, "ENOUGH_SQUARES", 3)
    inputs = scan_inputs(3, 17, 20, 12, 2)
    together = _cuda.ss2d_scan(*inputs)
    for i in range(3):
        alone = _cuda.ss2d_scan(*(t[i : i + 1] for t in inputs[:2]), *inputs[2:])
        assert torch.equal(alone, together[i : i + 1])


def test_ss2d_squares_fit_the_shared_memory_of_every_device(emulator, monkeypatch):
    monkeypatch.setattr(_cuda_ss2d, "ENOUGH_SQUARES", 1)
    inputs = scan_inputs(1, 3, 5, 4, 49)
    made = _cuda.ss2d_scan(*inputs)
    assert error(made, reference.ss2d_scan(*doubles(*inputs))) <= FORWARD
    assert emulator.launches[-1][0] == "ss2d_output_8"
    emulator.launches.clear()
    _cuda.ss2d_scan(*scan_inputs(1, 3, 5, 4, 42))
    entry, grid = emulator.launches[-1]
    assert entry == "ss2d_output_16"
    assert grid.shared_bytes <= 64 * 1024


def test_ss2d_bears_the_error_of_a_devices_exponential(emulator, tmp_path, monkeypatch):
    """Two units in the last place, the bound of ex2.approx, always upwards: the worst there is."""
    biased = Emulator(tmp_path, flags=(f"-DGEOSEG_EXP2_ERROR={2.0**-22}f",))
    monkeypatch.setattr(_cuda_driver, "launch", biased.launch)
    inputs = scan_inputs(1, 64, 48, 20, 2)
    leaves = doubles(*inputs)
    exact = reference.ss2d_scan(*leaves)
    made = _cuda.ss2d_scan(*inputs)
    assert FORWARD / 5 <= error(made, exact) <= FORWARD
    dy = draw(9, *made.shape)
    check_gradients(_cuda.ss2d_scan_backward(dy, *inputs), exact, leaves, dy)


def test_ss2d_adds_the_skip_term(emulator):
    inputs = scan_inputs(1, 4, 9, 12, 2, skip=1.0)
    leaves = doubles(*inputs)
    exact = reference.ss2d_scan(*leaves)
    made = _cuda.ss2d_scan(*inputs)
    assert error(made, exact) <= FORWARD
    dy = draw(9, *made.shape)
    check_gradients(_cuda.ss2d_scan_backward(dy, *inputs), exact, leaves, dy)


def test_ss2d_takes_step_sizes_of_any_magnitude(emulator):
    inputs = scan_inputs(1, 8, 9, 16, 3, spread=14.0)
    z = torch.einsum("nhwkr,kcr->nhwkc", inputs[1][..., :3], inputs[2]) + inputs[3]
    assert z.min() < -35
    assert z.max() > 35
    leaves = doubles(*inputs)
    exact = reference.ss2d_scan(*leaves)
    made = _cuda.ss2d_scan(*inputs)
    assert error(made, exact) <= FORWARD
    dy = draw(9, *made.shape)
    check_gradients(_cuda.ss2d_scan_backward(dy, *inputs), exact, leaves, dy)


@pytest.mark.parametrize("enough", [2, 5, 10**6])
def test_ss2d_gradients_do_not_depend_on_how_work_is_dealt(emulator, monkeypatch, enough):
    monkeypatch.setattr(_cuda_ss2d, "ENOUGH_BLOCKS", enough)
    inputs = scan_inputs(2, 9, 15, 150, 3)
    leaves = doubles(*inputs)
    exact = reference.ss2d_scan(*leaves)
    dy = draw(9, *inputs[0].shape)
    grads = both_orders(emulator, _cuda.ss2d_scan_backward, dy, *inputs)
    check_gradients(grads, exact, leaves, dy)
    blocks = {entry: grid.blocks for entry, grid in emulator.launches}["ss2d_backward"]
    assert blocks == {2: (2, 1, 1), 5: (6, 1, 1), 10**6: (10, 3, 1)}[enough]


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
def test_ss2d_reads_and_writes_half_the_bytes(emulator, dtype):
    x, *others = scan_inputs(1, 7, 12, 36, 3)
    x = x.to(dtype)
    made = both_orders(emulator, _cuda.ss2d_scan, x, *others)
    leaves = doubles(x, *others)
    exact = reference.ss2d_scan(*leaves)
    assert made.dtype == dtype
    assert error(made, exact) <= ROUNDED[dtype]
    dy = draw(9, *x.shape).to(dtype)
    grads = _cuda.ss2d_scan_backward(dy, x, *others)
    assert grads[0].dtype == dtype
    exact_dx = torch.autograd.grad(exact, leaves, dy.double(), retain_graph=True)[0]
    assert error(grads[0], exact_dx) <= ROUNDED[dtype]
    check_gradients(grads[1:], exact, leaves[1:], dy)


# (N, groups, channels of a group, S, L), softplus, D, delta_bias
SEQUENCES = [
    ((1, 1, 8, 1, 65), True, True, True),
    ((2, 2, 5, 3, 31), True, True, True),
    ((1, 4, 36, 1, 97), True, False, False),
    ((1, 1, 33, 16, 64), False, True, False),
    ((2, 1, 3, 2, 1), True, False, True),
]


def sequence_inputs(n, groups, size, states, length, *, softplus, skip, bias):
    channels = groups * size
    delta = 0.5 * draw(1, n, channels, length)
    return (
        draw(0, n, channels, length),
        delta if softplus else delta.abs(),
        -0.1 - draw(2, channels, states).abs(),
        draw(3, n, groups, states, length),
        draw(4, n, groups, states, length),
        draw(5, channels) if skip else None,
        draw(6, channels) - 1 if bias else None,
    )


@pytest.mark.parametrize(("shape", "softplus", "skip", "bias"), SEQUENCES, ids=str)
def test_selective_scan_equals_the_loop(emulator, shape, softplus, skip, bias):
    inputs = sequence_inputs(*shape, softplus=softplus, skip=skip, bias=bias)
    leaves = doubles(*inputs)
    exact = reference.selective_scan(*leaves, delta_softplus=softplus)
    made = both_orders(emulator, _cuda.selective_scan, *inputs, softplus)
    assert error(made, exact) <= FORWARD
    dy = draw(9, *made.shape)
    grads = both_orders(emulator, _cuda.selective_scan_backward, dy, *inputs, softplus)
    check_gradients(grads, exact, leaves, dy)


@pytest.mark.parametrize("mixed", [False, True])
def test_selective_scan_keeps_dtypes(emulator, mixed):
    inputs = list(sequence_inputs(1, 2, 5, 2, 40, softplus=True, skip=True, bias=True))
    for i in (0, 1, 3, 4):
        inputs[i] = inputs[i].to(torch.float32 if mixed and i == 1 else torch.bfloat16)
    made = _cuda.selective_scan(*inputs, True)
    exact = reference.selective_scan(*[t.double() for t in inputs], delta_softplus=True)
    assert made.dtype == torch.bfloat16
    assert error(made, exact) <= ROUNDED[torch.bfloat16]
    grads = _cuda.selective_scan_backward(torch.ones_like(made), *inputs, True)
    assert [g.dtype for g in grads] == [t.dtype for t in inputs]
    assert all(g.isfinite().all() for g in grads)


# (N, H, W, heads, d), kernel, bias, rope: borders, map == kernel, odd widths, two tile heights.
WINDOWS = [
    ((1, 9, 13, 2, 8), 3, True, True),
    ((2, 5, 5, 1, 4), 5, True, False),
    ((1, 17, 11, 2, 12), 7, True, True),
    ((1, 8, 20, 1, 36), 7, False, False),
    ((1, 13, 13, 1, 5), 3, True, False),
    ((1, 15, 14, 1, 20), 13, True, True),
    ((1, 6, 9, 1, 132), 3, False, True),
]


def attention_inputs(shape, kernel, bias, rope):
    n, h, w, heads, d = shape
    # Slices of one map, as the networks give them.
    q, k, v = draw(0, n, h, w, 3, heads, d).unbind(3)
    table = draw(1, heads, 2 * kernel - 1, 2 * kernel - 1) if bias else None
    turns = (draw(2, h, d // 4, 2), draw(3, w, d // 4, 2)) if rope else None
    return q, k, v, kernel, table, d**-0.5, turns


def attend(q, k, v, kernel, table, scale, turns):
    if turns is not None:
        height, width = q.shape[1:3]
        rows, columns = (t.double() for t in turns)
        angles = torch.cat(
            [
                rows[:, None].expand(-1, width, -1, -1),
                columns[None].expand(height, -1, -1, -1),
            ],
            dim=2,
        )
        q, k = (reference.rotate(t, angles[..., 0], angles[..., 1]) for t in (q, k))
    return reference.neighborhood_attention(q, k, v, kernel, table, scale)


@pytest.mark.parametrize(("shape", "kernel", "bias", "rope"), WINDOWS, ids=str)
def test_attention_equals_the_gather(emulator, shape, kernel, bias, rope):
    check_attention(emulator, shape, kernel, bias, rope)


def test_attention_takes_maps_of_any_strides(emulator):
    inputs = attention_inputs((1, 5, 6, 2, 12), 3, True, True)
    strided = [t.transpose(2, 4).contiguous().transpose(2, 4) for t in inputs[:3]]
    assert {t.stride(-1) for t in strided} == {12}
    made = _cuda.na2d(*inputs)
    assert torch.equal(_cuda.na2d(*strided, *inputs[3:]), made)
    grads = _cuda.na2d_backward(made, *inputs)
    assert all(map(torch.equal, _cuda.na2d_backward(made, *strided, *inputs[3:]), grads))


@pytest.mark.parametrize("floats", [1, 3000])
def test_attention_takes_few_columns_where_memory_is_short(emulator, monkeypatch, floats):
    monkeypatch.setattr(_cuda_attention, "SHARED_FLOATS", floats)
    check_attention(emulator, (1, 9, 12, 2, 12), 7, True, True)


def check_attention(emulator, shape, kernel, bias, rope):
    inputs = attention_inputs(shape, kernel, bias, rope)
    leaves = doubles(*inputs[:3], inputs[4])
    exact = attend(*leaves[:3], kernel, leaves[3], *inputs[5:])
    made = both_orders(emulator, _cuda.na2d, *inputs)
    assert error(made, exact) <= FORWARD
    dy = draw(9, *made.shape)
    grads = both_orders(emulator, _cuda.na2d_backward, dy, *inputs)
    check_gradients(grads, exact, leaves, dy)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
def test_attention_reads_and_writes_half_the_bytes(emulator, dtype):
    inputs = attention_inputs((1, 9, 10, 2, 12), 5, True, True)
    maps = [t.to(dtype) for t in inputs[:3]]
    made = _cuda.na2d(*maps, *inputs[3:])
    leaves = doubles(*maps, inputs[4])
    exact = attend(*leaves[:3], 5, leaves[3], *inputs[5:])
    assert made.dtype == dtype
    assert error(made, exact) <= ROUNDED[dtype]
    dy = draw(9, *made.shape).to(dtype)
    grads = _cuda.na2d_backward(dy, *maps, *inputs[3:])
    for grad, exact_grad in zip(
        grads, torch.autograd.grad(exact, leaves, dy.double()), strict=True
    ):
        assert error(grad, exact_grad) <= ROUNDED[dtype]


def test_empty_batches_launch_nothing(emulator):
    assert _cuda.ss2d_scan(*scan_inputs(0, 4, 5, 8, 2)).shape == (0, 4, 5, 8)
    grads = _cuda.ss2d_scan_backward(torch.zeros(0, 4, 5, 8), *scan_inputs(0, 4, 5, 8, 2))
    assert [float(g.sum()) for g in grads] == [0.0] * 6
    inputs = sequence_inputs(0, 1, 4, 1, 9, softplus=True, skip=True, bias=False)
    assert _cuda.selective_scan(*inputs, True).shape == (0, 4, 9)
    assert _cuda.selective_scan_backward(inputs[0], *inputs, True)[6] is None
    inputs = attention_inputs((0, 5, 5, 1, 4), 3, True, False)
    assert _cuda.na2d(*inputs).shape == (0, 5, 5, 1, 4)
    assert float(_cuda.na2d_backward(inputs[0], *inputs)[3].sum()) == 0.0
    assert emulator.launches == []


def test_scans_take_more_images_than_a_side_of_a_grid_has(emulator, monkeypatch):
    monkeypatch.setattr(emulator, "run", lambda *_: None)
    n = 65536
    inputs = scan_inputs(n, 1, 1, 1, 1)
    _cuda.ss2d_scan(*inputs)
    _cuda.ss2d_scan_backward(inputs[0], *inputs)
    inputs = sequence_inputs(n, 1, 1, 1, 1, softplus=True, skip=True, bias=True)
    _cuda.selective_scan(*inputs, True)
    _cuda.selective_scan_backward(inputs[0], *inputs, True)
    assert len(emulator.launches) == 3 + 4 + 3 + 3


def test_joined_chunks_are_those_of_their_image(emulator):
    """More images, and more chunks than are read at once, than the other tests have."""
    inputs = scan_inputs(5, 3, 150, 9, 1)
    exact = reference.ss2d_scan(*doubles(*inputs))
    assert error(both_orders(emulator, _cuda.ss2d_scan, *inputs), exact) <= FORWARD
    inputs = sequence_inputs(3, 1, 9, 2, 15000, softplus=True, skip=False, bias=True)
    exact = reference.selective_scan(*doubles(*inputs), delta_softplus=True)
    assert error(both_orders(emulator, _cuda.selective_scan, *inputs, True), exact) <= FORWARD


def test_what_the_kernels_do_not_take_is_said(emulator):
    with pytest.raises(BackendUnavailableError, match="at most 256 channels; got 260"):
        _cuda.na2d(*attention_inputs((1, 3, 3, 1, 260), 3, False, False))
    with pytest.raises(BackendUnavailableError, match="at most 65535 images .* got 65536"):
        _cuda.na2d(*attention_inputs((65536, 1, 1, 1, 4), 1, False, False))
    with pytest.raises(BackendUnavailableError, match="float16 on CUDA; got torch.float64"):
        _cuda.ss2d_scan(*[t.double() for t in scan_inputs(1, 2, 2, 4, 1)])
    x = torch.empty(1).expand(1, 2**16, 2**11, 16)
    with pytest.raises(BackendUnavailableError, match="less than 2\\^31 values in an image"):
        _cuda_ss2d._check_size(x[0].numel(), "an image")


# Tails in pixels, in channels and in rows; less than one of each; the decoder's ranks.
PROJECTIONS = [((1, 5, 7, 36), 44), ((2, 3, 16, 32), 16), ((1, 1, 1, 3), 12), ((1, 4, 9, 70), 176)]


@pytest.mark.parametrize("dtype", [torch.float32, *ROUNDED], ids=str)
@pytest.mark.parametrize(("shape", "rows"), PROJECTIONS, ids=str)
def test_projection_reads_half_the_bytes_and_writes_float32(emulator, shape, rows, dtype):
    x, weight = draw(0, *shape).to(dtype), draw(1, rows, shape[-1])
    made = both_orders(emulator, _cuda.ss2d_project, x, weight)
    assert made.dtype == torch.float32
    assert error(made, x.double() @ weight.double().T) <= FORWARD
    planes = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(_cuda.ss2d_project(planes, weight), made)


def test_projection_of_nothing(emulator):
    assert _cuda.ss2d_project(torch.zeros(0, 4, 5, 8).bfloat16(), draw(0, 12, 8)).shape == (
        *(0, 4, 5, 12),
    )
    assert not emulator.launches


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
def test_a_map_in_half_precision_takes_four_launches(emulator, monkeypatch, dtype):
    _, _, weight, bias, a_logs, ds = scan_inputs(1, 8, 16, 36, 3)
    x, projection = draw(6, 1, 8, 16, 36).to(dtype), draw(7, 20, 36) / 6
    exact = ops.ss2d(*doubles(x, projection, weight, bias, a_logs, ds), backend="reference")
    module = importlib.import_module("geoseg.ops.ss2d")
    monkeypatch.setattr(module, "choose_backend", lambda *_: "cuda")
    monkeypatch.setattr(module, "library", _cuda)
    made = module.ss2d(x, projection, weight, bias, a_logs, ds)
    assert [entry for entry, _ in emulator.launches] == [
        *("ss2d_project", "ss2d_sum_8", "ss2d_join_chunks", "ss2d_output_8"),
    ]
    assert made.dtype == dtype
    assert error(made, exact) <= ROUNDED[dtype]


def test_three_launches_per_scan(emulator):
    _cuda.ss2d_scan(*scan_inputs(1, 8, 16, 32, 2))
    assert [entry for entry, _ in emulator.launches] == [
        *("ss2d_sum_8", "ss2d_join_chunks", "ss2d_output_8"),
    ]
