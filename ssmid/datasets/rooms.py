"""The sound of a rectangular room, from its walls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.signal

from ssmid.systems import ImpulseResponse

SPEED_OF_SOUND = 343.0
"""Metres a second, in dry air at 20 degrees Celsius."""

_SINC_HALF_WIDTH = 40
_PULSES_PER_CHUNK = 100_000


def room(
    size: Sequence[float] = (5.2, 3.9, 2.6),
    source: Sequence[float] = (1.3, 2.4, 1.2),
    receiver: Sequence[float] | Sequence[Sequence[float]] = (3.9, 1.1, 1.6),
    *,
    absorption: float | Sequence[float] = 0.3,
    fs: float = 16_000,
    length: int = 8192,
) -> ImpulseResponse:
    """The sound pressure at ``receiver`` after an impulse at ``source`` in a rectangular room, by the image-source method.

    size : (3,) metres   source : (3,) metres   receiver : (3,) or (k, 3) metres, for taps ``(length,)`` or ``(k, length)``
    absorption : energy absorption coefficient of all walls or of each (x = 0, x = size, y = 0, ...), in (0, 1]
    fs : samples a second   length : taps

    Every mirror image of the source whose sound arrives in time gives one pulse of height
    (product of the reflection coefficients) / (4 pi distance / 1 m): Allen & Berkley, J. Acoust. Soc. Am. 65 (1979) 943, eq. 10.
    Delays that are no whole number of samples are windowed sincs (Peterson, J. Acoust. Soc. Am. 80 (1986) 1527), and the
    high-pass filter at 100 Hz of Allen & Berkley's appendix removes the pressure that cannot be there. Deterministic, float64.
    Raises ValueError for positions outside the room or on its walls, and absorption outside (0, 1].

    >>> room(length=1024).taps.shape
    (1024,)
    """
    box = _vector("size", size)
    if not (box > 0).all():
        raise ValueError(f"size: expected three positive lengths, got {box.tolist()}")
    if not (math.isfinite(fs) and fs > 0):
        raise ValueError(f"fs: expected a positive sample rate, got {fs}")
    if length < 1:
        raise ValueError(f"length: expected at least one tap, got {length}")
    walls = np.broadcast_to(np.asarray(absorption, float), (6,)) if np.ndim(absorption) == 0 else np.asarray(absorption, float)
    if walls.shape != (6,) or not ((walls > 0) & (walls <= 1)).all():
        raise ValueError(f"absorption: expected one number or six, each in (0, 1], got {absorption}")
    start = _inside("source", _vector("source", source), box)
    ends = np.asarray(receiver, float)
    if ends.ndim not in (1, 2) or ends.shape[-1] != 3:
        raise ValueError(f"receiver: expected shape (3,) or (k, 3), got {ends.shape}")
    rows = [_room_taps(box, start, _inside("receiver", end, box), np.sqrt(1 - walls), fs, length) for end in ends.reshape(-1, 3)]
    return ImpulseResponse(np.stack(rows) if ends.ndim == 2 else rows[0], dt=1 / fs)


def _room_taps(box: np.ndarray, source: np.ndarray, receiver: np.ndarray, reflection: np.ndarray, fs: float, length: int) -> np.ndarray:
    """Sum of the pulses of all images, high-passed: ``(length,)``."""
    end = length + _SINC_HALF_WIDTH
    reach = (end / fs) * SPEED_OF_SOUND
    (dx, gx), (dy, gy), (dz, gz) = (_axis_images(box[i], source[i], receiver[i], reflection[2 * i : 2 * i + 2], reach) for i in range(3))
    plane_square = (dy[:, None] ** 2 + dz[None, :] ** 2).ravel()
    plane_gain = (gy[:, None] * gz[None, :]).ravel()
    order = np.argsort(plane_square)
    plane_square, plane_gain = plane_square[order], plane_gain[order]
    taps = np.zeros(end + 2 * _SINC_HALF_WIDTH + 1)
    for x, gain in zip(dx, gx, strict=True):
        near = int(np.searchsorted(plane_square, max(0.0, reach**2 - x**2)))
        for start in range(0, near, _PULSES_PER_CHUNK):
            part = slice(start, min(start + _PULSES_PER_CHUNK, near))
            distance = np.sqrt(x**2 + plane_square[part])
            _add_pulses(taps, distance * (fs / SPEED_OF_SOUND), gain * plane_gain[part] / (4 * np.pi * distance))
    return _high_pass(taps[_SINC_HALF_WIDTH : _SINC_HALF_WIDTH + length], fs)


def _axis_images(size: float, source: float, receiver: float, walls: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances along one axis to the images within ``reach``, and the product of their reflection coefficients.

    Image (u, m) lies at ``(1 - 2u) source + 2 m size``; its sound met the wall at 0 ``|m - u|`` times and the other ``|m|`` times.
    """
    count = math.ceil(reach / (2 * size)) + 1
    m, u = (a.ravel() for a in np.meshgrid(np.arange(-count, count + 1), (0, 1), indexing="ij"))
    distance = (1 - 2 * u) * source + 2 * m * size - receiver
    gain = walls[0] ** np.abs(m - u) * walls[1] ** np.abs(m)
    keep = (np.abs(distance) < reach) & (gain > 0)
    return distance[keep], gain[keep]


def _add_pulses(taps: np.ndarray, delay: np.ndarray, height: np.ndarray) -> None:
    """Adds band-limited pulses to ``taps``, which begin ``_SINC_HALF_WIDTH`` samples before time zero.

    ``sin(pi (k - d))`` changes only its sign from tap to tap, so one sine a pulse serves the whole window.
    """
    nearest = np.rint(delay).astype(np.intp)
    fraction = delay - nearest
    whole = np.abs(fraction) < 1e-9
    numerator = height * np.sin(np.pi * fraction) / np.pi
    for k in range(-_SINC_HALF_WIDTH, _SINC_HALF_WIDTH + 1):
        offset = k - fraction
        window = 0.5 + 0.5 * np.cos(np.pi * offset / (_SINC_HALF_WIDTH + 0.5))
        pulse = np.where(whole, height * (k == 0), numerator * (-1) ** (k % 2) * window / np.where(whole, 1.0, -offset))
        taps += np.bincount(nearest + (_SINC_HALF_WIDTH + k), weights=pulse, minlength=len(taps))


def _high_pass(taps: np.ndarray, fs: float) -> np.ndarray:
    """Allen & Berkley's second-order high-pass at 100 Hz (the last lines of their appendix B)."""
    w = 2 * np.pi * 100 / fs
    r = math.exp(-w)
    return np.asarray(scipy.signal.lfilter([1, -(1 + r), r], [1, -2 * r * math.cos(w), r * r], taps))


def _vector(name: str, value: Sequence[float]) -> np.ndarray:
    vector = np.asarray(value, float)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"{name}: expected three finite numbers, got {value}")
    return vector


def _inside(name: str, position: np.ndarray, box: np.ndarray) -> np.ndarray:
    if not ((position > 0) & (position < box)).all():
        raise ValueError(f"{name}: expected a position inside the room {box.tolist()}, got {position.tolist()}")
    return position
