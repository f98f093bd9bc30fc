"""The largest batch that fits."""

import logging

import torch
from torch import Tensor, nn

from geoseg.errors import OutOfMemoryError
from geoseg.predict.memory import peak_rss_bytes
from geoseg.segmenter import Segmenter

logger = logging.getLogger(__name__)

LARGEST = 64
TRIAL = 2  # SegMAN's BatchNorm over one pixel wants two images
# Of a CPU's memory; loaders, the average and the optimiser's state take the rest.
SHARE = 0.5
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def find_batch_size(
    segmenter: Segmenter, crop_px: int, *, device: torch.device, precision: str = "fp32"
) -> int:
    """Return the largest power of two that fits, at most 64.

    On an accelerator forward and backward passes are run until memory is short; on a CPU, where
    running out of memory ends the process, what the backward pass keeps of one small batch is
    counted.

    Args:
        segmenter: left as it is, but for the statistics of its BatchNorm.
        crop_px: side of the crops.
        device: to run on.
        precision: of the forward pass.

    Raises:
        OutOfMemoryError: not even two images fit.
    """
    state = {key: value.clone() for key, value in segmenter.state_dict().items()}
    training = segmenter.training
    segmenter.train().to(device)
    try:
        if device.type == "cpu":
            size = _by_counting(segmenter, crop_px, precision)
        else:
            size = _by_trial(segmenter, crop_px, device, precision)
    finally:
        segmenter.zero_grad(set_to_none=True)
        segmenter.load_state_dict(state)
        segmenter.to("cpu").train(training)
    logger.info("batch size %d fits", size)
    return size


def _by_trial(segmenter: Segmenter, crop_px: int, device: torch.device, precision: str) -> int:
    fits = 0
    while fits < LARGEST:
        trial = TRIAL if fits == 0 else 2 * fits
        try:
            _pass(segmenter, trial, crop_px, precision)
        except torch.OutOfMemoryError:
            break
        finally:
            segmenter.zero_grad(set_to_none=True)
            getattr(torch, device.type).empty_cache()
        fits = trial
    if fits == 0:
        raise _too_little(crop_px, device.type)
    # Gradients and the optimiser's two moments were not there, nor other processes' share.
    return max(1, fits // 2)


def _by_counting(segmenter: Segmenter, crop_px: int, precision: str) -> int:
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        _pass(segmenter, TRIAL, crop_px, precision, backward=False)
    own = {p.untyped_storage().data_ptr() for p in segmenter.parameters()}
    per_image = sum(size for place, size in kept.items() if place not in own) / TRIAL
    room = SHARE * _free_bytes() / per_image
    if room < 1:
        raise _too_little(crop_px, "cpu")
    return min(LARGEST, 2 ** (int(room).bit_length() - 1))


def _pass(
    segmenter: Segmenter, images: int, crop_px: int, precision: str, *, backward: bool = True
) -> None:
    device = next(segmenter.parameters()).device
    values = torch.zeros((images, segmenter.spec.in_channels, crop_px, crop_px), device=device)
    dtype = AUTOCAST.get(precision)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        loss = nn.functional.cross_entropy(
            segmenter(values),
            torch.zeros((images, crop_px, crop_px), dtype=torch.long, device=device),
        )
    if backward:
        loss.backward()


def _free_bytes() -> int:
    """Return the memory that this machine has left, or a guess where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  not a file on disk
            found = dict(line.split(":") for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30 - min(peak_rss_bytes(), 3 * 2**30)


def _too_little(crop_px: int, kind: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"trainer.batch_size: not even a small batch of crops of {crop_px} px fits into the memory "
        f"of this {kind} device. Set a smaller augment.crop_px, or another model."
    )
