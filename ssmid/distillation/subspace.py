"""The leading Hankel subspace of every filter of a bank: Hankel values from below, and stable poles from the shift compressed to it.

Two accuracies. "tight" iterates until the vectors are those of balanced truncation (:mod:`ssmid.reduction.hankel_projection`). "loose" is
what a start that is refined afterwards needs, at a fixed price: a block Krylov space of H (Golub & Van Loan, Matrix Computations,
section 10.3.6), restarted a few times from the residuals of its leading Ritz vectors, all of it in single precision and in products
that a GPU likes (blocks of eight vectors and more); then one product with H and the Rayleigh-Ritz step in double precision. So the
values are true singular values of H restricted to the space, hence from below, however rough the space is.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, namespace, on_gpu, one_blas_thread, replaced, to_numpy
from ssmid.distillation.bank import Bank
from ssmid.linalg import block_hankel_products, eigh, eigvals, orthonormalize, transpose
from ssmid.reduction.hankel_projection import project

_BLOCK, _RESTARTS, _LEAST_WIDTH = 8, 1, 32
"""On 128 trained filters at order 16: 76 products a filter, the 17th value .90 of the true one in the median, .84 at the least."""
_BEYOND_SINGLE = 1e-4
"""Where the last value is below this share of the first, single precision does not know its vector: such filters are iterated on in
double precision."""
_TIGHT, _GRADED = (1e-10, 1e-7), (1e-10, 1e-2)
_MEMORY = {"host": 2**27, "gpu": 2**34}


@dataclasses.dataclass(frozen=True, eq=False)
class Subspace:
    """Orthonormal vectors near the leading left singular vectors of the zero-padded Hankel matrix of each normalized filter.

    sigma : ``(n, K)`` Ritz values, descending: none is above the true value of its index   error : ``(n, K)`` error bars, NaN where
        they were not asked for
    shift : ``(n, k, k)`` the compressed shift, k at most K: its leading blocks are stable state matrices
    inputs, outputs : ``(n, k)`` of the projected realization
    eigenvalues : ``(n, k)`` of the shift, on the host, where they are known already
    """

    sigma: Array
    error: Array
    shift: Array
    inputs: Array
    outputs: Array
    eigenvalues: np.ndarray | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        return self.sigma, self.error, self.shift, self.inputs, self.outputs

    @property
    def rank(self) -> np.ndarray:
        """``(n,)`` how many of the values are more than rounding."""
        sigma = to_numpy(self.sigma)
        return (sigma > 64 * np.finfo(np.float64).eps * sigma[:, :1]).sum(-1)

    def take(self, places: np.ndarray) -> Subspace:
        index = from_numpy(places, self.sigma)
        known = None if self.eigenvalues is None else self.eigenvalues[places]
        return Subspace(*(namespace(self.sigma).take(x, index, axis=0) for x in self.arrays), eigenvalues=known)

    def poles(self, orders: np.ndarray) -> np.ndarray:
        """``(n, max(orders))`` eigenvalues of the leading block of each order, on the host; zeros beyond."""
        found = np.zeros((len(orders), int(orders.max(initial=0))), complex)
        for order in np.unique(orders[orders > 0]):
            rows = np.flatnonzero(orders == order)
            if self.eigenvalues is not None and order == self.eigenvalues.shape[-1]:
                found[rows, :order] = self.eigenvalues[rows]
                continue
            blocks = namespace(self.shift).take(self.shift, from_numpy(rows, self.shift), axis=0)[:, :order, :order]
            found[rows, :order] = to_numpy(eigvals(blocks))
        return found


def width_of(count: int) -> int:
    """Vectors in the Krylov space of a "loose" subspace of ``count``."""
    return max(_LEAST_WIDTH, count + max(_BLOCK, count // 2))


def products_of(length: int, count: int) -> tuple[int, int]:
    """Products with a Hankel matrix that a "loose" subspace costs, in single and in double precision."""
    width = width_of(min(count, length))
    return 2 * width + (_RESTARTS - 1) * (width - count - 4), width


def leading_subspace(bank: Bank, count: int, accuracy: str = "loose") -> Subspace:
    """The subspace of ``count`` vectors of each filter, and ``count + 1`` Hankel values, as far as the filters have them."""
    count = min(count, bank.length)
    width = width_of(count)
    if accuracy == "tight" or 4 * width > bank.length:
        return _iterated(bank.strict, count, *_TIGHT)
    xp, n = namespace(bank.strict), bank.count
    per_filter = 8 * 12 * width * bank.length
    step = max(1, _MEMORY["gpu" if on_gpu(bank.strict) else "host"] // per_filter)
    pieces, known = [], []
    # eigenvalues are found on the host, which has nothing else to do, while a GPU works on the next piece
    with ThreadPoolExecutor(1) as host:
        for start in range(0, max(n, 1), step):
            pieces.append(_loose(bank.strict[start : min(start + step, n), :], count, width))
            known.append(host.submit(lambda shift: to_numpy(eigvals(shift)), pieces[-1].shift))
        eigenvalues = np.concatenate([future.result() for future in known])
    return Subspace(*(xp.concat(parts, axis=0) for parts in zip(*(piece.arrays for piece in pieces), strict=True)), eigenvalues=eigenvalues)


def _iterated(strict: Array, count: int, rtol: float, tail_rtol: float) -> Subspace:
    xp = namespace(strict)
    taps = xp.concat([xp.zeros_like(strict[:, :1]), strict], axis=-1)
    found = project(taps[:, None, None, :], count, strict.shape[-1], strict.shape[-1], rtol=rtol, tail_rtol=tail_rtol)
    return Subspace(found.sigma[:, : count + 1], found.error[:, : count + 1], found.A, found.B[..., 0], found.C[:, 0, :])


@one_blas_thread
def _loose(strict: Array, count: int, width: int) -> Subspace:
    sigma, vectors = _ritz(strict, _krylov_space(astype_width(strict, 32), count + 4, width), count + 1)
    vectors = vectors[:, :count, :]
    later = namespace(strict).concat([vectors[..., 1:], 0 * vectors[..., :1]], axis=-1)
    inputs = (vectors @ strict[:, :, None])[..., 0]
    found = Subspace(sigma, sigma + float("nan"), vectors @ transpose(later), inputs, vectors[..., 0])
    graded = np.flatnonzero(~to_numpy(sigma[:, -1] >= _BEYOND_SINGLE * sigma[:, 0]))
    return _in_double(found, graded, strict, count) if len(graded) else found


def _in_double(found: Subspace, places: np.ndarray, strict: Array, count: int) -> Subspace:
    """With double precision throughout for the filters at ``places``."""
    better = _iterated(namespace(strict).take(strict, from_numpy(places, strict), axis=0), count, *_GRADED)
    return Subspace(*(replaced(old, places, new) for old, new in zip(found.arrays, better.arrays, strict=True)))


def _krylov_space(strict: Array, keep: int, width: int) -> Array:
    """``(n, width, N)`` orthonormal rows: the ``keep`` leading Ritz vectors of the Krylov space before, and a block of their residuals."""
    xp, (n, N) = namespace(strict), strict.shape
    product, _ = block_hankel_products(strict[:, None, None, :], N, N)
    random = np.random.default_rng(0)
    # a filter that decays has its leading vectors at early times
    start = random.standard_normal((1, _BLOCK, N)) * np.exp(-4 * np.arange(N) / N)
    last = Q = _single_rows(product(xp.broadcast_to(_like(start, strict), (n, _BLOCK, N))))
    while Q.shape[1] < width:
        last = _beside(product(last), Q)[:, : width - Q.shape[1], :]
        Q = xp.concat([Q, last], axis=1)
    mixing = _like(np.linalg.qr(random.standard_normal((keep, width - keep)))[0].T[None], strict)
    HQ = product(Q)
    for turn in range(_RESTARTS):
        T = Q @ transpose(HQ)
        T = xp.where(xp.isfinite(T), T, xp.zeros_like(T))
        values, V = eigh((T + transpose(T)) / 2)
        order = xp.argsort(xp.abs(values), axis=-1, descending=True)[:, :keep]
        V = xp.take_along_axis(transpose(V), order[:, :, None], axis=1)
        values = xp.take_along_axis(values, order, axis=-1)
        Q, HQ = V @ Q, V @ HQ
        residual = _beside(mixing @ HQ - (mixing * values[:, None, :]) @ Q, Q)
        Q = xp.concat([Q, residual], axis=1)
        if turn < _RESTARTS - 1:
            HQ = xp.concat([HQ, product(residual)], axis=1)
    return Q


def _ritz(strict: Array, Q: Array, count: int) -> tuple[Array, Array]:
    """``count`` leading singular values of the Hankel matrix restricted to the rows ``Q``, and left singular vectors as rows.

    From the Gram matrix of the images: its rounding is felt by values below 1e-8 of the first, far below those that count here.
    """
    xp, N = namespace(strict), strict.shape[-1]
    product, _ = block_hankel_products(strict[:, None, None, :], N, N)
    image = product(_rows(astype_width(Q, 64), 1))
    gram = image @ transpose(image)
    squares, V = eigh(xp.where(xp.isfinite(gram), gram, xp.zeros_like(gram)))
    sigma = xp.sqrt(xp.clip(xp.flip(squares, axis=-1)[:, :count], min=0.0))
    leading = xp.flip(transpose(V), axis=1)[:, :count, :]
    return sigma, (leading / xp.where(sigma > 0, sigma, xp.ones_like(sigma))[:, :, None]) @ image


def _beside(x: Array, Q: Array) -> Array:
    """Orthonormal rows for the part of ``x`` that is not in the span of the rows ``Q``, as far as single precision tells."""
    return _single_rows(x - (x @ transpose(Q)) @ Q)


def _single_rows(x: Array) -> Array:
    """Orthonormal rows, by way of double precision: the Gram matrices of Cholesky QR square a condition that single hardly holds."""
    xp = namespace(x)
    size = xp.linalg.vector_norm(x, axis=-1, keepdims=True)
    return astype_width(_rows(astype_width(x / xp.where(size > 0, size, xp.ones_like(size)), 64), 2), 32)


def _rows(x: Array, passes: int) -> Array:
    return transpose(orthonormalize(transpose(x), passes))


def _like(values: np.ndarray, like: Array) -> Array:
    return from_numpy(values.astype(np.float32), like)
