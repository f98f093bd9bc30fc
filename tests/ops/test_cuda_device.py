"""On a device: the CUDA backend equals the reference, with the same bits twice, in graphs too.

Where only torch and pytest are installed::

    python -m pytest --noconftest -p no:cacheprovider -W default tests/ops/test_cuda_device.py
"""

import pytest
import torch

from geoseg import ops
from geoseg.models import create_model
from geoseg.ops import _cuda, _torch, reference
from tests.ops.test_cuda_kernels import (
    ROUNDED,
    attend,
    attention_inputs,
    doubles,
    error,
    scan_inputs,
    sequence_inputs,
)

pytestmark = pytest.mark.gpu

# Exponentials and logarithms are approximated on a device; decays that a channel sums over a long
# sequence feel it most.
TOLERANCE, OF_DECAYS = 5e-6, 1e-5
# (N, H, W, C, R): small squares, large ones, and more shared memory than is granted unasked.
SCANS = {
    "ss2d": (2, 29, 70, 100, 7),
    "ss2d_large": (1, 40, 70, 140, 7),
    "ss2d_wide": (1, 17, 33, 672, 46),
}
# (N, H, W, heads, width) and the window: usual ones, tiles of four rows, and more shared memory
# than is granted unasked.
WINDOWS = {
    "na2d": ((2, 27, 33, 3, 36), 9),
    "na2d_wide": ((1, 15, 18, 2, 136), 7),
    "na2d_large": ((1, 19, 21, 1, 128), 13),
}


