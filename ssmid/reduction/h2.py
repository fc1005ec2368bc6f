"""l2-optimal (H2-optimal) approximation: the poles and residues of least squared error, from any start, for one system or thousands."""

from __future__ import annotations

from collections.abc import Sequence

from ssmid.reduction.h2_fir import h2_of_taps
from ssmid.reduction.h2_request import H2Request, Start
from ssmid.reduction.h2_result import H2Reduction
from ssmid.systems import ImpulseResponse, System


def h2_approximation(
    system: System,
    order: int | None = None,
    *,
    tol: float | None = None,
    max_order: int | None = None,
    start: Start | Sequence[Start] = "balanced",
    mimo: bool = False,
    max_iterations: int = 100,
    gtol: float = 1e-9,
) -> H2Reduction:
    """The system of ``order`` states nearest to ``system`` in l2 (H2): a local minimum of the error, never worse than the start.

    system : ImpulseResponse, each channel for itself, taken as the finite response that it is.
    order : states, 1 to what the system carries, or
    tol : instead, the largest relative l2 error; each element gets the smallest order that is found to meet it (doubled until one
        does, then bisected), up to ``max_order`` (256 when left out).
    start : "balanced" (the poles of balanced truncation), a system or a result of the same order, or several of these: the best
        end is kept. There are many local minima; the start decides.
    max_iterations, gtol : Newton's method stops where the cosine between the error and any change of it by a pole is at most
        ``gtol``, or where rounding hides more. Not ``converged`` after ``max_iterations``: still the best so far.

    Residues are eliminated, and the squared error is a function of the poles alone, whose gradient and Hessian are known in closed
    form from H, H' and H'' at the mirrored poles (h2_newton.py). Newton's method in a trust region moves the poles within the
    circle; a pair of real poles can become a conjugate pair and back. The error falls at every step. At the end the model meets
    the conditions of Meier and Luenberger, which is measured: ``interpolation_residual``. The result is stable and, of real
    systems, real. ``bound`` is NaN: none is known beforehand; ``lower_bound`` is sigma_{order+1}. In a batch elements that are not
    finite are NaN and not converged. Not differentiable. Sources: Meier & Luenberger, IEEE Trans. Automat. Control 12, 1967; Golub
    & Pereyra, SIAM J. Numer. Anal. 10, 1973; Gugercin, Antoulas & Beattie, SIAM J. Matrix Anal. Appl. 30, 2008.

    Raises ValueError for an order out of range, both or neither of ``order`` and ``tol``, and a start of another order.

    >>> import numpy as np
    >>> t = np.arange(200)
    >>> h = ImpulseResponse(np.concatenate([[1.0], 0.95**t * np.cos(0.3 * t) + 0.5 * (-0.6) ** t]))
    >>> fit = h2_approximation(h, order=2)
    >>> round(float(fit.error), 4), bool(fit.converged), bool(fit.interpolation_residual < 1e-8)
    (0.2151, True, True)
    """
    request = H2Request.of(order, tol, max_order, start, max_iterations, gtol)
    if isinstance(system, ImpulseResponse):
        return h2_of_taps(system, request)
    raise TypeError(f"expected an ImpulseResponse, got {type(system).__name__}")
