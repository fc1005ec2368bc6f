"""What l2-optimal approximation returns, and the Meier-Luenberger conditions of it, measured."""

from __future__ import annotations

import dataclasses

from ssmid._array import Array, as_complex, astype_width, double, namespace, quiet, width
from ssmid.analysis.evaluation import evaluate
from ssmid.reduction.result import Reduction
from ssmid.systems import System


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class H2Reduction(Reduction):
    """A :class:`Reduction` that says how well it meets the first-order conditions of optimality.

    interpolation_residual : ``(*batch,)`` of the Meier-Luenberger conditions: the largest difference of original and model, and of
        their derivatives, at the mirror images of the poles, relative to the largest value there (:func:`interpolation_residual`)
    iterations : ``(*batch,)`` Newton steps   history : ``(*batch, iterations + 1)`` relative l2 errors after each, none above the last
    condition : ``(*batch,)`` of the Hessian at the result, the largest eigenvalue over the least; infinite at a saddle
    """

    interpolation_residual: Array
    iterations: Array
    history: Array


def interpolation_residual(original: System, model: System, poles: Array, live: Array | None = None) -> Array:
    """``(*batch,)`` how far scalar systems are from the conditions of Meier and Luenberger (IEEE Trans. Automat. Control 12, 1967).

    At the mirror images m of the poles p (``1 / conj(p)``, ``-conj(p)`` in continuous time) an l2-optimal model agrees with the
    original in value and derivative. Both are weighted by the largest that a function of unit norm can have there, so that the
    residual has no unit and does not depend on the distance of the poles to the boundary. ``live`` ``(*batch, n)`` says which of
    the poles are the model's own: the zeros that pad smaller orders of a batch ask nothing.
    """
    bits = width(next(iter(model.arrays.values())))
    return astype_width(quiet(_residual)(original, model, double(as_complex(poles)), live), bits)


def _residual(original: System, model: System, poles: Array, live: Array | None) -> Array:
    xp = namespace(poles)
    if poles.shape[-1] == 0:
        return xp.zeros(poles.shape[:-1], dtype=xp.float64, device=poles.device)
    if model.is_discrete:
        # a pole at 0 is mirrored to infinity, where the conditions are those of the leading taps
        size = xp.abs(poles)
        poles = xp.where(size < 1e-6, as_complex(1e-6 * xp.ones_like(size)), poles)
        distance, points = 1 - xp.abs(poles) ** 2, 1 / xp.conj(poles)
    else:
        distance, points = -2 * xp.real(poles), -xp.conj(poles)
    value, slope = evaluate(original, points), evaluate(original, points, 1)
    feedthrough = _feedthrough(original)
    value, difference = value - feedthrough, value - feedthrough - (evaluate(model, points) - _feedthrough(model))
    slopes = slope - evaluate(model, points, 1)
    if model.is_discrete:  # of the power series in 1/z
        slope, slopes = points**2 * (value + points * slope), points**2 * (difference + points * slopes)
        value, difference = points * value, points * difference
    if live is not None:
        nothing = xp.zeros_like(value)
        value, difference, slope, slopes = (xp.where(live, x, nothing) for x in (value, difference, slope, slopes))
    largest = 0.0
    for term, off, power in ((value, difference, 0.5), (slope, slopes, 1.5)):
        scale = xp.max(xp.abs(term) * distance**power, axis=-1)
        relative = xp.max(xp.abs(off) * distance**power, axis=-1) / xp.where(scale > 0, scale, xp.ones_like(scale))
        largest = xp.maximum(0 * scale + largest, relative)
    return largest


def _feedthrough(system: System) -> Array:
    arrays = system.arrays
    if "taps" in arrays:
        return as_complex(double(arrays["taps"]))[..., :1]
    if "D" in arrays:
        return as_complex(double(arrays["D"]))[..., 0]
    return as_complex(double(arrays["feedthrough"]))[..., None]
