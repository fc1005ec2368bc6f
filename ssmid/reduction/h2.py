"""l2-optimal (H2-optimal) approximation: the poles and residues of least squared error, from any start, for one system or thousands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ssmid._array import Array, is_complex
from ssmid.analysis.conversion import to_state_space
from ssmid.reduction.balanced import balanced_truncation
from ssmid.reduction.h2_coupled import h2_of_coupled_system, h2_of_coupled_taps
from ssmid.reduction.h2_fir import h2_of_taps
from ssmid.reduction.h2_request import H2Request, Start
from ssmid.reduction.h2_result import H2Reduction
from ssmid.reduction.h2_state_space import h2_of_scalars
from ssmid.reduction.h2_weighted import Weights, h2_of_weighted_taps
from ssmid.systems import ImpulseResponse, Modal, StateSpace, System


def h2_approximation(
    system: System,
    order: int | None = None,
    *,
    tol: float | None = None,
    max_order: int | None = None,
    start: Start | Sequence[Start] = "balanced",
    restarts: int = 0,
    exchanges: int = 0,
    weights: Array | None = None,
    frequency_weights: Array | System | None = None,
    mimo: bool = False,
    max_iterations: int = 100,
    gtol: float = 1e-9,
) -> H2Reduction:
    """The system of ``order`` states nearest to ``system`` in l2 (H2): a local minimum of the error, never worse than the start.

    system : an ImpulseResponse, taken as the finite response that it is, a Modal bank or what :func:`ssmid.to_state_space` takes, in
        discrete or continuous time. A Modal bank gives a Modal bank, all others a StateSpace.
    order : states, 1 to what the system carries, or
    tol : instead, the largest relative l2 error, of taps or of a single model; each response gets the smallest order that is found
        to meet it (doubled until one does, then bisected), up to ``max_order`` (256 when left out).
    start : "balanced" (the poles of balanced truncation, of a single StateSpace also those of :func:`ssmid.irka`, of banks of models
        the dominant ones), or for scalar systems a system or a result of the same order, or several of these: the best end is kept.
        There are many local minima; the start decides.
    restarts : so many perturbed copies of each start of a scalar system are tried too, in one batch; the result is the same each time.
    exchanges : of real taps without ``mimo`` or weights: so many rounds, at most, out of the minimum that was found. Pole pairs are
        added where the error says that they take most from it, the weakest go, and Newton's method runs again (h2_exchange.py).
        The error never rises, and a response that a round did not improve takes no further part. Where one did, ``iterations`` and
        ``history`` are those of its last search.
    weights : of taps, ``(*batch, length)`` or ``(length,)``, not negative: the sum of ``|weights error|^2`` over the taps is made small.
    frequency_weights : of taps, ``(*batch, k)`` or ``(k,)``, not negative, on the grid of ``frequency_response(points=n)``, n at least
        the length, interpolated onto a finer grid where n is less than twice that, or a scalar system whose gain they are:
        ``|weights error|^2`` over the grid is made small. With either,
        ``history`` holds relative weighted errors, ``error`` stays unweighted, and ``interpolation_residual`` is the largest cosine
        between the weighted error and any change of it by a pole.
    mimo : the last two batch axes of real taps or of a Modal bank are outputs and inputs of one system.
    max_iterations, gtol : Newton's method stops where the cosine between the error and any change of it by a pole is at most
        ``gtol``, or where rounding hides more. Not ``converged`` after ``max_iterations``: still the best so far.

    Residues are eliminated, and the squared error is a function of the poles alone, whose gradient and Hessian are known in closed
    form from H, H' and H'' at the mirrored poles (h2_newton.py). Newton's method in a trust region moves the poles within the
    circle; a pair of real poles can become a conjugate pair and back. The error falls at every step. Continuous time is carried
    to the disk by an isometry. Systems with several inputs and outputs, or with an unstable part, which is kept, are reduced one
    after another by tangential interpolation (IRKA), and where that does not settle by a quasi-Newton method over poles and
    directions; their ``condition`` is 1 and their ``history`` the start and the end. At the end the model meets the conditions of
    Meier and Luenberger, which is measured: ``interpolation_residual``. The result is stable and, of real
    systems, real. ``bound`` is NaN: none is known beforehand; ``lower_bound`` is sigma_{order+1}. In a batch elements that are not
    finite are NaN and not converged. Not differentiable. Sources: Meier & Luenberger, IEEE Trans. Automat. Control 12, 1967; Golub
    & Pereyra, SIAM J. Numer. Anal. 10, 1973; Gugercin, Antoulas & Beattie, SIAM J. Matrix Anal. Appl. 30, 2008.

    Raises ValueError for an order out of range, both or neither of ``order`` and ``tol``, a start of another order, and ``exchanges`` of
    anything but real taps.

    >>> import numpy as np
    >>> t = np.arange(200)
    >>> h = ImpulseResponse(np.concatenate([[1.0], 0.95**t * np.cos(0.3 * t) + 0.5 * (-0.6) ** t]))
    >>> fit = h2_approximation(h, order=2)
    >>> round(float(fit.error), 4), bool(fit.converged), bool(fit.interpolation_residual < 1e-8)
    (0.2151, True, True)
    """
    request = H2Request.of(order, tol, max_order, start, max_iterations, gtol, restarts, exchanges)
    if exchanges:
        _check_exchangeable(system, mimo=mimo, weighted=weights is not None or frequency_weights is not None)
    if weights is not None or frequency_weights is not None:
        if not isinstance(system, ImpulseResponse) or mimo:
            raise ValueError(f"weights: expected an ImpulseResponse without mimo, got {type(system).__name__} with mimo={mimo}")
        return h2_of_weighted_taps(system, request, Weights.of(system, weights, frequency_weights))
    if isinstance(system, ImpulseResponse):
        return h2_of_coupled_taps(system, request) if mimo else h2_of_taps(system, request)
    states = system if isinstance(system, Modal) and not mimo else to_state_space(system, mimo=mimo)
    return _of_model(states, request) if request.tol is None else _by_tolerance(states, request)


def _check_exchangeable(system: System, *, mimo: bool, weighted: bool) -> None:
    taps = isinstance(system, ImpulseResponse)
    if not taps or mimo or weighted or is_complex(system.taps):
        what = f"{'complex ' if taps and is_complex(system.taps) else ''}{type(system).__name__}"
        with_ = " and ".join(["mimo"] * mimo + ["weights"] * weighted)
        raise ValueError(f"exchanges: expected 0, or real taps without mimo or weights, got {what}{' with ' if with_ else ''}{with_}")


def _of_model(system: StateSpace | Modal, request: H2Request) -> H2Reduction:
    scalar = isinstance(system, Modal) or system.inputs == system.outputs == 1
    if scalar and 0 not in (*system.batch_shape, system.order):
        found = h2_of_scalars(system, request)
        if found is not None:
            return found
    return h2_of_coupled_system(to_state_space(system), request)


def _by_tolerance(system: StateSpace | Modal, request: H2Request) -> H2Reduction:
    """The smallest order that meets the tolerance: doubled until one does, then bisected."""
    if system.batch_shape:
        raise ValueError(f"tol: expected taps or a single model, got batch shape {system.batch_shape}: give an order")
    balanced = balanced_truncation(system, tol=request.tol, tol_norm="h2", max_order=request.max_order)
    assert request.tol is not None
    assert isinstance(balanced.order, int)

    def at(order: int) -> H2Reduction:
        return _of_model(system, dataclasses.replace(request, order=order, tol=None))

    # the l2 optimum of an order is no worse than its start, so that balanced truncation's order will do
    low, high = 0, max(1, balanced.order)
    best = at(high)
    while high - low > 1:
        middle = (low + high) // 2
        found = at(middle)
        low, high, best = (low, middle, found) if found.error <= request.tol else (middle, high, best)
    return dataclasses.replace(best, converged=best.converged & (best.error <= request.tol))
