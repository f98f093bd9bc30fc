"""Finds scenes and the labels that belong to them, and checks both before anything is trained."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from geoseg.config.run import DataConfig, FilesConfig
from geoseg.data.chips import GDAL_SETTINGS, ImageRule, choose_bands
from geoseg.data.folder import _match, _matching_lists, _read_names, _some, list_files
from geoseg.data.label_polygons import VECTOR_SUFFIXES
from geoseg.data.labels import LabelRule
from geoseg.data.patch_reader import ImageFile, LabelFile, grid_of
from geoseg.data.patches import PatchGrid, along
from geoseg.errors import GeoreferenceError, InputError
from geoseg.predict.area import Stencil
from geoseg.raster.georef import local_gsd
from geoseg.raster.info import RasterInfo, inspect_raster
from geoseg.raster.reader import READ_AS, Selection, open_raster


@dataclass(frozen=True)
class Scene:
    """An image, as patches are cut from it.

    Attributes:
        path: of the image.
        name: short, for messages and pictures.
        grid: pixels that patches are cut on: the image's own, unless all are resampled.
        gsd_m: ground length of a pixel along columns and rows; None: unknown.
        region: ground of the split, in pixels of the grid; labels outside are ignored. None: all.
        labelled: ground that labels speak of, likewise; patches that miss it are not looked at.
    """

    path: str
    name: str
    grid: PatchGrid
    gsd_m: tuple[float, float] | None = None
    region: Stencil | None = None
    labelled: Stencil | None = None

    @property
    def pixel_m2(self) -> float:
        """Ground under a pixel; 1 where it is unknown."""
        return 1.0 if self.gsd_m is None else self.gsd_m[0] * self.gsd_m[1]

    def in_pixels(self, shapes: Iterable[BaseGeometry]) -> Stencil:
        """Return shapes in the scene's CRS as pixels of its grid."""
        inverse = ~self.grid.transform
        return stencil_of(_moved(shape, inverse) for shape in shapes)

    def ground(self) -> BaseGeometry:
        """Return the labelled ground of the split in the scene's CRS."""
        shape: BaseGeometry = self.grid.outline()
        for part in (self.region, self.labelled):
            if part is not None:
                shape &= _moved(shapely.union_all(part.polygons), self.grid.transform)
        return shape


@dataclass(frozen=True)
class SceneFiles:
    """The files of a split.

    Attributes:
        images: name -> file.
        rasters: name -> label raster.
        vectors: label polygons.
        partners: image file -> the label raster of its name.
    """

    images: dict[str, str]
    rasters: dict[str, str]
    vectors: tuple[str, ...]
    partners: dict[str, str]


def find_files(files: FilesConfig, key: str) -> SceneFiles:
    """Return images and labels of a split, paired by name where names agree.

    Args:
        files: of the split.
        key: of the run file, for messages: ``data.train``.

    Raises:
        InputError: nothing there, or names that do not exist.
    """
    found = SceneFiles({}, {}, (), {})
    for image_items, label_items in zip(*_matching_lists(files), strict=True):
        images = {n: str(p) for n, p in list_files(image_items, f"{key}.images").items()}
        vectors, others = _vectors(label_items)
        rasters = list_files(others, f"{key}.labels") if others else {}
        partners = _match({n: Path(p) for n, p in images.items()}, rasters, key)[0]
        found = SceneFiles(
            found.images | {_free(n, found.images): p for n, p in images.items()},
            found.rasters | {_free(n, found.rasters): str(p) for n, p in rasters.items()},
            (*found.vectors, *(v for v in vectors if v not in found.vectors)),
            found.partners | {images[i]: str(rasters[label]) for i, label in partners.items()},
        )
    if files.names is None:
        return found
    wanted = dict.fromkeys(_read_names(files.names, key))
    absent = [name for name in wanted if name not in found.images]
    if absent:
        raise InputError(
            f"{key}.names: {_some(absent)} not found among the {len(found.images)} images, such as "
            f"{min(found.images)!r}."
        )
    images = {name: found.images[name] for name in wanted}
    return SceneFiles(images, found.rasters, found.vectors, found.partners)


