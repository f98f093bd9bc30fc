"""TorchGeo data sets of imagery and labels that read patches exactly.

They index like TorchGeo's own, by ground, and combine by ``&`` and ``|``. Asked by a `PatchSlice`
they read the very pixels that it names: imagery is cut out, never warped, and labels are brought to
it by nearest neighbour, always.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry
from torchgeo.datasets import (
    GeoDataset,
    IntersectionDataset,
    RasterDataset,
    UnionDataset,
    VectorDataset,
)
from torchgeo.datasets.utils import GeoSlice

from geoseg.data.label_polygons import LabelPolygons
from geoseg.data.labels import Mask
from geoseg.data.patch_reader import (
    HandlePool,
    ImageFile,
    LabelFile,
    grid_of,
    read_image,
    read_label,
    read_valid,
)
from geoseg.data.patches import PatchGrid, PatchSlice, same_crs
from geoseg.data.sample import IGNORE, Sample
from geoseg.data.scenes import Scene
from geoseg.errors import GeoreferenceError
from geoseg.types import ValidMask


class QuietGeoDataset(GeoDataset):
    """What all data sets here share: an index of footprints, and setters that print nothing."""

    @property
    def crs(self) -> CRS:
        """CRS of the index; None where files have none."""
        return self.index.crs

    @crs.setter
    def crs(self, new_crs: CRS) -> None:
        if new_crs != self.crs:
            self.index = self.index.to_crs(new_crs)

    @property
    def res(self) -> tuple[float, float]:
        """Pixel size (x, y) that plain indexes are read at, in units of the CRS."""
        return self._res

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        self._res = new_res if isinstance(new_res, tuple) else (new_res, new_res)

    def __and__(self, other: GeoDataset) -> IntersectionDataset:
        """Return TorchGeo's intersection of two data sets."""
        with quiet_pandas():
            return super().__and__(other)

    def grid_at(self, index: GeoSlice) -> PatchGrid:
        """Return the pixels that an index asks for."""
        if isinstance(index, PatchSlice):
            return index.grid
        x, y, _ = self._disambiguate_slice(index)
        width, height = round((x.stop - x.start) / x.step), round((y.stop - y.start) / y.step)
        transform = Affine(x.step, 0, x.start, 0, -y.step, y.stop)
        crs = self.crs.to_wkt() if self.crs is not None else ""
        return PatchGrid(crs, transform, height, width)

    def files_at(self, index: GeoSlice) -> list[str]:
        """Return the files whose footprints meet the ground of an index.

        Raises:
            IndexError: none does; `torchgeo.datasets.UnionDataset` counts on it.
        """
        x, y, _ = self._disambiguate_slice(index)
        found = self.index.cx[x.start : x.stop, y.start : y.stop]
        if found.empty:
            raise IndexError(f"no file at {index}; the data set covers {self.bounds}.")
        return list(found.filepath)

    def describe_place(self, index: GeoSlice) -> Sample:
        """Return what TorchGeo's samples say of their place."""
        transform = self.grid_at(index).transform
        return {
            "bounds": self._slice_to_tensor(index),
            "transform": torch.tensor(transform),
        }


