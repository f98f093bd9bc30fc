"""The compiled kernels beside what PyTorch alone can do, and what they mean for a whole network.

    python kernels/benchmarks/run.py [scan] [attention] [network] [cuda]

Ratios come from one run: the ways take turns, and medians are compared. Other work on the machine
shows as outliers; the one-minute load is printed with the machine.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from geoseg import _native, ops
from geoseg.models import create_model
from geoseg.models.folding import fold_for_inference
from geoseg.ops import _cpu, reference
from geoseg.predict.memory import keep_freed_memory
from tests.benchmarks.measure import machine, medians

SIDE_PX = 512
TURNS = 3
CLASSES = 5  # as many as a land-cover map has: the last upsampling grows with them
Way = Callable[[], object]

# Stages of the networks at 512 px: channels, rank, side of the map.
SCANS = {
    "T stage 1": (32, 2, 128),
    "T stage 2": (64, 4, 64),
    "T stage 3": (144, 9, 32),
    "T decoder": (384, 24, 16),
    "S stage 1": (64, 4, 128),
    "B stage 3": (364, 23, 32),
    "L stage 1": (96, 6, 128),
    "L stage 3": (432, 27, 32),
}
# Heads, head width, window, side of the map.
ATTENTIONS = {
    "T stage 1": (1, 32, 11, 128),
    "T stage 2": (2, 32, 9, 64),
    "T stage 3": (4, 36, 9, 32),
    "T stage 4": (8, 24, 7, 16),
    "B stage 2": (8, 20, 9, 64),
    "L stage 3": (12, 36, 7, 32),
}


def take_turns(ways: dict[str, Way], rounds: dict[str, int]) -> dict[str, float]:
    """Return each way's median, ms; slow ways run fewer rounds."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for i in range(max(rounds.values())):
        for name, way in ways.items():
            if i < rounds[name]:
                began = time.perf_counter()
                way()
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def with_threads(threads: int, way: Way) -> Way:
    """Return a way that runs on so many threads."""

    def run() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return way()
        finally:
            torch.set_num_threads(before)

    return run


def sequences(channels: int, side: int) -> tuple[Tensor, ...]:
    """Return u, delta, A, B and C of four directions, time first: (L, 4, C) and (L, 4, 1)."""
    length = side * side
    u, delta = torch.randn(length, 4, channels), torch.rand(length, 4, channels)
    return u, delta, -torch.rand(4, channels), *torch.randn(2, length, 4, 1)


def loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return the scan by a Python loop over time, everything else vectorised."""
    decay, driven = torch.exp(delta * A), delta * B * u
    h = torch.zeros_like(driven[0])
    states = []
    for a, b in zip(decay, driven, strict=True):
        h = torch.addcmul(b, a, h)
        states.append(h)
    return C * torch.stack(states) + u


def doubling(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return the scan in log2(L) vectorised passes."""
    states = doubling_scan(*((x.movedim(0, -1)).contiguous() for x in (delta * A, delta * B * u)))
    return C * states.movedim(-1, 0) + u


def on_avx2(way: Way) -> Way:
    """Return a way that runs on the library's build for x86-64-v3."""
    lib = _native.library()
    assert lib is not None

    def run() -> object:
        own = lib.geoseg_instruction_set()
        if lib.geoseg_use_instruction_set(b"x86-64-v3"):
            raise SystemExit("there is no build for x86-64-v3 here")
        try:
            return way()
        finally:
            lib.geoseg_use_instruction_set(own)

    return run


def doubling_scan(decay: Tensor, driven: Tensor) -> Tensor:
    """Return h_t = a_t h_(t-1) + b_t along the last axis in log2(L) passes; a as its logarithm."""
    decay, step = torch.exp(decay), 1
    while step < decay.shape[-1]:
        shifted = decay[..., step:] * driven[..., :-step]
        driven = torch.cat([driven[..., :step], driven[..., step:] + shifted], dim=-1)
        product = decay[..., step:] * decay[..., :-step]
        decay = torch.cat([decay[..., :step], product], dim=-1)
        step *= 2
    return driven


def bench_scan() -> None:
    """Print the four-direction scan.

    The lean loop and the doubling passes are given step sizes and sequences, and merge nothing.
    """
    print("\nscan with step sizes, four directions and merge, ms; ratios are to the reference")
    for name, (channels, rank, side) in SCANS.items():
        inputs = [
            torch.randn(1, side, side, channels),
            torch.randn(1, side, side, 4, rank + 2),
            torch.randn(4, channels, rank) / rank**0.5,
            torch.randn(4, channels) - 2,
            0.3 * torch.randn(4 * channels, 1),
            torch.ones(4 * channels),
        ]
        given = sequences(channels, side)
        ways: dict[str, Way] = {
            "reference": lambda i=inputs: reference.ss2d_scan(*i),
            "lean loop": lambda s=given: loop(*s),
            "doubling": lambda s=given: doubling(*s),
            "torch form": lambda i=inputs: ops.backends.implementation("torch").ss2d_scan(*i),
            "cpu 1 thread": with_threads(1, lambda i=inputs: _cpu.ss2d_scan(*i)),
            "cpu": lambda i=inputs: _cpu.ss2d_scan(*i),
        }
        if _native.instruction_set() == "x86-64-v4":
            ways["cpu AVX2"] = on_avx2(lambda i=inputs: _cpu.ss2d_scan(*i))
        slow = {"reference": 3, "lean loop": 3, "doubling": 3, "torch form": 5}
        _row(name, ways, slow=slow, base="reference")