def describe_images(paths: Iterable[str], data: DataConfig) -> dict[str, ImageFile]:
    """Return how each image is read.

    Raises:
        InputError: unreadable, or of another kind than the first or than ``data`` says.
    """
    files: dict[str, ImageFile] = {}
    rule = ImageRule(data.bands, data.dtype)
    for path in paths:
        info = describe_raster(path)
        bands = choose_bands(info, rule)
        rule = ImageRule(data.bands, data.dtype, len(bands))
        files[path] = ImageFile(info, _selection(info, bands, data))
    return files


def describe_labels(paths: Iterable[str], rule: LabelRule) -> dict[str, LabelFile]:
    """Return how each label raster is read.

    Raises:
        InputError: unreadable.
    """
    files: dict[str, LabelFile] = {}
    for path in paths:
        info = describe_raster(path)
        bands = tuple(range(1, info.count + 1)) if rule.as_colors else info.image_bands
        masked = info.has_mask or (info.alpha is not None and not rule.as_colors)
        files[path] = LabelFile(info, rule, bands, masked)
    return files


def describe_raster(path: str) -> RasterInfo:
    """Return a raster's header.

    Raises:
        InputError: unreadable, or placed by control points or RPCs only.
    """
    with rasterio.Env(**GDAL_SETTINGS), open_raster(path) as dataset:
        info = inspect_raster(dataset, path)
    georef = info.georef
    if not georef.has_transform and (georef.gcps or georef.rpcs is not None):
        kind = "ground control points" if georef.gcps else "RPC coefficients"
        raise GeoreferenceError(
            f"expected a raster with CRS and transform; {path!r} is placed by {kind} only. Warp it "
            "first (gdalwarp)."
        )
    return info


