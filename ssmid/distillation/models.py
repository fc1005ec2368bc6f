"""Distilling what is a linear system already: modes and state spaces reduced as they are, without taps.

The error of a response without end is known in closed form, so that nothing is cut off: modal banks go by Gramians and Newton's method in
modal form, thousands at once, state spaces whose eigenvectors lose digits by Schur forms, one by one.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import Any

import numpy as np

from ssmid._array import Array, as_complex, astype_width, double, from_numpy, is_array, is_complex, namespace, quiet, to_numpy, width
from ssmid.analysis.conversion import to_state_space
from ssmid.distillation.bank import NOT_FINITE, UNSTABLE
from ssmid.distillation.certificate import Certificate
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.methods import METHODS
from ssmid.distillation.model_coupled import distill_coupled
from ssmid.distillation.model_norms import energy_beyond, natural_length
from ssmid.distillation.model_sources import REDUCTIONS, ModelSource, Scalars, sources_of, warn_of_missed
from ssmid.distillation.options import Options
from ssmid.distillation.order_budget import allocate, sampled_orders
from ssmid.distillation.orders import orders_of_each
from ssmid.distillation.result import Distillation
from ssmid.distillation.rounding import rounded
from ssmid.systems import FrequencyResponse, ImpulseResponse, Modal, SparseStateSpace, StateSpace, System

_KIND_OF_NORM = {"l2": "h2", "hankel": "hankel", "hinf": "hinf", "l1": "l1"}
_TAPS = ": distill the taps, ssmid.impulse_response(system, length)"


def distill_system(system: System, options: Options, *, chunk: int | None = None, length: int | None = None) -> Distillation:
    """The small recurrences of models: what :func:`ssmid.distill` does with a system that is no impulse response.

    system : discrete and real; a Modal bank, or what :func:`ssmid.to_state_space` takes. Scalar ones give ``(*batch, d)`` modes. A
        StateSpace ``(p, m)`` of several inputs or outputs stays one coupled system: its modes are shared, residues ``(*batch, p, m, d)``
        over poles ``(*batch, 1, 1, d)``, and its certificate holds norms of the whole matrix of responses.
    options : method "l2", "balanced", "hankel" or "modal-truncation"; an order, ``tol`` of the relative error that ``norm`` names, or for
        scalar systems a budget. Constraints, weights and "noise" are for filters.
    length : taps that the layer was trained with, beyond which ``tail_energy`` counts; left out, the taps until the slowest of all modes
        has fallen to a thousandth, 16 to 65,536

    The certificate is of the response without end. Unstable elements, and those that are not finite, are NaN and not converged, and
    ``certificate.kind`` says why. Not differentiable. Raises TypeError for what is no system with states, ValueError for
    continuous time, complex systems, and options that need taps.

    >>> from ssmid import Modal
    >>> bank = Modal([[0.9, 0.5, -0.2], [0.8, 0.3, 0.1]], [[1.0, 0.1, 0.3], [1.0, 2.0, 0.5]])
    >>> fit = distill_system(bank, Options(order=2))
    >>> fit.system, bool((fit.certificate.ratio >= 1).all())
    (Modal(order=2, batch=(2,), dt=1, complex128), True)
    """
    _check(system, options)
    if isinstance(system, StateSpace) and system.outputs * system.inputs != 1:
        return distill_coupled(system, options, length)
    states = system if isinstance(system, (Modal, StateSpace)) else to_state_space(system)
    bits = 32 if options.precision == "float32" else width(next(iter(states.arrays.values())))
    batch = system.batch_shape
    flat = dataclasses.replace(
        states,
        **{
            name: namespace(a).reshape(a, (prod(batch), *a.shape[a.ndim - states.core_ndim[name] :]))
            for name, a in states.broadcast_arrays().items()
        },
    )
    sources = sources_of(flat, chunk)
    chosen = _orders(sources, batch, options)
    parts = [(source, *_fit(source, orders, met, options, bits)) for source, (orders, met) in zip(sources, chosen, strict=True)]
    if length is None:
        length = natural_length(max((float(source.radius.max(initial=0.0)) for source in sources), default=0.0))
    missed = sum(int(np.sum(~met)) for _, met in chosen)
    if missed:
        warn_of_missed(missed, prod(batch), options, stacklevel=3)
    return _assembled(parts, flat, batch, bits, options, length)


def _check(system: System, options: Options) -> None:
    if isinstance(system, (FrequencyResponse, SparseStateSpace, ImpulseResponse)) or not isinstance(system, System):
        raise TypeError(f"expected a system with states, got {type(system).__name__}")
    if not system.is_discrete:
        raise ValueError("expected discrete time, got dt=0: sample it first with ssmid.c2d(system, dt)")
    if system.is_complex:
        raise ValueError(f"expected a real system, got {system!r}")
    if getattr(system, "order", None) == 0:
        raise ValueError(f"expected a system with states, got {system!r}: it is its feedthrough already")
    if options.method not in REDUCTIONS:
        known = ", ".join(repr(name) for name in REDUCTIONS)
        raise ValueError(f"method: expected one of {known} for a model, got {options.method!r}{_TAPS}")
    asked = {
        "max_modulus": options.max_modulus is not None,
        "real_poles": options.real_poles,
        "shared": bool(options.shared),
        "weights": options.weighted,
        "beyond='free'": options.beyond == "free",
        "order='noise'": isinstance(options.order, str),
    }
    given = [name for name, wanted in asked.items() if wanted]
    if given:
        raise ValueError(f"{given[0]}: expected a bank of filters for it, got a model{_TAPS}")


# ---------------------------------------------------------------- orders


def _orders(sources: list[ModelSource], batch: tuple[int, ...], options: Options) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each source the orders ``(n,)`` to fit and whether they are what was asked for."""
    if options.tol is not None:
        return [_by_tolerance(source, options.tol, options) for source in sources]
    if options.budget is not None:
        return _by_budget(sources, options)
    wanted = orders_of_each(options.order if is_array(options.order) else np.asarray(options.order), batch)
    return [(_rounded(wanted[source.places], source, options), np.ones(source.count, bool)) for source in sources]


