"""Out of modal form: real state spaces with one block ``[[a, b], [-b, a]]`` for each pair of poles ``a +- i b``."""

from __future__ import annotations

import numpy as np

from ssmid._array import Array, as_complex, astype_width, double, from_numpy, namespace, real_dtype, to_numpy, width
from ssmid.analysis.polynomial import Host
from ssmid.analysis.ragged import Result, padded_states
from ssmid.systems import Modal, StateSpace

_RANK_TOLERANCE = 1e-11


def modal_state_space(modal: Modal, mimo: bool = False) -> StateSpace:
    """The state space of a modal bank: real blocks of one and two states, or diagonal where the bank is complex.

    A real bank need not be closed under conjugation: conjugate pairs become one block, and so does a pole without partner. Input
    and output vector of each block have equal length, which makes its two Gramians equal. Elements that need fewer states than
    others get zero states. With ``mimo`` the last two batch axes are outputs and inputs, and each pole takes as many states as
    its residue matrix has rank (Gilbert, SIAM J. Control 1, 1963); singular values below 1e-11 of the first count as zero.
    """
    if not mimo:
        return _complex_diagonal(modal) if not modal.real else _scalar_blocks(modal)
    if len(modal.batch_shape) < 2:
        raise ValueError(f"mimo=True: expected a bank of batch shape (*batch, outputs, inputs), got {modal.batch_shape}")
    *_, p, m = modal.batch_shape
    xp = namespace(modal.residues)
    residues = xp.broadcast_to(double(modal.residues), (*modal.batch_shape, modal.order))
    poles = double(modal.poles)
    poles = xp.reshape(poles, ((1,) * max(0, 3 - poles.ndim) + tuple(poles.shape)))
    arrays, ndims = (xp.real(residues), xp.imag(residues), poles), (3, 3, 3)
    element = _real_gilbert if modal.real else _complex_gilbert
    A, B, C, _ = padded_states(lambda re, im, at: element(at, re + 1j * im), arrays, ndims, (m, p, 0))
    feedthrough = xp.broadcast_to(double(modal.feedthrough), modal.batch_shape)
    bits = width(modal.residues)
    return StateSpace(*(astype_width(M, bits) for M in (A, B, C, feedthrough)), dt=modal.dt)


def one_of_each_pair(modal: Modal) -> tuple[Array, Array]:
    """Poles and residues ``(*batch, m)`` of the same real response with one pole of each conjugate pair, that above the axis.

    Half as many complex states as real ones: what a decoder carries. Modes without residue are dropped, and elements with fewer modes
    than others get zeros at the end. Raises ValueError for a bank with a complex response. Not differentiable.

    >>> bank = Modal(np.array([0.5j, -0.5j, 0.9]), np.array([1, 1, 2]))
    >>> one_of_each_pair(bank)[1].real.tolist()
    [2.0, 2.0]
    """
    if not modal.real:
        raise ValueError("expected a bank with a real response, got real=False: it has no pairs of poles")
    xp = namespace(modal.residues)
    poles, residues, joined = _folded(modal)
    residues = xp.where(xp.imag(poles) == 0, as_complex(xp.real(residues)), residues)
    empty = joined | (to_numpy(residues) == 0)
    m = int(np.max(np.sum(~empty, axis=-1), initial=0))
    kept = from_numpy(np.argsort(empty, axis=-1, kind="stable")[..., :m], poles)
    filled = from_numpy(np.sort(empty, axis=-1)[..., :m], poles)
    bits = width(modal.residues)

    def chosen(x: Array) -> Array:
        x = xp.take_along_axis(x, kept, axis=-1)
        return astype_width(xp.where(filled, xp.zeros_like(x), x), bits)

    return chosen(poles), chosen(residues)


# ---------------------------------------------------------------- banks of scalars, vectorized


