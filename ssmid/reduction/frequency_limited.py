"""Balanced truncation for a band of frequencies, or for the first seconds: Gramians of what counts, not of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg

from ssmid.analysis.conversion import to_state_space
from ssmid.reduction.one_by_one import Element, Matrices, Reduced, balancing, reduce_one_by_one, truncated, warn_if_destabilized
from ssmid.reduction.result import Reduction
from ssmid.systems import System
from ssmid.systems.base import sample_time

_WORST_EIGENVECTORS = 1e6


def frequency_limited_truncation(system: System, order: int, band: tuple[float, float]) -> Reduction:
    """The system of ``order`` states that balanced truncation gives when only frequencies in ``band`` count.

    system : StateSpace (single or batch, real or complex, continuous or discrete) or what :func:`ssmid.to_state_space` takes
    band : the lowest and the highest frequency in rad/s, ``0 <= low < high`` (for complex systems the mirrored band counts too); in
        discrete time at most ``pi / dt``. The whole axis gives balanced truncation.

    The Gramians are those integrals over frequency, taken over the band alone: ``S Wc + Wc S^H`` with ``S = 1 / (2 pi) integral of
    (i omega - A)^-1``, a matrix logarithm (Gawronski & Juang, Int. J. Syst. Sci. 21, 1990; discrete time: Horta, Juang & Longman
    1993). The result can be unstable: then ``converged`` is False, with a warning. No bound is known (``bound`` is NaN). The
    unstable part is kept and takes no part. ``condition`` is the ratio of the largest band-limited Hankel value to the last one
    kept. Not differentiable.

    Raises ValueError for a band that is no interval, and for an order below 1 or above what the system carries to rounding.

    >>> from ssmid import ss
    >>> import numpy as np
    >>> slow_and_fast = ss(np.diag([-1.0, -1000.0]), [1.0, 100.0], [1.0, 100.0], dt=0)
    >>> round(float(frequency_limited_truncation(slow_and_fast, 1, (0.0, 2.0)).system.A[0, 0]))
    -11
    """
    low, high = (float(edge) for edge in band)
    states = to_state_space(system)
    step = sample_time(states) if states.is_discrete else None
    most = np.inf if step is None else np.pi / step * (1 + 1e-12)
    if not 0 <= low < high <= most:
        raise ValueError(f"band: expected 0 <= low < high <= {most:.6g} (rad/s), got {band}")
    reduce = partial(_in_band, low=low, high=high, step=step)
    result = reduce_one_by_one(system, order, "frequency-limited balanced truncation", reduce, Reduction)
    warn_if_destabilized(result, "take a wider band, another order, or ssmid.balanced_truncation with weights")
    return result


def time_limited_truncation(system: System, order: int, end: float) -> Reduction:
    """The system of ``order`` states that balanced truncation gives when only the response up to ``end`` seconds counts.

    end : seconds after the impulse (in discrete time at least one step); infinity gives balanced truncation
    Everything else is as for :func:`frequency_limited_truncation`; the Gramians are ``Wc - F Wc F^H``, ``F = exp(A end)``
    (Gawronski & Juang 1990). Raises ValueError for an ``end`` that is not positive.

    >>> from ssmid import ss
    >>> import numpy as np
    >>> system = ss(np.diag([-1.0, -1.1, -30.0]), [1.0, 1.0, 5.0], [1.0, -1.0, 5.0], dt=0)
    >>> bool(abs(time_limited_truncation(system, 1, 0.1).system.A[0, 0] + 30) < 0.1)
    True
    """
    states = to_state_space(system)
    step = sample_time(states) if states.is_discrete else None
    if not end > 0 or (step is not None and round(min(end / step, 2**62)) < 1):
        raise ValueError(f"end: expected a positive time{'' if step is None else f' of at least one step of {step:g}'}, got {end}")
    result = reduce_one_by_one(system, order, "time-limited balanced truncation", partial(_up_to, end=end, step=step), Reduction)
    warn_if_destabilized(result, "take a later end, another order, or ssmid.balanced_truncation")
    return result


# ---------------------------------------------------------------- Gramians
# All in balanced coordinates, where both Gramians are diag(sigma): scaled by its root from both sides nothing small is lost.


def _in_band(element: Element, order: int, *, low: float, high: float, step: float | None) -> Reduced:
    matrices = truncated(element, *element.balanced, element.degree)
    angle = element.rate if step is None else 1 / step
    S = _share(matrices[0], high / angle, element.discrete) - _share(matrices[0], low / angle, element.discrete)
    root = np.sqrt(element.sigma[: element.degree])
    inputs, outputs = root[:, None] ** -1 * S * root, root[:, None] * S / root
    return _balanced_for(element, matrices, inputs + inputs.conj().T, outputs + outputs.conj().T, order)


def _up_to(element: Element, order: int, *, end: float, step: float | None) -> Reduced:
    matrices = truncated(element, *element.balanced, element.degree)
    if np.isinf(end):
        F = np.zeros_like(matrices[0])
    elif step is None:
        F = scipy.linalg.expm(matrices[0] * (end * element.rate))
    else:
        F = np.linalg.matrix_power(matrices[0], round(min(end / step, 2**62)))
    root, eye = np.sqrt(element.sigma[: element.degree]), np.eye(element.degree)
    inputs, outputs = root[:, None] ** -1 * F * root, root[:, None] * F / root
    return _balanced_for(element, matrices, eye - inputs @ inputs.conj().T, eye - outputs.conj().T @ outputs, order)


def _balanced_for(element: Element, matrices: Matrices, inputs: np.ndarray, outputs: np.ndarray, order: int) -> Reduced:
    """Truncation that balances ``sigma^(1/2) inputs sigma^(1/2)`` with ``sigma^(1/2) outputs sigma^(1/2)``."""
    A, B, C, D = matrices
    root = np.sqrt(element.sigma[: element.degree])[:, None]
    R, L = (root * _square_root(M) for M in (inputs, outputs))
    left, right, sigma = balancing(R, L)
    usable = min(order, int(np.sum(sigma > len(sigma) * np.finfo(float).eps * sigma[0])))
    small = truncated(Element(A, B, C, D, element.discrete), left, right, sigma, usable)
    poles = np.linalg.eigvals(small[0])
    stable = (np.abs(poles) < 1).all() if element.discrete else (np.real(poles) < 0).all()
    return Reduced(small, converged=bool(stable) and usable == order, condition=float(sigma[0] / sigma[usable - 1]))


def _square_root(M: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((M + M.conj().T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))


def _share(A: np.ndarray, omega: float, discrete: bool) -> np.ndarray:
    """``S`` for the band from ``-omega`` to ``omega``: half the identity for all frequencies.

    ``(log(i omega - A) - log(-i omega - A)) / (2 pi i)``; in discrete time ``omega / (2 pi) - (log(I - A e) - log(I - A / e)) / (2 pi i)``,
    ``e = exp(i omega)``.
    """
    eye = np.eye(len(A))
    if np.isinf(omega) or omega == 0:
        return eye / 2 if omega else 0 * eye
    if discrete:
        turn = np.exp(1j * omega)
        between = _logarithm(A, lambda x: np.log(1 - x * turn)) - _logarithm(A, lambda x: np.log(1 - x / turn))
        S = omega / (2 * np.pi) * eye - between / (2j * np.pi)
    else:
        between = _logarithm(A, lambda x: np.log(1j * omega - x)) - _logarithm(A, lambda x: np.log(-1j * omega - x))
        S = between / (2j * np.pi)
    return S if np.iscomplexobj(A) else np.real(S)


def _logarithm(A: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``function``, a logarithm of a linear one, of a matrix: by eigenvectors where they are well conditioned, else by Schur form."""
    values, X = np.linalg.eig(A)
    if np.linalg.cond(X) < _WORST_EIGENVECTORS:
        return (X * function(values)) @ np.linalg.inv(X)
    shift, slope = np.exp(function(np.zeros(1)))[0], np.exp(function(np.ones(1)))[0]
    return np.asarray(scipy.linalg.logm(shift * np.eye(len(A)) + (slope - shift) * A))
