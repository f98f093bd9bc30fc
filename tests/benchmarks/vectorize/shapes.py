"""What a script does without geoseg: rasterio.features.shapes, geopandas, a file.

python -m tests.benchmarks.vectorize.shapes CLASS_MAP OUT
"""

import sys

import geopandas
import rasterio
from rasterio.features import shapes


def main() -> None:
    """Write the polygons of a class map."""
    class_map, out = sys.argv[1:]
    with rasterio.open(class_map) as dataset:
        values, crs = dataset.read(1), dataset.crs
        mask = None if dataset.nodata is None else values != dataset.nodata
        found = [
            {"type": "Feature", "geometry": geometry, "properties": {"class_id": int(value)}}
            for geometry, value in shapes(values, mask=mask, transform=dataset.transform)
        ]
    geopandas.GeoDataFrame.from_features(found, crs=crs).to_file(out)


if __name__ == "__main__":
    main()