def _scalar_blocks(modal: Modal) -> StateSpace:
    """Poles are folded into the upper half plane, equal neighbours joined, and each gets a slot of one or two states."""
    xp = namespace(modal.residues)
    batch, d = modal.batch_shape, modal.order
    poles, residues, joined = _folded(modal)
    # two slots a pole; of a real pole the second is empty, of a joined one both; empty ones are moved to the end and cut
    pair = to_numpy(xp.imag(poles)) > 0
    slots = np.stack([~joined, ~joined & pair], axis=-1).reshape(*batch, 2 * d)
    n = int(np.max(np.sum(slots, axis=-1), initial=0))
    kept = from_numpy(np.argsort(~slots, axis=-1, kind="stable")[..., :n], poles)
    filled = from_numpy(np.sort(~slots, axis=-1)[..., :n], poles)
    size = xp.abs(residues)
    entry = xp.sqrt(size)
    divisor = xp.where(entry > 0, entry, xp.ones_like(entry))
    none = xp.zeros_like(size)

    def spread(first: Array, second: Array) -> Array:
        doubled = xp.reshape(xp.stack([first, second], axis=-1), (*batch, 2 * d))
        chosen = xp.take_along_axis(doubled, kept, axis=-1)
        return xp.where(filled, xp.zeros_like(chosen), chosen)

    diagonal = spread(xp.real(poles), xp.real(poles))
    coupling = spread(xp.imag(poles), none)
    B = spread(entry, none)
    C = spread(xp.real(residues) / divisor, xp.imag(residues) / divisor)
    A = diagonal[..., :, None] * _eye(xp, n, poles, 0)
    A = A + coupling[..., :, None] * _eye(xp, n, poles, 1) - coupling[..., None, :] * _eye(xp, n, poles, -1)
    D = xp.broadcast_to(double(modal.feedthrough), batch)[..., None, None]
    bits = width(modal.residues)
    return StateSpace(*(astype_width(M, bits) for M in (A, B[..., :, None], C[..., None, :], D)), dt=modal.dt)


def _folded(modal: Modal) -> tuple[Array, Array, Host]:
    """Poles ``(*batch, d)`` in the closed upper half plane, sorted, their residues, and which of them their neighbour stands for.

    The real part of a mode is that of its conjugate: the residue of a pole that is stood for is in that of its neighbour, too.
    """
    xp = namespace(modal.residues)
    batch, d = modal.batch_shape, modal.order
    poles = xp.broadcast_to(double(modal.poles), (*batch, d))
    residues = xp.broadcast_to(double(modal.residues), (*batch, d))
    below = xp.imag(poles) < 0
    poles, residues = (xp.where(below, xp.conj(x), x) for x in (poles, residues))
    host = to_numpy(poles)
    order = np.lexsort((np.imag(host), np.real(host)), axis=-1)
    joined = _second_of_a_pair(np.take_along_axis(host, order, -1))
    order = from_numpy(order, poles)
    poles, residues = (xp.take_along_axis(x, order, axis=-1) for x in (poles, residues))
    if d:
        partner = xp.where(from_numpy(joined, poles), residues, xp.zeros_like(residues))
        residues = residues + xp.concat([partner[..., 1:], xp.zeros_like(partner[..., :1])], axis=-1)
    return poles, residues, joined


def _second_of_a_pair(poles: Host) -> Host:
    """In sorted rows, every other one of a run of equal complex numbers."""
    position = np.zeros(poles.shape, int)
    for j in range(1, poles.shape[-1]):
        equal = (poles[..., j] == poles[..., j - 1]) & (poles[..., j].imag > 0)
        position[..., j] = np.where(equal, position[..., j - 1] + 1, 0)
    return position % 2 == 1


