"""Leading singular triplets of operators that are only known by their products: block Golub-Kahan-Lanczos with thick restarts.

The method is the augmented bidiagonalization of Baglama and Reichel (BIT Numer. Math. 46, 2006) with full
reorthogonalization, batched: many operators of one shape advance together, and those that are done leave the batch.
For a symmetric operator (the Hankel matrix of one channel) the left and right bases together span the same Krylov space as
block Lanczos on the operator itself, while the projected problem has half its size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ssmid._array import Array, from_numpy, is_complex, namespace, one_blas_thread, to_numpy
from ssmid.linalg import adjoint, orthonormalize, svd, transpose

Product = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A batch of linear maps and their adjoints. Vectors are rows, so that each is contiguous in memory.

    apply : ``(batch, k, columns)`` to ``(batch, k, rows)``   adjoint : back
    take : the operators of the batch elements at the given indices
    """

    rows: int
    columns: int
    apply: Product
    adjoint: Product
    take: Callable[[Array], Operator]


@dataclasses.dataclass(frozen=True, eq=False)
class Triplets:
    """``operator right_i = sigma_i left_i``, descending, with error bars.

    sigma, error : ``(batch, count)`` real   converged : ``(batch, count)`` boolean
    left : ``(batch, count, rows)``   right : ``(batch, count, columns)``, orthonormal rows
    products : to how many vectors of an element the operator or its adjoint was applied, at most
    """

    sigma: Array
    error: Array
    converged: Array
    left: Array
    right: Array
    products: int


