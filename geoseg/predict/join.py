"""From the parts of shards, or of a stopped run, to a map."""

from pathlib import Path

from geoseg.listener import Listener
from geoseg.predict.finish import Outputs, check_outputs, cores, finish_map, writers
from geoseg.predict.parts import Parts, locked_parts
from geoseg.raster.apart import finish_cog_apart
from geoseg.raster.layer import Layer

MB = 10**6


def assemble(
    folder: Path, out: Path, *, overwrite: bool, partial: bool, listener: Listener | None = None
) -> Outputs:
    """Finish a map from the parts of shards or of a stopped run.

    Args:
        folder: the parts folder.
        out: the class map; other layers go beside it as ``NAME.confidence.tif`` and so on.
        overwrite: replace existing outputs.
        partial: accept missing panels as nodata.
        listener: hears of progress and may stop the run at any time; the parts are kept.
    """
    with locked_parts(folder) as parts:
        names = [layer.name for layer, _ in writers(parts)]
        beside = {
            name: out.with_name(f"{out.stem}.{name}.tif") for name in names if name != "class_map"
        }
        outputs = Outputs(out, beside.get("confidence"), beside.get("probabilities"))
        check_outputs(outputs, overwrite=overwrite)
        copying = _Copying(parts, out, listener) if listener else None
        finish_map(
            parts,
            outputs,
            listener or Listener(),
            overwrite=overwrite,
            partial=partial,
            copy=copying.copy if copying else None,
        )
    return outputs


class _Copying:
    """Makes COGs that a listener may stop, and tells it how much of the parts has become map."""

    def __init__(self, parts: Parts, out: Path, listener: Listener) -> None:
        self.listener = listener
        self.sizes = {layer.name: _panel_bytes(parts.folder, layer) for layer, _ in writers(parts)}
        self.done = 0
        height, width = parts.manifest["height"], parts.manifest["width"]
        panels = len(parts.windows)
        said = f"{out.name}: {width} x {height} px of {panels} panels, {', '.join(self.sizes)}"
        listener.start({"unit": "MB", "panels": panels, "sentence": said})

    def copy(self, vrt: Path, out: Path, layer: Layer) -> Path:
        """Make the COG of a layer."""
        size = self.sizes[layer.name]

        def wait(made: int) -> None:
            self.listener.check()
            # A COG and its overviews have about the size of its panels, seldom just that.
            self._tell(min(self.done + min(made, size), sum(self.sizes.values()) - 1))

        made = finish_cog_apart(vrt, out, layer, threads=cores(), on_wait=wait)
        self.done += size
        self._tell(self.done)
        return made

    def _tell(self, done: int) -> None:
        total = sum(self.sizes.values())
        last = -(-total // MB)
        self.listener.progress(last if done == total else min(done // MB, last - 1), last, 0)


def _panel_bytes(folder: Path, layer: Layer) -> int:
    found = folder.glob(f"panel-*.{layer.name}.tif")
    return max(1, sum(path.stat().st_size for path in found))
