"""The error of fits in a named norm, relative to the filter's own without tap 0: what tolerances are held against."""

from __future__ import annotations

import numpy as np

from ssmid._array import Array, from_numpy, namespace, quiet, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.distillation.error_hankel import hankel_norm
from ssmid.distillation.error_norms import Difference, l1_norm
from ssmid.distillation.error_peak import hinf_norm, hinf_of_taps
from ssmid.distillation.fitted import Fitted

_AT_ONCE = 2**25
"""Taps, and pairs of poles."""


def relative_errors(bank: Bank, fitted: Fitted, norm: str, own: np.ndarray, *, beyond: str = "zero") -> np.ndarray:
    """``(n,)`` on the host, as a certificate has them: 0 for filters without recurrence, infinite for fits not finite or not stable.

    norm : "l2", "hankel", "hinf" or "l1"   own : ``(n,)`` from :func:`filter_norms`
    """
    xp, n = namespace(bank.strict), bank.count
    step = max(1, _AT_ONCE // (bank.length + fitted.poles.shape[-1] ** 2))
    found = np.zeros(n)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        strict, poles, residues = (xp.take(x, from_numpy(rows, bank.strict), axis=0) for x in (bank.strict, fitted.poles, fitted.residues))
        found[rows] = to_numpy(_error(Difference.between(strict, poles, residues, beyond), norm))
    found = found / np.where(own > 0, own, 1.0)
    return np.where(bank.empty, 0.0, np.where(np.isnan(found), np.inf, found))


def filter_norms(bank: Bank, norm: str, sigma: Array) -> np.ndarray:
    """``(n,)`` on the host: norms of the normalized filters without tap 0; of the Hankel values ``sigma`` ``(n, k)`` the first."""
    xp = namespace(bank.strict)
    if norm == "hankel":
        return to_numpy(sigma[:, 0])
    if norm == "l2":
        return to_numpy(xp.sum(bank.strict**2, axis=-1)) ** 0.5
    moduli = xp.sum(xp.abs(bank.strict), axis=-1)
    return to_numpy(moduli if norm == "l1" else xp.minimum(hinf_of_taps(bank.strict), moduli))


@quiet
def _error(difference: Difference, norm: str) -> Array:
    xp = namespace(difference.taps)
    if norm == "l2":
        found = difference.energy**0.5
    else:
        found = moduli = l1_norm(difference)
        if norm in ("hinf", "hankel"):
            found = xp.minimum(hinf_norm(difference), moduli)
        if norm == "hankel":
            found = hankel_norm(difference, xp.zeros_like(moduli), found)[1]
    return difference.measured(found, norm)
