"""What torch is promised of the registered operations: tracing, exporting, odd inputs, backends."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from geoseg import _native
from geoseg.errors import BackendUnavailableError, UsageError
from geoseg.ops import available_backends, library, neighborhood_attention, selective_scan, ss2d
from geoseg.ops.backends import choose_backend, first_backend
from tests.ops.test_attention import attention_inputs, tables
from tests.ops.test_scan import scan_inputs, sequence_inputs

needs_library = pytest.mark.skipif(
    _native.library() is None, reason="no compiled library was built here"
)
OPERATIONS = ("ss2d", "selective_scan", "neighborhood_attention")


# opcheck looks at gradients of what is no leaf.
ignore_opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def opcheck(operation, arguments):
    torch.library.opcheck(operation, arguments, rtol=1e-4, atol=1e-5)


@needs_library
@ignore_opcheck
def test_opcheck_scan():
    x, _, dt, bias, a, d = (t.float() for t in scan_inputs(1, 3, 5, 8, 2))
    q = torch.randn(1, 3, 5, 4, 4)
    opcheck(
        torch.ops.geoseg.ss2d_scan.default,
        tuple(t.detach().requires_grad_() for t in (x, q, dt, bias, a, d)),
    )


@needs_library
@ignore_opcheck
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck_projection(dtype):
    x = torch.randn(2, 3, 5, 8).to(dtype).requires_grad_()
    weight = torch.randn(12, 8, requires_grad=True)
    opcheck(torch.ops.geoseg.ss2d_project.default, (x, weight))
    made = torch.autograd.grad(library.ss2d_project(x, weight).square().sum(), (x, weight))
    plain = torch.nn.functional.linear(x.float(), weight).square().sum()
    for grad, exact in zip(made, torch.autograd.grad(plain, (x, weight)), strict=True):
        assert grad.dtype == exact.dtype
        torch.testing.assert_close(grad, exact)


@needs_library
@ignore_opcheck
def test_opcheck_selective_scan():
    inputs, extra = sequence_inputs(1, 2, 3, 2, 5)
    given = [t.float().requires_grad_() for t in (*inputs.values(), *extra.values())]
    opcheck(torch.ops.geoseg.selective_scan.default, (*given, True))
    opcheck(torch.ops.geoseg.selective_scan.default, (*given[:5], None, None, False))


@needs_library
@ignore_opcheck
def test_opcheck_attention():
    q, k, v, bias = (t.float().requires_grad_() for t in attention_inputs(1, 5, 7, 2, 8, 3))
    rope = [t.float() for t in tables(5, 7, 8)]
    opcheck(torch.ops.geoseg.na2d.default, (q, k, v, 3, bias, 0.5, *rope))
    opcheck(torch.ops.geoseg.na2d.default, (q, k, v, 3, None, 0.5, None, None))


class Both(nn.Module):
    """A scan and an attention, as a network uses them."""

    def __init__(self):
        super().__init__()
        names = ("projection", "dt", "dt_bias", "a", "d")
        for name, value in zip(names, scan_inputs(1, 1, 1, 8, 2)[1:], strict=True):
            setattr(self, name, nn.Parameter(value.float()))
        self.rpb = nn.Parameter(torch.randn(2, 5, 5))

    def forward(self, x):
        y = ss2d(x, self.projection, self.dt, self.dt_bias, self.a, self.d)
        q = y.unflatten(-1, (2, 4))
        return neighborhood_attention(q, q, q, 3, bias=self.rpb).flatten(3)


def test_compiles_to_one_graph_with_gradients():
    torch.manual_seed(0)
    network, x = Both(), torch.randn(1, 6, 7, 8)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    plain, traced = network(x), compiled(x)
    assert torch.allclose(plain, traced, atol=1e-6)
    wanted = torch.autograd.grad(plain.square().sum(), list(network.parameters()))
    made = torch.autograd.grad(traced.square().sum(), list(network.parameters()))
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(wanted, made, strict=True)
    )


@needs_library
def test_exports_with_our_operators():
    network, x = Both().eval(), torch.randn(1, 6, 7, 8)
    exported = torch.export.export(network, (x,))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert {"geoseg.ss2d_scan.default", "geoseg.na2d.default"} <= targets
    with torch.no_grad():
        assert torch.allclose(exported.module()(x), network(x), atol=1e-6)


def test_autocast_keeps_the_state_in_float32():
    x, *parameters = (t.float() for t in scan_inputs(1, 9, 13, 36, 3))
    plain = ss2d(x, *parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ss2d(x, *parameters)
        half = ss2d(x.bfloat16(), *parameters)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)
    assert half.dtype == torch.bfloat16


def test_empty_batches():
    x, *parameters = (t.float() for t in scan_inputs(1, 4, 5, 8, 2))
    empty = x[:0].requires_grad_()
    y = ss2d(empty, *parameters)
    y.sum().backward()
    assert y.shape == empty.grad.shape == (0, 4, 5, 8)
    q, k, v, bias = (t.float() for t in attention_inputs(1, 5, 7, 1, 4, 3))
    assert neighborhood_attention(q[:0], k[:0], v[:0], 3, bias=bias).shape == (0, 5, 7, 1, 4)
    inputs, _ = sequence_inputs(1, 2, 3, 2, 5)
    none = {key: t if key == "A" else t[:0] for key, t in inputs.items()}
    assert selective_scan(**none).shape == (0, 6, 5)


def test_any_memory_layout_gives_the_same():
    x, *parameters = (t.float() for t in scan_inputs(2, 6, 7, 8, 2))
    planes = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # (N, C, H, W) in memory
    assert not planes.is_contiguous()
    assert torch.equal(ss2d(planes, *parameters), ss2d(x, *parameters))
    q, k, v, _ = (t.float() for t in attention_inputs(1, 6, 7, 2, 4, 3))
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    assert torch.equal(neighborhood_attention(*turned, 3), neighborhood_attention(q, k, v, 3))


def test_calls_of_several_threads_do_not_mix():
    operands = []
    for size in range(3, 11):
        *qkv, bias = (t.float() for t in attention_inputs(1, size, size + 2, 2, 4, 3, seed=size))
        scan = [t.float() for t in scan_inputs(1, size, size + 2, 8, 2)]
        operands.append((qkv, bias, scan))

    def run(given):
        qkv, bias, scan = given
        return neighborhood_attention(*qkv, 3, bias=bias), ss2d(*scan)

    alone = [run(given) for given in operands]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, operands * 20))
    for made, wanted in zip(together, alone * 20, strict=True):
        assert all(map(torch.equal, made, wanted))


def test_every_refusal_has_a_reason():
    for operation in OPERATIONS:
        backends = available_backends(operation)
        assert backends["reference"] is None
        assert backends["torch"] is None
        assert all(reason is None or len(reason) > 10 for reason in backends.values())
        if not torch.cuda.is_available():
            assert "CUDA" in backends["cuda"]
        if _native.library() is None:
            assert backends["cpu"] == _native.unavailable_reason()
    with pytest.raises(UsageError, match="expected an operation of ss2d, selective_scan"):
        available_backends("softmax")


def test_a_named_backend_runs_or_raises():
    inputs = [t.float() for t in scan_inputs(1, 4, 5, 8, 2)]
    with pytest.raises(UsageError, match="ss2d: expected a backend of cuda, cpu, torch, reference"):
        ss2d(*inputs, backend="triton")
    with pytest.raises(BackendUnavailableError, match="'cuda' was asked for, but the tensors"):
        ss2d(*inputs, backend="cuda")


@pytest.fixture
def no_library(monkeypatch):
    """Take the compiled library away, and what was chosen while it was there."""
    first_backend.cache_clear()
    monkeypatch.setattr(_native, "_load", lambda: (None, "switched off for this test"))
    yield
    first_backend.cache_clear()


def test_without_the_library_the_torch_form_runs(no_library):
    inputs = [t.float() for t in scan_inputs(1, 4, 5, 8, 2)]
    exact = ss2d(*inputs, backend="reference")
    assert choose_backend("ss2d", "cpu", None) == "torch"
    with pytest.raises(BackendUnavailableError, match="but switched off for this test"):
        ss2d(*inputs, backend="cpu")
    assert available_backends("ss2d")["cpu"] == "switched off for this test"
    assert torch.allclose(ss2d(*inputs), exact, atol=1e-5)


def test_the_namespace_is_registered_once():
    assert set(library._DEFINITIONS) == {
        name
        for name in dir(torch.ops.geoseg)
        if name.endswith(("scan", "na2d", "backward", "project"))
    }


@pytest.fixture
def poisoned():
    """Let torch fill memory that nobody has written with NaN: outputs and scratch of kernels."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@needs_library
def test_unwritten_memory_never_shows(poisoned):
    inputs = [t.float().requires_grad_() for t in scan_inputs(2, 7, 9, 20, 3, skip=1.0)]
    made = [ss2d(*inputs, backend="cpu")]
    made += torch.autograd.grad(made[0], inputs, torch.ones_like(made[0]))
    leaves = [t.float().requires_grad_() for t in attention_inputs(2, 7, 9, 2, 10, 5)]
    y = neighborhood_attention(*leaves[:3], 5, bias=leaves[3], backend="cpu")
    made += [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))]
    sequences, extra = sequence_inputs(2, 2, 5, 2, 9)
    given = {key: t.float().requires_grad_() for key, t in (sequences | extra).items()}
    y = selective_scan(**given, delta_softplus=True, backend="cpu")
    made += [y, *torch.autograd.grad(y, list(given.values()), torch.ones_like(y))]
    half = [t.detach().bfloat16() for t in leaves[:3]]
    made += [neighborhood_attention(*half, 5, backend="cpu")]
    made += [ss2d(inputs[0].detach().bfloat16(), *[t.detach() for t in inputs[1:]], backend="cpu")]
    assert all(torch.isfinite(t).all() for t in made)