@one_blas_thread
def leading_triplets(
    operator: Operator,
    count: int,
    like: Array,
    *,
    rtol: float,
    block: int,
    basis: int,
    max_products: int,
    tail_rtol: float = 0.0,
    seed: int = 0,
) -> Triplets:
    """The ``count`` largest singular values of each operator, with vectors. Not differentiable.

    ``like`` is an array ``(batch, ...)``: the kind, dtype, device and batch of the vectors. Each of the two bases holds
    ``basis`` vectors, ``count + 2 block <= basis <= min(rows, columns)``. An element stops when every error bar is at most
    ``rtol`` times its largest value, or at most ``tail_rtol`` times its last; all stop at ``max_products``.

    Error bars: ``A v = sigma u`` holds to rounding and ``r = A* u - sigma v`` is left over, so that some singular value lies
    within ``|r| / sqrt(2)`` of sigma (the residual bound of the Hermitian ``[[0, A], [A*, 0]]``); rounding is added. Ritz values
    are lower bounds of the true ones in order. The start is one fixed random block: the same for an element alone and in a batch.
    """
    if not count + 2 * block <= basis <= min(operator.rows, operator.columns):
        raise ValueError(f"basis: expected {count + 2 * block} to {min(operator.rows, operator.columns)} vectors, got {basis}")
    search = _Search(operator, like, block, basis, np.random.default_rng(seed))
    size = 0
    done: list[tuple[Array, ...]] = []
    while True:
        # a look costs a small SVD an element: the bases grow by half between two looks
        size = min(basis, max(count + block, search.size + max(block, search.size // 2)))
        while search.size + block <= size:
            search.expand()
        full = search.size + block > basis
        stop = search.products + 2 * block > max_products
        kept = min(search.size, count + max(block, count // 2))
        # until the bases are full a few elements of a large batch tell whether the others are worth a look
        few = None if full or stop else search.some(_SAMPLE)
        if few is not None and not search.ritz(kept, few).settled(count, rtol, tail_rtol).all():
            continue
        ritz = search.ritz(kept)
        settled = ritz.settled(count, rtol, tail_rtol)
        ready = np.asarray(settled.all(-1) | stop)
        # leaving copies the bases of those that stay: that pays when many leave at once, and at a restart
        if ready.all() or (ready.any() and (full or 4 * ready.sum() >= len(ready))):
            leave, stay = (from_numpy(np.flatnonzero(choice), like) for choice in (ready, ~ready))
            done.append(search.triplets(ritz, leave, count, settled))
            if ready.all():
                return _in_order(done, search.products, like)
            search, ritz = search.take(stay), ritz.take(stay)
        if full:
            search.restart(ritz)


_SAMPLE = 4


@dataclasses.dataclass(frozen=True, eq=False)
class _Ritz:
    """Singular triplets of the projected operators: ``left`` and ``right`` ``(batch, size, k)`` are coordinates in the bases."""

    left: Array
    sigma: Array
    right: Array
    error: Array

    def take(self, indices: Array) -> _Ritz:
        xp = namespace(self.sigma)
        return _Ritz(*(xp.take(a, indices, axis=0) for a in (self.left, self.sigma, self.right, self.error)))

    def settled(self, count: int, rtol: float, tail_rtol: float) -> np.ndarray:
        """``(batch, count)`` which error bars are small enough."""
        sigma, error = to_numpy(self.sigma), to_numpy(self.error)
        return error[:, :count] <= np.maximum(rtol * sigma[:, :1], tail_rtol * sigma[:, count - 1 : count])


class _Search:
    """Two orthonormal bases that grow block by block: ``A right = left projected``, ``A* left = right projected* + rest``.

    The rest lives in the last block alone: its rows are ``coupling @ following``, ``following`` being the next block of ``right``.
    """

    def __init__(self, operator: Operator, like: Array, block: int, basis: int, random: np.random.Generator) -> None:
        self.xp, self.operator, self.block, self.like = namespace(like), operator, block, like
        self.size, self.near, self.products, self.steps, batch = 0, 0, 0, 0, like.shape[0]
        self.elements = np.arange(batch)
        self.noise = {n: self._cast(random.standard_normal((block, n)) / n**0.5) for n in sorted({operator.rows, operator.columns})}
        self.left, self.right = self._zeros(batch, basis, operator.rows), self._zeros(batch, basis, operator.columns)
        self.projected, self.coupling = self._zeros(batch, basis, basis), self._zeros(batch, block, block)
        self.following, _, _ = self._orthogonalize(self._zeros(batch, block, operator.columns), self.right[:, :0, :], 0)

    def expand(self) -> None:
        """One more block in both bases."""
        end = self.size + self.block
        old, near, new = slice(0, self.size), slice(self.size - self.near, self.size), slice(self.size, end)
        self.right[:, new, :] = self.following
        unit, coefficients, remainder = self._orthogonalize(self.operator.apply(self.following), self.left[:, old, :], self.near)
        self.left[:, new, :] = unit
        self.projected[:, near, new] = transpose(coefficients)
        self.projected[:, new, new] = transpose(remainder)
        self.following, _, self.coupling = self._orthogonalize(self.operator.adjoint(unit), self.right[:, :end, :], self.block)
        self.size, self.near = end, self.block
        self.products += 2 * self.block

    def some(self, count: int) -> Array | None:
        """The indices of ``count`` elements throughout a batch that has many more; None where it has not."""
        batch = len(self.elements)
        return from_numpy(np.arange(count) * batch // count, self.like) if batch > 8 * count else None

    def ritz(self, count: int, indices: Array = None) -> _Ritz:
        """The ``count`` leading singular triplets of the projected operators, with error bars; of the elements at ``indices``, or all."""
        xp = self.xp
        projected, coupling = (x if indices is None else xp.take(x, indices, axis=0) for x in (self.projected, self.coupling))
        Q, sigma, Zh = svd(projected[:, : self.size, : self.size])
        Q, sigma, Z = Q[:, :, :count], sigma[:, :count], adjoint(Zh)[:, :, :count]
        rest = transpose(Q[:, self.size - self.block :, :]) @ coupling
        rounding = 4 * float(xp.finfo(sigma.dtype).eps) * self.operator.rows**0.5
        error = xp.linalg.vector_norm(rest, axis=-1) / 2**0.5 + rounding * sigma[:, :1]
        return _Ritz(Q, sigma, Z, error)

    def restart(self, ritz: _Ritz) -> None:
        """The leading Ritz vectors become the bases: what the Krylov space knows of them is kept, the rest dropped."""
        keep = min(ritz.sigma.shape[-1], self.left.shape[-2] - self.block)
        Q, Z, old, new = ritz.left[:, :, :keep], ritz.right[:, :, :keep], slice(0, self.size), slice(0, keep)
        self.left[:, new, :] = transpose(Q) @ self.left[:, old, :]
        self.right[:, new, :] = transpose(Z) @ self.right[:, old, :]
        eye = self.xp.eye(keep, dtype=self.like.dtype, device=self.like.device)
        self.projected = self.xp.zeros_like(self.projected)
        self.projected[:, new, new] = eye * ritz.sigma[:, None, :keep]
        self.size = self.near = keep

    def triplets(self, ritz: _Ritz, indices: Array, count: int, settled: np.ndarray) -> tuple[Array, ...]:
        """What is found of the elements at ``indices``, their places in the whole batch first."""
        xp, chosen = self.xp, ritz.take(indices)
        left = transpose(chosen.left[:, :, :count]) @ xp.take(self.left, indices, axis=0)[:, : self.size, :]
        right = transpose(chosen.right[:, :, :count]) @ xp.take(self.right, indices, axis=0)[:, : self.size, :]
        places = to_numpy(indices)
        return self.elements[places], chosen.sigma[:, :count], chosen.error[:, :count], from_numpy(settled[places], self.like), left, right

    def take(self, indices: Array) -> _Search:
        """The search of the elements at ``indices`` alone."""
        self.operator, self.elements = self.operator.take(indices), self.elements[to_numpy(indices)]
        for name in ("like", "left", "right", "projected", "coupling", "following"):
            setattr(self, name, self.xp.take(getattr(self, name), indices, axis=0))
        return self

    def _orthogonalize(self, x: Array, basis: Array, near: int) -> tuple[Array, Array, Array]:
        """``(unit, coefficients, remainder)`` with ``x = coefficients @ basis[-near:] + remainder @ unit``, all rows orthonormal.

        The recurrence couples ``x`` to the last ``near`` rows alone. They are taken out first; then, of what is left at unit length,
        the rounding errors along all rows: two projections, which is enough (Daniel, Gragg, Kaufman and Stewart, Math. Comp. 30,
        1976), at the price of one. Where ``x`` is spent random directions fill the block: noise of the size of rounding provides them.
        """
        xp = self.xp
        scale = xp.max(xp.linalg.vector_norm(x, axis=-1), axis=-1)[:, None, None]
        scale = xp.where(scale == 0, xp.ones_like(scale), scale)
        recent = basis[:, basis.shape[-2] - near :, :]
        coefficients = x @ adjoint(recent)
        x = x - coefficients @ recent
        # rolled, so that no step meets the noise of an earlier one
        self.steps += 1
        noise = xp.roll(self.noise[x.shape[-1]], self.steps, axis=-1)
        unit = x + float(xp.finfo(x.dtype).eps) * scale * noise
        unit = _orthonormal_rows(unit / xp.linalg.vector_norm(unit, axis=-1, keepdims=True))
        unit = _orthonormal_rows(unit - (unit @ adjoint(basis)) @ basis, passes=2)
        return unit, coefficients, x @ adjoint(unit)

    def _zeros(self, *shape: int) -> Array:
        return self.xp.zeros(shape, dtype=self.like.dtype, device=self.like.device)

    def _cast(self, values: np.ndarray) -> Array:
        array = from_numpy(values, self.like)
        return self.xp.astype(array, self.like.dtype) if is_complex(self.like) else array


def _orthonormal_rows(x: Array, passes: int = 3) -> Array:
    return transpose(orthonormalize(transpose(x), passes))


def _in_order(done: list[tuple[Array, ...]], products: int, like: Array) -> Triplets:
    """The triplets of all elements, in the order of the batch that the search began with."""
    xp = namespace(like)
    places = from_numpy(np.argsort(np.concatenate([part[0] for part in done])), like)
    sigma, error, converged, left, right = (
        xp.take(xp.concat([part[i] for part in done], axis=0), places, axis=0) for i in range(1, 6)
    )
    return Triplets(sigma, error, converged, left, right, products)
