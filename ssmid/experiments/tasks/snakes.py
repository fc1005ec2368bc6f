"""Two snakes of dashes among shorter ones: one image of Pathfinder (Linsley et al. 2018, Kim et al. 2020), from the published description.

A snake begins with a dash anywhere and goes on dash by dash: the next one lies a gap ahead, turned by an angle theta with a probability
proportional to ``cos(continuity theta)^2``, and on nothing that is there already. The two target snakes begin a fixed distance apart and
grow in turns, so that they tangle. A disk marks where one of them begins, a second one where it ends (label 1) or where the other ends
(label 0).

Coordinates are (y, x). ``taken`` has a grey value for every pixel that is covered or too near to what is, ``near`` for every pixel where a
dash must not end. Arrays have room around the image for dashes that stick out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssmid.experiments.tasks.dashes import Dash, ahead, dash, disk, to_bytes, widened

Point = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The parameters of the published generator; lengths in pixels.

    side : of the image   border : kept free   apart : distance between the first dashes of the two snakes   marker : radius of the disks
    dashes : of a target snake   short : dashes of a distractor   distractors : how many, at most
    length, thickness : of a dash   margins : kept free around it; one is drawn for each image, and the gap is twice that
    continuity : the larger, the straighter   contrasts : of snakes   dash_contrast : of the dashes of target snakes, a factor
    antialias : how much finer lines are drawn   retries : of a dash   attempts : retries of a distractor
    """

    side: int
    apart: int
    marker: float
    thickness: float
    length: int
    margins: tuple[int, ...]
    continuity: float
    distractors: int
    contrast: float
    dash_contrast: float = 1.0
    dashes: int = 14
    short: int = 4
    border: int = 1
    antialias: int = 2
    retries: int = 2
    attempts: int = 4

    @property
    def room(self) -> int:
        """Around the image, for dashes that stick out."""
        return self.length + math.ceil(self.thickness) + 2 * max(self.margins) + 2


PATHFINDER_32 = Geometry(
    side=32, apart=7, marker=1.5, thickness=0.5, length=2, margins=(1,), continuity=1.0, distractors=5, contrast=2.0, dash_contrast=0.75
)
"""Long Range Arena's Pathfinder: 14 dashes, ``distractor_length = 14 // 3``, ``num_distractor_snakes = 20 // 4``."""

PATH_X = Geometry(side=128, apart=20, marker=3, thickness=1.5, length=5, margins=(2, 3), continuity=1.8, distractors=8, contrast=0.9)
"""Long Range Arena's Path-X: as above, ``num_distractor_snakes = 35 // 4``; dashes of five pixels are the generator's default."""


@dataclass
class _Snake:
    pivot: Point
    """The middle of the gap behind the last dash."""
    angle: float
    dash: Dash
    """The last dash, whose zone is taken only when the next one lies, for that comes near."""
    tip: Point
    """Where the last dash ends; where the first one begins, as long as there is one only."""


