"""l2-optimal approximation of systems with several inputs and outputs, one after another on the host."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import scipy.linalg

from ssmid._array import astype_width, double, from_numpy, namespace, to_numpy, width
from ssmid.analysis.norms import norm
from ssmid.reduction.fir import balanced_truncation_fir
from ssmid.reduction.h2_request import H2Request
from ssmid.reduction.h2_result import H2Reduction
from ssmid.reduction.h2_sources import power_series
from ssmid.reduction.h2_tangential import Matrices, Tangential, Values, tangential_optimum
from ssmid.reduction.irka import best_fixed_point, h2_error
from ssmid.reduction.one_by_one import Element, Reduced, reduce_one_by_one, truncated
from ssmid.reduction.result import Reduction
from ssmid.systems import ImpulseResponse, StateSpace

METHOD = "l2-optimal approximation"
_SETTLED = 1e-8
"""The residual of the interpolation conditions at which IRKA has settled."""
_VISIBLE = 1e-8
"""Squared relative errors below which differences of squared norms say nothing of it."""


def h2_of_coupled_system(system: StateSpace, request: H2Request) -> H2Reduction:
    """Of each element of a real state space; unstable parts are kept and count as states."""
    assert request.order is not None
    _check_start(request)
    reduce = partial(_of_element, request=request)
    fit = reduce_one_by_one(system, request.order, METHOD, reduce, H2Reduction)
    first, last = fit.condition, fit.history
    one = namespace(last).ones_like(last)
    return dataclasses.replace(fit, history=namespace(last).stack([first, last], axis=-1), condition=one)


def _check_start(request: H2Request) -> None:
    if any(not isinstance(start, str) for start in request.starts):
        raise ValueError("start: expected 'balanced' for systems with several inputs or outputs, or with unstable poles")


def _of_element(element: Element, order: int, *, request: H2Request) -> Reduced:
    """On the balanced realization without the states that are rounding."""
    left, right, sigma = element.balanced
    A, B, C, D = truncated(element, left, right, sigma, element.degree)
    if order == element.degree:
        numbers = {"interpolation_residual": 0.0, "iterations": 0.0, "history": 0.0}
        return Reduced((A, B, C, D), bound=2 * float(np.sum(sigma[order:])), condition=0.0, numbers=numbers)
    balanced = Element(A, B, C, D, element.discrete)
    energy = float(norm(StateSpace(A, B, C, dt=int(element.discrete)), "h2")) ** 2
    first = h2_error(balanced, (A[:order, :order], B[:order], C[:, :order]))
    found = _optimum(balanced, order, energy, request)
    numbers = {
        "interpolation_residual": found.residual,
        "iterations": float(found.iterations),
        "history": (found.error / energy) ** 0.5,
    }
    return Reduced((*found.matrices, D), converged=_converged(found, request), condition=first / energy**0.5, numbers=numbers)


def _optimum(balanced: Element, order: int, energy: float, request: H2Request) -> Tangential:
    """IRKA, which the projection makes accurate however small the error; where it does not settle, the quasi-Newton method.

    The latter works in the disk, to which an isometry carries continuous time.
    """
    tol = max(request.gtol, _SETTLED)
    iterate, error = best_fixed_point(balanced, order, tol=tol, most=request.max_iterations)
    found = Tangential(iterate.matrices, error**2, iterate.conditions, iterate.steps, np.array([error**2]))
    if iterate.conditions <= tol or found.error < _VISIBLE * energy or np.iscomplexobj(balanced.A):
        return found
    start, original, rate = iterate.matrices, (balanced.A, balanced.B, balanced.C), 1.0
    if not balanced.discrete:
        rate = float(np.exp(np.mean(np.log(np.abs(np.linalg.eigvals(balanced.A))))))
        start, original = _to_disk(*start, rate), _to_disk(*original, rate)
    further = tangential_optimum(_values(*original), energy, start, max_iterations=request.max_iterations, gtol=request.gtol)
    matrices = further.matrices if balanced.discrete else _from_disk(*further.matrices, rate)
    reached = h2_error(balanced, matrices) ** 2
    steps = found.iterations + further.iterations
    if reached < found.error:
        return dataclasses.replace(further, matrices=matrices, error=reached, iterations=steps)
    return dataclasses.replace(found, iterations=steps)


def _converged(found: Tangential, request: H2Request) -> bool:
    return found.residual <= max(1e-6, request.gtol)


def _to_disk(A: np.ndarray, B: np.ndarray, C: np.ndarray, rate: float) -> Matrices:
    """``g(w) = sqrt(2 rate) / (1 + w) H(rate (1 - w) / (1 + w))``."""
    eye = np.eye(len(A))
    back = np.linalg.solve(rate * eye - A, np.hstack([rate * eye + A, (2 * rate) ** 0.5 * B]))
    return back[:, : len(A)], back[:, len(A) :], C


def _from_disk(A: np.ndarray, B: np.ndarray, C: np.ndarray, rate: float) -> Matrices:
    eye = np.eye(len(A))
    back = np.linalg.solve(A + eye, np.hstack([rate * (A - eye), (2 * rate) ** 0.5 * B]))
    return back[:, : len(A)], back[:, len(A) :], C


def _values(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> Values:
    T, Z = scipy.linalg.schur(A.astype(complex), check_finite=False)[:2]
    b, c, eye = Z.conj().T @ B, C @ Z, np.eye(len(A))

    def values(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        g, g1 = (np.zeros((len(points), len(C), B.shape[1]), complex) for _ in range(2))
        for k, w in enumerate(points):
            resolvent = eye - w * T
            reached = scipy.linalg.solve_triangular(resolvent, b, check_finite=False)
            seen = scipy.linalg.solve_triangular(resolvent, c.T, trans=1, check_finite=False).T
            g[k], g1[k] = c @ reached, seen @ (T @ reached)
        return g, g1

    return values


def h2_of_coupled_taps(response: ImpulseResponse, request: H2Request) -> H2Reduction:
    """Of taps ``(*batch, p, m, length)`` whose last two batch axes are the outputs and inputs of one system."""
    if response.is_complex:
        raise ValueError("mimo: expected real taps, got complex ones")
    _check_start(request)
    balanced = balanced_truncation_fir(response, request.order, mimo=True)
    assert isinstance(balanced.system, StateSpace)
    taps = to_numpy(double(response.taps))
    batch = taps.shape[:-3]
    system = balanced.system
    hosts = [to_numpy(double(M)) for M in (system.A, system.B, system.C)]
    orders = np.broadcast_to(np.asarray(to_numpy(balanced.order) if not isinstance(balanced.order, int) else balanced.order), batch)
    out = [M.copy() for M in hosts]
    numbers = {name: np.full(batch, np.nan) for name in ("residual", "iterations", "first", "last")}
    converged = np.zeros(batch, bool)
    for place in np.ndindex(*batch):
        if not np.isfinite(taps[place]).all():
            continue
        found, energy = _of_taps(taps[place], [M[place] for M in hosts], int(orders[place]), request)
        n = int(orders[place])
        out[0][place][:n, :n], out[1][place][:n], out[2][place][:, :n] = found.matrices
        first, last = (np.sqrt(max(e, 0.0) / energy) for e in (found.history[0], found.error))
        for name, value in (("residual", found.residual), ("iterations", found.iterations), ("first", first), ("last", last)):
            numbers[name][place] = value
        converged[place] = _converged(found, request)
    return _of_balanced(balanced, response, out, numbers, converged)


def _of_taps(taps: np.ndarray, start: list[np.ndarray], order: int, request: H2Request) -> tuple[Tangential, float]:
    p, m, length = taps.shape
    size = float(np.exp2(np.floor(np.log2(np.abs(taps[:, :, 1:]).max(initial=0.0) or 1.0))))
    scaled = taps[:, :, 1:].reshape(p * m, length - 1) / size
    energy = float(np.sum(scaled**2))
    A, B, C = start[0][:order, :order], start[1][:order] / size**0.5, start[2][:, :order] / size**0.5
    if order == 0:
        return Tangential((A, B * size**0.5, C), 0.0, 0.0, 0, np.zeros(1)), 1.0

    def values(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = power_series(scaled, np.broadcast_to(points, (p * m, len(points))))
        g, g1 = (np.moveaxis(x.reshape(p, m, len(points)), -1, 0) for x in found[:2])
        return g, g1

    found = tangential_optimum(values, energy, (A, B, C), max_iterations=request.max_iterations, gtol=request.gtol)
    A, B, C = found.matrices
    return dataclasses.replace(found, matrices=(A, B * size**0.5, C * size**0.5)), energy


def _of_balanced(
    balanced: Reduction, response: ImpulseResponse, matrices: list[np.ndarray], numbers: dict[str, np.ndarray], converged: np.ndarray
) -> H2Reduction:
    like, bits = response.taps, width(response.taps)
    xp = namespace(like)

    def back(values: np.ndarray):
        return astype_width(from_numpy(np.asarray(values, order="C"), like), bits)

    system = balanced.system
    assert isinstance(system, StateSpace)
    A, B, C = (back(M) for M in matrices)
    fit = {field.name: getattr(balanced, field.name) for field in dataclasses.fields(Reduction)}
    fit |= {"system": StateSpace(A, B, C, system.D, system.dt), "method": METHOD}
    fit |= {"bound": xp.full_like(balanced.bound, float("nan")), "converged": balanced.converged & from_numpy(converged, like)}
    fit |= {"condition": xp.ones_like(balanced.condition)}
    return H2Reduction(
        **fit,
        interpolation_residual=back(numbers["residual"]),
        iterations=back(numbers["iterations"]),
        history=back(np.stack([numbers["first"], numbers["last"]], axis=-1)),
    )