def _rounded(orders: np.ndarray, source: ModelSource, options: Options) -> np.ndarray:
    """Multiples as the hardware wants them, as far as there are states."""
    return np.minimum(-(-orders // options.multiple) * options.multiple, source.degree)


def _by_tolerance(source: ModelSource, tol: float, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """By bisection between orders whose error is too large and orders where it is not; all elements that are undecided at once."""
    kind = _KIND_OF_NORM[options.norm]
    most = np.minimum(source.degree, options.max_order)
    size = to_numpy(source.sizes([kind])[kind])

    def meets(rows: np.ndarray, orders: np.ndarray) -> np.ndarray:
        some = source.take(rows)
        return to_numpy(some.errors(some.fit(orders, options), [kind])[kind]) <= tol * size[rows]

    high, low = most.copy(), np.zeros_like(most)
    met = meets(np.arange(source.count), high) if source.count else np.zeros(0, bool)
    low = np.where(met, low, high)
    while (high - low > 1).any():
        rows = np.flatnonzero(high - low > 1)
        middle = (low[rows] + high[rows]) // 2
        good = meets(rows, middle)
        high[rows], low[rows] = np.where(good, middle, high[rows]), np.where(good, low[rows], middle)
    return _rounded(high, source, options), met


def _by_budget(sources: list[ModelSource], options: Options) -> list[tuple[np.ndarray, np.ndarray]]:
    """Orders of all sources together, from the l2 errors at about five orders an octave."""
    assert options.budget is not None
    most = max((min(int(s.degree.max(initial=0)), options.max_order) for s in sources), default=0)
    curves = []
    for source in sources:
        size = to_numpy(source.sizes(["h2"])["h2"])
        found = np.full((source.count, most + 1), np.inf)
        found[:, 0] = size > 0
        for order in sampled_orders(most, options.multiple):
            fitted = source.fit(np.minimum(order, source.degree), options)
            found[:, min(order, most)] = to_numpy(source.errors(fitted, ["h2"])["h2"]) / np.where(size > 0, size, 1.0)
        curves.append(np.minimum.accumulate(found, axis=1))
    joined = np.concatenate([*curves, np.zeros((0, most + 1))])
    orders = allocate(joined, options.budget, multiple=options.multiple)
    ends = np.cumsum([source.count for source in sources])[:-1]
    return [
        (np.minimum(part, source.degree), np.ones(source.count, bool)) for source, part in zip(sources, np.split(orders, ends), strict=True)
    ]


def _fit(source: ModelSource, orders: np.ndarray, met: np.ndarray, options: Options, bits: int) -> tuple[Fitted, Array]:
    fitted = rounded(source.fit(orders, options), source.scale, bits)
    return fitted, fitted.converged & from_numpy(met, fitted.converged)


# ---------------------------------------------------------------- the result


@quiet
def _certificate(source: ModelSource, fitted: Fitted, converged: Array, length: int) -> dict[str, Any]:
    """The fields of a :class:`Certificate` for the elements of a source."""
    xp = namespace(source.scale)
    norms, own = source.errors(fitted, list(_KIND_OF_NORM.values())), source.sizes(["h2", "hinf", "l1"])
    size = xp.where(own["h2"] > 0, own["h2"], xp.ones_like(own["h2"]))
    sigma = xp.concat([source.sigma, xp.zeros_like(source.sigma[:, :1])], axis=-1)
    places = np.minimum(fitted.orders, sigma.shape[-1] - 1)[:, None]
    radius = xp.max(xp.abs(fitted.poles), axis=-1) if fitted.poles.shape[-1] else xp.zeros_like(size)
    lost = np.isin(source.kind, (NOT_FINITE, UNSTABLE))
    nan = from_numpy(np.where(lost, np.nan, 0.0), source.scale)
    l2 = norms["h2"] / size + nan
    return {
        "sigma": source.sigma * source.scale[:, None] + nan[:, None],
        "lower_bound": xp.take_along_axis(sigma, from_numpy(places, sigma), axis=-1)[:, 0] * source.scale + nan,
        "l2": l2,
        **{kind: norms[kind] * source.scale + nan for kind in ("hankel", "hinf", "l1")},
        "filter_hinf": own["hinf"] * source.scale + nan,
        "filter_l1": own["l1"] * source.scale + nan,
        "spectral_radius": radius + nan,
        "tail_energy": energy_beyond(fitted.poles, fitted.residues, length) / size**2 + nan,
        "converged": converged & ~xp.isnan(l2),
        "kind": source.kind,
        "delay": np.zeros(source.count, np.int64),
    }


@quiet
def _assembled(
    parts: list[tuple[ModelSource, Fitted, Array]],
    flat: Scalars,
    batch: tuple[int, ...],
    bits: int,
    options: Options,
    length: int,
) -> Distillation:
    like = double(next(iter(flat.arrays.values())))
    xp = namespace(like)
    places = np.concatenate([*(source.places for source, _, _ in parts), np.zeros(0, np.int64)])
    back = np.argsort(places)
    tables = [_certificate(source, fitted, converged, length) for source, fitted, converged in parts]
    empty = _empty(like) if not parts else {}

    def whole(arrays: list[Any]) -> Any:
        """The elements in their places, in the shape of the batch; rows filled up with zeros."""
        if isinstance(arrays[0], np.ndarray) and arrays[0].dtype.kind == "i":
            return np.concatenate(arrays)[back].reshape(batch)
        if arrays[0].ndim == 2:
            size = max(a.shape[1] for a in arrays)
            size = options.rounded(size) if is_complex(arrays[0]) else size
            arrays = [xp.concat([a, xp.zeros((a.shape[0], size - a.shape[1]), dtype=a.dtype, device=a.device)], axis=-1) for a in arrays]
        array = xp.take(xp.concat(arrays, axis=0), from_numpy(back, like), axis=0)
        return xp.reshape(array, (*batch, *array.shape[1:]))

    certificate = Certificate(**{f.name: whole([t[f.name] for t in tables] or [empty[f.name]]) for f in dataclasses.fields(Certificate)})
    lost = [as_complex(0 * table["l2"])[:, None] for table in tables]
    poles = whole([fitted.poles + nan for (_, fitted, _), nan in zip(parts, lost, strict=True)] or [as_complex(empty["sigma"])])
    residues = [
        fitted.residues * as_complex(source.scale)[:, None] + nan for (source, fitted, _), nan in zip(parts, lost, strict=True)
    ]
    residues = whole(residues or [as_complex(empty["sigma"])])
    feedthrough = flat.feedthrough if isinstance(flat, Modal) else flat.D[:, 0, 0]
    orders = whole([fitted.orders.astype(np.int64) for _, fitted, _ in parts] or [empty["kind"]])
    same = orders.size and (orders == orders.flat[0]).all()
    arrays = (astype_width(a, bits) for a in (poles, residues, xp.reshape(double(feedthrough), batch)))
    return Distillation(
        system=Modal(*arrays, dt=flat.dt),
        method=METHODS[options.method].title,
        order=int(orders.flat[0]) if same else from_numpy(orders, like),
        converged=certificate.converged,
        condition=whole([fitted.condition for _, fitted, _ in parts] or [empty["l2"]]),
        certificate=certificate,
        length=length,
    )


def _empty(like: Array) -> dict[str, Any]:
    """The fields of a certificate of no filters."""
    xp = namespace(like)
    number = xp.zeros((0,), dtype=xp.float64, device=like.device)
    fields: dict[str, Any] = {field.name: number for field in dataclasses.fields(Certificate)}
    none = np.zeros(0, np.int64)
    return fields | {"sigma": xp.reshape(number, (0, 1))[:, :0], "converged": number > 0, "kind": none, "delay": none}
