<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1">
  <context>
    <name>geoseg</name>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Advanced parameters ▸ Bands</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Advanced parameters ▸ Ground resolution</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Advanced parameters ▸ Memory bound</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Advanced parameters ▸ Side of a tile</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>untick Resume to begin anew</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Field of the class</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Class of the background</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Device</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Checking that the model fits the raster…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>An output file ending in {} was expected; got {!r}. Choose such a name.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>The folder {!r} does not exist. Make it, or choose another.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>Nothing can be written to the folder {!r}. Choose another for the output.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>About {:.0f} h left</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>About {:.0f} min left</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>About {:.0f} s left</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/algorithm.py"/>
      <source>In QGIS: {}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Describe model</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>model,classes,bands,information,licence,fit</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Says what a model eats and says, and whether it can take a raster.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Writes a page on a model: its bands, ground resolution, classes, data, licence and scores. With a raster, also whether the model can take it, and if not, why.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Description</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>HTML files (*.html)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Raster that the model is to take</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Record of the model, JSON</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>The model can take the raster</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Why it cannot</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>The model can take the raster.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>unknown: not resampled</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>{:g} to {:g} m per pixel</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Model</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Warning</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Bands</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Ground resolution</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Classes</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Network</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Data</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Licence</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/describe.py"/>
      <source>Recipe</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Evaluate against labels</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>accuracy,confusion matrix,IoU,score,validate,error map</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Scores a model on a raster whose true classes are known.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Segments a raster and compares the map with labels: polygons with a class field, or a raster of class numbers or of the classes' colours. Give one of them.

The folder then holds report.html, metrics.json, the class map, a map of what was taken for what, its errors as polygons, and errors by place. Ground without a label is not scored, unless a class of the background is given.

