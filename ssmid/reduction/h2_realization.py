"""State spaces from poles and the coefficients of a cascade: orthonormal states, so that close poles cancel nothing."""

from __future__ import annotations

from ssmid._array import Array, as_complex, namespace
from ssmid.linalg import solve

Realized = tuple[Array, Array, Array]


def cascade_realization(poles: Array, live: Array, sections: Array, *, real: bool) -> Realized:
    """``A, B, C`` of ``g(w) = sum_k b_1 .. b_(k-1) r_k = C (I - w A)^-1 B``, its controllability Gramian the identity.

    poles, live : ``(batch, d)``, in pairs where ``real``   sections : ``(batch, K, 2)``, ``r_k = (z1 + z0 w) / (1 - s w + p w^2)``
    (of single poles ``z0 / (1 - p w)``), as the sources of h2_sources.py give them

    Pairs are normalized lattices (Gray and Markel, IEEE Trans. Acoust. Speech Signal Process. 23, 1975): reflection coefficients
    ``-s / (1 + p)`` and ``p``. States where no pole is live are zero.
    """
    xp = namespace(poles)
    parts = _pairs(poles, live, sections) if real else _singles(poles, live, sections)
    A, B, c, d, C = parts
    batch, count, size = B.shape
    order = count * size
    rows, inputs = [], []
    seen = xp.zeros((batch, order), dtype=A.dtype, device=A.device)
    passed = xp.ones((batch, 1), dtype=A.dtype, device=A.device)
    for k in range(count):
        own = xp.concat([_block(A[:, k, i : i + 1, :], size * k, order) for i in range(size)], axis=-2)
        rows.append(own + B[:, k, :, None] * seen[:, None, :])
        inputs.append(B[:, k, :] * passed)
        seen = d[:, k, None] * seen + _block(c[:, k, None, :], size * k, order)[:, 0, :]
        passed = d[:, k, None] * passed
    if count == 0:
        none = xp.zeros((batch, 0, 1), dtype=A.dtype, device=A.device)
        return xp.zeros((batch, 0, 0), dtype=A.dtype, device=A.device), none, xp.matrix_transpose(none)
    return xp.concat(rows, axis=-2), xp.concat(inputs, axis=-1)[..., None], xp.reshape(C, (batch, 1, order))


def _block(row: Array, start: int, order: int) -> Array:
    """``(batch, 1, size)`` at column ``start`` of ``(batch, 1, order)``."""
    xp = namespace(row)
    before = xp.zeros((row.shape[0], 1, start), dtype=row.dtype, device=row.device)
    after = xp.zeros((row.shape[0], 1, order - start - row.shape[-1]), dtype=row.dtype, device=row.device)
    return xp.concat([before, row, after], axis=-1)


def _pairs(poles: Array, live: Array, z: Array) -> tuple[Array, ...]:
    """``A, b, c, d`` of each all-pass section and the output that reads its part off."""
    xp = namespace(poles)
    first, second = poles[:, 0::2], poles[:, 1::2]
    single, on = ~live[:, 1::2], live[:, 0::2]
    total, product = xp.real(first + second), xp.real(first * second)
    k1, k2 = -total / (1 + product), product
    # (1 - s + p) (1 + s + p) and 1 - p^2 from the poles: near the circle nothing cancels
    below, above = xp.real((1 - first) * (1 - second)), xp.real((1 + first) * (1 + second))
    root1 = xp.sqrt(below * above) / (1 + product)
    pair = xp.imag(first) != 0
    gap = xp.where(pair, (1 - xp.abs(first)) * (1 + xp.abs(first)), 1 - product)
    root2 = xp.sqrt(gap * (1 + product))
    none, one = xp.zeros_like(k1), xp.ones_like(k1)
    inside = xp.sqrt(xp.clip((1 - total) * (1 + total), min=0.0))

    def chosen(of_pair: Array, of_single: Array, otherwise: Array) -> Array:
        return xp.where(on, xp.where(single, of_single, of_pair), otherwise)

    a11, a12 = chosen(-k1, total, none), chosen(-root1 * k2, none, none)
    a21, a22 = chosen(root1, none, none), chosen(-k1 * k2, none, none)
    A = xp.stack([xp.stack([a11, a12], axis=-1), xp.stack([a21, a22], axis=-1)], axis=-2)
    b = xp.stack([chosen(root1 * root2, inside, none), chosen(k1 * root2, none, none)], axis=-1)
    c = xp.stack([chosen(none, inside, none), chosen(root2, none, none)], axis=-1)
    d = chosen(k2, -total, one)
    safe1, safe2 = (xp.where(r > 0, r, one) for r in (root1, root2))
    safe = xp.where(inside > 0, inside, one)
    C0 = chosen((z[..., 1] - k1 * z[..., 0]) / (safe1 * safe2), z[..., 0] / safe, none)
    C = xp.stack([C0, chosen(z[..., 0] / safe2, none, none)], axis=-1)
    return A, b, c, d, C


def _singles(poles: Array, live: Array, z: Array) -> tuple[Array, ...]:
    """First-order sections; the poles and coefficients are those of the conjugate series."""
    xp = namespace(poles)
    size = as_complex(xp.sqrt((1 - xp.abs(poles)) * (1 + xp.abs(poles))))
    none = xp.zeros_like(poles)
    A, b = xp.where(live, poles, none), xp.where(live, size, none)
    d = xp.where(live, -xp.conj(poles), xp.ones_like(poles))
    C = xp.where(live, xp.conj(z[..., 0]) / size, none)
    return A[..., None, None], b[..., None], b[..., None], d, C[..., None]


def continuous(A: Array, B: Array, C: Array, rate: float) -> Realized:
    """Back from the disk: ``g(w) = sqrt(2 rate) / (1 + w) H(rate (1 - w) / (1 + w))``, an isometry of the two H2 norms."""
    xp = namespace(A)
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    back = solve(A + eye, xp.concat([A - eye, B], axis=-1))
    n = A.shape[-1]
    return rate * back[..., :n], (2 * rate) ** 0.5 * back[..., n:], C
