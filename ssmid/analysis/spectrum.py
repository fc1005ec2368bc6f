"""Frequency responses, phase and group delay: on the FFT grid, on a zoomed band, at any frequencies."""

from __future__ import annotations

from math import pi, prod
from operator import mul, truediv
from typing import Any

import numpy as np

from ssmid._array import (
    Array,
    as_array,
    as_complex,
    astype_width,
    device,
    double,
    fft_of,
    from_numpy,
    is_complex,
    namespace,
    next_fast_length,
    quiet,
    to_numpy,
    width,
)
from ssmid.analysis.evaluation import evaluate, log_derivative
from ssmid.analysis.impulse import grid_length, impulse_response, in_delays, wrapped
from ssmid.analysis.rational_kernel import rational_spectrum
from ssmid.systems import (
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import computed, not_a_system, sample_time

_LARGEST_SUM = 2**22
"""Terms (systems x poles x points) above which the spectrum of a modal bank on the FFT grid is the FFT of its wrapped taps: an
eighth of the time of the sums over poles, with an error relative to the peak of each spectrum, about points x rounding."""


def frequency_response(
    system: System, omega: Any = None, *, points: int | None = None, band: tuple[float, float] | None = None
) -> FrequencyResponse:
    """``H`` at ``exp(i omega dt)`` (discrete time) or ``i omega`` (continuous): values ``(*batch, k)``.

    omega : ``(k,)`` frequencies in rad/s, or
    points : N, for the FFT grid ``2 pi k / (N dt)``, k = 0 .. N // 2 (complex systems: the whole circle, k = 0 .. N-1), or
    band, points : k frequencies evenly from ``band[0]`` to ``band[1]``, both included (taps: a chirp-z transform).

    Taps and spectra may leave all three out: their own grid. Taps longer than N are wrapped, so that values are exact samples.
    A state space of several inputs or outputs gives channels ``(*batch, p, m, k)``; with one of each, a bank of scalars.
    A sampled spectrum has values at its own frequencies only. Differentiable, for a state space too where a gradient is
    recorded. Raises ValueError for frequencies that are not finite, and for a grid in continuous time.

    >>> frequency_response(TransferFunction([1.0], [1.0, -0.5]), points=2).values.real
    array([ 2.        , -0.66666667])
    """
    if not isinstance(system, System):
        raise not_a_system(system)
    if omega is not None and (points is not None or band is not None):
        raise ValueError("expected either omega or points, got both")
    if omega is None and points is None:
        if isinstance(system, FrequencyResponse):
            return system
        if not isinstance(system, ImpulseResponse) or band is not None:
            raise ValueError(f"expected omega (rad/s) or points for a {type(system).__name__}, got neither")
        points = system.length
    if omega is None and (points is None or int(points) != points or points < 1):
        raise ValueError(f"points: expected a whole number >= 1, got {points}")
    if omega is None and band is None:
        return _on_grid(system, int(points))  # pyright: ignore[reportArgumentType]
    first = next(iter(system.arrays.values()))
    if band is not None:
        low, high = (float(edge) for edge in band)
        if not np.isfinite([low, high]).all() or low > high:
            raise ValueError(f"band: expected two finite frequencies in rad/s, the lower first, got {band}")
        if isinstance(system, ImpulseResponse):
            return _chirp(system, low, high, int(points))  # pyright: ignore[reportArgumentType]
        omega = np.linspace(low, high, int(points))  # pyright: ignore[reportArgumentType]
    omega = _checked_omega(omega, first)
    if isinstance(system, FrequencyResponse):
        return _selected(system, omega)
    values = evaluate(system, on_contour(system, omega))
    bits = width(first)
    return computed(FrequencyResponse, values=as_complex(astype_width(values, bits)), omega=astype_width(omega, bits), dt=system.dt)


def on_contour(system: System, omega: Array) -> Array:
    """``exp(i omega dt)`` or ``i omega``, in double precision."""
    xp = namespace(omega)
    s = 1j * as_complex(double(omega))
    return xp.exp(s * sample_time(system)) if system.is_discrete else s


def grid(points: int, dt: float, like: Array, *, whole: bool = False) -> Array:
    """``2 pi k / (points dt)`` for k = 0 .. points // 2, or round the whole circle, in the width of ``like``."""
    xp = namespace(like)
    k = xp.arange(points if whole else points // 2 + 1, dtype=xp.float64, device=like.device)
    return astype_width(k * (2 * pi) / (points * dt), width(like))


def _checked_omega(omega: Any, like: Array) -> Array:
    omega = as_array(omega, "omega", like)
    if namespace(omega) is not namespace(like) or device(omega) != device(like):
        omega = from_numpy(to_numpy(omega), like)
    if is_complex(omega):
        raise ValueError(f"omega: expected real frequencies in rad/s, got dtype {omega.dtype}")
    if omega.ndim == 0:
        omega = namespace(omega).reshape(omega, (1,))
    host = to_numpy(omega)
    if omega.shape[-1] == 0 or not np.isfinite(host).all():
        raise ValueError(f"omega: expected finite frequencies, got {'none' if host.size == 0 else host[~np.isfinite(host)][0]}")
    return omega


# ---------------------------------------------------------------- on the FFT grid


def _on_grid(system: System, points: int) -> FrequencyResponse:
    step = sample_time(system)
    first = next(iter(system.arrays.values()))
    if isinstance(system, FrequencyResponse):
        return _part_of_grid(system, points)
    if isinstance(system, ImpulseResponse):
        taps = system.taps if system.length <= points else wrapped(system.taps, points)
        transform = fft_of(taps)
        values = (transform.fft if is_complex(taps) else transform.rfft)(taps, n=points, axis=-1)
        return computed(FrequencyResponse, values=values, omega=grid(points, step, taps, whole=is_complex(taps)), dt=system.dt)
    whole = system.is_complex
    if isinstance(system, TransferFunction):
        num, den = in_delays(system)
        values = rational_spectrum(double(num), double(den), points)
    elif isinstance(system, Modal) and prod(system.batch_shape) * system.order * points > _LARGEST_SUM and _fade_and_return(system, points):
        return _on_grid(impulse_response(system, points, wrap="periodic"), points)
    else:
        values = evaluate(system, on_contour(system, grid(points, step, double(first), whole=whole)))
    values = as_complex(astype_width(values, width(first)))
    return computed(FrequencyResponse, values=values, omega=grid(points, step, first, whole=whole), dt=system.dt)


def _fade_and_return(system: Modal, points: int) -> bool:
    """Whether taps wrapped around ``points`` can stand for the spectrum: no pole grows much or is a root of unity of that order."""
    xp = namespace(system.poles)
    turned = double(system.poles) ** points
    return not bool(xp.any((xp.abs(turned) > 1e3) | (xp.abs(turned - 1) < 1e-6)))


def _part_of_grid(system: FrequencyResponse, points: int) -> FrequencyResponse:
    size = grid_length(system)
    if size % points:
        raise ValueError(f"points: expected {size} or a divisor of it, the grid of this response, got {points}")
    return FrequencyResponse(system.values[..., :: size // points], system.omega[..., :: size // points], system.dt)


def _selected(system: FrequencyResponse, omega: Array) -> FrequencyResponse:
    """The values at ``omega``, which must be among the frequencies of the system."""
    own, wanted = to_numpy(double(system.omega)), to_numpy(double(omega))
    own = own.reshape(-1, own.shape[-1])
    own = own[np.isfinite(own).all(-1)]
    if wanted.ndim > 1 and not np.ptp(wanted.reshape(-1, wanted.shape[-1]), axis=0).any():
        wanted = wanted.reshape(-1, wanted.shape[-1])[0]
    if wanted.ndim > 1 or (len(own) and np.ptp(own, axis=0).any()):
        raise ValueError(f"expected one set of frequencies for the whole batch, got omega {wanted.shape} and {tuple(system.omega.shape)}")
    near = np.abs(own[0] - wanted[:, None])
    index = near.argmin(-1)
    off = near.min(-1) > 64 * np.finfo(to_numpy(system.omega).dtype).eps * np.abs(own[0]).max()
    if off.any():
        raise ValueError(f"omega: expected frequencies of the response itself (it is sampled), got {wanted[off][0]:.9g} rad/s")
    xp = namespace(system.values)
    index = xp.asarray(index, device=system.values.device)
    return FrequencyResponse(xp.take(system.values, index, axis=-1), xp.take(system.omega, index, axis=-1), system.dt)


def _chirp(system: ImpulseResponse, low: float, high: float, points: int) -> FrequencyResponse:
    """Chirp-z transform (Bluestein) over the band: ``t k = (t^2 + k^2 - (k - t)^2) / 2`` makes the sum one convolution."""
    xp, step = namespace(system.taps), sample_time(system)
    taps = as_complex(double(system.taps))
    length = taps.shape[-1]
    omega = np.linspace(low, high, points)
    delta = (high - low) / max(1, points - 1) * step

    def phasor(angle: np.ndarray) -> Array:
        return xp.asarray(np.exp(1j * angle), device=taps.device)

    t, k = np.arange(length), np.arange(points)
    offsets = np.arange(1 - length, points)
    size = next_fast_length(length + points - 1)
    transform = fft_of(taps)
    weighted = taps * phasor(-(low * step) * t - delta / 2 * t.astype(float) ** 2)
    chirp = phasor(delta / 2 * offsets.astype(float) ** 2)
    product = transform.fft(weighted, n=size, axis=-1) * transform.fft(chirp, n=size, axis=-1)
    values = transform.ifft(product, n=size, axis=-1)[..., length - 1 : length - 1 + points] * phasor(-delta / 2 * k.astype(float) ** 2)
    bits = width(system.taps)
    omega = astype_width(xp.asarray(omega, device=taps.device), bits)
    return computed(FrequencyResponse, values=astype_width(values, bits), omega=omega, dt=system.dt)


# ---------------------------------------------------------------- phase and delay


def magnitude_db(response: FrequencyResponse) -> Array:
    """``20 log10 |H|``: ``(*batch, k)``; minus infinity where H is zero."""
    xp = namespace(response.values)
    return 20 * quiet(xp.log10)(xp.abs(response.values))


def phase(response: FrequencyResponse) -> Array:
    """The phase ``(*batch, k)`` in radians, unwrapped along frequency: steps above pi are taken back by multiples of 2 pi.

    Right where neighbouring frequencies differ by less than pi in phase.

    >>> phase(frequency_response(ImpulseResponse([0.0, 0.0, 1.0]), points=8)).round(3)
    array([ 0.   , -1.571, -3.142, -4.712, -6.283])
    """
    values = response.values
    xp = namespace(values)
    angle = xp.atan2(xp.imag(values), xp.real(values))
    step = angle[..., 1:] - angle[..., :-1]
    return xp.concat([angle[..., :1], angle[..., :1] + xp.cumulative_sum(step - 2 * pi * xp.round(step / (2 * pi)), axis=-1)], axis=-1)


def group_delay(system: System, omega: Any = None, *, points: int | None = None) -> Array:
    """``-d arg H / d omega`` in seconds, ``(*batch, k)``, at ``omega`` or on the FFT grid of ``points``.

    By the closed form ``-Re(z H'/H) dt`` (discrete time) or ``-Re(H'/H)``, never by differences of a phase, for every system
    but a sampled spectrum, whose phase is unwrapped and differenced. Where H is zero the delay of zeros, poles and gain is the
    limit without the jump of the phase; of others it is not finite. Differentiable where :func:`frequency_response` is.

    >>> group_delay(ImpulseResponse([0.0, 0.0, 1.0], dt=0.5), points=2)
    array([1., 1.])
    """
    if isinstance(system, FrequencyResponse):
        return _delay_of_samples(system if omega is None and points is None else frequency_response(system, omega, points=points))
    if not isinstance(system, System):
        raise not_a_system(system)
    if (omega is None) == (points is None) and not isinstance(system, ImpulseResponse):
        raise ValueError("expected either omega or points")
    first = next(iter(system.arrays.values()))
    if isinstance(system, ImpulseResponse) and omega is None:
        points = system.length if points is None else points
        xp = namespace(first)
        ramp = xp.asarray(np.arange(float(system.length)), device=first.device)
        taps = double(first)
        ramped = ImpulseResponse(taps * xp.astype(ramp, taps.dtype), system.dt)
        slope, values = (frequency_response(h, points=points).values for h in (ramped, ImpulseResponse(taps, system.dt)))
        return astype_width(xp.real(quiet(truediv)(slope, values)) * sample_time(system), width(first))
    if omega is None:
        if int(points) != points or points < 1:  # pyright: ignore[reportArgumentType, reportOptionalOperand]
            raise ValueError(f"points: expected a whole number >= 1, got {points}")
        omega = grid(points, sample_time(system), double(first), whole=system.is_complex)  # pyright: ignore[reportArgumentType]
    x = on_contour(system, _checked_omega(omega, first))
    xp = namespace(x)
    if isinstance(system, ZerosPolesGain):
        delay = _delay_of_roots(system.poles, x, system.is_discrete) - _delay_of_roots(system.zeros, x, system.is_discrete)
    elif system.is_discrete:
        delay = -xp.real(quiet(mul)(x, log_derivative(system, x)))
    else:
        delay = -xp.real(log_derivative(system, x))
    return astype_width(delay * (sample_time(system) if system.is_discrete else 1), width(first))


def _delay_of_roots(roots: Array, x: Array, discrete: bool) -> Array:
    """``sum_i Re(x / (x - roots_i))`` on the circle, ``sum_i Re(1 / (x - roots_i))`` on the axis, finite for roots that lie on them.

    On the circle ``Re(x / (x - r)) = 1/2 + (1 - |r|^2) / (2 |x - r|^2)``, where a root within rounding of it counts as on it.
    """
    xp = namespace(roots, x)
    roots = double(roots)
    total = xp.zeros_like(xp.real(x))
    for i in range(roots.shape[-1]):
        root = roots[..., i : i + 1]
        gap = xp.abs(x - root) ** 2
        if discrete:
            depth = (1 - xp.abs(root)) * (1 + xp.abs(root))
            depth = xp.where(xp.abs(depth) < 16 * float(xp.finfo(xp.float64).eps), xp.zeros_like(depth), depth)
        else:
            depth = -xp.real(root)
        share = xp.where(gap > 0, depth / xp.where(gap > 0, gap, xp.ones_like(gap)), xp.zeros_like(gap))
        total = total + (0.5 + share / 2 if discrete else share)
    return total


def _delay_of_samples(response: FrequencyResponse) -> Array:
    """Central differences of the unwrapped phase, one-sided at the ends."""
    if response.points < 2:
        raise ValueError(f"expected at least 2 frequencies for the delay of a sampled response, got {response.points}")
    xp, omega = namespace(response.values), response.omega
    slope = -(lambda p: p[..., 1:] - p[..., :-1])(phase(response)) / (omega[..., 1:] - omega[..., :-1])
    if response.points == 2:
        return xp.concat([slope, slope], axis=-1)
    middle = (slope[..., 1:] + slope[..., :-1]) / 2
    return xp.concat([slope[..., :1], middle, slope[..., -1:]], axis=-1)