class ImageRasters(QuietGeoDataset, RasterDataset):
    """Imagery: raw values, float32, and where they are usable.

    Args:
        files: path -> how it is read; see `geoseg.data.scenes.describe_images`.
    """

    def __init__(self, files: Mapping[str, ImageFile]) -> None:
        # TorchGeo's own constructor opens every file again, warps it, and skips unreadable ones.
        self.files_by_path = dict(files)
        self.names = list(files)
        self.paths = self.names
        self.bands = self.all_bands
        self.transforms = None
        self.cache, self.time_series = True, False
        self.band_indexes = None
        self.pool = HandlePool()
        grids = {path: file.grid for path, file in files.items()}
        self.index = index_of(grids)
        self._res = _pixel_size(next(iter(grids.values())))

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Return image (C, H, W) float32 and valid (H, W) bool; the first usable file counts."""
        values, valid = self.read(index)
        return {
            "image": torch.from_numpy(values),
            "valid": torch.from_numpy(valid),
            **self.describe_place(index),
        }

    def read(self, index: GeoSlice) -> tuple[NDArray[np.float32], ValidMask]:
        """Return values (C, H, W) and where they are usable (H, W)."""
        grid = self.grid_at(index)
        if isinstance(index, PatchSlice):
            return read_image(self.pool, self.files_by_path[index.image], grid)
        paths = self.files_at(index)
        values, valid = read_image(self.pool, self.files_by_path[paths[0]], grid)
        for path in paths[1:]:
            if valid.all():
                break
            more, known = read_image(self.pool, self.files_by_path[path], grid)
            values = np.where(valid, values, more)
            valid |= known
        return values, valid

    def read_valid(self, index: PatchSlice) -> ValidMask:
        """Return where the pixels under the centres of a coarser grid are usable (H, W)."""
        return read_valid(self.pool, self.files_by_path[index.image], index.grid)


class LabelRasters(QuietGeoDataset, RasterDataset):
    """Label rasters: channel index of the class, or IGNORE; nearest, always.

    Args:
        files: path -> how it is read.
        partners: image -> the label rasters that belong to it; the others by their place.
    """

    is_image = False

    def __init__(
        self,
        files: Mapping[str, LabelFile],
        partners: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.files_by_path = dict(files)
        self.partners = dict(partners or {})
        self.names = list(files)
        self.paths = self.names
        self.bands = self.all_bands
        self.transforms = None
        self.cache, self.time_series = True, False
        self.band_indexes = None
        self.pool = HandlePool()
        grids = {path: grid_of(file.info) for path, file in files.items()}
        self.index = index_of(grids)
        self._res = _pixel_size(next(iter(grids.values())))

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Return mask (H, W) int64; where files overlap, the first that has a label counts."""
        return {**as_mask(self.read(index)), **self.describe_place(index)}

    def ground(self, scene: Scene) -> list[BaseGeometry] | None:
        """Return the ground that labels speak of in the scene's CRS; None: all of it.

        Raises:
            GeoreferenceError: the label of the image's name lies elsewhere.
        """
        shapes: list[BaseGeometry] = []
        outline = scene.grid.outline()
        for path in self.partners.get(scene.path, ()):
            grid = grid_of(self.files_by_path[path].info)
            shape = grid.outline()
            if not same_crs(grid.crs, scene.grid.crs):
                shape = geopandas.GeoSeries([shape], crs=grid.crs).to_crs(scene.grid.crs).iloc[0]
            if not shape.intersects(outline):
                raise GeoreferenceError(
                    f"expected labels of the ground that {scene.path!r} shows; {path!r}, which has "
                    "its name, lies elsewhere. Check the CRS and transform of both."
                )
            shapes.append(shape)
        # Two files of one extent may differ by rounding.
        pixel = max(_pixel_size(scene.grid))
        if shapes and shapely.union_all(shapes).buffer(pixel).contains(outline):
            return None
        return shapes

    def read(self, index: GeoSlice) -> Mask:
        """Return channel indexes or IGNORE, uint8 (H, W)."""
        grid = self.grid_at(index)
        paths = self.partners.get(index.image) if isinstance(index, PatchSlice) else None
        mask = np.full((grid.height, grid.width), IGNORE, np.uint8)
        for path in paths if paths is not None else self.files_at(index):
            more = read_label(self.pool, self.files_by_path[path], grid)
            mask = np.where(mask == IGNORE, more, mask)
        return mask