def _complex_diagonal(modal: Modal) -> StateSpace:
    xp = namespace(modal.residues)
    poles, residues = double(modal.poles), double(modal.residues)
    entry = xp.sqrt(xp.abs(residues))
    A = poles[..., :, None] * as_complex(_eye(xp, modal.order, poles, 0))
    C = residues / xp.where(entry > 0, as_complex(entry), xp.ones_like(residues))
    D = as_complex(double(modal.feedthrough))[..., None, None]
    bits = width(modal.residues)
    return StateSpace(*(astype_width(M, bits) for M in (A, as_complex(entry)[..., :, None], C[..., None, :], D)), dt=modal.dt)


def _eye(xp, n: int, like: Array, k: int) -> Array:
    return xp.eye(n, k=k, dtype=real_dtype(like), device=like.device)


# ---------------------------------------------------------------- several inputs and outputs, one element


def _real_gilbert(poles: Host, residues: Host) -> Result:
    """Blocks of ``r`` copies of ``[[a, b], [-b, a]]`` for a folded residue matrix of rank ``r``."""
    p, m, _ = residues.shape
    blocks = []
    below = poles.imag < 0
    folded = np.where(below, poles.conj(), poles), np.where(np.broadcast_to(below, residues.shape), residues.conj(), residues)
    for pole, residue in _residue_matrices(*folded, join=True):
        left, right = _factors(residue if pole.imag else residue.real)
        r = left.shape[-1]
        if pole.imag:
            A = np.kron(np.array([[pole.real, pole.imag], [-pole.imag, pole.real]]), np.eye(r))
            blocks.append((A, np.concatenate([right.real, -right.imag]), np.concatenate([left.real, left.imag], axis=1)))
        else:
            blocks.append((pole.real * np.eye(r), right, left))
    return _block_diagonal(blocks, p, m, float)


def _complex_gilbert(poles: Host, residues: Host) -> Result:
    p, m, _ = residues.shape
    pairs = [(pole, *_factors(residue)) for pole, residue in _residue_matrices(poles, residues, join=False)]
    return _block_diagonal([(pole * np.eye(left.shape[-1]), right, left) for pole, left, right in pairs], p, m, complex)


def _residue_matrices(poles: Host, residues: Host, join: bool) -> list[tuple[complex, Host]]:
    """Poles with their residue matrices ``(p, m)``; equal folded poles in pairs of two when ``join``.

    Poles of a channel of its own give matrices with that one entry.
    """
    p, m, d = residues.shape
    if poles.shape[:2] == (1, 1):
        listed = [(poles[0, 0, i], residues[:, :, i]) for i in range(d)]
    else:
        poles = np.broadcast_to(poles, residues.shape)
        unit = np.eye(p * m).reshape(p * m, p, m)
        listed = [(poles[i, j, k], unit[i * m + j] * residues[i, j, k]) for i, j, k in np.ndindex(p, m, d)]
    waiting: dict[complex, int] = {}
    out: list[tuple[complex, Host]] = []
    for pole, residue in listed:
        first = waiting.pop(pole, None) if join and pole.imag else None
        if first is None:
            waiting[pole] = len(out)
            out.append((pole, residue))
        else:
            out[first] = (pole, out[first][1] + residue)
    return out


def _factors(residue: Host) -> tuple[Host, Host]:
    """``left right = residue`` of full rank, both with the square roots of its singular values."""
    U, s, Vh = np.linalg.svd(residue, full_matrices=False)
    r = int(np.sum(s > _RANK_TOLERANCE * np.max(s, initial=0.0)))
    root = np.sqrt(s[:r])
    return U[:, :r] * root, root[:, None] * Vh[:r]


def _block_diagonal(blocks: list[tuple[Host, Host, Host]], p: int, m: int, dtype: type) -> Result:
    n = sum(len(b[0]) for b in blocks)
    A, B, C = np.zeros((n, n), dtype), np.zeros((n, m), dtype), np.zeros((p, n), dtype)
    start = 0
    for a, b, c in blocks:
        own = slice(start, start + len(a))
        A[own, own], B[own], C[:, own] = a, b, c
        start += len(a)
    return A, B, C, np.zeros((0, n))
