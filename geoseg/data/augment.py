"""Random changes of training samples: crops, turns, scale and colours.

Two chains: the papers' (`geoseg.data.augment_paper`) and one for imagery of any sensor
(`geoseg.data.augment_remote`).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch.utils.data import get_worker_info

from geoseg.config.run import AugmentConfig
from geoseg.data.augment_paper import augment_paper, check_dtype
from geoseg.data.augment_remote import Radiometry, augment_remote
from geoseg.data.sample import Sample
from geoseg.errors import InputError

Change = Callable[[Sample, np.random.Generator], Sample]


class RandomTransform:
    """Changes samples by draws that follow from seed, worker and how many were drawn before.

    Workers of a loader draw differently from each other, and in every epoch: fresh workers start
    from the loader's seed of that epoch, persistent ones go on.

    Args:
        change: maps a sample and a generator to the changed sample.
        seed: of the draws.
    """

    def __init__(self, change: Change, seed: int) -> None:
        self._change = change
        self._key: tuple[int, ...] = (seed,)
        self._worker: int | None = None
        self._rng: np.random.Generator | None = None

    def restart(self, *key: int) -> None:
        """Draw from now on as every run with that seed and key does, in whatever worker.

        Args:
            key: numbers of 0 or more, for example the step at which a run is resumed.
        """
        info = get_worker_info()
        self._key = (self._key[0], *key)
        self._worker = None if info is None else info.seed
        self._rng = np.random.default_rng(self._key)

    def __call__(self, sample: Sample) -> Sample:
        """Return the changed sample; the given one stays as it is."""
        return self._change(sample, self._generator())

    def _generator(self) -> np.random.Generator:
        info = get_worker_info()
        worker = None if info is None else info.seed
        # A forked worker inherits the parent's generator, which its siblings have too.
        if self._rng is None or worker != self._worker:
            self._worker = worker
            own = () if worker is None else (1, worker)
            self._rng = np.random.default_rng([*self._key, *own])
        return self._rng


def make_transform(
    augment: AugmentConfig,
    *,
    seed: int,
    dtype: str | None = None,
    std: Sequence[float] | None = None,
) -> RandomTransform:
    """Return the augmentation of training samples.

    Args:
        augment: what is done.
        seed: of the draws, 0 or more; give each process of a distributed run its own.
        dtype: of the image files; an integer type's range is not left. None: no range is known.
        std: of the training set, per band, the unit of the radiometric jitter; None: the crop's.

    Returns:
        A function that maps a sample to a new one of ``crop_px`` a side. What lies outside of the
        image is invalid and its label ignored.

    Raises:
        InputError: a value is out of range, or the published distortion of colours cannot take
            the data.
    """
    _check(augment)
    if augment.kind == "remote_sensing":
        radiometry = Radiometry(augment.jitter, dtype, None if std is None else tuple(std))
        return RandomTransform(partial(augment_remote, augment, radiometry), seed)
    if augment.kind == "paper" and augment.photometric:
        check_dtype(dtype)
    return RandomTransform(partial(augment_paper, augment), seed)


def _check(augment: AugmentConfig) -> None:
    """Raise an InputError for the first value that is out of range."""
    low, high = augment.scale
    wrong = {
        f"augment.crop_px of 1 or more; got {augment.crop_px}": augment.crop_px < 1,
        f"augment.scale as 0 < least <= greatest; got {low} to {high}": not 0 < low <= high,
        f"augment.flip between 0 and 1; got {augment.flip}": not 0 <= augment.flip <= 1,
        f"augment.free_rotation between 0 and 1; got {augment.free_rotation}": (
            not 0 <= augment.free_rotation <= 1
        ),
        f"augment.jitter of 0 or more; got {augment.jitter}": augment.jitter < 0,
    }
    for said, is_wrong in wrong.items():
        if is_wrong:
            raise InputError(f"expected {said}. Correct it in the run file.")
