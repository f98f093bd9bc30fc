"""Says what a data set holds and what is wrong with it, before a night is spent on it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from geoseg.config.run import DataConfig
from geoseg.data.build import build_split
from geoseg.data.chip_facts import ChipFacts, Inspection
from geoseg.data.chip_leaks import find_shared
from geoseg.data.chips import ChipDataset
from geoseg.data.divide import SplitName
from geoseg.data.labels import LabelRule
from geoseg.data.sample import Split
from geoseg.data.statistics import Moments, count_classes, iterate, moments
from geoseg.data.workers import leave_signals
from geoseg.errors import GeosegError, InterruptedRunError
from geoseg.listener import Listener
from geoseg.spec import ClassSpec

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
SHOWN = 3  # files named in one problem
MOST_NAMES = 10  # classes named in one problem
PATCH_PX = 512  # of rasters, which are counted patch by patch


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        samples: pairs of files, or patches that cover the scenes once.
        counts: labelled pixels of each class.
        ignored_px: pixels that are left out of loss and metrics.
        smallest_px: (width, height) of the smallest image by area.
        largest_px: likewise.
        single_class: samples whose labelled pixels are all of one class.
        mean: of each band over the valid pixels.
        std: likewise.
        gsd_m: (finest, coarsest) ground sampling distance, where the images have a place.
        notes: to bear in mind, for example that an official split leaks.
    """

    name: str
    samples: int
    counts: tuple[int, ...]
    ignored_px: int
    smallest_px: tuple[int, int]
    largest_px: tuple[int, int]
    single_class: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    gsd_m: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """All pixels of the split."""
        return sum(self.counts) + self.ignored_px


@dataclass(frozen=True)
class DataReport:
    """What a data set holds.

    Attributes:
        data_kind: of the run file.
        classes: channel k is ``classes[k]``.
        bands: names.
        dtype: of the image files.
        splits: those that there are.
        problems: one sentence each; empty: nothing was found.
    """

    data_kind: str
    classes: tuple[ClassSpec, ...] = ()
    bands: tuple[str, ...] = ()
    dtype: str = ""
    splits: tuple[SplitReport, ...] = ()
    problems: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def describe_data(
    data: DataConfig, *, workers: int = 0, listener: Listener | None = None
) -> DataReport:
    """Return what a data set holds: every sample of every split is read once.

    Nothing that is wrong with the files is raised; it is listed.

    Args:
        data: the run file's section.
        workers: processes that read.
        listener: hears of each sample and may stop the run.
    """
    problems: list[str] = []
    built = {name: s for name in SPLITS if (s := _build(data, name, problems)) is not None}
    if not built:
        return DataReport(data.kind, problems=tuple(problems))
    splits = {name: _whole(split) for name, split in built.items()}
    progress = _Progress(listener or Listener(), splits)
    reports: list[SplitReport] = []
    facts: dict[str, list[ChipFacts]] = {}
    for name, split in splits.items():
        if isinstance(split.dataset, ChipDataset):
            facts[name] = list(progress.follow(_look(split, split.dataset, workers)))
            problems += _problems(name, facts[name], split.dataset.labels)
            reports.append(_chip_report(name, split, facts[name]))
        else:
            reports.append(_patch_report(name, split, progress, workers, problems))
    problems += _absent_classes(reports, splits)
    problems += find_shared(facts)
    problems += _leaks(splits, facts)
    first = next(iter(splits.values()))
    return DataReport(
        data.kind, first.classes, first.bands, first.dtype, tuple(reports), tuple(problems)
    )


def _build(data: DataConfig, name: SplitName, problems: list[str]) -> Split | None:
    """Return a split; None, and a problem unless it is simply not there, where it cannot be."""
    if not _is_expected(data, name):
        return None
    try:
        return build_split(data, name, patch_px=PATCH_PX)
    except GeosegError as error:
        problems.append(f"{name}: {error}")
        return None


def _whole(split: Split) -> Split:
    """Return a split whose scenes are read in patches that hold every pixel once."""
    if isinstance(split.dataset, ChipDataset):
        return split
    from geoseg.data.samplers import CoveringPatchSampler

    dataset: Any = split.dataset  # what is no pair of files are scenes
    return replace(split, sampler=CoveringPatchSampler(dataset, PATCH_PX))


