"""Batched dense algebra, chosen per device, and products with Vandermonde, Cauchy and Hankel matrices that are never built.

On a GPU batched symmetric eigenproblems and SVDs collapse above 32 x 32, QR and nonsymmetric eigenvalues at any size
(measured figures: docs/architecture.md); those run on host threads, orthonormalization is three Cholesky factorizations, and the
SVDs of many matrices are block Jacobi sweeps of 32 x 32 problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt, prod
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import get_lapack_funcs

from ssmid._array import (
    Array,
    as_complex,
    batched_on_host,
    cores,
    fft_of,
    from_numpy,
    in_pieces,
    is_complex,
    namespace,
    next_fast_length,
    on_gpu,
    on_host,
    one_blas_thread,
    real_dtype,
)

_LARGEST_ON_GPU = 32
_SMALL_FOR_BLAS = 512
_MANY = 256
"""From so many matrices on, block Jacobi on a GPU beats LAPACK on its host."""
_SEVERAL = 4
_CHUNK_BYTES = {"host": 2**27, "gpu": 2**33}


# ---------------------------------------------------------------- decompositions


def transpose(A: Array) -> Array:
    """Matrix transpose of the last two axes, without conjugation."""
    return namespace(A).matrix_transpose(A)


def adjoint(A: Array) -> Array:
    """Conjugate transpose of the last two axes."""
    xp = namespace(A)
    return xp.matrix_transpose(xp.conj(A) if is_complex(A) else A)


def eig(A: Array) -> tuple[Array, Array]:
    """Eigenvalues ``(*batch, n)`` and right eigenvectors ``(*batch, n, n)`` of square matrices, complex. Not differentiable.

    Conjugate pairs of a real matrix are exact conjugates. Elements that are not finite give NaN.
    """
    return tuple(as_complex(x) for x in on_host(lambda a: _threaded(np.linalg.eig, a), A))


def eigvals(A: Array) -> Array:
    """Eigenvalues ``(*batch, n)`` of square matrices, complex. Not differentiable."""
    return as_complex(on_host(lambda a: _threaded(np.linalg.eigvals, a), A)[0])


def inverse(A: Array) -> Array:
    """Inverses of square matrices; an exactly singular element gives infinities, not an exception for all. Not differentiable."""
    return on_host(lambda a: _threaded(_inverse, a), A)[0]


def _inverse(matrices: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full_like(matrices, np.inf)
        return np.concatenate([_inverse(m[None]) for m in matrices])


def eigh(A: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and orthonormal eigenvectors of symmetric or Hermitian matrices."""
    if on_gpu(A) and A.shape[-1] > _LARGEST_ON_GPU:
        return on_host(lambda a: _threaded(np.linalg.eigh, a), A)
    return tuple(namespace(A).linalg.eigh(A))


