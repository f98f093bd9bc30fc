"""Where outlines lie that have their form, so that whatever is drawn later keeps clear of them."""

from collections.abc import Iterator
from dataclasses import dataclass

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

BAND_ROWS = 32


@dataclass(frozen=True, slots=True)
class Ring:
    """An outline that has its form, in pixels.

    Args:
        anchor: a node of its border: tells its faces, and how long it matters.
        points: closed.
        box: around them.
    """

    anchor: int
    points: list[Point]
    box: Box


class DrawnRings:
    """The short and the squared outlines whose faces are not all written."""

    def __init__(self) -> None:
        self._rings: dict[int, Ring] = {}
        self._bands: dict[int, list[int]] = {}

    def add(self, anchor: int, points: list[Point]) -> None:
        """Note an outline."""
        ring = Ring(anchor, points, box_of(points))
        self._rings[anchor] = ring
        for band in _bands(ring.box):
            self._bands.setdefault(band, []).append(anchor)

    def drop(self, anchor: int) -> None:
        """Forget the outline of a node that is gone, if it has one."""
        ring = self._rings.pop(anchor, None)
        if ring is None:
            return
        for band in _bands(ring.box):
            self._bands[band].remove(anchor)
            if not self._bands[band]:
                del self._bands[band]

    def near(self, box: Box) -> Iterator[Ring]:
        """Yield the outlines whose boxes meet one, each once."""
        seen: set[int] = set()
        for band in _bands(box):
            for anchor in self._bands.get(band, ()):
                ring = self._rings[anchor]
                if anchor not in seen and overlaps(ring.box, box):
                    seen.add(anchor)
                    yield ring


def box_of(points: list[Point], by: float = 0.0, aspect: float = 1.0) -> Box:
    """Return the box around points, wider by a distance in widths of a pixel."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    rows = by / aspect
    return min(xs) - by, min(ys) - rows, max(xs) + by, max(ys) + rows


def overlaps(one: Box, other: Box) -> bool:
    """Return whether two boxes have a point in common."""
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _bands(box: Box) -> range:
    return range(int(box[1] // BAND_ROWS), int(box[3] // BAND_ROWS) + 1)
