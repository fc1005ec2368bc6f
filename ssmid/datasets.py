"""Systems and data to try things on: bundled filters, a simulated room, filter network and arm, and three benchmark models.

``hyena_filters`` reads the one bundled file, ``data/hyena_filters_64.npz``: 64 of the 1536 long-convolution filters of a
byte-level language model that this project trained on the Python standard library (6 Hyena layers, width 256, length 2048,
Poli et al. 2023). Every 24th filter in the order (layer, channel) was taken, from the first: no filter was looked at first,
and each layer gave 10 or 11. Arrays of the file: ``filters`` (64, 2048) float32, ``layer`` and ``channel`` (64,).

Everything else is computed from its definition, so that a test needs no download; the benchmark models are those of the
SLICOT collection or close kin of them (Chahlaoui & Van Dooren, SLICOT Working Note 2002-2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import scipy.linalg
import scipy.signal

from ssmid._array import from_numpy, namespace
from ssmid.analysis.discretization import c2d
from ssmid.analysis.simulation import simulate
from ssmid.identification.record import Record
from ssmid.systems import FrequencyResponse, ImpulseResponse, Modal, StateSpace

__all__ = ["band_pass", "beam", "drawn_filters", "flexible_arm", "fom", "heat", "hyena_filters", "room"]

SPEED_OF_SOUND = 343.0
"""Metres a second, in dry air at 20 degrees Celsius."""

_SINC_HALF_WIDTH = 40
_PULSES_PER_CHUNK = 100_000


def hyena_filters() -> ImpulseResponse:
    """64 long-convolution filters of a trained language model: taps ``(64, 2048)``, float32.

    A smooth part of low order plus a broadband noise floor: real, and not flattering to any reduction. How they were
    chosen stands at the top of this module. The pass-through that the model adds to tap 0 is not included.

    >>> hyena_filters()
    ImpulseResponse(length=2048, batch=(64,), dt=1, float32)
    """
    with files("ssmid").joinpath("data/hyena_filters_64.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return ImpulseResponse(archive["filters"])


def drawn_filters(count: int, source: ImpulseResponse | None = None, *, length: int | None = None, seed: int = 0) -> ImpulseResponse:
    """``count`` filters made from those of ``source`` (the bundled ones when left out): drawn, stretched in time and scaled.

    source : taps ``(n, L)``   length : taps of the result, L when left out   seed : of NumPy's generator

    Each is a filter drawn with replacement, its taps after tap 0 read at times stretched by a factor of .74 to 1.35 (linear
    interpolation, zero after its end; over ``length / L`` more where that differs), times a factor with a log-normal law of sigma 1.
    For banks of any size whose filters are no copies of each other. Same kind, device and precision as the source's.

    >>> drawn_filters(1000)
    ImpulseResponse(length=2048, batch=(1000,), dt=1, float32)
    """
    taps = (hyena_filters() if source is None else source).taps
    if taps.ndim != 2 or taps.shape[-1] < 3:
        raise ValueError(f"source: expected taps of shape (n, length), length at least 3, got {tuple(taps.shape)}")
    if count < 0 or (length is not None and length < 2):
        raise ValueError(f"expected a count of at least 0 and a length of at least 2, got {count} and {length}")
    xp, known = namespace(taps), taps.shape[-1]
    size = known if length is None else length
    random = np.random.default_rng(seed)
    chosen = from_numpy(random.integers(0, taps.shape[0], count), taps)
    stretch = from_numpy((np.exp(random.uniform(-0.3, 0.3, count)) * (known - 1) / (size - 1)).astype(np.float32), taps)
    scale = from_numpy(np.exp(random.standard_normal(count)).astype(np.float32), taps)
    times = xp.arange(size - 1, dtype=stretch.dtype, device=taps.device) * stretch[:, None]
    before = xp.clip(xp.floor(times), max=float(known - 3))
    share = xp.astype(xp.clip(times - before, max=1.0), taps.dtype)
    index = xp.astype(before, xp.int64) + 1
    drawn = xp.take(taps, chosen, axis=0)
    after = xp.take_along_axis(drawn, index, axis=-1) * (1 - share) + xp.take_along_axis(drawn, index + 1, axis=-1) * share
    after = xp.where(times <= known - 2, after, xp.zeros_like(after))
    return ImpulseResponse(xp.concat([drawn[:, :1], after], axis=-1) * xp.astype(scale, taps.dtype)[:, None])


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


def band_pass(points: int = 401, *, quality: float = 200.0, line: float = 0.3e-9, noise: float = 0.0) -> FrequencyResponse:
    """Scattering parameters ``(2, 2, points)`` of a band-pass filter from 450 to 550 MHz, seen at 300 to 700 MHz in 50 ohms.

    A third-order Chebyshev ladder of 0.1 dB ripple (series, shunt, series resonator; prototype elements 1.0316, 1.1474, 1.0316) with
    coils of the given ``quality`` at the centre, between two lines of ``line`` seconds each: order 6 beside the delay. ``noise``: standard
    deviation of real and imaginary part that a network analyser adds (fixed seed).

    >>> band_pass()
    FrequencyResponse(points=401, batch=(2, 2), dt=0, complex128)
    """
    omega = 2 * np.pi * np.linspace(300e6, 700e6, points)
    centre = 2 * np.pi * math.sqrt(450e6 * 550e6)
    width, impedance = 2 * np.pi * 100e6, 50.0
    s = 1j * omega
    chain = np.broadcast_to(np.eye(2, dtype=complex), (points, 2, 2))
    for k, element in enumerate((1.0316, 1.1474, 1.0316)):
        if k % 2 == 0:
            inductance = element * impedance / width
            branch = s * inductance + centre * inductance / quality + 1 / (s * (1 / (centre**2 * inductance)))
            section = np.stack([np.ones_like(s), branch, np.zeros_like(s), np.ones_like(s)], -1)
        else:
            capacitance = element / (impedance * width)
            inductance = 1 / (centre**2 * capacitance)
            branch = s * capacitance + 1 / (s * inductance + centre * inductance / quality)
            section = np.stack([np.ones_like(s), np.zeros_like(s), branch, np.ones_like(s)], -1)
        chain = chain @ section.reshape(points, 2, 2)
    a, b, c, d = (chain[:, i, j] for i in (0, 1) for j in (0, 1))
    b, c = b / impedance, c * impedance
    total = a + b + c + d
    values = np.array([[(a + b - c - d) / total, 2 / total], [2 / total, (-a + b - c + d) / total]]) * np.exp(-2 * s * line)
    rng = np.random.default_rng(450)
    values = values + noise * (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape))
    return FrequencyResponse(values, omega, 0)


def flexible_arm(length: int = 1000, *, noise: float = 0.02) -> Record:
    """A record of motor torque in, acceleration of a flexible arm out, at 50 Hz: order 4, with coloured measurement noise.

    Two lightly damped modes (3.1 and 8.7 Hz, dampings 3 and 2 %) driven by a random binary signal held for 3 samples; ``noise`` is
    the standard deviation of the noise as a fraction of that of the output. The seed is fixed.

    >>> flexible_arm()
    Record(outputs=1, inputs=1, length=1000, batch=(), dt=0.02)
    """
    rng = np.random.default_rng(31)
    inputs = np.repeat(rng.choice([-1.0, 1.0], -(-length // 3)), 3)[:length]
    poles = [2 * np.pi * f * complex(-z, math.sqrt(1 - z * z)) for f, z in ((3.1, 0.03), (8.7, 0.02))]
    modes = c2d(Modal(np.array([[p, p.conjugate()] for p in poles]).ravel(), np.array([1 + 0.5j, 1 - 0.5j, -0.7, -0.7]), 0.2, dt=0), 0.02)
    clean = simulate(modes, inputs)
    coloured = np.asarray(scipy.signal.lfilter([1.0], [1.0, -0.8], rng.standard_normal(length + 100)))[100:]
    return Record(inputs, clean + noise * clean.std() * coloured / coloured.std(), 0.02)


def fom() -> StateSpace:
    """Penzl's "full-order model": n = 1006, one input, one output, continuous time, known in closed form.

    A is block diagonal: three lightly damped pairs ``[[-1, w], [-w, -1]]`` with w = 100, 200, 400, then ``-1, -2, ..., -1000``;
    B is 10 for the six states of the pairs and 1 for the others, C is its transpose.
    Source: Penzl, Linear Algebra Appl. 415 (2006) 322; the SLICOT collection's ``fom``.

    >>> fom()
    StateSpace(order=1006, outputs=1, inputs=1, batch=(), dt=0, float64)
    """
    pairs = [np.array([[-1.0, w], [-w, -1.0]]) for w in (100.0, 200.0, 400.0)]
    A = scipy.linalg.block_diag(*pairs, np.diag(-np.arange(1.0, 1001.0)))
    B = np.ones((1006, 1))
    B[:6] = 10.0
    return StateSpace(A, B, B.T.copy(), dt=0)


def heat(n: int = 200, diffusivity: float = 0.01) -> StateSpace:
    """The heat equation on a rod of unit length, in ``n`` interior points: one input, one output, continuous time.

    ``u_t = diffusivity u_xx``, zero at both ends, heated in the grid point next to x = 1/3, temperature read next to x = 2/3.
    Second-order central differences. With the defaults it is entry for entry the SLICOT collection's ``heat-cont``.
    Hankel values fall by orders of magnitude a step. Raises ValueError for fewer than 3 points.

    >>> heat().order
    200
    """
    if n < 3:
        raise ValueError(f"n: expected at least 3 points, got {n}")
    A = scipy.linalg.toeplitz(np.r_[-2.0, 1.0, np.zeros(n - 2)]) * (diffusivity * (n + 1) ** 2)
    B, C = np.zeros((n, 1)), np.zeros((1, n))
    B[round(n / 3) - 1, 0] = 1.0
    C[0, round(2 * n / 3) - 1] = 1.0
    return StateSpace(A, B, C, dt=0)


def beam(n: int = 348, mass_damping: float = 0.01, stiffness_damping: float = 1e-6) -> StateSpace:
    """A clamped beam with light proportional damping: force at the free end in, deflection there out, continuous time.

    ``w_tt + mass_damping w_t + w_xxxx + stiffness_damping w_xxxxt = f`` on the unit interval, clamped at 0, free at 1, in n / 4
    cubic (Hermite) finite elements with consistent mass, two degrees of freedom a node. The static gain is 1/3, and
    the lowest natural frequencies tend to 1.8751^2, 4.6941^2, ... (Euler-Bernoulli). A kin of the SLICOT collection's ``beam``
    (n = 348): Hankel values fall slowly in pairs, every mode being lightly damped.

    States are ``(L_K^T q, L_M^T q')`` with Cholesky factors of stiffness and mass: A is skew plus a negative semidefinite
    part, so that rounding cannot make it unstable (the natural coordinates (q, q') have norm 1e11).
    Raises ValueError unless ``n`` is a positive multiple of 4, or for negative damping.

    >>> beam().order
    348
    """
    if n < 4 or n % 4:
        raise ValueError(f"n: expected a positive multiple of 4 (four states an element), got {n}")
    if mass_damping < 0 or stiffness_damping < 0:
        raise ValueError(f"damping: expected numbers >= 0, got {mass_damping} and {stiffness_damping}")
    mass, stiffness = _beam_matrices(n // 4)
    half = n // 2
    mass_factor, stiffness_factor = np.linalg.cholesky(mass), np.linalg.cholesky(stiffness)
    G = scipy.linalg.solve_triangular(mass_factor, stiffness_factor, lower=True)
    A = np.block([[np.zeros((half, half)), G.T], [-G, -mass_damping * np.eye(half) - stiffness_damping * G @ G.T]])
    tip = np.zeros(half)
    tip[-2] = 1.0
    B, C = np.zeros((n, 1)), np.zeros((1, n))
    B[half:, 0] = scipy.linalg.solve_triangular(mass_factor, tip, lower=True)
    C[0, :half] = scipy.linalg.solve_triangular(stiffness_factor, tip, lower=True)
    return StateSpace(A, B, C, dt=0)


# ---------------------------------------------------------------- the room


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


# ---------------------------------------------------------------- the beam


def _beam_matrices(elements: int) -> tuple[np.ndarray, np.ndarray]:
    """Consistent mass and stiffness matrices of Euler-Bernoulli elements (deflection, slope), clamped at the first node.

    Przemieniecki, Theory of Matrix Structural Analysis (1968), with unit length, density and bending stiffness.
    Slopes are scaled by the element's length, which evens out the matrices.
    """
    h = 1.0 / elements
    element_mass = (h / 420) * np.array([[156, 22, 54, -13], [22, 4, 13, -3], [54, 13, 156, -22], [-13, -3, -22, 4.0]])
    element_stiffness = h**-3 * np.array([[12, 6, -12, 6], [6, 4, -6, 2], [-12, -6, 12, -6], [6, 2, -6, 4.0]])
    size = 2 * (elements + 1)
    mass, stiffness = np.zeros((size, size)), np.zeros((size, size))
    for e in range(elements):
        part = slice(2 * e, 2 * e + 4)
        mass[part, part] += element_mass
        stiffness[part, part] += element_stiffness
    return mass[2:, 2:], stiffness[2:, 2:]