Needs the engine with the extra 'train'.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Labels: polygons with a class</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Field of the class (name or number)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Or labels: a raster of class numbers</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Class of ground outside of the polygons</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Replace an earlier evaluation in the folder</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Add the maps to the project when done</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Image</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Folder of the evaluation</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Report</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Class map</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Error map</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Errors as polygons</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Errors by place</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Mean IoU</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Overall accuracy</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/evaluate.py"/>
      <source>Labels were expected: polygons, or a raster. Give one of the two.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/model_widget.py"/>
      <source>geoseg: listing the models</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/model_widget.py"/>
      <source>Add a model file</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/model_widget.py"/>
      <source>Model file</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/model_widget.py"/>
      <source>Models ({})</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/model_widget.py"/>
      <source>Asking geoseg for its models…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>A model that comes with geoseg, or a .safetensors or .onnx file</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Bands, in the model's order (default: all but alpha)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Only inside these polygons</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Extent</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Ground resolution: auto, native, or metres per pixel</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Average over views (4 or 8 times slower)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Memory bound (GB)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Overlap of tiles (px; default: the model's)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Side of a tile (px; default: the model's)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Tiles at once (default: by the device)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Precision</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>Resume: go on with a cancelled run of the same output</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/parameters.py"/>
      <source>The ground resolution was expected to be auto, native or metres per pixel; got {!r}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Segment raster</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>segmentation,land cover,classify,deep learning,predict,inference,AI,neural network</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Makes a land-cover map of an image with a trained model.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Makes a class map of a raster with a trained model, in geoseg's own process: QGIS stays usable.

The model says which bands and which ground resolution it needs; a raster that does not fit is refused with the reason. Layers that are not files (web maps, rasters in memory or in GeoPackages) are exported for the extent.

Cancel keeps what is finished. Run it again with the same output to go on.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>When cancelled, add the finished part to the project</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Confidence</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Polygons</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>The extent lies outside of the layer {!r}. Choose another.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Segmenting…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>Making polygons…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>No part of the map was finished yet.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/predict.py"/>
      <source>The finished part is kept in {!r}. To go on, run it again with the output {!r} and Resume ticked.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Teach a model</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>train,finetune,fine-tune,learn,samples,deep learning,transfer</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Teaches a model from polygons that you have drawn.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Teaches a model from polygons with a class field. Ground without a polygon is ignored, unless it lies inside of polygons that mark complete ground.

Labels that are all classes of the model improve those; others make a model of the labels' classes. A share of the polygons is held out, and scored before and after.

The new model is in the list of Segment raster at once. Needs the engine with the extra 'train'; on a CPU expect minutes to hours.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Polygons with a class</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Ground that is labelled completely</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Class of the rest of the complete ground</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>How fast the encoder learns</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Crops per step</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Side of a crop (px)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Learning rate</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Share of the polygons that is scored, not taught</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Seed of everything random</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Steps</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>Models (*.safetensors)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>New model</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>The stopped run is kept in {!r}; run it again to go on.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/teach.py"/>
      <source>The model is in the list of Segment raster now.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Vectorise class map</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>polygonize,vectorize,polygons,outline,simplify,buildings,square</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Makes polygons of a class map; neighbours share their borders.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Makes polygons of a class map, without seams and with borders that neighbours share.

Without further options the polygons follow the pixels exactly. Lengths are metres and areas square metres of ground, whatever the CRS.

Fields: class_id, class_name, area_m2, perim_m, confidence, on_edge.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Round the corners</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>CRS of the polygons (default: the map's)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Confidence of the map</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Neighbours of a pixel</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Only these classes (names or numbers, with commas)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Smallest area (m²): smaller specks become what surrounds them</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Holes filled up to (m²)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Simplify by at most (m)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Square the corners of these classes</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>Round by at most (m; default: one pixel)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../algorithms/vectorize.py"/>
      <source>The confidence</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} cannot be exported.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>Exporting {} x {} px of the layer {!r} to a temporary file, since {}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} could not be exported to {!r} ({}). Save it as a GeoTIFF (Layer ▸ Save As…) and use that.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>no reason given</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} is a web map. Give the extent that is to be segmented.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The extent lies outside of the layer {!r}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} would have to be exported at {} x {} px; the most is {} million. Give a smaller extent, or save the layer as a GeoTIFF and use that.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} is a web map, and the model does not say for which resolution it was made. Give the ground resolution in metres per pixel.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} has no CRS. Set it first.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../exports.py"/>
      <source>The layer {!r} gave no image for this extent: every pixel is transparent. Check the connection to its server and the extent.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>The layer {!r} cannot be read. Repair its data source, or choose another.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>it is not a file</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>{} needs a raster file; of the layer {!r}, {}. Save it as a GeoTIFF (Layer ▸ Save As…) and use that.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>The layer {!r} has no CRS. Set it in the layer's properties.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>Polygons were expected in the layer {!r}; {}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>it has none</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>The layer {!r} has no field {!r}. Choose one of: {}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../layers.py"/>
      <source>its CRS was set in QGIS and is not in its file</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>{} (demonstration model)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>Classes: {}</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>Made for {:g} to {:g} m per pixel</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>{!r} cannot be read: {}.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>{!r} was expected to be a model of geoseg (.safetensors with a record); it is not. Choose another file, or make one with Teach a model.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>The record of {!r} is damaged.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../models.py"/>
      <source>A network in ONNX or PyTorch's format</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Asking {} …</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Test geoseg's engine</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Looking for Python and uv …</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Plan the installation of geoseg</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Install engine</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Cancelling …</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Nothing was installed.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Install geoseg's engine</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Installed, and used from now on: {}</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Installed. What is named above is still used: empty it to use this one.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>the path above</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>installed in the QGIS profile</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>the variable GEOSEG_PYTHON</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Used: {python} ({where})</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Add models</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Engine</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Python of an environment with geoseg</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>found by itself</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Python, or folder of its environment</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Test engine</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Install engine…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Cancel</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Installation</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>A requirement (geoseg==0.1.0), a wheel, a folder with one, or a checkout</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Source</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>PyTorch that fits this machine</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>PyTorch for the CPU (smallest download)</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>none: the network is used</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Folder of wheels, without a network</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>the system's; else http://host:port</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Proxy</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Your models</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Add…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../options_page.py"/>
      <source>Remove</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../plugin.py"/>
      <source>Segment raster…</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../plugin.py"/>
      <source>Segment the active raster layer with geoseg</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../plugin.py"/>
      <source>geoseg user guide</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../plugin.py"/>
      <source>Open options</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../provider.py"/>
      <source>geoseg: land-cover maps from imagery</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../results.py"/>
      <source>{!r} is shown by a layer of the project; writing {!r} instead.</source>
      <translation type="unfinished"></translation>
    </message>
    <message>
      <location filename="../results.py"/>
      <source>{} (unfinished)</source>
      <translation type="unfinished"></translation>
    </message>
  </context>
</TS>