def choose_partners(
    images: Mapping[str, ImageFile], labels: Mapping[str, LabelFile], by_name: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the label rasters of each image: that of its name, else those of its ground.

    Args:
        images: path -> file; all with a CRS or all without.
        labels: likewise.
        by_name: image -> the label raster of its name.

    Raises:
        GeoreferenceError: without CRS, and the label is not on the image's very pixels.
    """
    partners: dict[str, tuple[str, ...]] = {}
    trees: dict[str, tuple[STRtree, list[str]]] = {}
    for path, file in images.items():
        grid, label = file.grid, by_name.get(path)
        if not grid.crs:
            _check_same_pixels(file.info, labels[label].info if label else None)
        if label is not None:
            partners[path] = (label,)
            continue
        if grid.crs not in trees:
            trees[grid.crs] = _tree_in(grid.crs, labels)
        tree, paths = trees[grid.crs]
        near = tree.query(grid.outline(), predicate="intersects")
        partners[path] = tuple(paths[i] for i in sorted(near))
    return partners


def make_scene(file: ImageFile, name: str, gsd_m: float | None) -> Scene:
    """Return the whole of an image as a scene.

    Args:
        file: the image.
        name: short.
        gsd_m: to resample to, metres; None: not.

    Raises:
        GeoreferenceError: it is to be resampled, but its ground sampling distance is unknown.
    """
    info, grid = file.info, file.grid
    own = local_gsd(info.georef, info.height / 2, info.width / 2) if grid.crs else None
    if gsd_m is None:
        return Scene(info.name, name, grid, own)
    if own is None:
        raise GeoreferenceError(
            f"data.sampling.gsd_m: expected images with a CRS, whose pixels have a length; "
            f"{info.name!r} has none. Assign it (gdal_translate -a_srs EPSG:CODE)."
        )
    width = max(1, round(grid.width * own[0] / gsd_m))
    height = max(1, round(grid.height * own[1] / gsd_m))
    return Scene(info.name, name, grid.resized(height, width), (gsd_m, gsd_m))


def _selection(info: RasterInfo, bands: tuple[int, ...], data: DataConfig) -> Selection:
    scaling = tuple(info.scaling[b - 1] for b in bands)
    # A gap in single bands is filled with the mean, as in a prediction. Where it is not known yet,
    # such a pixel does not count.
    fills = data.mean is not None and len(data.mean) == len(bands)
    mean = data.mean if data.mean is not None and fills else (0.0,) * len(bands)
    pairs = zip(mean, scaling, strict=True)
    is_unsigned = np.dtype(data.dtype).kind == "u"
    return Selection(
        bands=bands,
        dtype=READ_AS.get(data.dtype, data.dtype),
        nodata=tuple(info.nodata[b - 1] for b in bands),
        rule="all_bands" if fills or is_unsigned else "any_band",
        fill=tuple((m - s[1]) / s[0] if s and s[0] else m for m, s in pairs),
        scaling=scaling,
        alpha=None if info.alpha in bands else info.alpha,
        reads_mask=info.has_mask,
        notes=(),
    )


def _check_same_pixels(image: RasterInfo, label: RasterInfo | None) -> None:
    """Raise unless a label can be laid on an image that has no place on earth."""
    lacking = "CRS" if image.georef.crs is None else "transform"
    if label is None:
        raise GeoreferenceError(
            f"expected georeferenced images; {image.name!r} has no {lacking}, and no label raster "
            "has its name. Assign it (for example gdal_translate -a_srs EPSG:CODE), or give a "
            "label raster of the same name and pixels."
        )
    same_size = (image.height, image.width) == (label.height, label.width)
    if not same_size or not image.georef.transform.almost_equals(label.georef.transform):
        raise GeoreferenceError(
            f"expected georeferenced images; {image.name!r} has no {lacking}, and its label "
            f"{label.name!r} is not on its pixels: {image.width} x {image.height} px and "
            f"{label.width} x {label.height} px, transforms {image.georef.transform.to_gdal()} and "
            f"{label.georef.transform.to_gdal()}. Assign the CRS, or make both alike."
        )


def _tree_in(crs: str, labels: Mapping[str, LabelFile]) -> tuple[STRtree, list[str]]:
    """Return the footprints of label rasters in a CRS."""
    shapes: list[BaseGeometry] = []
    paths: list[str] = []
    for path, file in labels.items():
        grid = grid_of(file.info)
        if not grid.crs:
            raise GeoreferenceError(
                f"expected georeferenced labels; {path!r} has no CRS or transform, and no image "
                "has its name. Assign it (gdal_translate -a_srs EPSG:CODE), or rename it."
            )
        shape = grid.outline()
        if grid.crs != crs:
            shape = geopandas.GeoSeries([shape], crs=grid.crs).to_crs(crs).iloc[0]
        shapes.append(shape)
        paths.append(path)
    return STRtree(shapes), paths


def _vectors(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the vector files among labels, and the items that may hold rasters."""
    vectors: list[str] = []
    others: list[str] = []
    for item in items:
        path = Path(item)
        if path.suffix.lower() in VECTOR_SUFFIXES:
            pattern = sorted(str(p) for p in path.parent.glob(path.name))
            vectors += pattern or [item]
            continue
        # Sidecars of rasters are .json, too: in a folder only names that are plainly vectors count.
        kinds = VECTOR_SUFFIXES - {".json", ".zip", ".gml", ".kml"}
        inside = [p for p in path.rglob("*") if p.suffix.lower() in kinds] if path.is_dir() else []
        vectors += sorted(map(str, inside))
        has_rasters = not inside or any(
            p.suffix.lower() in {".tif", ".tiff"} for p in path.iterdir()
        )
        if has_rasters:
            others.append(item)
    return vectors, others


def _free(name: str, taken: Mapping[str, str]) -> str:
    """Return a name that is not taken yet."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def _moved(shape: BaseGeometry, transform: Affine) -> BaseGeometry:
    moved: BaseGeometry = shapely.transform(shape, partial(along, transform))
    return moved


def stencil_of(shapes: Iterable[BaseGeometry]) -> Stencil:
    """Return polygons in pixels, ready to be burnt."""
    polygons = tuple(shapes)
    return Stencil(polygons, STRtree(polygons))


def mean_gsd_m(scene: Scene) -> float | None:
    """Return the ground sampling distance of a scene, or None where it is unknown."""
    return None if scene.gsd_m is None else math.sqrt(scene.gsd_m[0] * scene.gsd_m[1])