def image(geometry: Geometry, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """An image, uint8 ``(side, side)``, and its label."""
    margin = geometry.margins[int(random.integers(len(geometry.margins)))]
    canvas = _Canvas(geometry, margin, random)
    while (ends := canvas.two_snakes()) is None:
        canvas = _Canvas(geometry, margin, random)
    for _ in range(geometry.distractors):
        any(canvas.distractor() for _ in range(geometry.attempts + 1))
    label, marked = int(random.integers(2)), int(random.integers(2))
    begins, stops = ends
    canvas.mark(begins[marked])
    canvas.mark(stops[marked if label else 1 - marked])
    inside = slice(geometry.room, geometry.room + geometry.side)
    return to_bytes(canvas.grey[inside, inside]), label


class _Canvas:
    """The image, what of it is taken, and the random numbers."""

    def __init__(self, geometry: Geometry, margin: int, random: np.random.Generator) -> None:
        self.geometry, self.margin, self.random = geometry, margin, random
        side, room = geometry.side, geometry.room
        self.grey = np.zeros((side + 2 * room, side + 2 * room), dtype=np.float32)
        self.image = (slice(room, room + side),) * 2
        taken, near = _edges(side, room, geometry.border, margin)
        self.taken, self.near = taken.copy(), near.copy()

    def two_snakes(self) -> tuple[tuple[Point, Point], tuple[Point, Point]] | None:
        """Draws them: where they begin and where they end; None where one got stuck."""
        g = self.geometry
        contrast = g.contrast * g.dash_contrast
        first = self._begin(contrast, 2 * g.apart)
        if first is None:
            return None
        second = self._begin_near(first.tip, contrast)
        if second is None:
            return None
        snakes, begins = (first, second), (first.tip, second.tip)
        for _ in range(g.dashes - 1):
            for snake in snakes:
                if not self._extend(snake, contrast):
                    return None
        # the first snake's last dash stays untaken in the published generator as well
        self._take(second)
        return begins, (first.tip, second.tip)

    def distractor(self) -> bool:
        """Draws a short snake; False, and nothing changed, where it did not work out."""
        before = self.grey.copy(), self.taken.copy(), self.near.copy()
        # nothing more fits where less than one pixel in a hundred is free
        if (self.taken[self.image] <= 0.3).mean() >= 0.01:
            snake = self._begin(self.geometry.contrast, 1)
            if snake is not None and all(self._extend(snake, self.geometry.contrast) for _ in range(self.geometry.short - 1)):
                self._take(snake)
                return True
        self.grey, self.taken, self.near = before
        return False

    def mark(self, point: Point) -> None:
        stamp = disk(self.geometry.marker, self.geometry.antialias)
        self._stamp(self.grey, point, stamp)

    def _begin(self, contrast: float, closed: int) -> _Snake | None:
        """The first dash, anywhere that it fits with ``closed`` pixels along the edges left out."""
        g = self.geometry
        for _ in range(g.retries + 1):
            angle = math.radians(int(self.random.integers(-180, 180)))
            free = self._free(angle, closed)
            if not len(free):
                return None
            y, x = divmod(int(free[int(self.random.integers(len(free)))]), g.side)
            snake = self._first((y, x), angle, contrast)
            if snake is not None:
                return snake
        return None

    def _begin_near(self, point: Point, contrast: float) -> _Snake | None:
        """The first dash of the second snake, which may lie on the first."""
        for _ in range(self.geometry.retries + 1):
            angle, direction = math.radians(int(self.random.integers(-180, 180))), math.radians(int(self.random.integers(360)))
            y, x = (round(self.geometry.apart * wave, 12) for wave in (math.sin(direction), math.cos(direction)))
            snake = self._first((point[0] + round(y), point[1] + round(x)), angle, contrast)
            if snake is not None:
                return snake
        return None

    def _first(self, tail: Point, angle: float, contrast: float) -> _Snake | None:
        """Draws the first dash unless it, or the gap before it, lies outside."""
        head = ahead(tail, angle, self.geometry.length)
        pivot = ahead(head, angle + math.pi, self.geometry.length + self.margin)
        if not (self._inside(head) and self._inside(pivot)):
            return None
        drawn = self._dash(angle)
        self._stamp(self.grey, tail, drawn.line * np.float32(contrast))
        return _Snake(pivot, angle, drawn, tail)

    def _extend(self, snake: _Snake, contrast: float) -> bool:
        """Adds a dash; False where none fits."""
        g = self.geometry
        pivot = ahead(snake.pivot, snake.angle, g.length + 2 * self.margin)
        rows, columns, angles = _ring(g.length + self.margin)
        rows, columns = rows + pivot[0], columns + pivot[1]
        inside = (rows >= 0) & (rows < g.side) & (columns >= 0) & (columns < g.side)
        if not inside.any():
            return False
        rows, columns, angles = rows[inside], columns[inside], angles[inside]
        turn = np.abs(angles - snake.angle)
        turn = np.minimum(g.continuity * np.minimum(turn, 2 * np.pi - turn), np.pi / 2)
        weight = np.cos(turn) ** 2 * (1 - self.near[rows + g.room, columns + g.room])
        if (total := weight.sum()) < 1e-4:
            return False
        share = np.cumsum(weight) / total
        for _ in range(g.retries + 1):
            chosen = min(int(np.searchsorted(share, self.random.random(), side="right")), len(share) - 1)
            angle, head = float(angles[chosen]), (int(rows[chosen]), int(columns[chosen]))
            drawn = self._dash(angle - math.pi if angle >= 0 else angle + math.pi)
            # two values of almost one: the dash would lie where another one is
            if (self.taken[self._at(head, drawn.zone)] + drawn.zone).max() < 1.8:
                self._stamp(self.grey, head, drawn.line * np.float32(contrast))
                self._take(snake)
                snake.pivot, snake.angle, snake.dash, snake.tip = pivot, angle, drawn, head
                return True
        return False

    def _free(self, angle: float, closed: int) -> np.ndarray:
        """Pixels, as indices of the image, where a dash toward ``angle`` may begin.

        Nowhere for a direction whose footprint, seen from a corner, lies outside: the published generator's dilation is undefined there,
        and it gives up on the snake. For dashes of two pixels these are most directions, so most distractors of Pathfinder 32 are missing.
        """
        g = self.geometry
        side, room = g.side, g.room
        footprint = _footprint(g.length, g.thickness, self.margin, g.antialias, round(angle, 12))
        if not all(((footprint * corner) >= 0).all(axis=1).any() for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1))):
            return np.zeros(0, dtype=np.int64)
        blocked = self.taken > 0.3
        _close(blocked[self.image], closed)
        found = np.zeros((side, side), dtype=bool)
        for y, x in footprint:
            found |= blocked[room + y : room + y + side, room + x : room + x + side]
        return np.flatnonzero(~found)

    def _dash(self, angle: float) -> Dash:
        g = self.geometry
        return dash(g.length, g.thickness, self.margin, g.antialias, round(angle, 12))

    def _at(self, point: Point, stamp: np.ndarray) -> tuple[slice, slice]:
        reach = stamp.shape[0] // 2
        y, x = point[0] + self.geometry.room - reach, point[1] + self.geometry.room - reach
        return slice(y, y + stamp.shape[0]), slice(x, x + stamp.shape[1])

    def _take(self, snake: _Snake) -> None:
        self._stamp(self.taken, snake.tip, snake.dash.zone)
        self._stamp(self.near, snake.tip, snake.dash.around)

    def _stamp(self, onto: np.ndarray, point: Point, stamp: np.ndarray) -> None:
        part = onto[self._at(point, stamp)]
        np.maximum(part, stamp, out=part)

    def _inside(self, point: Point) -> bool:
        return 0 <= point[0] < self.geometry.side and 0 <= point[1] < self.geometry.side


