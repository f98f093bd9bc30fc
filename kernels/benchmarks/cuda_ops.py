"""The CUDA kernels on a device: first that they are right, then how long they take.

    python kernels/benchmarks/cuda_ops.py [--quick]

Scans run at the stages of SegMAN-T/S/B/L at 512 px, batch 1 and 16, bfloat16 in memory, with the
matrix product that projects step sizes, B and C. They are timed beside the same operation in plain
PyTorch and, where it is installed, beside mamba_ssm's kernel on a map that is copied four times;
neighbourhood attention beside the gather and, where it takes the head width, natten (without bias).
"floor" is the time that the scan's instructions need if every slot of every multiprocessor issues.
Times are medians of a CUDA graph's replays, of twenty calls each, so that launches cost what they
cost in a graph. At batch 1 all that a call reads stays in the device's cache.
"""

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from geoseg.ops import _cuda, _torch, reference
from geoseg.ops.cross_scan import cross_merge, cross_scan

# Channels at strides 4, 8, 16 and in the decoder at 32.
STAGES = {
    "T": (32, 64, 144, 384),
    "S": (64, 144, 288, 432),
    "B": (96, 160, 364, 540),
    "L": (96, 192, 432, 672),
}
SIDES = (128, 64, 32, 16)
# Heads, their width and the window of the encoder's four stages.
WINDOWS = {
    "T": ((1, 32, 11), (2, 32, 9), (4, 36, 9), (8, 24, 7)),
    "S": ((2, 32, 11), (4, 36, 9), (8, 36, 7), (16, 32, 7)),
    "B": ((4, 24, 11), (8, 20, 9), (13, 28, 7), (20, 28, 7)),
    "L": ((4, 24, 11), (8, 24, 9), (12, 36, 7), (20, 32, 7)),
}
# Calls in a graph: one alone would show what a launch from the host costs.
ROUNDS, IN_A_GRAPH = 15, 20
# Timed together, but no more of them than make sense where one takes long.
REPLAYS, LONG_US = 20, 1000.0
ABSENT = "-"
LIMIT = 5e-6
ROUNDED = 2.5e-3


def main() -> None:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="SegMAN-T only")
    quick = parser.parse_args().quick
    reason = _cuda.unavailable_reason()
    if reason is not None:
        print("not measured: no CUDA device" if not torch.cuda.is_available() else reason)
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    check()
    sizes = ("T",) if quick else tuple(STAGES)
    time_scans(sizes)
    time_attention(sizes)


def check() -> None:
    """Compare every operation with the float64 reference on fresh inputs; buffers start as NaN."""
    seed = int(torch.seed() % 2**31)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    for dtype, limit in ((torch.float32, LIMIT), (torch.bfloat16, ROUNDED)):
        scan = _cuda.ss2d_scan, _cuda.ss2d_scan_backward
        # The reference's backward pass takes a time that grows with the square of the pixels.
        inputs = scan_inputs(2, 17, 29, 100, dtype, skip=0.0)
        compare("ss2d", scan, reference.ss2d_scan, inputs, limit)
        attention = attend(_cuda, 9), attend_backward(9)
        inputs = attention_inputs(2, 27, 33, (3, 36, 9), dtype)
        compare("na2d", attention, attend(_torch, 9), inputs, limit)
    torch.use_deterministic_algorithms(False)
    print(f"all right with seed {seed}\n", flush=True)


def compare(
    name: str,
    operations: tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, ...]]],
    exact_form: Callable[..., Tensor],
    inputs: list[Tensor],
    limit: float,
) -> None:
    """Stop with a sentence where an output or a gradient is off, or differs the second time."""
    forward, backward = operations
    leaves = [t.double().cpu().requires_grad_() for t in inputs]
    output = exact_form(*leaves)
    dy = torch.randn_like(output).to(inputs[0].dtype)
    wanted = [output, *torch.autograd.grad(output, leaves, dy.double())]
    exact_results = [t.detach() for t in wanted]
    made, again = ([forward(*inputs), *backward(dy.cuda(), *inputs)] for _ in range(2))
    for i, (one, other, exact) in enumerate(zip(made, again, exact_results, strict=True)):
        size = float((one.cpu().double() - exact).norm() / exact.norm())
        if not size <= limit:
            raise SystemExit(f"{name} {inputs[0].dtype}: result {i} is off by {size:.1e}")
        if not torch.equal(one, other):
            raise SystemExit(f"{name} {inputs[0].dtype}: result {i} is not the same twice")