def svd(A: Array) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition ``U, s, Vh``, values descending."""
    if on_gpu(A) and A.shape[-2] == A.shape[-1] > _LARGEST_ON_GPU and prod(A.shape[:-2]) >= _MANY:
        return jacobi_svd(A)
    if (on_gpu(A) and min(A.shape[-2:]) > _LARGEST_ON_GPU) or isinstance(A, np.ndarray):
        return on_host(lambda a: _threaded(lambda x: np.linalg.svd(x, full_matrices=False), a), A)
    return tuple(namespace(A).linalg.svd(A, full_matrices=False))


def singular_values(A: Array) -> Array:
    """Singular values, descending."""
    if on_gpu(A):
        return svd(A)[1]
    if isinstance(A, np.ndarray):
        return on_host(lambda a: _threaded(np.linalg.svdvals, a), A)[0]
    return namespace(A).linalg.svdvals(A)


def solve(A: Array, B: Array) -> Array:
    """``X`` with ``A X = B``, ``(*batch, n, n)`` and ``(*batch, n, k)``. A singular element gives NaN or infinity, not an exception."""
    xp = namespace(A, B)
    if hasattr(xp.linalg, "solve_ex"):
        return xp.linalg.solve_ex(A, B)[0]
    try:
        return xp.linalg.solve(A, B)
    except np.linalg.LinAlgError:
        return batched_on_host(_solve_or_nan, A, B)


def _solve_or_nan(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(A, B)
    except np.linalg.LinAlgError:
        return np.full(B.shape, np.nan, np.result_type(A, B))


def solve_triangular(R: Array, B: Array, *, lower: bool = False) -> Array:
    """``X`` with ``R X = B`` for triangular ``R`` ``(*batch, n, n)`` and ``B`` ``(*batch, n, k)``."""
    xp = namespace(R, B)
    if hasattr(xp.linalg, "solve_triangular"):
        return xp.linalg.solve_triangular(R, B, upper=not lower)
    return batched_on_host(lambda r, b: scipy.linalg.solve_triangular(r, b, lower=lower, check_finite=False), R, B)


def orthonormalize(X: Array, passes: int = 3) -> Array:
    """Orthonormal columns with the span of ``X`` ``(*batch, n, k)``, n >= k.

    QR on the host; on a GPU shifted Cholesky QR applied three times (Fukaya et al., SIAM J. Sci. Comput. 42, 2020, alg. 4.2),
    which is orthonormal to rounding for any condition below the inverse of the precision. Rank-deficient input gives an
    orthonormal set whose span contains that of ``X``. Two ``passes`` do for a condition below 1e4.
    """
    xp = namespace(X)
    if not on_gpu(X):
        return xp.linalg.qr(X, mode="reduced")[0]
    return cholesky_qr(X, passes)


def cholesky_qr(X: Array, passes: int = 3) -> Array:
    """The orthonormal factor of ``X`` by :func:`orthonormalize`'s method for GPUs; its upper triangular partner is positive."""
    xp = namespace(X)
    eye = xp.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    for step in range(passes):
        gram = adjoint(X) @ X
        if step == 0:
            trace = xp.linalg.trace(gram)[..., None, None]
            shift = 11 * (X.shape[-2] * X.shape[-1] + X.shape[-1] ** 2) * xp.finfo(X.dtype).eps
            gram = gram + (shift * trace + xp.finfo(X.dtype).tiny) * eye
        # torch's own would wait for the device to raise an error, which the shift rules out
        L = xp.linalg.cholesky_ex(gram)[0] if hasattr(xp.linalg, "cholesky_ex") else xp.linalg.cholesky(gram)
        X = X @ adjoint(solve_triangular(L, xp.zeros_like(gram) + eye, lower=True))
    return X


def scaled_least_squares(columns: Array, right: Array) -> tuple[Array, Array]:
    """``x`` ``(*batch, n, k)`` with the smallest ``|columns x - right|``, and the condition ``(*batch,)`` of the columns.

    columns : ``(*batch, rows, n)``, rows >= n, scaled to length one, then QR   right : ``(*batch, rows, k)``   Differentiable.
    """
    xp = namespace(columns, right)
    length = xp.linalg.vector_norm(columns, axis=-2, keepdims=True)
    length = xp.astype(xp.where(length > 0, length, xp.ones_like(length)), columns.dtype)
    columns = columns / length
    Q = orthonormalize(columns)
    R = adjoint(Q) @ columns
    sigma = singular_values(R)
    return solve(R, adjoint(Q) @ right) / transpose(length), sigma[..., 0] / sigma[..., -1]


def numerical_rank(sigma: np.ndarray) -> np.ndarray:
    """``(*batch,)`` how many of the singular values ``(*batch, k)``, on the host and descending, are more than rounding."""
    return (sigma > 64 * np.finfo(np.float64).eps * sigma[..., :1]).sum(-1)


