"""The directions that most walls of a building share, and each wall turned to its nearest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.regularize_runs import Runs

Float64 = NDArray[np.float64]

EIGHTH = np.pi / 4
# Walls this near to a direction vote for it: what stair-steps do to the angle of a wall of 10 px.
VOTE_RAD = np.deg2rad(5.0)
# Beyond this a wall is not at right angles, however short.
MAX_TURN_RAD = np.deg2rad(20.0)
# A wall turns about its middle; one end may leave the other by this. Steps hide half of it, and a
# long wall that leans by more leans in the world: it is another building's, or not square.
MAX_TURN_PX = 5.0
# Three quarters of the walls are this near to a frame in 99 % of buildings' masks (Banepa), and in
# 37 % of random blobs.
ALIGNED_RAD = np.deg2rad(10.0)
# Shorter walls have no direction of their own; shorter ones at other angles are cut corners.
LONG_PX = 6.0
# Walls of a second direction (two buildings that touch), together, as a share of the outline.
MIN_FRAME_SHARE = 0.15
MAX_FRAMES = 3


@dataclass(frozen=True)
class Framed:
    """Walls turned to the directions of their frames.

    Args:
        angle: (K,), direction of each wall, the way the outline runs; radians.
        is_square: bool (K,), along one of the four directions of a frame, not between.
        aligned: share of the length of long walls that lay along a frame already.
    """

    angle: Float64
    is_square: NDArray[np.bool_]
    aligned: float


def turn_to_frames(runs: Runs, max_shift_px: float) -> Framed:
    """Turn each wall to the frame it fits: right angles, or diagonals where they are long.

    A frame is a direction and its three quarter turns. Long walls that fit none keep theirs.
    """
    angle, total = runs.angle.copy(), float(runs.length.sum())
    is_square = np.zeros(len(angle), bool)
    is_long = runs.length >= min(LONG_PX, float(runs.length.max()))
    loose, aligned = is_long.copy(), 0.0
    frames: list[float] = []
    while loose.any() and len(frames) < MAX_FRAMES:
        frame = _main_direction(runs, loose)
        turned = _nearest_axis(runs.angle, frame, EIGHTH)
        off = np.abs(turned - runs.angle)
        leaning = runs.length * np.sin(off)
        fits = loose & (off <= MAX_TURN_RAD) & (leaning <= min(max_shift_px, MAX_TURN_PX))
        share = float(runs.length[fits].sum()) / total
        if not fits.any() or (frames and share < MIN_FRAME_SHARE):
            break
        angle[fits] = turned[fits]
        is_square |= fits & (np.abs(np.sin(2 * (turned - frame))) < 0.5)
        aligned += float(runs.length[fits & (off <= ALIGNED_RAD)].sum())
        frames.append(frame)
        loose &= ~fits
    if frames:
        turned = _nearest_axis(_chord_angles(runs), frames[0], 2 * EIGHTH)
        angle[~is_long] = turned[~is_long]
        is_square |= ~is_long
    return Framed(angle, is_square, aligned / float(runs.length[is_long].sum()))


def _main_direction(runs: Runs, among: NDArray[np.bool_]) -> float:
    """Return the direction (radians, modulo a quarter turn) along and across most length."""
    angle, length, spread = runs.angle[among], runs.length[among], runs.spread[among]
    # Four times the angle: the four sides of a square point the same way.
    off = np.angle(np.exp(4j * (angle[:, None] - angle))) / 4
    votes = np.exp(-((off / VOTE_RAD) ** 2)) @ length
    best = int(np.argmax(votes))
    near = np.abs(off[:, best]) <= 2 * VOTE_RAD
    quarters = np.round((angle[near] - angle[best]) / (np.pi / 2))
    # Least squares of all walls at once: moments add up once they are turned the same way.
    joint = complex(np.sum(spread[near] * np.exp(-1j * np.pi * quarters)))
    return float(np.angle(joint) / 2)


def _nearest_axis(angle: Float64, frame: float, step: float) -> Float64:
    """Return the nearest direction to each that is a number of steps from the frame."""
    axis: Float64 = frame + np.round((angle - frame) / step) * step
    return axis


def _chord_angles(runs: Runs) -> Float64:
    """Return the directions from corner to corner: of few steps, surer than least squares."""
    chords = np.concatenate((runs.corners[1:], runs.corners[:1])) - runs.corners
    angles: Float64 = np.arctan2(chords[:, 1], chords[:, 0])
    return angles
