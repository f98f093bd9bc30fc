"""Vectorise a class map: from a raster of ids to a layer of polygons, step by step."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rasterio

from geoseg.listener import Listener
from geoseg.vector.ahead import Ahead
from geoseg.vector.clean import sieve
from geoseg.vector.fields import Features
from geoseg.vector.geometry import Geometries, parts_of
from geoseg.vector.memory import Bounds
from geoseg.vector.options import VectorOptions
from geoseg.vector.part import PartedRows
from geoseg.vector.plan import VectorPlan, plan_vectorize, sentence
from geoseg.vector.polygonize import iter_polygons
from geoseg.vector.publish import check_output, staged, style_file
from geoseg.vector.result import VectorResult
from geoseg.vector.rows import NODATA, PolygonBatch
from geoseg.vector.source import (
    ClassMap,
    ConfidenceMap,
    ReadAhead,
    cache_bytes,
    open_class_map,
    open_confidence,
)
from geoseg.vector.styles import qml_text, store_style
from geoseg.vector.tally import CountedRows, Tally, sentences
from geoseg.vector.write import machine_errors, write_layer

# Measured and written at once: little memory, and arrays that stay in the processor's cache.
PART_VERTICES = 2**17
# Above it lies no rounding.
LARGEST_CONFIDENCE = 1.001


def vectorize_raster(
    class_map: str | Path,
    out: str | Path,
    *,
    options: VectorOptions | None = None,
    listener: Listener | None = None,
) -> VectorResult:
    """Turn a class map into polygons.

    Args:
        class_map: anything that rasterio opens, one band of class ids.
        out: the layer; the format follows from the suffix.
        options: how; None: every pixel's outline as it is.
        listener: hears of progress and may stop the run.

    Returns:
        The layer, with each class's area before and after.

    Raises:
        InputError: the map holds no class ids, cannot be placed, or is damaged.
        UsageError: the output exists, or options contradict each other.
        MachineError: disk or memory; nothing is left behind.
    """
    options, listener, out = options or VectorOptions(), listener or Listener(), Path(out)
    began = time.perf_counter()
    check_output(out, overwrite=options.overwrite)
    with ExitStack() as stack:
        source = stack.enter_context(open_class_map(str(class_map)))
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache_bytes(source.dataset)))
        confidence = None
        if options.confidence is not None:
            confidence = stack.enter_context(open_confidence(options.confidence, source))
        inputs = [*source.files, *([options.confidence] if options.confidence else [])]
        check_output(out, overwrite=options.overwrite, inputs=inputs)
        plan = plan_vectorize(source, out, options)
        listener.start({"unit": "rows", "sentence": sentence(source, plan, out)})
        for note in plan.notes:
            listener.log("warning" if source.crs is None else "info", note)
        folder = stack.enter_context(staged(out, overwrite=options.overwrite))
        run = _Run(source, confidence, plan, listener, folder, overwrite=options.overwrite)
        run.write(out)
    return run.result(out, time.perf_counter() - began)


class _Run:
    """The state of a run: what is read, what was counted."""

    def __init__(
        self,
        source: ClassMap,
        confidence: ConfidenceMap | None,
        plan: VectorPlan,
        listener: Listener,
        folder: Path,
        *,
        overwrite: bool,
    ) -> None:
        self.source = source
        self.confidence = confidence
        self.plan = plan
        self.listener = listener
        self.folder = folder
        self.overwrite = overwrite
        self.tally = Tally(plan.shape.square_classes)
        self.before: dict[int, int] | None = None
        self.parted: PartedRows | None = None

    def write(self, out: Path) -> None:
        """Write layer and style into the folder."""
        # Closed here also when writing fails: threads that read end before their files are closed.
        with closing(self.features()) as features:
            write_layer(self.folder / out.name, self.plan.layer, features)
        with machine_errors(self.folder):
            self._write_style(out)

    def _write_style(self, out: Path) -> None:
        qml = qml_text(self.plan.layer.classes, self.tally.features)
        if out.suffix.lower() == ".gpkg":
            store_style(self.folder / out.name, self.plan.layer.name, qml)
            return
        style = style_file(out, overwrite=self.overwrite)
        if style is not None:
            (self.folder / style.name).write_text(qml, encoding="utf-8")
        else:
            kept = out.with_suffix(".qml").name
            self.listener.log("info", f"no style was written: {kept} is another layer's")

    def features(self) -> Generator[Features]:
        """Yield what is written: cleaned, traced, measured and placed."""
        source, plan = self.source, self.plan
        height, width = source.height, source.width
        with ExitStack() as stack:
            reading = ReadAhead(source, height, width)
            stack.callback(reading.close)
            rows: Any = reading
            if plan.changes:
                rows = CountedRows(reading)
                self.before = rows.pixels
            # With 8 neighbours what touches at a corner is one feature, and stays one.
            if plan.shape.square_classes and plan.shape.connectivity == 4:
                rows = self.parted = PartedRows(rows, plan.shape.square_classes)
            if plan.cleans:
                rows = sieve(
                    rows,
                    min_area_px=plan.min_area_px,
                    fill_holes_px=plan.fill_holes_px,
                    connectivity=plan.shape.connectivity,
                    weights=plan.ground.row_areas,
                    folder=self.folder,
                    on_rows=self._progress(0),
                    bounds=Bounds(plan.shape.strip_rows, plan.shape.max_bytes),
                )
            confidence = None
            if self.confidence is not None:
                confidence = ReadAhead(self.confidence, height, width)
                stack.callback(confidence.close)
            seen = _Seen(self._progress(height if plan.cleans else 0), self.listener.check)
            made = stack.enter_context(
                # Outlines are followed on one core while another measures and writes them.
                Ahead(
                    iter_polygons(rows, plan.shape, confidence=confidence, on_rows=seen.tell),
                    on_wait=seen.show,
                )
            )
            stack.callback(seen.stop)
            for batch in made:
                for part in parts_of(batch, PART_VERTICES):
                    self.listener.check()
                    yield self.tally.count(self._placed(part))

    def result(self, out: Path, seconds: float) -> VectorResult:
        """Return what was made, and say what became of the areas."""
        plan, tally = self.plan, self.tally
        unit = "px" if plan.ground.place is None else "m2"
        areas = tally.areas(
            plan.layer.classes,
            self.before,
            wanted=plan.shape.classes,
            pixel_area=plan.ground.middle_area,
            has_metres=plan.ground.place is not None,
        )
        for text in sentences(areas, unit):
            self.listener.log("info", text)
        for text in self._absent():
            self.listener.log("warning", text)
        if tally.could_be_square:
            self.listener.log(
                "info",
                f"square corners: {tally.squared:,} of {tally.could_be_square:,} polygons; the "
                "others have no square form that fits, or border on more than one polygon",
            )
        if self.parted is not None and self.parted.changed_px:
            count = self.parted.changed_px
            pixels = "1 pixel" if count == 1 else f"{count:,} pixels"
            self.listener.log("info", f"{pixels} changed where polygons touch at a corner")
        repaired = 0 if plan.reprojection is None else plan.reprojection.repaired
        if repaired:
            self.listener.log("warning", f"{repaired} polygons were mended after reprojection")
        if tally.least_confidence < 0 or tally.most_confidence > LARGEST_CONFIDENCE:  # none: inf
            self.listener.log(
                "warning",
                "expected confidences from 0 to 1; polygons got means from "
                f"{tally.least_confidence:.4g} to {tally.most_confidence:.4g}. Check that the "
                "raster declares its scale, as the one that was written with the map does.",
            )
        if tally.unplaced and plan.ground.place is not None:
            self.listener.log("warning", f"{tally.unplaced} polygons have no place on the earth")
        return VectorResult(
            out=out,
            features=sum(tally.features.values()),
            classes=areas,
            unit=unit,
            squared=tally.squared,
            repaired=repaired,
            seconds=seconds,
            pixels=self.source.height * self.source.width,
        )

    def _absent(self) -> Iterator[str]:
        """Yield which classes were asked for and are not in the map."""
        plan, table = self.plan, self.plan.layer.classes
        pixels = self.tally.pixels if self.before is None else self.before
        for option, ids in (
            ("--classes", plan.shape.classes or frozenset()),
            ("--square-corners", plan.shape.square_classes),
        ):
            for class_id in sorted(i for i in ids if not pixels.get(i)):
                yield f"{option}: no pixel of the map is of {table.name(class_id)!r} ({class_id})"
        if not any(count for i, count in pixels.items() if i != NODATA) and not plan.shape.classes:
            yield "no pixel of the map has a class: the layer is empty"

    def _placed(self, batch: PolygonBatch) -> Features:
        area_m2, perim_m = self.plan.ground.measure(batch)
        geometries = Geometries.of(batch)
        if self.plan.reprojection is not None:
            geometries = self.plan.reprojection.apply(geometries)
        else:
            geometries = geometries.transformed(self.source.transform)
        return Features(batch, geometries, area_m2, perim_m)

    def _progress(self, before: int) -> Callable[[int], None]:
        height = self.source.height
        total = height * (2 if self.plan.cleans else 1)

        def done(rows: int) -> None:
            self.listener.check()
            done_px = max(0, before + rows - (total - height)) * self.source.width
            self.listener.progress(before + rows, total, done_px)

        return done


class _Seen:
    """How many rows have been seen, told by one thread and shown by another.

    Args:
        show: told the rows when there are more.
        check: called every time; may stop the run.
    """

    def __init__(self, show: Callable[[int], None], check: Callable[[], None]) -> None:
        self._show = show
        self._check = check
        self._rows = self._shown = 0
        self._stopped = False

    def tell(self, rows: int) -> None:
        """Take note; raises an InterruptedError once nobody asks any more."""
        self._rows = rows
        if self._stopped:
            raise InterruptedError

    def stop(self) -> None:
        """Say that nobody asks any more."""
        self._stopped = True

    def show(self) -> None:
        """Show what is new; called often."""
        self._check()
        rows = self._rows
        if rows != self._shown:
            self._shown = rows
            self._show(rows)


def result_record(result: VectorResult) -> dict[str, Any]:
    """Return a result as the plain values of a JSON event."""
    return {
        "outputs": {"vector": str(result.out)},
        "seconds": round(result.seconds, 3),
        "pixels": result.pixels,
        "features": result.features,
        "unit": result.unit,
        "squared": result.squared,
        "repaired": result.repaired,
        "classes": [asdict(c) for c in result.classes],
    }
