"""Any system to any form by name, with what the conversion lost: measured, per batch element."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ssmid._array import Array, double, finite_elements, from_numpy, namespace, to_numpy
from ssmid.analysis.characteristics import poles
from ssmid.analysis.conversion import to_sos, to_state_space, to_transfer_function, to_zpk
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.loss import contour_points
from ssmid.analysis.modal_form import modal_and_condition
from ssmid.analysis.polynomial import polynomial_roots, root_condition
from ssmid.analysis.realization import balanced_realization, companion_realization, minimal_realization, modal_realization
from ssmid.analysis.spectrum import frequency_response, on_contour
from ssmid.linalg import svd
from ssmid.systems import (
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import not_a_system

_POINTS = 128
_CLASSES = {
    StateSpace: "state-space",
    Modal: "modal",
    TransferFunction: "transfer-function",
    ZerosPolesGain: "zpk",
    SecondOrderSections: "sos",
    ImpulseResponse: "impulse-response",
    FrequencyResponse: "frequency-response",
}
FORMS = (*_CLASSES.values(), "companion", "controllable", "observable", "balanced", "minimal", "block-modal")
"""The names that :func:`convert` knows."""


@dataclasses.dataclass(frozen=True, eq=False)
class Conversion:
    """A converted system and what the conversion lost.

    system : the result   original : what it was made from
    backward_error : ``(*batch,)`` largest difference of the two frequency responses over 128 frequencies and beside the poles that
    resonate most, relative to the peak of the original (for a change of a MIMO state space over all its channels)
    condition : ``(*batch,)`` how much relative errors are magnified: of the eigenvectors or roots into modal form, of the transform
    between state spaces, of the roots of the denominator into transfer functions; 1 where nothing is magnified
    transform : T with ``x_original = T x_system`` between state spaces, else None
    """

    system: System
    original: System
    backward_error: Array
    condition: Array
    transform: Array | None = None


def convert(system: System, to: type[System] | str, **options: Any) -> Conversion:
    """``system`` in the form ``to``: a class, or one of the names in :data:`FORMS`.

    "companion" is "controllable"; "block-modal" the real block-diagonal form that keeps clustered poles together. Options are those
    of the function that does it: ``length`` for "impulse-response", ``omega`` or ``points`` for "frequency-response",
    ``tol`` for "minimal", ``max_condition`` for "block-modal", ``mimo`` for "state-space", and ``form`` for "state-space":
    "controllable", "observable", "balanced" or "modal". Raises ValueError for a name or option that does not exist.

    >>> from ssmid import tf
    >>> c = convert(tf([1, 0], [1, -0.75, 0.125]), "modal")
    >>> c.system.order, bool(c.backward_error < 1e-14)
    (2, True)
    """
    if not isinstance(system, System):
        raise not_a_system(system)
    name = to if isinstance(to, str) else _CLASSES.get(to, getattr(to, "__name__", repr(to)))
    if name == "state-space" and "form" in options:
        form = options.pop("form")
        name = {None: name, "modal": "block-modal"}.get(form, form)
    name = "controllable" if name == "companion" else name
    if name not in _WAYS:
        raise ValueError(f"to: expected a class or one of {', '.join(FORMS)}, got {to!r}")
    try:
        result, condition, transform = _WAYS[name](system, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"options: expected those of {name!r}, got {sorted(options)}: {error}") from None
    condition = _ones(system) if condition is None else condition
    condition = namespace(condition).broadcast_to(condition, np.broadcast_shapes(tuple(condition.shape), system.batch_shape))
    return Conversion(result, system, _backward_error(system, result), condition, transform)


# ---------------------------------------------------------------- the ways


Way = tuple[System, Array | None, Array | None]


def _modal(system: System) -> Way:
    return (*modal_and_condition(system), None)


def _transfer_function(system: System) -> Way:
    result = to_transfer_function(system)
    den = to_numpy(double(result.den))
    condition = root_condition(den, to_numpy(polynomial_roots(result.den)))
    condition = np.broadcast_to(condition, result.batch_shape)
    channels = tuple(range(len(system.batch_shape) - condition.ndim, 0))
    return result, from_numpy(condition.max(channels, initial=1.0), result.den), None


def _companion(form: str) -> Callable[..., Way]:
    def way(system: System) -> Way:
        if isinstance(system, TransferFunction):
            return to_state_space(system, form=form), None, None
        return _with_transform(companion_realization)(system, form=form)

    return way


def _with_transform(function: Callable[..., Any]) -> Callable[..., Way]:
    def way(system: System, **options: Any) -> Way:
        result, T = function(system, return_transform=True, **options)
        return result, _condition_of(double(T)), T

    return way


def _condition_of(T: Array) -> Array | None:
    """Largest over smallest singular value; infinite for a singular transform, NaN where there is none."""
    if not min(T.shape[-2:]):
        return None
    xp = namespace(T)
    sound = finite_elements(T, 2)
    s = svd(xp.where(sound[..., None, None], T, xp.ones_like(T)))[1]
    zero = s[..., -1] == 0
    ratio = xp.where(zero, xp.inf, s[..., 0] / xp.where(zero, xp.ones_like(s[..., 0]), s[..., -1]))
    return xp.where(sound, ratio, xp.nan)


_WAYS: dict[str, Callable[..., Way]] = {
    "state-space": lambda system, **options: (to_state_space(system, **options), None, None),
    "modal": _modal,
    "transfer-function": _transfer_function,
    "zpk": lambda system: (to_zpk(system), None, None),
    "sos": lambda system: (to_sos(system), None, None),
    "impulse-response": lambda system, length=None, **options: (impulse_response(system, length, **options), None, None),
    "frequency-response": lambda system, omega=None, **grid: (frequency_response(system, omega, **grid), None, None),
    "controllable": _companion("controllable"),
    "observable": _companion("observable"),
    "balanced": _with_transform(balanced_realization),
    "minimal": _with_transform(minimal_realization),
    "block-modal": _with_transform(modal_realization),
}


# ---------------------------------------------------------------- the error


def _backward_error(original: System, result: System) -> Array:
    sampled = next((s for s in (result, original) if isinstance(s, FrequencyResponse)), None)
    if sampled is not None:
        points = (on_contour(original, sampled.omega),) * 2
    else:
        own = to_numpy(poles(original))
        own = np.broadcast_to(own, (*original.batch_shape, own.shape[-1]))
        hosts = contour_points(original, result, own, _frequencies(own, original.is_discrete))
        points = tuple(from_numpy(x, next(iter(original.arrays.values()))) for x in hosts)
    a, b = (
        double(s.values) if isinstance(s, FrequencyResponse) else evaluate(s.map(double), x)
        for s, x in zip((original, result), points, strict=True)
    )
    xp = namespace(a, b)
    difference = a - b
    channels = min(len(original.batch_shape), len(result.batch_shape)) - difference.ndim
    peak, difference = (xp.max(xp.abs(xp.broadcast_to(x, difference.shape)), axis=tuple(range(channels, 0))) for x in (a, difference))
    return difference / xp.where(peak > 0, peak, xp.ones_like(peak))


def _frequencies(poles: np.ndarray, discrete: bool) -> np.ndarray:
    """128 frequencies: between the points of the FFT grid, or over the decades of the poles in continuous time."""
    if discrete:
        return np.pi * (np.arange(_POINTS) + 0.5) / _POINTS
    radii = np.abs(poles)
    radii = radii[np.isfinite(radii) & (radii > 0)]
    low, high = (radii.min(), radii.max()) if radii.size else (1.0, 1.0)
    return np.geomspace(low / 16, high * 16, _POINTS)


def _ones(system: System) -> Array:
    first = double(next(iter(system.arrays.values())))
    xp = namespace(first)
    return xp.ones(system.batch_shape, dtype=xp.float64, device=first.device)
