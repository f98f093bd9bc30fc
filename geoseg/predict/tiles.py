"""Runs the network on batches of tiles: test-time views, memory limits, device transfer."""

import gc
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.errors import MachineError, OutOfMemoryError
from geoseg.segmenter import Segmenter
from geoseg.types import Tta, ValidMask, Values

logger = logging.getLogger(__name__)

# A view is a number of quarter turns and whether columns are mirrored before.
VIEWS: dict[Tta, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((turns, mirror) for mirror in (False, True) for turns in range(4)),
}
# What torch's CPU allocator and onnxruntime say when memory runs out; they raise RuntimeError.
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "bad allocation", "out of memory")

MPS_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.float32)

Tile = tuple[Values, ValidMask | None]


class TileRunner:
    """Runs a segmenter on tiles; halves the batch when memory runs out, and remembers.

    Args:
        segmenter: on its device, in eval mode.
        tta: test-time views.
        device: where the segmenter is.
    """

    def __init__(self, segmenter: Segmenter, tta: Tta, device: torch.device) -> None:
        self.segmenter = segmenter
        self.views = VIEWS[tta]
        self.device = device
        self.largest_batch: int | None = None

    @torch.inference_mode()
    def run(self, tiles: Sequence[Tile]) -> list[Tensor]:
        """Return the logits of each tile, (views x K, H, W) float32, on the device.

        Raises:
            OutOfMemoryError: not even a single tile fits.
        """
        limit = min(len(tiles), self.largest_batch or len(tiles))
        done: list[Tensor] = []
        while len(done) < len(tiles):
            part = tiles[len(done) : len(done) + limit]
            try:
                done.extend(self._forward(part))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if _is_lost(error, self.device):
                    raise MachineError(
                        f"{self.device} failed: {str(error).splitlines()[0]}. Finished parts are "
                        "kept: give --resume, with --device cpu if it fails again."
                    ) from error
                if not _is_out_of_memory(error):
                    raise
                limit = self._halve(limit)
        return done

    def _forward(self, tiles: Sequence[Tile]) -> list[Tensor]:
        values, valid = self._to_device(tiles)
        views = []
        for turns, mirror in self.views:
            logits = self.segmenter(_turn(values, turns, mirror), _turn(valid, turns, mirror))
            views.append(_turn_back(logits, turns, mirror))
        stacked = views[0] if len(views) == 1 else torch.cat(views, dim=1)
        return list(stacked)

    def _to_device(self, tiles: Sequence[Tile]) -> tuple[Tensor, Tensor | None]:
        """Return values (N, C, H, W) in the file's dtype and validity (N, H, W) or None."""
        arrays = [values for values, _ in tiles]
        values = _tensor(np.stack(arrays) if len(arrays) > 1 else arrays[0][None])
        valid = None
        if any(mask is not None for _, mask in tiles):
            shape = tiles[0][0].shape[1:]
            masks = [np.ones(shape, dtype=bool) if m is None else m for _, m in tiles]
            valid = torch.from_numpy(np.stack(masks))
        if self.device.type == "cuda":
            values = values.pin_memory()
            valid = None if valid is None else valid.pin_memory()
        if self.device.type == "mps" and values.dtype not in MPS_DTYPES:
            values = values.float()
        values = values.to(self.device, non_blocking=True)
        return values, None if valid is None else valid.to(self.device, non_blocking=True)

    def _halve(self, batch: int) -> int:
        if batch == 1:
            raise OutOfMemoryError(
                f"a single tile does not fit into the memory of {self.device}. Give a smaller "
                "--tile-size, --device cpu, or a smaller model. Finished parts are kept."
            )
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.largest_batch = batch // 2
        logger.warning(
            "out of memory with %d tiles at once: going on with %d; the map may differ in up to "
            "0.01 %% of its pixels from one made with more memory",
            batch,
            self.largest_batch,
        )
        return self.largest_batch


def _tensor(values: NDArray[np.generic]) -> Tensor:
    # torch has no big-endian arrays.
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(native)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(word in str(error).lower() for word in MEMORY_WORDS)


def _is_lost(error: BaseException, device: torch.device) -> bool:
    words = ("cuda error", "cudnn_status", "cublas_status", "mps backend")
    text = str(error).lower()
    return (
        device.type != "cpu"
        and not _is_out_of_memory(error)
        and any(word in text for word in words)
    )


def _turn(x: Tensor | None, turns: int, mirror: bool) -> Tensor | None:
    if x is None or (turns == 0 and not mirror):
        return x
    x = torch.flip(x, dims=(-1,)) if mirror else x
    # The copy is dense along columns, as the kernels want it.
    return torch.rot90(x, turns, dims=(-2, -1)).contiguous()


def _turn_back(x: Tensor, turns: int, mirror: bool) -> Tensor:
    x = torch.rot90(x, -turns, dims=(-2, -1)) if turns else x
    return torch.flip(x, dims=(-1,)) if mirror else x
