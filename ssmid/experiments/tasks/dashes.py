"""How a dash, a marker and an image of the Pathfinder tasks are drawn: thin lines at a finer resolution, reduced to pixels.

The published generator (Linsley et al. 2018, github.com/drewlinsley/pathfinder) draws with Pillow and reduces with its Lanczos filter,
in bytes. A dash is drawn around the pixel that it begins in and placed from there; so all that can occur are a few hundred small arrays.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.ndimage


class Dash(NamedTuple):
    """Squares around the pixel that a dash begins in, float32 in [0, 1]."""

    line: np.ndarray
    zone: np.ndarray
    """What lies within the margin of the dash, of the size of ``line``."""
    around: np.ndarray
    """What lies within another margin of that: larger by the margin on all sides."""


@lru_cache(maxsize=4096)
def dash(length: int, thickness: float, margin: int, antialias: int, angle: float) -> Dash:
    """A dash from the middle of a square toward ``angle`` (radians, from x toward y), that and room for its margin each way."""
    reach = length + math.ceil(thickness) + margin
    middle = reach * antialias
    end = ahead((middle, middle), angle, length * antialias)
    fine = _line(2 * middle + 1, (middle, middle), end, round(thickness * antialias))
    y, x = np.ogrid[: fine.shape[0], : fine.shape[1]]
    zone = np.zeros_like(fine)
    for row, column in np.argwhere(fine):
        zone |= (y - row) ** 2 + (x - column) ** 2 <= (margin * antialias) ** 2
    size = 2 * reach + 1
    line, zone = (reduced(255 * part.astype(np.uint8), size) / np.float32(255) for part in (fine, zone))
    return Dash(line, zone, widened(np.pad(zone, margin), margin))


def widened(image: np.ndarray, margin: int) -> np.ndarray:
    """Every pixel's largest value within ``margin``."""
    y, x = np.ogrid[-margin : margin + 1, -margin : margin + 1]
    return scipy.ndimage.grey_dilation(image, footprint=x**2 + y**2 <= margin**2, mode="constant")


@lru_cache(maxsize=16)
def disk(radius: float, antialias: int) -> np.ndarray:
    """A marker around the middle of a square, float32 in [0, 1]."""
    reach = math.ceil(radius) + 3
    size = (2 * reach + 1) * antialias
    y, x = np.ogrid[:size, :size]
    fine = (y - reach * antialias) ** 2 + (x - reach * antialias) ** 2 <= (radius * antialias) ** 2
    return reduced(255 * fine.astype(np.uint8), 2 * reach + 1) / np.float32(255)


def ahead(point: tuple[int, int], angle: float, distance: float) -> tuple[int, int]:
    """The pixel (y, x) at a distance from another, rounded up, as published."""
    # 12 digits: rounding up must not hang on the last bit of a sine
    y, x = round(distance * math.sin(angle), 12), round(distance * math.cos(angle), 12)
    return math.ceil(point[0] + y), math.ceil(point[1] + x)


def reduced(image: np.ndarray, size: int) -> np.ndarray:
    """A square image of bytes at a smaller size by the Lanczos filter of three lobes, rounded to bytes after rows and after columns."""
    weights = _lanczos(image.shape[0], size)
    rows = np.clip(np.floor(image @ weights.T + 0.5), 0, 255)
    return np.clip(np.floor(weights @ rows + 0.5), 0, 255).astype(np.uint8)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Grey levels 0 to 255 between the smallest and the largest value, as images were saved."""
    low, high = image.min(), image.max()
    return np.floor((image - low) * (255 / (high - low)) + 0.5).astype(np.uint8)


@lru_cache(maxsize=64)
def _lanczos(size: int, smaller: int) -> np.ndarray:
    """``(smaller, size)``, rows of sum one."""
    scale = size / smaller
    where = (np.arange(size) + 0.5 - (np.arange(smaller)[:, None] + 0.5) * scale) / scale
    weights = np.where(np.abs(where) < 3, np.sinc(where) * np.sinc(where / 3), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def _line(size: int, start: tuple[int, int], end: tuple[int, int], thickness: int) -> np.ndarray:
    """Which pixels of a square a line covers: one a step where it is one pixel thick, else those whose middle lies in the rectangle."""
    image = np.zeros((size, size), dtype=bool)
    (y0, x0), (y1, x1) = start, end
    steps = max(abs(y1 - y0), abs(x1 - x0))
    if thickness <= 1:
        part = np.arange(steps + 1) / max(steps, 1)
        image[np.floor(y0 + part * (y1 - y0) + 0.5).astype(int), np.floor(x0 + part * (x1 - x0) + 0.5).astype(int)] = True
        return image
    y, x = np.ogrid[:size, :size]
    length = math.hypot(y1 - y0, x1 - x0)
    along = ((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length
    across = ((y - y0) * (x1 - x0) - (x - x0) * (y1 - y0)) / length
    return (along >= -1e-9) & (along <= length + 1e-9) & (np.abs(across) <= thickness / 2 + 1e-9)
