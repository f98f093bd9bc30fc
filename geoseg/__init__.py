"""geoseg: semantic segmentation of geospatial rasters, from a GeoTIFF to land-cover maps.

raster     reading, tiling and writing GeoTIFFs (NumPy and rasterio only)
models     SegMAN and SegNeXt networks and their official checkpoints
segmenter  a network together with the record of how it is fed
checkpoint model files
predict    seamless prediction of rasters of any size
evaluate   the published test protocols
cli        the command line
"""

__version__ = "0.1.0"