class LabelVectors(QuietGeoDataset, VectorDataset):
    """Label polygons, burnt by the rule of pixel centres; later ones lie on top.

    Args:
        layers: files of polygons.
        background: channel outside of all polygons, or IGNORE.
        extent: ground that the labels speak of, in ``crs``; None: the box of the polygons.
        crs: of the index; None: the first layer's.
    """

    def __init__(
        self,
        layers: Sequence[LabelPolygons],
        background: int = IGNORE,
        *,
        extent: BaseGeometry | None = None,
        crs: CRS | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.background = background
        self.names = [layer.name for layer in layers]
        self.paths = self.names
        self.transforms = None
        self.label_name, self.layer, self.task = None, None, "semantic_segmentation"
        if crs is None and layers[0].crs:
            crs = CRS(layers[0].crs)
        wkt = crs.to_wkt() if crs is not None else ""
        boxes = [
            extent if extent is not None else shapely.box(*shapely.total_bounds(polygons))
            for polygons, _ in (layer.placed(wkt) for layer in layers)
        ]
        self.index = _frame(self.names, boxes, crs)
        self._res = (1.0, 1.0)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Return mask (H, W) int64."""
        return {**as_mask(self.read(index)), **self.describe_place(index)}

    def ground(self, scene: Scene) -> list[BaseGeometry] | None:
        """Return the ground that labels speak of in the scene's CRS; None: all of it."""
        if self.background != IGNORE:
            return None
        shapes: list[BaseGeometry] = []
        for layer in self.layers:
            polygons, tree = layer.placed(scene.grid.crs)
            near = np.sort(tree.query(scene.grid.outline(), predicate="intersects"))
            near = near[layer.channels[near] != IGNORE]
            shapes += list(shapely.make_valid(polygons[near]))
        return shapes

    def read(self, index: GeoSlice) -> Mask:
        """Return channel indexes or IGNORE, uint8 (H, W)."""
        grid = self.grid_at(index)
        mask = np.full((grid.height, grid.width), self.background, np.uint8)
        for layer in self.layers:
            layer.burn(mask, grid)
        return mask


class LabelUnion(UnionDataset):
    """Labels of two kinds: where the first has none, the second counts."""

    def __init__(self, first: LabelRasters, second: LabelVectors) -> None:
        super().__init__(first, second, collate_fn=first_labelled)
        self.parts = first, second

    def ground(self, scene: Scene) -> list[BaseGeometry] | None:
        """Return the ground that labels speak of in the scene's CRS; None: all of it."""
        shapes: list[BaseGeometry] = []
        for dataset in self.parts:
            part = dataset.ground(scene)
            if part is None:
                return None
            shapes += part
        return shapes

    def read(self, index: GeoSlice) -> Mask:
        """Return channel indexes or IGNORE, uint8 (H, W)."""
        first, second = (dataset.read(index) for dataset in self.parts)
        return np.where(first == IGNORE, second, first)


Labels = LabelRasters | LabelVectors | LabelUnion


def first_labelled(samples: Sequence[Sample]) -> Sample:
    """Return the first sample, with the labels of the next where it has none."""
    merged = dict(samples[0])
    for sample in samples[1:]:
        merged["mask"] = torch.where(merged["mask"] == IGNORE, sample["mask"], merged["mask"])
    return merged


def index_of(grids: Mapping[str, PatchGrid]) -> geopandas.GeoDataFrame:
    """Return TorchGeo's index of rasters: a footprint each, in the CRS of the first.

    Raises:
        GeoreferenceError: some have a CRS and some have none.
    """
    bare = [path for path, grid in grids.items() if not grid.crs]
    if bare and len(bare) < len(grids):
        placed = next(path for path, grid in grids.items() if grid.crs)
        raise GeoreferenceError(
            f"expected a CRS in all rasters or in none; {placed!r} has one and {bare[0]!r} has "
            "none. Assign it (gdal_translate -a_srs EPSG:CODE), or keep them apart."
        )
    by_crs: dict[str, list[str]] = {}
    for path, grid in grids.items():
        by_crs.setdefault(grid.crs, []).append(path)
    first = CRS(next(iter(by_crs))) if not bare else None
    footprints: dict[str, BaseGeometry] = {}
    for wkt, paths in by_crs.items():
        shapes = geopandas.GeoSeries([grids[p].outline() for p in paths], crs=wkt or None)
        moved = shapes.to_crs(first) if first is not None else shapes
        footprints |= dict(zip(paths, moved, strict=True))
    return _frame(list(grids), [footprints[path] for path in grids], first)


def _frame(
    paths: Sequence[str], shapes: Sequence[BaseGeometry], crs: CRS | None
) -> geopandas.GeoDataFrame:
    # Without dates in file names, TorchGeo has every file last for all time.
    span = pandas.Interval(pandas.Timestamp.min, pandas.Timestamp.max, closed="both")
    times = pandas.IntervalIndex([span] * len(paths), name="datetime")
    data: dict[str, Any] = {"filepath": list(paths)}
    return geopandas.GeoDataFrame(data, index=times, geometry=list(shapes), crs=crs)


def _pixel_size(grid: PatchGrid) -> tuple[float, float]:
    """Return the lengths of a pixel's sides in units of the CRS."""
    t = grid.transform
    return float(np.hypot(t.a, t.d)), float(np.hypot(t.b, t.e))


@contextlib.contextmanager
def quiet_pandas() -> Iterator[None]:
    """Silence what TorchGeo 0.10 is told by pandas 3.1; for the main thread."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        yield


def as_mask(mask: Mask) -> Sample:
    """Return a mask as part of a sample, int64."""
    return {"mask": torch.from_numpy(mask.astype(np.int64))}
