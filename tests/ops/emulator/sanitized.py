"""Runs one program's kernels under a sanitizer, which ends the process if it finds something.

python -m tests.ops.emulator.sanitized PROGRAM address|thread
"""

import sys
import tempfile
from pathlib import Path

import torch

from geoseg.ops import _cuda, _cuda_attention, _cuda_driver, _cuda_ss2d
from tests.ops.emulator import SANITIZERS, Emulator
from tests.ops.test_cuda_kernels import attention_inputs, scan_inputs, sequence_inputs


def main(program, sanitizer):
    # Arrays are allocated one by one, so that what lies past one of them is not another.
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator(Path(folder), flags=SANITIZERS[sanitizer])
        _cuda_driver.launch = emulator.launch
        {"ss2d": run_ss2d, "selective_scan": run_selective_scan, "na2d": run_na2d}[program]()
        assert emulator.launches


def run_ss2d():
    # Tails in channels, lines and steps; small squares, then large ones of two groups of lines.
    for shape, enough in (((1, 5, 9, 36, 3), 10**9), ((1, 5, 18, 5, 2), 1)):
        _cuda_ss2d.ENOUGH_SQUARES = enough
        inputs = scan_inputs(*shape)
        assert _cuda.ss2d_scan(*inputs).isfinite().all()
    # Tails in pixels, rows and channels.
    assert _cuda.ss2d_project(torch.randn(5, 9, 37), torch.randn(20, 37)).isfinite().all()
    inputs = scan_inputs(1, 5, 9, 70, 3)
    assert _cuda.ss2d_scan_backward(inputs[0], *inputs)[0].isfinite().all()


def run_selective_scan():
    inputs = sequence_inputs(1, 2, 5, 3, 70, softplus=True, skip=True, bias=True)
    made = _cuda.selective_scan(*inputs, True)
    assert made.isfinite().all()
    assert _cuda.selective_scan_backward(made, *inputs, True)[0].isfinite().all()


def run_na2d():
    inputs = attention_inputs((1, 5, 9, 1, 12), 3, True, True)
    for floats in (_cuda_attention.SHARED_FLOATS, 1):
        _cuda_attention.SHARED_FLOATS = floats
        made = _cuda.na2d(*inputs)
        assert made.isfinite().all()
        assert _cuda.na2d_backward(made, *inputs)[0].isfinite().all()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
