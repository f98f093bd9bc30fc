"""SegNeXt on a CPU: as geoseg runs it, in fp32 and bf16, beside NCHW float32 of the same network.

    python -m tests.benchmarks.models.run [NAME...]

The NCHW runs call encoder, decoder and the last upsampling as PyTorch lays tensors out by default:
once with PyTorch's own use of memory, once with the allocator setting that geoseg makes. Each run
has a process of its own, as in use; they take turns, and medians are compared.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.models import create_model
from geoseg.predict.memory import keep_freed_memory
from tests.benchmarks.measure import in_child, machine, medians

SIDE_PX = 512
TURNS = 3
ROUNDS = 9
WARM_UP = 5
VARIANTS = {
    "nchw": "NCHW fp32, PyTorch's defaults",
    "nchw-kept": "NCHW fp32, memory kept",
    "fp32": "geoseg fp32",
    "bf16": "geoseg bf16",
}


def forward_pass(name: str, variant: str) -> Callable[[], Tensor]:
    """Return a variant's forward pass."""
    x = torch.randn(1, 3, SIDE_PX, SIDE_PX)
    network = create_model(name, num_classes=5).eval()
    if variant == "bf16":
        network, x = network.bfloat16(), x.bfloat16()
    if not variant.startswith("nchw"):
        return lambda: network(x)
    network = network.to(memory_format=torch.contiguous_format)
    if not network.encoder.patch_embed1.proj[0].weight.is_contiguous():
        sys.exit("the NCHW run has channels_last weights: the ratio would be of nothing")

    def nchw() -> Tensor:
        logits = network.decoder(network.encoder(x))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    return nchw


def run_one(name: str, variant: str) -> None:
    """Time one variant and print its median as JSON."""
    if variant != "nchw":
        keep_freed_memory()
    run = forward_pass(name, variant)
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + ROUNDS):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
    print(json.dumps({"ms": 1e3 * statistics.median(times[WARM_UP:])}))


def main(names: list[str]) -> None:
    """Print a table of medians and ratios."""
    print(machine())
    print(f"{SIDE_PX} x {SIDE_PX} px, batch 1, medians of {TURNS} turns of {ROUNDS} runs")
    for name in names or ["segnext_t", "segnext_b"]:
        found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
        for _ in range(TURNS):
            for variant in VARIANTS:
                found[variant].append(in_child(__spec__.name, ["--one", name, variant]))
        figures = {variant: medians(turns)["ms"] for variant, turns in found.items()}
        for variant, ms in figures.items():
            ratios = [figures[base] / ms for base in ("nchw", "nchw-kept")]
            text = f"{ratios[0]:5.2f} x  {ratios[1]:5.2f} x memory kept"
            print(f"{name:10s} {VARIANTS[variant]:30s} {ms:7.1f} ms  {text}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(*sys.argv[2:])
    else:
        main(sys.argv[1:])
