"""The compiled scan equals the float64 loop: values, gradients, bits, and every odd shape.

D is 0 where errors are measured, or the skip term would hide them.
"""

import pytest
import torch

from geoseg import _native
from geoseg.ops import cross_merge, cross_scan, library, reference, selective_scan, ss2d

needs_library = pytest.mark.skipif(
    _native.library() is None, reason="no compiled library was built here"
)
BACKENDS = ["reference", "torch", pytest.param("cpu", marks=needs_library)]
FAST = BACKENDS[1:]

# (N, H, W, C, R): tails in channels, in steps and in chunks of both passes, L below any of them.
SHAPES = [
    (2, 5, 7, 8, 1),
    (1, 13, 29, 36, 3),
    (1, 3, 5, 364, 23),
    (1, 6, 11, 432, 27),
    (1, 1, 1, 5, 1),
    (1, 1, 65, 16, 2),
    (1, 63, 1, 16, 2),
    (1, 25, 41, 20, 2),
]


def scan_inputs(n, h, w, c, r, *, skip=0.0, seed=0):
    """Return x and the parameters of an SS2D, float64."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return [
        draw(n, h, w, c),
        draw(4 * (r + 2), c, 1) / c**0.5,
        draw(4, c, r) / r**0.5,
        0.5 * draw(4, c) - 2,
        0.3 * draw(4 * c, 1),
        skip * (1 + 0.2 * draw(4 * c)),
    ]


def error(made, exact):
    made, exact = made.detach().double(), exact.detach()
    return float((made - exact).norm() / exact.norm())


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_equals_the_loop(shape, backend):
    inputs = scan_inputs(*shape)
    exact = ss2d(*inputs, backend="reference")
    assert error(ss2d(*[t.float() for t in inputs], backend=backend), exact) <= 1e-6
    assert error(ss2d(*inputs, backend=backend), exact) <= 1e-13


@pytest.mark.parametrize("backend", FAST)
def test_a_long_memory_gathers_no_bias(backend):
    # Small steps over thousands of pixels: an exponential that is off by 1e-7 one way shows here.
    x, projection, dt, bias, a, d = scan_inputs(1, 56, 56, 16, 2)
    inputs = (x, 0.3 * projection, dt, bias - 4, a, d)
    exact = ss2d(*inputs, backend="reference")
    assert error(ss2d(*[t.float() for t in inputs], backend=backend), exact) <= 1e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_gradients_equal_the_loop(shape, backend):
    inputs = [t.requires_grad_() for t in scan_inputs(*shape, skip=1.0)]
    exact = ss2d(*inputs, backend="reference")
    dy = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.autograd.grad(exact, inputs, dy)
    single = [t.detach().float().requires_grad_() for t in inputs]
    made = torch.autograd.grad(ss2d(*single, backend=backend), single, dy.float())
    for name, ours, theirs in zip(["x", "proj", "dt", "bias", "A", "D"], made, wanted, strict=True):
        assert error(ours, theirs) <= 5e-6, name


@needs_library
def test_gradcheck_in_double():
    inputs = [t.requires_grad_() for t in scan_inputs(1, 3, 5, 4, 2, skip=1.0)]
    assert torch.autograd.gradcheck(lambda *t: ss2d(*t, backend="cpu"), inputs, eps=1e-6, atol=1e-5)


@needs_library
def test_second_derivatives_are_refused_by_name():
    inputs = [t.requires_grad_() for t in scan_inputs(1, 3, 5, 4, 2)]
    first = torch.autograd.grad(ss2d(*inputs, backend="cpu").sum(), inputs[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        first[0].sum().backward()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2.5e-3), (torch.float16, 3e-4)])
def test_half_precision_rounds_the_output_only(dtype, limit, backend):
    x, *parameters = scan_inputs(1, 9, 13, 36, 3)
    rounded = x.to(dtype)
    exact = ss2d(rounded.double(), *parameters, backend="reference")
    made = ss2d(rounded, *[p.float() for p in parameters], backend=backend)
    assert made.dtype == dtype
    assert error(made, exact) <= limit


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_step_sizes_stay_finite(backend):
    x, projection, dt, bias, a, d = (t.float() for t in scan_inputs(1, 8, 9, 8, 2))
    bias = torch.linspace(-40, 40, 32).view(4, 8)
    y = ss2d(x, projection, dt, bias, a, d, backend=backend)
    assert torch.isfinite(y).all()
    exact = ss2d(*[t.double() for t in (x, projection, dt, bias, a, d)], backend="reference")
    assert error(y, exact) <= 1e-6


@needs_library
def test_small_step_sizes_keep_their_precision():
    # softplus(-20) = 2e-9: 1 + e would round it away.
    x, projection, dt, bias, a, d = (t.float() for t in scan_inputs(1, 6, 7, 16, 2))
    arguments = (x, projection, dt, torch.full_like(bias, -20.0), a, d)
    exact = ss2d(*[t.double() for t in arguments], backend="reference")
    # Not less: float32 stores z = -20 itself to 1e-6, and the exponential passes that on.
    assert error(ss2d(*arguments, backend="cpu"), exact) <= 3e-6


@needs_library
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_whatever_the_threads(threads):
    x, _, *parameters = (t.float() for t in scan_inputs(3, 12, 11, 40, 3, skip=1.0))
    q, dy = torch.randn(3, 12, 11, 4, 5), torch.randn(3, 12, 11, 40)
    # The projection before is torch's, whose order of sums may follow its threads.
    inputs = [t.requires_grad_() for t in (x, q, *parameters)]

    def run():
        y = library.ss2d_scan(*inputs)
        return [y, *torch.autograd.grad(y, inputs, dy)]

    own = torch.get_num_threads()
    first = run()
    try:
        torch.set_num_threads(threads)
        again = run()
    finally:
        torch.set_num_threads(own)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_turning_the_map_turns_the_answer_where_directions_are_equal(backend):
    """With one set of weights for all directions, flips and transposes of the map commute."""
    x, projection, dt, bias, a, d = scan_inputs(1, 6, 9, 8, 2)
    shared = [
        projection.view(4, -1, 8)[:1].expand(4, -1, -1),
        dt[:1].expand(4, -1, -1),
        bias[:1].expand(4, -1),
        a.view(4, 8)[:1].expand(4, -1).reshape(32, 1),
        d,
    ]
    y = ss2d(x, *shared, backend=backend)
    turned = ss2d(x.transpose(1, 2), *shared, backend=backend)
    flipped = ss2d(x.flip(1, 2), *shared, backend=backend)
    assert torch.allclose(turned, y.transpose(1, 2), atol=1e-12)
    assert torch.allclose(flipped, y.flip(1, 2), atol=1e-12)


def test_cross_scan_reads_rows_columns_and_both_backwards():
    x = torch.arange(6).view(1, 1, 2, 3)
    assert cross_scan(x)[0, :, 0].tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


def test_cross_merge_puts_every_pixel_back():
    x = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    assert torch.allclose(cross_merge(cross_scan(x), 4, 7), 4 * x)


# Sizes are N, K, D, S and L.
SEQUENCES = [
    (2, 1, 3, 1, 7),
    (1, 4, 8, 2, 101),
    (2, 2, 40, 3, 13),
    (1, 2, 5, 1, 1),
    (1, 1, 4, 4, 1025),
]


def sequence_inputs(n, k, d, s, length):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return {
        "u": draw(n, k * d, length),
        "delta": 0.5 * draw(n, k * d, length),
        "A": -draw(k * d, s).abs() - 0.1,
        "B": draw(n, k, s, length),
        "C": draw(n, k, s, length),
    }, {"D": draw(k * d), "delta_bias": draw(k * d)}


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("given", [True, False], ids=["with D and bias", "bare"])
@pytest.mark.parametrize("shape", SEQUENCES, ids=str)
def test_selective_scan_and_its_gradients_equal_the_loop(shape, given, backend):
    inputs, extra = sequence_inputs(*shape)
    inputs |= extra if given else {}
    if not given:
        inputs["delta"] = inputs["delta"].abs()
    leaves = {key: t.requires_grad_() for key, t in inputs.items()}
    exact = selective_scan(**leaves, delta_softplus=given, backend="reference")
    dy = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.autograd.grad(exact, list(leaves.values()), dy)
    single = {key: t.detach().float().requires_grad_() for key, t in leaves.items()}
    made = selective_scan(**single, delta_softplus=given, backend=backend)
    assert error(made, exact) <= 1e-6
    grads = torch.autograd.grad(made, list(single.values()), dy.float())
    for name, ours, theirs in zip(single, grads, wanted, strict=True):
        assert error(ours, theirs) <= 5e-6 or theirs.norm() < 1e-12, name


@needs_library
def test_selective_scan_gradcheck_in_double():
    inputs, extra = sequence_inputs(1, 2, 3, 2, 5)
    leaves = [t.requires_grad_() for t in (*inputs.values(), *extra.values())]

    def run(u, delta, A, B, C, D, bias):
        options = {"delta_bias": bias, "delta_softplus": True, "backend": "cpu"}
        return selective_scan(u, delta, A, B, C, D, **options)

    assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_one_state(backend):
    x, _, dt, bias, _, d = scan_inputs(1, 4, 6, 8, 2)
    projection, a = torch.randn(4 * (2 + 2 * 3), 8, 1).double(), torch.randn(32, 3).double()
    parameters = (projection, dt, bias, a, d)
    exact = ss2d(x, *parameters, backend="reference")
    assert error(ss2d(x, *parameters, backend=backend), exact) <= 1e-13
    # State by state, the general form must agree with the special one: with one state it is it.
    one = scan_inputs(1, 4, 6, 8, 2)
    assert error(ss2d(*one, backend=backend), reference_chain(*one)) <= 1e-12


def reference_chain(x, projection, dt, bias, a, d):
    """The chain as the papers write it: four copies, projections, scan, merge."""
    n, h, w, c = x.shape
    r = dt.shape[2]
    xs = cross_scan(x.permute(0, 3, 1, 2))
    small = torch.einsum("nkcl,kjc->nkjl", xs, projection.view(4, r + 2, c))
    delta = torch.einsum("nkrl,kcr->nkcl", small[:, :, :r], dt)
    y = reference.selective_scan(
        xs.flatten(1, 2),
        delta.flatten(1, 2),
        -a.exp(),
        small[:, :, r : r + 1],
        small[:, :, r + 1 :],
        d,
        bias.flatten(),
        delta_softplus=True,
    )
    return cross_merge(y.view(n, 4, c, -1), h, w).permute(0, 2, 3, 1)


def test_shapes_that_do_not_belong_together_are_refused():
    x, projection, dt, bias, a, d = scan_inputs(1, 4, 4, 8, 2)
    with pytest.raises(ValueError, match=r"x \(N, H, W, C\) and dt_projs_weight \(4, C, R\)"):
        ss2d(x[..., :4], projection, dt, bias, a, d)
    with pytest.raises(ValueError, match=r"A_logs \(4\*C, S\) and x_proj_weight"):
        ss2d(x, projection[:-1], dt, bias, a, d)
    with pytest.raises(ValueError, match=r"A_logs \(4\*C, S\) and x_proj_weight"):
        ss2d(x, projection.transpose(0, 1), dt, bias, a, d)
    # Else a kernel would read and write beyond their ends.
    with pytest.raises(ValueError, match=r"Ds \(4\*C,\) with C = 8; got \(4, 8\) and \(1,\)"):
        ss2d(x, projection, dt, bias, a, d[:1])
    with pytest.raises(ValueError, match=r"dt_projs_bias \(4, C\).*got \(8,\) and \(32,\)"):
        ss2d(x, projection, dt, bias[0], a, d)
    inputs, _ = sequence_inputs(1, 2, 3, 2, 5)
    with pytest.raises(ValueError, match=r"expects C of shape \(1, 2, 2, 5\); got \(1, 2, 2, 4\)"):
        selective_scan(**(inputs | {"C": inputs["C"][..., :4]}))


def test_numbers_that_are_not_real_are_refused():
    inputs = scan_inputs(1, 4, 4, 8, 2)
    for dtype in (torch.int32, torch.complex64):
        with pytest.raises(TypeError, match=f"expected float32, .* got {dtype}"):
            ss2d(inputs[0].to(dtype), *inputs[1:])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("backend", FAST)
def test_what_has_diverged_shows(backend, index, sign):
    """The sign of a NaN is set in those that processors make, of infinity minus itself."""
    inputs = [t.float() for t in scan_inputs(1, 5, 7, 20, 2, skip=1.0)]
    inputs[index] = torch.full_like(inputs[index], torch.nan).copysign(torch.tensor(sign * 1.0))
    assert ss2d(*inputs, backend=backend).isnan().all()