@pytest.fixture(autouse=True)
def poisoned():
    """Let torch fill what it does not initialise with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def moved(inputs, device="cuda"):
    return [
        tuple(u.to(device) for u in t)
        if isinstance(t, tuple)
        else t.to(device)
        if isinstance(t, torch.Tensor)
        else t
        for t in inputs
    ]


def case(name):
    """Return forward, backward, inputs, and what must come out."""
    if name in SCANS:
        inputs = scan_inputs(*SCANS[name])
        leaves = doubles(*inputs)
        # Held to the reference elsewhere, whose backward pass would take most of a minute.
        exact = _torch.ss2d_scan(*leaves)
        return _cuda.ss2d_scan, _cuda.ss2d_scan_backward, inputs, leaves, exact
    if name == "selective_scan":
        inputs = sequence_inputs(2, 2, 40, 3, 301, softplus=True, skip=True, bias=True)
        leaves = doubles(*inputs)
        exact = reference.selective_scan(*leaves, delta_softplus=True)
        operations = _cuda.selective_scan, _cuda.selective_scan_backward
        return *operations, (*inputs, True), leaves, exact
    shape, kernel = WINDOWS[name]
    inputs = attention_inputs(shape, kernel, True, True)
    leaves = doubles(*inputs[:3], inputs[4])
    exact = attend(*leaves[:3], kernel, leaves[3], *inputs[5:])
    return _cuda.na2d, _cuda.na2d_backward, inputs, leaves, exact


NAMES = (*SCANS, "selective_scan", *WINDOWS)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference_twice(name):
    forward, backward, inputs, leaves, exact = case(name)
    given = moved(inputs)
    made = forward(*given)
    assert error(made.cpu(), exact) <= TOLERANCE
    dy = torch.randn(exact.shape)
    grads = backward(dy.cuda(), *given)
    for grad, exact_grad in zip(
        grads, torch.autograd.grad(exact, leaves, dy.double()), strict=True
    ):
        limit = OF_DECAYS if name == "selective_scan" else TOLERANCE
        assert error(grad.cpu(), exact_grad) <= limit
    assert torch.equal(made, forward(*given))
    for one, other in zip(grads, backward(dy.cuda(), *given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("name", ["ss2d", "na2d"])
def test_reads_and_writes_half_the_bytes(name, dtype):
    forward, backward, inputs, _, _ = case(name)
    maps = 1 if name == "ss2d" else 3
    inputs = [*(t.to(dtype) for t in inputs[:maps]), *inputs[maps:]]
    given = moved(inputs)
    # Compared above with float32 in memory: of the same numbers, only what is written differs.
    wide = moved([*(t.float() for t in inputs[:maps]), *inputs[maps:]])
    made, exact = forward(*given), forward(*wide)
    assert made.dtype == dtype
    assert error(made.cpu(), exact.cpu().double()) <= ROUNDED[dtype]
    dy = torch.randn(exact.shape).to(dtype)
    grads, exact_grads = backward(dy.cuda(), *given), backward(dy.float().cuda(), *wide)
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        assert error(grad.cpu(), exact_grad.cpu().double()) <= ROUNDED[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, *ROUNDED], ids=str)
@pytest.mark.parametrize("pixels", [(1, 16, 16), (3, 67, 41)], ids=str)
@pytest.mark.parametrize("channels", [32, 37, 672])
def test_projection_equals_the_product(pixels, channels, dtype):
    x = torch.randn(*pixels, channels).to(dtype)
    weight = torch.randn(4 * (channels // 16 + 2), channels)
    made = _cuda.ss2d_project(x.cuda(), weight.cuda())
    assert made.dtype == torch.float32
    assert error(made.cpu(), x.double() @ weight.double().T) <= TOLERANCE
    assert torch.equal(_cuda.ss2d_project(x.cuda(), weight.cuda()), made)


def test_takes_what_is_neither_dense_nor_aligned():
    x, *others = moved(scan_inputs(1, 21, 35, 37, 3))
    x, dy = x.bfloat16(), torch.randn_like(x).bfloat16()
    padded = torch.zeros(1, 22, 35, 41, dtype=x.dtype, device=x.device)
    padded[:, 1:, :, 3:40] = x
    odd = torch.zeros(x.numel() + 1, dtype=x.dtype, device=x.device)[1:].view_as(x).copy_(x)
    exact, exact_grads = _cuda.ss2d_scan(x, *others), _cuda.ss2d_scan_backward(dy, x, *others)
    for same in (padded[:, 1:, :, 3:40], odd, x.transpose(1, 2).contiguous().transpose(1, 2)):
        assert torch.equal(_cuda.ss2d_scan(same, *others), exact)
        grads = _cuda.ss2d_scan_backward(dy, same, *others)
        assert all(map(torch.equal, grads, exact_grads))


def test_batches_of_more_than_2_to_the_31_values():
    shape = (5, 1024, 1024, 448)  # values; an image alone has less
    if torch.cuda.get_device_properties(0).total_memory < 40e9:
        pytest.skip("needs 40 GB")
    torch.use_deterministic_algorithms(False)
    x = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
    _, q, *parameters = moved(scan_inputs(1, 1, 1, shape[3], 2))
    q = torch.randn(*shape[:3], *q.shape[3:], device="cuda")
    made = _cuda.ss2d_scan(x, q, *parameters)
    assert torch.equal(made[4:], _cuda.ss2d_scan(x[4:], q[4:], *parameters))


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_the_current_stream_and_in_a_graph(name):
    forward, _, inputs, _, exact = case(name)
    given = moved(inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        forward(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = forward(*given)
    made.fill_(torch.nan)
    graph.replay()
    assert error(made.cpu(), exact) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_a_device_that_is_not_the_current_one(name):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one device")
    forward, _, inputs, _, exact = case(name)
    assert error(forward(*moved(inputs, "cuda:1")).cpu(), exact) <= TOLERANCE


def block_inputs(device):
    """Return a map and the parameters of an SS2D block, that want gradients."""
    c, rank = 48, 3
    shapes = ((2, 19, 23, c), (4, rank + 2, c), (4, c, rank), (4, c), (4 * c, 1), (4 * c,))
    torch.manual_seed(0)
    made = [torch.randn(shape) / shape[-1] ** 0.5 for shape in shapes]
    return [t.to(device).requires_grad_() for t in made]


def test_the_operation_trains_compiled():
    """The compiler holds results to the strides that their fake versions promise."""
    torch.use_deterministic_algorithms(False)

    def loss(*inputs):
        return ops.ss2d(*inputs, backend="cuda").square().sum()

    inputs = block_inputs("cuda")
    eager = torch.autograd.grad(loss(*inputs), inputs)
    made = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*inputs), inputs)
    wide = [t.detach().double().cpu().requires_grad_() for t in inputs]
    exact = torch.autograd.grad(ops.ss2d(*wide, backend="reference").square().sum(), wide)
    for one, other, right in zip(made, eager, exact, strict=True):
        assert error(one.cpu(), right) <= OF_DECAYS
        assert error(other.cpu(), right) <= OF_DECAYS


@pytest.mark.parametrize("size", [(224, 224), (256, 320)], ids=str)
def test_a_network_answers_as_on_the_cpu(monkeypatch, size):
    torch.use_deterministic_algorithms(False)
    # Else convolutions round to 10 bits on a device.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = create_model("segman_t", num_classes=5).eval()
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        exact = network(image)
        made = network.cuda()(image.cuda()).cpu()
    assert error(made, exact.double()) <= 1e-4
