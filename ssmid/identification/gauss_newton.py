"""Least squares of smooth residuals by Levenberg and Marquardt, where some points may be refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ssmid.analysis.polynomial import Host
from ssmid.identification.least_squares import column_lengths, condition_of
from ssmid.linalg import triangular_factor


@dataclasses.dataclass(frozen=True)
class Minimum:
    """theta : where it was found   residuals : there   point : what ``evaluate`` kept   root : ``(k, k)`` with ``root root^T`` the
    inverse of ``J^T J`` over the directions that the data show   condition : of J with columns of length one"""

    theta: Host
    residuals: Host
    point: Any
    root: Host
    condition: float
    converged: bool
    iterations: int


def minimize(
    theta: Host,
    evaluate: Callable[[Host], tuple[Host, Any] | None],
    jacobian: Callable[[Host, Any], Host],
    *,
    iterations: int,
    tol: float,
    floor: float = 0.0,
    retract: Callable[[Host, Any], tuple[Host, Any]] | None = None,
) -> Minimum:
    """The nearest minimum of ``|evaluate(theta)|^2`` downhill from ``theta``.

    evaluate : residuals and anything the Jacobian is made from; None refuses a point (an unstable model), as does a sum of squares
        that is not less. The damping follows Nielsen's rule of the gain ratio (Madsen, Nielsen &
        Tingleff 2004, alg. 3.16); columns of the Jacobian are scaled to length one, directions at the level of rounding left alone.
    tol : it stops where the step is expected to take less than this part off the sum of squares, and after ``iterations``; also where
        points were refused and ten steps together took no more off: a minimum on the boundary of what is allowed
    floor : a sum of squares that is rounding
    retract : new coordinates after each step: theta of the accepted point in them (data-driven local coordinates)

    Raises ValueError where the start itself is refused.
    """
    start = evaluate(theta)
    if start is None:
        raise ValueError("expected a start with finite prediction errors, inside the region asked for")
    residuals, point = start
    theta, point = retract(theta, point) if retract is not None else (theta, point)
    cost, damping, grow = float(residuals @ residuals), 1e-3, 2.0
    converged, done, refused, standing = False, 0, False, 0
    while True:
        J = jacobian(theta, point)
        length, g, s, Vh = _decomposed(J, residuals)
        sound = s > max(J.shape) * np.finfo(float).eps * s.max(initial=0)
        promise = float(np.sum(g[sound] ** 2))
        if promise <= tol * cost or cost <= floor or done >= iterations:
            converged = promise <= tol * cost or cost <= floor
            break
        done += 1
        found = None
        for _ in range(30):
            step = -(Vh[sound].T @ (s[sound] * g[sound] / (s[sound] ** 2 + damping))) / length
            trial = evaluate(theta + step)
            refused = refused or trial is None
            new = float(trial[0] @ trial[0]) if trial is not None else np.inf
            if trial is not None and new < cost:
                share = (s[sound] ** 2 * (s[sound] ** 2 + 2 * damping)) / (s[sound] ** 2 + damping) ** 2
                gain = (cost - new) / max(float(np.sum(g[sound] ** 2 * share)), np.finfo(float).tiny)
                damping, grow, found = damping * max(1 / 10, 1 - (2 * gain - 1) ** 3), 2.0, (step, *trial, new)
                break
            damping, grow = max(damping, 1e-12) * grow, grow * 2
            if damping > 1e12:
                break
        if found is None:
            converged = promise <= 1e3 * tol * cost or cost <= 1e6 * floor
            break
        step, residuals, point, new = found
        standing = standing + 1 if cost - new <= tol * cost / 10 else 0
        small = cost - new <= tol * cost and (promise <= 1e2 * tol * cost or (refused and standing >= 10))
        theta, cost = theta + step, new
        if retract is not None:
            theta, point = retract(theta, point)
        if small:
            converged = True
            break
    return Minimum(theta, residuals, point, _inverse_root(length, s, Vh, sound), condition_of(s), converged, done)


def _decomposed(J: Host, residuals: Host) -> tuple[Host, ...]:
    """Column lengths, ``U^T residuals``, ``s`` and ``V^T`` of the thin SVD of J with columns of length one, by one QR of both."""
    length, k = column_lengths(J), J.shape[1]
    both = np.concatenate([J / length, residuals[:, None]], -1)
    R = triangular_factor(both) if len(both) > k else both
    U, s, Vh = np.linalg.svd(R[:, :k], full_matrices=False)
    return length, U.T @ R[:, k], s, Vh


def _inverse_root(length: Host, s: Host, Vh: Host, sound: Host) -> Host:
    inverse = np.divide(1, s, out=np.zeros_like(s), where=sound)
    return Vh.T * inverse / length[:, None]