class _Progress:
    """Counts the samples of all splits while they are read."""

    def __init__(self, listener: Listener, splits: Mapping[SplitName, Split]) -> None:
        self.listener = listener
        self.done, self.total = 0, sum(_samples(split) for split in splits.values())
        said = f"{self.total:,} samples of {', '.join(splits)} are read"
        listener.start({"unit": "samples", "samples": self.total, "sentence": said})

    def follow[Item](self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass samples on, each counted once it is dealt with."""
        for item in items:
            self.listener.check()
            yield item
            self.done += 1
            self.listener.progress(self.done, self.total, 0)


def _samples(split: Split) -> int:
    read: Any = split.dataset if isinstance(split.dataset, ChipDataset) else split.sampler
    return len(read)


def _is_expected(data: DataConfig, name: SplitName) -> bool:
    """Return whether the section says that there is such a split."""
    if name == "train":
        return True
    if data.kind in {"folder", "raster"} or not data.official_split:
        given = data.val if name == "val" else data.test
        share = data.split.val_share if name == "val" else data.split.test_share
        return given is not None or (data.val is None and share > 0)
    from geoseg.data.published import PUBLISHED

    return name in PUBLISHED[data.kind].lists or data.val_halves


def _look(split: Split, dataset: ChipDataset, workers: int) -> Iterator[ChipFacts]:
    inspection = Inspection(dataset, len(split.classes))
    generator = torch.Generator().manual_seed(0)
    yield from DataLoader(
        inspection,
        batch_size=None,
        num_workers=workers,
        generator=generator,
        worker_init_fn=leave_signals,
    )


def _problems(name: str, facts: Sequence[ChipFacts], rule: LabelRule) -> Iterator[str]:
    """Yield what is wrong with the files of a split."""
    failed = [f for f in facts if f.error]
    for fact in failed[:SHOWN]:
        yield f"{name}: {fact.error}"
    if len(failed) > SHOWN:
        yield f"{name}: {len(failed) - SHOWN} more files cannot be used."
    odd = [f for f in facts if f.unknown]
    if odd:
        unknown: Counter[int] = Counter()
        for fact in odd:
            unknown.update(fact.unknown)
        yield (
            f"{name}: {len(odd)} masks hold values without a class ({_names(odd)}): "
            f"{rule.describe_unknown(unknown)}"
        )
    empty = [f for f in facts if not f.error and not sum(f.counts)]
    if empty:
        yield (
            f"{name}: {len(empty)} masks have no labelled pixel ({_names(empty)}). They teach "
            "nothing; take them out, or check data.ignore."
        )


def _absent_classes(
    reports: Sequence[SplitReport], splits: dict[SplitName, Split]
) -> Iterator[str]:
    for report, split in zip(reports, splits.values(), strict=True):
        pairs = zip(split.classes, report.counts, strict=True)
        absent = [c.name for c, count in pairs if not count]
        more = f" and {len(absent) - MOST_NAMES} more" if len(absent) > MOST_NAMES else ""
        named = ", ".join(absent[:MOST_NAMES]) + more
        if absent and report.name == "train":
            yield (
                f"train: no pixel of {named}, so a model cannot learn it. Check data.classes and "
                "the split."
            )
        elif absent:
            yield f"{report.name}: no pixel of {named}, so it cannot be scored there."


def _chip_report(name: str, split: Split, facts: Sequence[ChipFacts]) -> SplitReport:
    usable = [f for f in facts if not f.error]
    sizes = sorted((f.width * f.height, f.width, f.height) for f in usable) or [(0, 0, 0)]
    gsds = [f.gsd_m for f in usable if f.gsd_m]
    counts = [sum(column) for column in zip(*(f.counts for f in usable), strict=True)]
    total = reduce(Moments.merged, (f.moments for f in usable), Moments())
    return SplitReport(
        name,
        samples=len(facts),
        counts=tuple(counts) or (0,) * len(split.classes),
        ignored_px=sum(size for size, *_ in sizes) - sum(counts),
        smallest_px=sizes[0][1:],
        largest_px=sizes[-1][1:],
        single_class=sum(1 for f in usable if sum(c > 0 for c in f.counts) == 1),
        mean=total.mean,
        std=total.std,
        gsd_m=(min(map(min, gsds)), max(map(max, gsds))) if gsds else None,
        notes=split.notes,
    )


def _patch_report(
    name: str, split: Split, progress: _Progress, workers: int, problems: list[str]
) -> SplitReport:
    """Return what the scenes of a split hold, every pixel counted once."""
    counts = np.zeros(len(split.classes), np.int64)
    samples = pixels = single = 0
    total = Moments()
    try:
        for sample in progress.follow(iterate(split, workers=workers)):
            found = count_classes(sample["mask"].numpy(), len(counts))
            counts += found
            values, valid = sample["image"].numpy(), sample["valid"].numpy()
            total = total.merged(moments(values, valid))
            samples, pixels = samples + 1, pixels + sample["mask"].numel()
            single += int((found > 0).sum() == 1)
    except InterruptedRunError:
        raise
    except GeosegError as error:
        problems.append(f"{name}: {error}")
    dataset: Any = split.dataset
    scenes = dataset.scenes
    gsds = [scene.gsd_m for scene in scenes if scene.gsd_m is not None]
    sizes = sorted((s.grid.width * s.grid.height, s.grid.width, s.grid.height) for s in scenes)
    return SplitReport(
        name,
        samples=samples,
        counts=tuple(map(int, counts)),
        ignored_px=pixels - int(counts.sum()),
        smallest_px=sizes[0][1:],
        largest_px=sizes[-1][1:],
        single_class=single,
        mean=total.mean,
        std=total.std,
        gsd_m=(min(map(min, gsds)), max(map(max, gsds))) if gsds else None,
        notes=(*split.notes, f"{len(scenes)} scenes, counted in patches of {PATCH_PX} px"),
    )


def _leaks(splits: dict[SplitName, Split], facts: dict[str, list[ChipFacts]]) -> Iterator[str]:
    """Yield what the places and names of two splits say; chips with a place were compared."""
    from geoseg.data.leaks import check_leak

    placed = {n for n, chips in facts.items() if all(f.place for f in chips if not f.error)}
    pairs: tuple[tuple[SplitName, SplitName], ...] = (("train", "val"), ("train", "test"))
    for one, other in pairs:
        if {one, other} <= set(splits) and not {one, other} <= placed and not splits[other].notes:
            yield from (f"leak: {other}: {text}" for text in check_leak(splits[one], splits[other]))


def _names(facts: Sequence[ChipFacts]) -> str:
    more = ", ..." if len(facts) > SHOWN else ""
    return ", ".join(repr(f.name) for f in facts[:SHOWN]) + more