def bench_attention() -> None:
    """Print neighbourhood attention with bias and rotation on load."""
    print("\nneighbourhood attention, ms; ratios are to gathering windows")
    for name, (heads, dim, kernel, side) in ATTENTIONS.items():
        q, k, v = torch.randn(1, side, side, 3, heads, dim).unbind(3)
        bias = torch.randn(heads, 2 * kernel - 1, 2 * kernel - 1)
        rope = torch.randn(side, dim // 4, 2), torch.randn(side, dim // 4, 2)
        given = (q, k, v, kernel, bias, dim**-0.5)
        ways: dict[str, Way] = {
            "gather": lambda g=given: reference.neighborhood_attention(*g),
            "torch form": lambda g=given: ops.backends.implementation("torch").na2d(*g, None),
            "cpu 1 thread": with_threads(1, lambda g=given, r=rope: _cpu.na2d(*g, r)),
            "cpu": lambda g=given, r=rope: _cpu.na2d(*g, r),
        }
        found = _row(name, ways, slow={"gather": 3, "torch form": 5}, base="gather")
        flops = 4 * side**2 * kernel**2 * heads * dim
        print(f"{'':12s} {flops / found['cpu 1 thread'] / 1e6:.0f} GFLOP/s on one thread")


def bench_network(names: Sequence[str] = ("segman_t", "segman_s", "segman_b", "segman_l")) -> None:
    """Print whole forward passes, each way in processes of its own that take turns, as in use."""
    print(f"\n{SIDE_PX} x {SIDE_PX} px, batch 1, ms, folded for inference; medians of processes")
    for name in names:
        ways = ["fp32", "bf16", "torch", *(["reference"] if name == "segman_t" else [])]
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for turn in range(TURNS):
            for way in ways:
                if way != "reference" or turn == 0:
                    found[way].append(in_process(name, way))
        figures = {way: medians(turns) for way, turns in found.items()}
        base = figures[ways[-1]]["ms"]
        for way, figure in figures.items():
            least = min(turn["least_ms"] for turn in found[way])
            text = f"{figure['ms']:8.1f} (least {least:.1f})  {base / figure['ms']:5.1f}x"
            share = f"  scan and attention {100 * figure['share']:.0f} %" if way == "fp32" else ""
            print(f"{name:10s} {way:10s} {text}{share}", flush=True)


def in_process(name: str, way: str) -> dict[str, float]:
    """Return the figures of one way, measured in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_one(name: str, way: str) -> None:
    """Time one way and print its figures as JSON."""
    keep_freed_memory()
    torch.manual_seed(0)
    network = fold_for_inference(create_model(name, num_classes=CLASSES).eval())
    x = torch.randn(1, 3, SIDE_PX, SIDE_PX)
    if way == "bf16":
        network, x = network.bfloat16(), x.bfloat16()
    backend = way if way in {"torch", "reference"} else None
    slow = way == "reference"
    times = []
    with torch.inference_mode():
        for _ in range(2 if slow else 15):
            began = time.perf_counter()
            forced(backend, network, x)
            times.append(1e3 * (time.perf_counter() - began))
        share = exotic_share(network, x) if way == "fp32" else 0.0
    times = times[1:] if slow else times[4:]
    print(json.dumps({"ms": statistics.median(times), "least_ms": min(times), "share": share}))


def forced(backend: str | None, network: nn.Module, x: Tensor) -> Tensor:
    """Return a forward pass through another backend; None takes what runs by default."""
    if backend is None:
        return network(x)
    order = dict(ops.backends.BACKENDS)
    try:
        for operation in order:
            ops.backends.BACKENDS[operation] = (backend,)
        return network(x)
    finally:
        ops.backends.BACKENDS.update(order)


def exotic_share(network: nn.Module, x: Tensor) -> float:
    """Return the share of scan and attention in a forward pass."""
    names = ("ss2d_scan", "na2d")
    own = {name: getattr(_cpu, name) for name in names}
    spent = 0.0

    def timed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*arguments: object) -> Tensor:
            nonlocal spent
            began = time.perf_counter()
            result = function(*arguments)
            spent += time.perf_counter() - began
            return result

        return run

    shares = []
    try:
        for name, function in own.items():
            setattr(_cpu, name, timed(function))
        for _ in range(7):
            spent, began = 0.0, time.perf_counter()
            network(x)
            shares.append(spent / (time.perf_counter() - began))
    finally:
        for name, function in own.items():
            setattr(_cpu, name, function)
    return statistics.median(shares)


def _row(name: str, ways: dict[str, Way], *, slow: dict[str, int], base: str) -> dict[str, float]:
    with torch.inference_mode():
        found = take_turns(ways, {way: slow.get(way, 21) for way in ways})
    text = "   ".join(f"{way} {ms:.2f} ({found[base] / ms:.1f}x)" for way, ms in found.items())
    print(f"{name:12s} {text}", flush=True)
    return found


def main(names: list[str]) -> None:
    """Run the parts that are named, or all."""
    keep_freed_memory()
    print(machine(), f"load {os.getloadavg()[0]:.2f}")
    parts = {"scan": bench_scan, "attention": bench_attention, "network": bench_network}
    for name, part in parts.items():
        if not names or name in names:
            part()
    if not names or "cuda" in names:
        import cuda_ops

        cuda_ops.main()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(*sys.argv[2:])
    else:
        main(sys.argv[1:])