def _close(inner: np.ndarray, width: int) -> None:
    for edge in (inner[:width], inner[-width:], inner[:, :width], inner[:, -width:]):
        edge[...] = 1


@lru_cache(maxsize=16)
def _edges(side: int, room: int, border: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """What is taken before anything is drawn, and what is too near to that for a dash to end there.

    Zones stick out into the room around the image, which the published masks do not have. It makes no difference: what is near to something
    outside is near to the border.
    """
    taken = np.zeros((side + 2 * room, side + 2 * room), dtype=np.float32)
    _close(taken[room : room + side, room : room + side], border)
    return taken, widened(taken, margin)


@lru_cache(maxsize=4096)
def _footprint(length: int, thickness: float, margin: int, antialias: int, angle: float) -> np.ndarray:
    """Offsets (y, x) of the pixels that lie wholly in the zone of a dash, from the pixel that it is to begin in.

    One off, and cut to ``length + margin``: so is the published structuring element.
    """
    zone = dash(length, thickness, margin, antialias, angle).zone
    offsets = np.argwhere(zone == 1) - zone.shape[0] // 2 + 1
    return offsets[(np.abs(offsets) <= length + margin).all(axis=1)]


@lru_cache(maxsize=16)
def _ring(radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels on a circle, one a step of a pixel: rows and columns from its middle, angles."""
    turns = np.arange(0, 360, 360 / (2 * radius * np.pi)) * np.pi / 180
    circle = np.column_stack([np.sin(turns), np.cos(turns)]) * radius
    rows, columns = np.unique(np.floor(np.round(circle, 12)).astype(np.int64), axis=0).T
    return rows, columns, np.arctan2(rows, columns)
