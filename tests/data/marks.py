"""Scenes with one square mark at a known place on the ground, as image and as label."""

import numpy as np
import pyproj
import shapely
from affine import Affine

from geoseg.config.run import ClassConfig, DataConfig, FilesConfig
from geoseg.data.labels import class_specs
from geoseg.data.patches import PatchGrid, place_patch
from geoseg.data.rasters import open_scenes
from geoseg.data.scene_pairs import ScenePairs
from geoseg.types import Window

UTM = "EPSG:32633"
# 12 m a side, 30 m in from the corner of the rasters that `tests.conftest` places.
MARK = shapely.box(500030.0, 4999958.0, 500042.0, 4999970.0)
CLASSES = (ClassConfig(0, "other"), ClassConfig(1, "mark"))


def is_marked(transform, shape, crs=UTM):
    """Return which pixel centres lie in the mark, (H, W) bool."""
    rows, cols = np.indices(shape) + 0.5
    x, y = transform @ (cols, rows)
    if crs != UTM:
        x, y = pyproj.Transformer.from_crs(crs, UTM, always_xy=True).transform(x, y)
    return shapely.contains_xy(MARK, x, y)


def centre_of(marked):
    """Return the mean row and column of marked pixels."""
    return np.argwhere(marked).mean(axis=0)


def north_up(size_m, left=500000.0, top=5000000.0):
    return Affine(size_m, 0, left, 0, -size_m, top)


def south_up(size_m, height, left=500000.0, top=5000000.0):
    return Affine(size_m, 0, left, 0, size_m, top - height * size_m)


def rotated(size_m, degrees=27.0):
    """Return a transform turned about the mark, which stays in the middle of 300 x 300 px."""
    x, y = MARK.centroid.coords[0]
    turn = Affine.translation(x, y) @ Affine.rotation(degrees) @ Affine.scale(size_m, -size_m)
    return turn @ Affine.translation(-150, -150)


def config(images, labels, *, val=None, **fields):
    """Return a run's section on georeferenced scenes."""
    values = {"classes": CLASSES, **fields}
    return DataConfig("raster", train=FilesConfig(str(images), str(labels)), val=val, **values)


def pairs_of(images, labels, **fields):
    """Return imagery and labels of all scenes of two folders or patterns, undivided."""
    data = config(images, labels, **fields)
    parts = open_scenes(data.train, "data.train", data, class_specs(data.classes))
    return ScenePairs(*parts)


def whole(pairs, number=0):
    """Return the sample that is a whole scene."""
    scene = pairs.scenes[number]
    return pairs[patch(pairs, Window(0, 0, scene.grid.height, scene.grid.width), number)]


def patch(pairs, window, number=0):
    """Return the index of a window of a scene."""
    scene = pairs.scenes[number]
    crs = pairs.crs.to_wkt() if pairs.crs is not None else ""
    return place_patch(scene.grid, window, scene.path, crs=crs)


def grid_of(transform, height, width, crs=UTM):
    return PatchGrid(pyproj.CRS(crs).to_wkt() if crs else "", transform, height, width)
