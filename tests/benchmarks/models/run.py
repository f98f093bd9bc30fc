"""SegNeXt on a CPU: channels_last and bf16 beside NCHW float32 of the same network.

    python -m tests.benchmarks.models.run [NAME...]

The NCHW run calls encoder, decoder and the last upsampling as PyTorch lays tensors out by default;
the other two are what geoseg runs. The three take turns, and medians are compared.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models import create_model
from geoseg.predict.memory import keep_freed_memory
from tests.benchmarks.measure import machine

SIDE_PX = 512
ROUNDS = 21
WARM_UP = 3


def variants(name: str) -> dict[str, Callable[[], Tensor]]:
    """Return the forward passes that are compared, by name."""
    x = torch.randn(1, 3, SIDE_PX, SIDE_PX)
    plain = create_model(name, num_classes=5).eval().to(memory_format=torch.contiguous_format)
    ours = create_model(name, num_classes=5).eval()
    half = create_model(name, num_classes=5).eval().bfloat16()

    def nchw() -> Tensor:
        logits = plain.decoder(plain.encoder(x))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    return {
        "NCHW fp32": nchw,
        "channels_last fp32": lambda: ours(x),
        "channels_last bf16": lambda: half(x.bfloat16()),
    }


def check_layout(network: nn.Module) -> None:
    """Stop when the NCHW run is not in NCHW: the ratio would be of nothing."""
    weight = network.encoder.patch_embed1.proj[0].weight
    if not weight.is_contiguous():
        sys.exit("the NCHW variant has channels_last weights")


def main(names: list[str]) -> None:
    """Print a table of medians and ratios."""
    keep_freed_memory()
    print(machine())
    print(f"{SIDE_PX} x {SIDE_PX} px, batch 1, medians of {ROUNDS} rounds in turn")
    for name in names or ["segnext_t", "segnext_b"]:
        check_layout(create_model(name, num_classes=5).to(memory_format=torch.contiguous_format))
        runs = variants(name)
        times: dict[str, list[float]] = {key: [] for key in runs}
        with torch.inference_mode():
            for i in range(WARM_UP + ROUNDS):
                for key, run in runs.items():
                    began = time.perf_counter()
                    run()
                    if i >= WARM_UP:
                        times[key].append(time.perf_counter() - began)
        plain = statistics.median(times["NCHW fp32"])
        for key, values in times.items():
            median = statistics.median(values)
            print(f"{name:10s} {key:20s} {1e3 * median:7.1f} ms  {plain / median:5.2f} x")


if __name__ == "__main__":
    main(sys.argv[1:])
