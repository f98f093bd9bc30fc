"""From finished panels to the files that were asked for, whole or absent."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

import geoseg
from geoseg.config import PredictOptions
from geoseg.errors import OutputExistsError, PartsMismatchError, UsageError
from geoseg.listener import Listener
from geoseg.predict.parts import (
    FORMAT,
    PUBLISHING,
    Parts,
    check_none_unfinished,
    parts_folder,
    read_manifest,
)
from geoseg.predict.plan import PredictPlan
from geoseg.raster.apart import finish_cog_apart
from geoseg.raster.georef import Georef
from geoseg.raster.layer import Layer, pam_text, qml_text, sidecars
from geoseg.raster.writer import PartsWriter, finish_cog, machine_errors, sync_folder
from geoseg.segmenter import Segmenter
from geoseg.spec import ClassSpec, ModelSpec

# Files beside a raster that GDAL reads with it: masks, overviews, metadata of the one before.
STALE = (".msk", ".ovr", ".aux.xml")

Copy = Callable[[Path, Path, Layer], Path]


@dataclass(frozen=True)
class Outputs:
    """Files of a run; None for what was not asked for."""

    class_map: Path
    confidence: Path | None = None
    probabilities: Path | None = None
    quicklook: Path | None = None

    def by_layer(self) -> dict[str, Path]:
        """Return the rasters by layer name."""
        files = {
            "class_map": self.class_map,
            "confidence": self.confidence,
            "probabilities": self.probabilities,
        }
        return {name: path for name, path in files.items() if path is not None}

    def files(self) -> list[Path]:
        """Return all files, sidecars included."""
        found = [*self.by_layer().values(), *sidecars(self.class_map)]
        return found + ([self.quicklook] if self.quicklook else [])


def outputs_of(out: Path, options: PredictOptions) -> Outputs:
    """Return the files that a run with these options makes."""
    named = (options.confidence, options.probabilities, options.quicklook)
    return Outputs(out, *(None if name is None else Path(name) for name in named))


def check_options(outputs: Outputs, options: PredictOptions) -> None:
    """Raise a UsageError unless a run with these options can write without harm."""
    if options.resume and options.overwrite:
        raise UsageError("expected --resume or --overwrite; got both. Give one of them.")
    if outputs.quicklook is not None and outputs.quicklook.suffix.lower() != ".png":
        raise UsageError(
            f"expected a .png file for the quicklook; got {outputs.quicklook.name!r}. Rename it."
        )
    if not (options.resume or options.overwrite or options.shard):
        check_none_unfinished(outputs.class_map)
    check_outputs(outputs, overwrite=may_replace(parts_folder(outputs.class_map), options))


def may_replace(folder: Path, options: PredictOptions) -> bool:
    """Return whether a run may replace existing outputs.

    Besides ``--overwrite`` that is so when it goes on with one that was given it, or with one that
    was stopped while it put its files in place.
    """
    if options.overwrite or not options.resume:
        return options.overwrite
    manifest = read_manifest(folder) or {}
    return (folder / PUBLISHING).exists() or bool(manifest.get("overwrite"))


def check_inputs_kept(outputs: Outputs, inputs: Iterable[str | Path]) -> None:
    """Raise a UsageError when an output is one of the files that the run reads."""
    read = {Path(name).resolve() for name in inputs if Path(name).exists()}
    for path in outputs.files():
        if path.resolve() in read:
            raise UsageError(
                f"{str(path)!r} is an input of this run and would be replaced by its output. "
                "Give the output another name."
            )


def check_outputs(outputs: Outputs, *, overwrite: bool) -> None:
    """Raise a UsageError unless the outputs have good names and may be written."""
    if outputs.class_map.suffix.lower() not in {".tif", ".tiff"}:
        raise UsageError(
            f"expected a class map that ends with .tif; got {str(outputs.class_map)!r}."
        )
    named = outputs.files()
    if len({path.resolve() for path in named}) < len(named):
        raise UsageError("expected a file of its own for each output; two have the same name.")
    there = [path for path in named if path.exists()]
    if there and not overwrite:
        raise OutputExistsError(
            f"{str(there[0])!r} exists. Give --overwrite to replace it, or another name."
        )


def make_folders(outputs: Outputs) -> None:
    """Make the folders of all outputs, so that none turns out to be impossible at the end."""
    for path in outputs.files():
        with machine_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)


def make_manifest(
    plan: PredictPlan, segmenter: Segmenter, *, overwrite: bool = False
) -> dict[str, Any]:
    """Return what a parts folder must know to be finished without the model and the raster."""
    georef = plan.georef
    return {
        "format": FORMAT,
        "fingerprint": plan.fingerprint,
        "height": plan.height,
        "width": plan.width,
        "crs": georef.crs.to_wkt() if georef.crs else None,
        "transform": list(georef.transform)[:6],
        "area_or_point": georef.area_or_point,
        "gcps": [[p.row, p.col, p.x, p.y, p.z] for p in georef.gcps],
        "gcps_crs": georef.gcps_crs.to_wkt() if georef.gcps_crs else None,
        "rpcs": georef.rpcs.to_gdal() if georef.rpcs else None,
        "layers": [dataclasses.asdict(layer) for layer in plan.layers],
        "tags": provenance(plan, segmenter.spec),
        "panels": [list(plan.window(panel)) for panel in plan.panels],
        "strip_tiles": plan.strip_tiles,
        "raster": plan.source.info.name,
        "overwrite": overwrite,
    }


def provenance(plan: PredictPlan, spec: ModelSpec) -> dict[str, str]:
    """Return tags with everything that changes pixels; never times or paths."""
    fingerprint = plan.fingerprint
    tags = {
        "GEOSEG_VERSION": geoseg.__version__,
        "GEOSEG_MODEL": spec.name,
        "GEOSEG_MODEL_SHA256": fingerprint["model_sha256"],
        "GEOSEG_BANDS": ",".join(map(str, fingerprint["bands"])),
        "GEOSEG_GSD_M": f"{plan.target_gsd_m:.6g}" if plan.target_gsd_m else "native",
        "GEOSEG_TILE_SIZE_PX": str(fingerprint["tile_px"]),
        "GEOSEG_OVERLAP_PX": str(fingerprint["overlap_px"]),
        "GEOSEG_HALO_PX": str(fingerprint["halo_px"]),
        "GEOSEG_BATCH_SIZE": str(plan.batch),
        "GEOSEG_DEVICE": fingerprint["device"],
        "GEOSEG_PRECISION": fingerprint["precision"],
        "GEOSEG_TTA": fingerprint["tta"],
        "GEOSEG_AOI": plan.stencil.file_name if plan.stencil else "",
        "GEOSEG_AOI_SHA256": plan.stencil.file_sha256 if plan.stencil else "",
        "GEOSEG_KERNELS": fingerprint["kernels"],
        "GEOSEG_TORCH": fingerprint["torch"],
        "GEOSEG_CREDITS": "; ".join(spec.credits),
        "GEOSEG_WARNING": spec.warning,
    }
    return {key: value for key, value in tags.items() if value}


def finish_map(
    parts: Parts,
    outputs: Outputs,
    listener: Listener,
    *,
    overwrite: bool,
    partial: bool = False,
    picture: Callable[[Path, Path], Path] | None = None,
    copy: Copy | None = None,
) -> None:
    """Make COGs and sidecars from complete parts, put them in place, and remove the parts.

    Args:
        parts: opened and locked.
        outputs: where to.
        listener: may stop before anything is put in place.
        overwrite: replace outputs that exist by now.
        partial: make a map of what is finished; the rest is nodata, and the parts stay.
        picture: makes the quicklook of a class map: (class map, PNG to write) -> PNG.
        copy: makes a COG: (VRT, COG to write, layer) -> COG; None: `finish_cog`.

    Raises:
        PartsMismatchError: panels are missing and ``partial`` is not given.
        OutputExistsError: an output has come into being since the run began.
    """
    parts.refresh(listener.check)
    if parts.missing and not partial:
        raise PartsMismatchError(
            f"{len(parts.missing)} of {len(parts.windows)} panels are missing in "
            f"{str(parts.folder)!r}. Run the missing shards, or the same command with --resume; "
            "`geoseg assemble --partial` makes a map of what is there."
        )
    staged: list[tuple[Path, Path]] = []
    files = outputs.by_layer()
    for layer, writer in writers(parts):
        if layer.name not in files:
            continue
        listener.check()
        vrt = writer.write_vrt(layer, parts.done, _tags(parts, layer))
        made = (copy or _copy)(vrt, parts.folder / f"final.{layer.name}.tif", layer)
        staged.append((made, files[layer.name]))
        if layer.classes:
            staged += _stage_sidecars(parts.folder, outputs.class_map, layer)
    if picture is not None and outputs.quicklook is not None:
        made = picture(staged[0][0], parts.folder / "final.quicklook.png")
        staged.append((made, outputs.quicklook))
    staged.reverse()  # the class map, made first, comes last: where it is, all the rest is
    listener.check()
    check_outputs(outputs, overwrite=overwrite)
    with machine_errors(parts.folder):
        (parts.folder / PUBLISHING).touch()
        sync_folder(parts.folder)
    publish(staged)
    if partial:
        (parts.folder / PUBLISHING).unlink(missing_ok=True)
    else:
        parts.remove()


def writers(parts: Parts) -> list[tuple[Layer, PartsWriter]]:
    """Return each layer of a parts folder with a writer for it, as its manifest says."""
    manifest = parts.manifest
    layers = [_layer(record) for record in manifest["layers"]]
    georef = _georef(manifest)
    height, width = manifest["height"], manifest["width"]
    return [(layer, PartsWriter(parts.folder, [layer], height, width, georef)) for layer in layers]


def publish(staged: list[tuple[Path, Path]]) -> None:
    """Move finished files to their names, each in one step, the class map last."""
    names = {final for _, final in staged}
    for made, final in staged:
        with machine_errors(final.parent):
            final.parent.mkdir(parents=True, exist_ok=True)
            for suffix in STALE:  # what GDAL would read along with the new raster
                stale = final.with_name(final.name + suffix)
                if stale not in names:
                    stale.unlink(missing_ok=True)
            if made.stat().st_dev == final.parent.stat().st_dev:
                made.replace(final)
            else:
                _copy_then_replace(made, final)
            sync_folder(final.parent)


def stoppable_copy(listener: Listener) -> Copy:
    """Return what makes a COG in a process of its own, where a listener may stop it at any time."""

    def copy(vrt: Path, out: Path, layer: Layer) -> Path:
        return finish_cog_apart(
            vrt, out, layer, threads=cores(), on_wait=lambda _: listener.check()
        )

    return copy


def _copy(vrt: Path, out: Path, layer: Layer) -> Path:
    return finish_cog(vrt, out, layer, threads=cores())


def _tags(parts: Parts, layer: Layer) -> Mapping[str, str]:
    tags = dict(parts.manifest["tags"])
    lowered = parts.smallest_batch()
    if lowered:
        tags["GEOSEG_BATCH_SIZE"] += f", lowered to {lowered} for lack of memory"
    if parts.missing:
        total = len(parts.windows)
        tags["GEOSEG_PARTIAL"] = f"{total - len(parts.missing)} of {total} panels"
    tags["GEOSEG_LAYER"] = layer.name
    return tags


def _stage_sidecars(folder: Path, class_map: Path, layer: Layer) -> list[tuple[Path, Path]]:
    staged = []
    for final, text in zip(sidecars(class_map), (pam_text(layer), qml_text(layer)), strict=True):
        made = folder / f"final{final.suffix}"
        with machine_errors(folder):
            made.write_text(text, encoding="utf-8")
        staged.append((made, final))
    return staged


def _copy_then_replace(made: Path, final: Path) -> None:
    import shutil

    near = final.with_name(f".{final.name}.{os.getpid()}.part")
    shutil.copyfile(made, near)
    near.replace(final)
    made.unlink()


def _layer(record: Mapping[str, Any]) -> Layer:
    values = dict(record)
    values["classes"] = tuple(ClassSpec(**c) for c in values["classes"])
    values["band_names"] = tuple(values["band_names"])
    return Layer(**values)


def _georef(manifest: Mapping[str, Any]) -> Georef:
    crs, gcps_crs = manifest["crs"], manifest["gcps_crs"]
    gcps = tuple(GroundControlPoint(r, c, x, y, z) for r, c, x, y, z in manifest["gcps"])
    return Georef(
        crs=CRS.from_wkt(crs) if crs else None,
        transform=Affine(*manifest["transform"]),
        area_or_point=manifest["area_or_point"],
        gcps=gcps,
        gcps_crs=CRS.from_wkt(gcps_crs) if gcps_crs else None,
        rpcs=_rpcs(manifest["rpcs"]),
    )


def _rpcs(record: Mapping[str, str] | None) -> RPC | None:
    return RPC.from_gdal(record) if record else None


def cores() -> int:
    """Return how many threads compress."""
    return os.cpu_count() or 1
