"""Samples per second of a training step on the CPU, with plain and with fast depthwise gradients.

    python -m tests.benchmarks.training.step [--rounds 5]

Both ways alternate in one process. A step is forward, loss and backward of 8 crops of 256 px; the
loader's own speed is `tests.benchmarks.training.loader`.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from geoseg.models import create_model, depthwise
from geoseg.predict.memory import keep_freed_memory

BATCH, CROP_PX, CLASSES = 8, 256, 5


@contextmanager
def plain_gradients() -> Iterator[None]:
    """Take torch's own gradients of depthwise convolutions."""
    kept = depthwise._has_slow_gradient
    depthwise._has_slow_gradient = lambda x: False
    try:
        yield
    finally:
        depthwise._has_slow_gradient = kept


def time_step(network: torch.nn.Module, image: torch.Tensor, target: torch.Tensor) -> float:
    """Return the seconds of a step."""
    began = time.perf_counter()
    F.cross_entropy(network(image), target).backward()
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    torch.manual_seed(0)
    image = torch.randn(BATCH, 3, CROP_PX, CROP_PX).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (BATCH, CROP_PX, CROP_PX))
    print(f"{torch.get_num_threads()} threads, {BATCH} crops of {CROP_PX} px, medians of {rounds}")
    print("| network | plain, samples/s | fast, samples/s | ratio |\n|---|---|---|---|")
    for name in ("segnext_t", "segman_t"):
        network = create_model(name, num_classes=CLASSES).train()
        time_step(network, image, target)
        plain, fast = [], []
        for _ in range(rounds):
            with plain_gradients():
                plain.append(time_step(network, image, target))
            fast.append(time_step(network, image, target))
        slow_s, fast_s = statistics.median(plain), statistics.median(fast)
        print(
            f"| {name} | {BATCH / slow_s:.1f} | {BATCH / fast_s:.1f} | {slow_s / fast_s:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