def state_scales(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Powers of two for the states that make rows and columns of ``[A B; C 0]`` alike in size. NumPy on the host.

    Without B and C, tiny entries of A below large ones are scaled up until they are as large, and the rounding of B and C with them.
    """
    n, size = len(A), len(A) + max(B.shape[1], C.shape[0])
    whole = np.zeros((size, size))
    whole[:n, :n], whole[:n, n : n + B.shape[1]], whole[n : n + C.shape[0], :n] = np.abs(A), np.abs(B), np.abs(C)
    if not whole.any():
        return np.ones(n)
    (gebal,) = get_lapack_funcs(("gebal",), (whole,))
    return gebal(whole, scale=True, permute=False)[3][:n]


def jacobi_svd(A: Array) -> tuple[Array, Array, Array]:
    """``U, s, Vh`` of many square matrices ``(*batch, n, n)`` by one-sided block Jacobi, all of it in 32 x 32 problems.

    Hestenes' method by pairs of blocks of rows, in rounds of disjoint pairs (Becka, Oksa and Vajtersic, Parallel Computing 28, 2002):
    a pair is rotated by the eigenvectors of its Gram matrix until ``|w_i* w_j| <= sqrt(n) eps max(|w_i|, |w_j|) |A|_F`` in all of
    it: a backward error of rounding. Where that is not reached, as in steeply graded spectra, whose Gram matrices do not know the
    small rows, LAPACK takes the element. Not differentiable.
    """
    xp, n = namespace(A), A.shape[-1]
    flat = xp.reshape(A, (prod(A.shape[:-2]), n, n))
    sound = xp.all(xp.isfinite(flat), axis=(-2, -1))
    flat = xp.where(sound[:, None, None], flat, xp.zeros_like(flat))
    norm = xp.linalg.matrix_norm(flat)
    # rows that fill the last pair of blocks: orthogonal to all others and longer, so that they come first and are cut off
    extra = -n % _LARGEST_ON_GPU
    eye = xp.eye(n + extra, dtype=A.dtype, device=A.device)
    W = xp.zeros_like(eye) + xp.where(norm > 0, 2 * norm, xp.ones_like(norm))[:, None, None] * eye
    W[:, extra:, extra:] = flat
    both = xp.concat([W, xp.zeros_like(W) + eye], axis=-1)
    rotating = sound
    for _ in range(_SWEEPS):
        rotating = sum(_rotate(both, pairs, norm) for pairs in _rounds((n + extra) // _LARGEST_ON_GPU)) > 0
        # a sweep for a few costs more than their LAPACK
        if 100 * int(xp.sum(xp.astype(rotating, xp.int64))) <= flat.shape[0]:
            break
    sigma = xp.linalg.vector_norm(both[:, :, : n + extra], axis=-1)
    order = xp.argsort(sigma, axis=-1, descending=True)[:, extra:]
    sigma = xp.take_along_axis(sigma, order, axis=-1)
    both = xp.take_along_axis(both, order[:, :, None], axis=-2)
    # U* A = diag(sigma) V*: where sigma is rounding the rows of V* are any orthonormal ones
    floor = float(xp.finfo(A.dtype).eps) * sigma[:, :1] + float(xp.finfo(A.dtype).tiny)
    noise = xp.astype(from_numpy(np.random.default_rng(0).standard_normal((n, n)) / n**0.5, A), A.dtype)
    Vh = both[:, :, extra : n + extra] / xp.maximum(sigma, floor)[:, :, None]
    V = cholesky_qr(adjoint(Vh + xp.where((sigma > floor)[:, :, None], xp.zeros_like(Vh), noise)))
    U = cholesky_qr(adjoint(both[:, :, n + 2 * extra :]))
    rest = xp.nonzero(rotating)[0]
    if rest.shape[0]:
        U[rest], sigma[rest], Vh = on_host(lambda a: _threaded(lambda x: np.linalg.svd(x, full_matrices=False), a), flat[rest])
        V[rest] = adjoint(Vh)
    nan = xp.where(sound, xp.zeros_like(norm), xp.full_like(norm, float("nan")))[:, None, None]
    return tuple(xp.reshape(x, (*A.shape[:-2], *x.shape[1:])) for x in (U + nan, sigma + nan[:, :, 0], adjoint(V) + nan))


_SWEEPS = 10


def _rotate(both: Array, pairs: np.ndarray, norm: Array) -> Array:
    """Makes the rows of each pair orthogonal where they are not, in place, longest first; how many pairs were not, per element.

    both : ``(batch, n, 2 n)``, the rows beside the rotations so far   pairs : ``(count, 32)`` rows
    """
    xp, batch, n = namespace(both), both.shape[0], both.shape[1]
    index = from_numpy(pairs.reshape(-1), both)
    rows = xp.reshape(xp.take(both, index, axis=1), (batch, *pairs.shape, 2 * n))
    W = rows[..., :n]
    gram = W @ adjoint(W)
    length = xp.linalg.vector_norm(W, axis=-1)
    allowed = n**0.5 * float(xp.finfo(norm.dtype).eps) * norm[:, None, None, None] * xp.maximum(length[..., :, None], length[..., None, :])
    apart = 1 - xp.eye(pairs.shape[-1], dtype=norm.dtype, device=norm.device)
    active = xp.any(xp.abs(gram) * apart > allowed, axis=(-2, -1))
    where = xp.nonzero(active)
    if where[0].shape[0]:
        rows[where] = adjoint(xp.flip(eigh(gram[where])[1], axis=-1)) @ rows[where]
        both[:, index, :] = xp.reshape(rows, (batch, pairs.size, 2 * n))
    return xp.sum(xp.astype(active, xp.int64), axis=-1)


def _rounds(pairs: int) -> Iterator[np.ndarray]:
    """The rows ``(pairs, 32)`` of each round of a round robin of ``2 pairs`` blocks."""
    block = np.arange(_LARGEST_ON_GPU // 2)
    for turn in range(2 * pairs - 1):
        circle = np.concatenate([[0], 1 + np.roll(np.arange(2 * pairs - 1), turn)])
        both = np.sort(np.stack([circle[:pairs], circle[::-1][:pairs]], axis=-1), axis=-1)
        yield (both[:, :, None] * len(block) + block).reshape(pairs, -1)


def triangular_factor(A: Array) -> Array:
    """Upper triangular ``R`` with ``R^H R = A^H A``, of QR: ``(*batch, n, n)`` of ``(*batch, k, n)``, k >= n. Not differentiable.

    On a GPU from the orthonormal factor of :func:`cholesky_qr`, single ones on the host.
    """
    if isinstance(A, np.ndarray):
        return np.linalg.qr(A, mode="r")
    if on_gpu(A) and prod(A.shape[:-2]) >= _SEVERAL:
        return namespace(A).triu(adjoint(cholesky_qr(A)) @ A)
    if on_gpu(A):
        return on_host(lambda a: _threaded(lambda x: np.linalg.qr(x, mode="r"), a), A)[0]
    return namespace(A).linalg.qr(A, mode="reduced")[1]


def _threaded(function: Callable[..., Any], matrices: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays that ``function`` gives for a batch of matrices, taken in pieces by as many threads as there are cores.

    Elements that are not finite give NaN instead of an exception for the whole batch.
    """
    flat = matrices.reshape(prod(matrices.shape[:-2]), *matrices.shape[-2:])
    sound = np.asarray(np.isfinite(flat).all((-2, -1)))
    clean = flat if sound.all() else np.where(sound[:, None, None], flat, np.eye(*flat.shape[-2:], dtype=flat.dtype))
    pieces = min(len(clean), 4 * cores()) if clean.size >= 2**16 else 1
    if clean.size < 2**12:  # BLAS does not thread these, and to tell it so takes longer than they do
        results = function(clean)
        results = results if isinstance(results, tuple) else (results,)
    else:
        results = in_pieces(function if clean.shape[-1] > _SMALL_FOR_BLAS else one_blas_thread(function), pieces, clean)
    for result in results:
        result[~sound] = np.nan
    return tuple(r.reshape(*matrices.shape[:-2], *r.shape[1:]) for r in results)


# ---------------------------------------------------------------- structured products


def vandermonde_product(nodes: Array, weights: Array, length: int, *, real: bool = False) -> Array:
    """``sum_i weights_i nodes_i^t`` for ``t = 0 .. length-1``: complex ``(*batch, length)`` from ``(*batch, d)`` each.

    ``real=True`` gives the real part only, from one real matrix product of stacked real and imaginary parts: half the work.

    Two-level powers: with K about the square root of the length, ``t = q K + s`` turns the sum into one matrix product of
    tables of K rows, so that no ``d x length`` matrix is built: O(length d) operations, O(sqrt(length) d) memory.
    Modes are taken in chunks where even that is large. ``0^0`` is 1. Differentiable.
    """
    xp = namespace(nodes, weights)
    nodes, weights = as_complex(nodes), as_complex(weights)
    inner = 1 + isqrt(max(length - 1, 0))
    outer = -(-length // inner)
    batch = np.broadcast_shapes(nodes.shape[:-1], weights.shape[:-1])
    per_mode = 16 * (inner + outer) * max(1, prod(batch))
    chunk = max(1, min(nodes.shape[-1], _room(nodes) // per_mode))
    total = xp.zeros((*batch, outer, inner), dtype=real_dtype(nodes) if real else nodes.dtype, device=nodes.device)
    for start in range(0, nodes.shape[-1], chunk):
        part = slice(start, min(start + chunk, nodes.shape[-1]))
        fine = powers(nodes[..., part], inner)
        coarse = powers(fine[..., -1] * nodes[..., part], outer) * weights[..., part, None]
        if real:
            coarse = xp.concat([xp.real(coarse), -xp.imag(coarse)], axis=-2)
            fine = xp.concat([xp.real(fine), xp.imag(fine)], axis=-2)
        total = total + transpose(coarse) @ fine
    return xp.reshape(total, (*batch, outer * inner))[..., :length]


def _room(array: Array) -> int:
    """Bytes for a table: a GPU is left waiting by small ones, a processor's cache is left behind by large ones."""
    return _CHUNK_BYTES["gpu" if on_gpu(array) else "host"]


def powers(nodes: Array, count: int) -> Array:
    """``nodes^s`` for ``s = 0 .. count-1``: ``(*batch, d, count)``, by doubling: log2(count) array operations."""
    xp = namespace(nodes)
    table = xp.ones((*nodes.shape, 1), dtype=nodes.dtype, device=nodes.device)
    step = nodes[..., None]
    while table.shape[-1] < count:
        table = xp.concat([table, table * step], axis=-1)
        step = step * step
    return table[..., :count]


def principal_log(x: Array) -> Array:
    """The principal logarithm of complex ``x``, accurate where ``x`` is near 1 (a slow pole): ``log |x|`` by ``log1p``."""
    xp = namespace(x)
    u, v = xp.real(x) - 1, xp.imag(x)
    near = xp.abs(x - 1) < 0.5
    squared = xp.where(near, u * (2 + u) + v * v, xp.zeros_like(u))
    modulus = xp.where(near, xp.ones_like(u), xp.abs(x))
    return as_complex(xp.where(near, xp.log1p(squared) / 2, xp.log(modulus))) + 1j * as_complex(xp.atan2(v, u + 1))


def cauchy_product(points: Array, nodes: Array, weights: Array) -> Array:
    """``sum_i weights_i / (points_k - nodes_i)``: complex ``(*batch, k)`` from ``(*batch, k)`` and ``(*batch, d)``. Differentiable."""
    xp = namespace(nodes, weights, points)
    nodes, weights, points = as_complex(nodes), as_complex(weights), as_complex(points)
    batch = np.broadcast_shapes(points.shape[:-1], nodes.shape[:-1], weights.shape[:-1])
    chunk = max(1, _room(nodes) // (16 * max(1, nodes.shape[-1] * int(np.prod(batch)))))
    parts = [
        xp.sum(weights[..., None, :] / (points[..., start : min(start + chunk, points.shape[-1]), None] - nodes[..., None, :]), axis=-1)
        for start in range(0, points.shape[-1], chunk)
    ]
    return xp.concat(parts, axis=-1)


def hankel_operator(taps: Array, rows: int, columns: int) -> Callable[[Array], Array]:
    """The product with the Hankel matrix ``H[i, j] = taps[i + j]`` (zero beyond the last tap), as one FFT pair a vector.

    ``taps``: ``(*batch, length)``. The function returned takes ``(*batch, columns, k)`` to ``(*batch, rows, k)``.
    O((rows + columns) log) operations and no ``rows x columns`` matrix. The transform of the taps is made once.
    """
    product, _ = block_hankel_products(taps[..., None, None, :], rows, columns)
    return lambda x: transpose(product(transpose(x)))


def block_hankel_products(taps: Array, rows: int, columns: int) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The products with the block Hankel matrix of ``taps`` ``(*batch, p, m, length)`` and with its adjoint.

    Vectors are rows, so that their FFTs are contiguous, each channel after channel: the first function takes
    ``(*batch, k, m columns)`` to ``(*batch, k, p rows)``, the second back. Taps beyond the last are zero.
    """
    xp, transform = namespace(taps), fft_of(taps)
    p, m = taps.shape[-3:-1]
    size = next_fast_length(rows + columns - 1)
    forward, inverse = (transform.fft, transform.ifft) if is_complex(taps) else (transform.rfft, transform.irfft)
    spectrum = forward(taps[..., : min(taps.shape[-1], rows + columns - 1)], n=size, axis=-1)[..., None, :, :, :]

    def conjugate(x: Array) -> Array:
        return xp.conj(x) if is_complex(x) else x

    def correlate(x: Array, spectrum: Array, inputs: int, length: int) -> Array:
        # sum_j taps[i + j] x[j] is a correlation: the conjugate transform of conj(x) stands for the reversal of x
        x = xp.reshape(x, (*x.shape[:-1], inputs, x.shape[-1] // inputs))
        reversal = xp.conj(forward(conjugate(x), n=size, axis=-1))
        y = sum(spectrum[..., i, :] * reversal[..., i, None, :] for i in range(inputs))
        y = inverse(y, n=size, axis=-1)[..., :length]
        return xp.reshape(y, (*y.shape[:-2], y.shape[-2] * length))

    def product(x: Array) -> Array:
        return correlate(x, spectrum, m, rows)

    def adjoint_product(y: Array) -> Array:
        return conjugate(correlate(conjugate(y), xp.moveaxis(spectrum, -3, -2), p, columns))

    return product, adjoint_product