def scan_inputs(
    n: int, h: int, w: int, c: int, dtype: torch.dtype, *, skip: float = 1.0
) -> list[Tensor]:
    """Return what `ss2d_scan` takes."""
    rank = -(-c // 16)
    new = torch.randn
    inputs = [
        *(new(n, h, w, c).to(dtype), new(n, h, w, 4, rank + 2), new(4, c, rank) / rank**0.5),
        *(new(4, c) - 2, 0.3 * new(4 * c, 1), skip * torch.ones(4 * c)),
    ]
    return [t.cuda() for t in inputs]


def attention_inputs(
    n: int, h: int, w: int, window: tuple[int, int, int], dtype: torch.dtype
) -> list[Tensor]:
    """Return q, k, v (slices of one map) and a bias for (heads, width, kernel)."""
    heads, d, kernel = window
    maps = torch.randn(n, h, w, 3, heads, d).to(dtype).cuda().unbind(3)
    bias = torch.randn(heads, 2 * kernel - 1, 2 * kernel - 1).cuda()
    return [*maps, bias]


def attend(backend: ModuleType, kernel: int) -> Callable[..., Tensor]:
    """Return neighbourhood attention of a backend as a function of tensors."""
    return lambda q, k, v, bias: backend.na2d(q, k, v, kernel, bias, q.shape[-1] ** -0.5, None)


def attend_backward(kernel: int) -> Callable[..., tuple[Tensor, ...]]:
    """Return its gradients on CUDA, likewise."""
    return lambda dy, q, k, v, bias: _cuda.na2d_backward(
        dy, q, k, v, kernel, bias, q.shape[-1] ** -0.5, None
    )


def time_scans(sizes: tuple[str, ...]) -> None:
    """Print the table of the four-direction scan."""
    print(
        "us | batch | q | q of a copy | forward | torch | mamba_ssm chain | floor | both | "
        "torch both | memory ratio"
    )
    for batch in (1, 16):
        for size in sizes:
            for stage, (c, side) in enumerate(zip(STAGES[size], SIDES, strict=True), start=1):
                row = scan_row(batch, side, c)
                print(
                    f"{size}.{stage if stage < 4 else 'dec'} | {batch} | {' | '.join(row)}",
                    flush=True,
                )
    print()


def scan_row(batch: int, side: int, c: int) -> list[str]:
    """Return one row: our scan with its projection, then the others."""
    x, q, *parameters = scan_inputs(batch, side, side, c, torch.bfloat16)
    projection = torch.randn(q.shape[3] * q.shape[4], c).cuda() / c**0.5
    dy = torch.randn_like(x)

    def project() -> Tensor:
        return _cuda.ss2d_project(x, projection).view(q.shape)

    def project_a_copy() -> Tensor:
        return (x.float() @ projection.T).view(q.shape)

    def plain_both() -> None:
        leaves = [t.detach().requires_grad_() for t in (x, q, *parameters)]
        torch.autograd.grad(_torch.ss2d_scan(*leaves), leaves, dy)

    def both() -> None:
        _cuda.ss2d_scan(x, q, *parameters)
        _cuda.ss2d_scan_backward(dy, x, q, *parameters)

    figures = [
        graphed(project),
        graphed(project_a_copy),
        graphed(lambda: _cuda.ss2d_scan(x, project(), *parameters)),
        eager(lambda: _torch.ss2d_scan(x, project_a_copy(), *parameters)),
        eager(peer_chain(x, projection, parameters)),
        issue_floor(batch * side * side, c),
        graphed(both),
        eager(plain_both),
    ]
    return [*(ABSENT if f is None else f"{f:.1f}" for f in figures), memory_ratio(both, plain_both)]


def memory_ratio(ours: Callable[[], object], plain: Callable[[], object]) -> str:
    """Return the peak memory beside that of plain PyTorch, where that fits at all."""
    try:
        return f"{peak_bytes(ours) / peak_bytes(plain):.2f}"
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return ABSENT


def peer_chain(
    x: Tensor, projection: Tensor, parameters: list[Tensor]
) -> Callable[[], Tensor] | None:
    """Return the published chain: four copies, projections, mamba_ssm's scan, merge; or None."""
    module = optional("mamba_ssm.ops.selective_scan_interface")
    if module is None:
        return None
    weight, bias, a_logs, ds = parameters
    batch, height, width, c = x.shape
    rank = weight.shape[2]
    rows = projection.view(4, rank + 2, c).to(x.dtype)
    maps = x.permute(0, 3, 1, 2).contiguous()

    def run() -> Tensor:
        sequences = cross_scan(maps)  # (N, 4, C, L)
        small = torch.einsum("nkcl,krc->nkrl", sequences, rows)
        delta = torch.einsum("nkrl,kcr->nkcl", small[:, :, :rank], weight.to(x.dtype))
        y = module.selective_scan_fn(
            *(sequences.flatten(1, 2), delta.flatten(1, 2).contiguous(), -torch.exp(a_logs)),
            *(small[:, :, rank : rank + 1].contiguous(), small[:, :, rank + 1 :].contiguous(), ds),
            delta_bias=bias.flatten(),
            delta_softplus=True,
        )
        merged = cross_merge(y.view(batch, 4, c, -1), height, width)
        return merged.permute(0, 2, 3, 1).contiguous()

    return run


def time_attention(sizes: tuple[str, ...]) -> None:
    """Print the table of neighbourhood attention, forward."""
    natten = optional("natten")
    print("us | batch | heads x width, window | fp32 | bf16 | torch bf16 | natten bf16, no bias")
    for batch in (1, 16):
        for size in sizes:
            for stage, window in enumerate(WINDOWS[size], start=1):
                row = attention_row(batch, SIDES[stage - 1], window, natten)
                heads, d, kernel = window
                print(
                    f"{size}.{stage} | {batch} | {heads} x {d}, {kernel} | {' | '.join(row)}",
                    flush=True,
                )


def attention_row(
    batch: int, side: int, window: tuple[int, int, int], natten: ModuleType | None
) -> list[str]:
    """Return one row of the table."""
    kernel = window[2]
    inputs = attention_inputs(batch, side, side, window, torch.bfloat16)
    wide = [t.float() for t in inputs]
    figures = [
        graphed(lambda: attend(_cuda, kernel)(*wide)),
        graphed(lambda: attend(_cuda, kernel)(*inputs)),
        eager(lambda: attend(_torch, kernel)(*inputs)),
        eager(natten and (lambda: natten.na2d(*inputs[:3], kernel_size=kernel))),
    ]
    return [ABSENT if f is None else f"{f:.1f}" for f in figures]


def optional(name: str) -> ModuleType | None:
    """Return a peer's module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def issue_floor(pixels: int, c: int) -> float | None:
    """Return the microseconds that issuing a scan's instructions takes at least."""
    device = torch.cuda.get_device_properties(0)
    clock_khz = getattr(device, "clock_rate", None)
    if clock_khz is None:
        return None
    instructions = 4 * c * pixels * (23 + 1.35 * -(-c // 16))
    return instructions / (device.multi_processor_count * 128 * clock_khz) * 1e3


def graphed(run: Callable[[], object]) -> float:
    """Return the microseconds of one call of many in a graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(IN_A_GRAPH):
            run()
    return timed(graph.replay) / IN_A_GRAPH


def eager(run: Callable[[], object] | None) -> float | None:
    """Return the microseconds of one call, None where it does not run here."""
    if run is None:
        return None
    try:
        run()
    except (torch.OutOfMemoryError, RuntimeError, ValueError, NotImplementedError):
        # A peer refuses a width, or the gather does not fit: that row has no figure.
        torch.cuda.empty_cache()
        return None
    return timed(run)


def timed(run: Callable[[], object]) -> float:
    """Return the median microseconds of a call."""
    calls = 1
    if together(run, calls) < LONG_US:
        calls = REPLAYS
    return statistics.median(together(run, calls) for _ in range(ROUNDS))


def together(run: Callable[[], object], calls: int) -> float:
    """Return the microseconds of a call when so many are queued at once."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3 / calls


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the most memory that a call holds beyond what is there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return max(1, torch.cuda.max_memory_allocated() - before)


if __name__ == "__main__":
    main()
