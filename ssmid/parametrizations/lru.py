"""Linear recurrent units: a diagonal recurrence with all inputs and all outputs in one (Orvieto et al., ICML 2023)."""

from __future__ import annotations

from ssmid._array import Array, as_complex, astype_width, double, harmonize, namespace
from ssmid.parametrizations.modes import widest
from ssmid.systems import StateSpace


def lru(
    nu_log: Array,
    theta_log: Array,
    gamma_log: Array,
    B_re: Array,
    B_im: Array,
    C_re: Array,
    C_im: Array,
    D: Array = None,
) -> StateSpace:
    """The real state space of 2 N states of ``x_t = lambda x_{t-1} + e^gamma_log B u_t``, ``y_t = Re(C x_t) + D u_t``.

    nu_log, theta_log, gamma_log : ``(*batch, N)``, ``lambda = exp(-exp(nu_log) + i exp(theta_log))``
    B_re, B_im : ``(*batch, N, m)``   C_re, C_im : ``(*batch, p, N)``   D : ``(*batch, m)``, a diagonal, with m = p

    The state is updated before it is read, so that ``h[0] = Re(C B) + D``. Differentiable.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> lru(np.zeros(1), np.zeros(1), np.zeros(1), one, 0 * one, one, 0 * one, np.ones(1)).D
    array([[2.]])
    """
    arrays = harmonize(
        nu_log=nu_log, theta_log=theta_log, gamma_log=gamma_log, B_re=B_re, B_im=B_im, C_re=C_re, C_im=C_im, D=D
    )
    bits = widest(*arrays)
    nu, theta, gamma, B_re, B_im, C_re, C_im = (double(a) for a in arrays[:-1])
    D = arrays[-1]
    xp = namespace(nu)
    poles = xp.exp(-as_complex(xp.exp(nu)) + 1j * as_complex(xp.exp(theta)))
    inputs = (as_complex(B_re) + 1j * as_complex(B_im)) * as_complex(xp.exp(gamma))[..., None]
    outputs = as_complex(C_re) + 1j * as_complex(C_im)
    eye = xp.eye(poles.shape[-1], dtype=nu.dtype, device=nu.device)
    real, imag = (part(poles)[..., None] * eye for part in (xp.real, xp.imag))
    A = xp.concat([xp.concat([real, -imag], axis=-1), xp.concat([imag, real], axis=-1)], axis=-2)
    B = xp.concat([xp.real(inputs), xp.imag(inputs)], axis=-2)
    moved = outputs * poles[..., None, :]
    C = xp.concat([xp.real(moved), -xp.imag(moved)], axis=-1)
    feedthrough = xp.real(outputs @ inputs)
    if D is not None:
        if D.shape[-1:] != feedthrough.shape[-1:] or feedthrough.shape[-1] != feedthrough.shape[-2]:
            raise ValueError(f"D: expected one number for each of equal inputs and outputs, got {tuple(D.shape)} for {tuple(C.shape)}")
        feedthrough = feedthrough + double(D)[..., None] * xp.eye(D.shape[-1], dtype=nu.dtype, device=nu.device)
    return StateSpace(*(astype_width(M, bits) for M in (A, B, C, feedthrough)))
