"""Other states for the same system: balanced, minimal, companion, block-modal, or any similarity of one's own."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from ssmid._array import Array, as_complex, astype_width, double, is_complex, namespace, quiet, same_field, to_numpy, width
from ssmid.analysis.block_diagonal import block_diagonalize
from ssmid.analysis.gramians import gramian_factors
from ssmid.analysis.loss import warn_of_loss
from ssmid.analysis.polynomial import expand_roots
from ssmid.analysis.ragged import Result, padded_states
from ssmid.analysis.state_space_form import natural_state_space
from ssmid.analysis.state_units import like_units, uneven_scales
from ssmid.linalg import eigvals, inverse, solve, transpose
from ssmid.systems import StateSpace, System

_EPS = float(np.finfo(float).eps)


def similarity(system: StateSpace, T: Array) -> StateSpace:
    """The same system in the states ``x' = T^-1 x``: ``T^-1 A T``, ``T^-1 B``, ``C T``. ``T`` is ``(*batch, n, n)``. Differentiable.

    Raises ValueError for a transform of another size, and for a singular one of a single system.

    >>> import numpy as np
    >>> from ssmid import ss
    >>> similarity(ss(0.5, 1.0, 2.0), np.array([[4.0]])).C
    array([[8.]])
    """
    n = system.order
    if T.ndim < 2 or tuple(T.shape[-2:]) != (n, n):
        raise ValueError(f"T: expected shape (*batch, {n}, {n}), got {tuple(T.shape)}")
    A, B, C, T = same_field(*(double(M) for M in (system.A, system.B, system.C, T)))
    new_A, new_B = solve(T, A @ T), solve(T, B)
    if T.ndim == 2 and not np.isfinite(to_numpy(new_B)).all() and np.isfinite(to_numpy(B)).all():
        raise ValueError("T: expected an invertible transform, got a singular matrix")
    bits = width(system.A)
    return StateSpace(*(astype_width(M, bits) for M in (new_A, new_B, C @ T)), D=system.D, dt=system.dt)


@overload
def balanced_realization(system: System, *, return_transform: Literal[False] = False) -> StateSpace: ...
@overload
def balanced_realization(system: System, *, return_transform: Literal[True]) -> tuple[StateSpace, Array]: ...
def balanced_realization(system: System, *, return_transform: bool = False) -> Any:
    """States in which both Gramians are the diagonal matrix of Hankel singular values (Moore 1981).

    By the square-root method, from the singular value decomposition of the product of the Gramians' factors (Laub et al., IEEE
    Trans. Automat. Control 32, 1987). States whose Hankel values are zero to rounding cannot be balanced and are dropped; in a
    batch such elements are padded with zero states. With ``return_transform`` also ``T``, ``(*batch, n, r)``, ``x = T x'``.
    Not differentiable. Raises ValueError for an unstable system (in a batch: NaN).

    >>> from ssmid import ss
    >>> balanced_realization(ss(0.5, 1.0, 4.0)).B
    array([[2.]])
    """
    states = natural_state_space(system)
    R, L = (double(factor) for factor in gramian_factors(states))

    def element(A: np.ndarray, B: np.ndarray, C: np.ndarray, R: np.ndarray, L: np.ndarray) -> Result:
        U, sigma, Vh = np.linalg.svd(L.conj().T @ R)
        r = int(np.sum(sigma > len(A) * _EPS * np.max(sigma, initial=0.0)))
        root = np.sqrt(sigma[:r])
        T, left = R @ Vh[:r].conj().T / root, (L @ U[:, :r] / root).conj().T
        return left @ A @ T, left @ B, C @ T, T

    return _with_states(states, element, (R, L), return_transform)


@overload
def minimal_realization(system: System, tol: float = 1e-10, *, return_transform: Literal[False] = False) -> StateSpace: ...
@overload
def minimal_realization(system: System, tol: float = 1e-10, *, return_transform: Literal[True]) -> tuple[StateSpace, Array]: ...
def minimal_realization(system: System, tol: float = 1e-10, *, return_transform: bool = False) -> Any:
    """The states that inputs reach and outputs see: Kalman's decomposition by an orthogonal staircase.

    Ranks are decided by singular values above ``tol``, relative to the norms of ``A``, ``B`` and ``C`` after balancing; rounding
    grows from step to step of the staircase, to some 1e-13 over a handful of hidden states. Continuous and discrete time, stable
    or not, several inputs and outputs. In a batch elements with fewer states than others get zero states. With
    ``return_transform`` also ``T``, ``(*batch, n, r)``: ``x = T x'`` for the states kept. Source: Van Dooren, IEEE Trans. Automat.
    Control 26, 1981, sec. III. Not differentiable. Raises ValueError for a negative ``tol``.

    >>> from ssmid import ss
    >>> minimal_realization(ss([[0.5, 0.0], [0.0, 0.25]], [[1.0], [0.0]], [[1.0, 1.0]])).order
    1
    """
    if not 0 <= tol < 1:
        raise ValueError(f"tol: expected a number from 0 to 1, got {tol}")
    states = natural_state_space(system)

    def element(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> Result:
        scale = like_units(A, B, C, least=float(states.is_discrete))
        A, B, C = A * scale / scale[:, None], B / scale[:, None], C * scale
        reached = _staircase(A, B, tol)
        A, B, C = reached.conj().T @ A @ reached, reached.conj().T @ B, C @ reached
        seen = _staircase(A.conj().T, C.conj().T, tol)
        T = scale[:, None] * (reached @ seen)
        return seen.conj().T @ A @ seen, seen.conj().T @ B, C @ seen, T

    return _with_states(states, element, (), return_transform)


@overload
def modal_realization(system: System, *, max_condition: float = 1e6, return_transform: Literal[False] = False) -> StateSpace: ...
@overload
def modal_realization(system: System, *, max_condition: float = 1e6, return_transform: Literal[True]) -> tuple[StateSpace, Array]: ...
def modal_realization(system: System, *, max_condition: float = 1e6, return_transform: bool = False) -> Any:
    """Real block-diagonal states: one block a mode, ``[[a, b], [-b, a]]`` for a pair of poles, larger where poles cluster.

    Defective poles and those that only a transform of condition above ``max_condition`` (of states in like units) would part stay in
    one (quasi-)triangular block; :func:`ssmid.analysis.block_diagonal.block_sizes` lists the blocks of a matrix. Bavely and Stewart
    1979. With ``return_transform`` also ``T``, ``(*batch, n, n)``, ``x = T x'``. Not differentiable. Raises ValueError for a bound below 1.

    >>> import numpy as np
    >>> from ssmid import ss
    >>> modal_realization(ss([[0.5, 1.0], [0.0, 0.5]], [[0.0], [1.0]], [[1.0, 0.0]])).A        # a Jordan block stays whole
    array([[0.5, 1. ], [0. , 0.5]])
    """
    if not max_condition >= 1:
        raise ValueError(f"max_condition: expected a number >= 1, got {max_condition}")
    states = natural_state_space(system)

    def element(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> Result:
        units = uneven_scales(A, B, C, least=float(states.is_discrete))
        T, D = block_diagonalize(A * units / units[:, None], max_condition)
        return D, np.linalg.solve(T, B / units[:, None]), C * units @ T, units[:, None] * T

    return _with_states(states, element, (), return_transform)


@overload
def companion_realization(system: System, form: str = "controllable", *, return_transform: Literal[False] = False) -> StateSpace: ...
@overload
def companion_realization(system: System, form: str = "controllable", *, return_transform: Literal[True]) -> tuple[StateSpace, Array]: ...
def companion_realization(system: System, form: str = "controllable", *, return_transform: bool = False) -> Any:
    """States with the characteristic polynomial in the first row ("controllable") or column ("observable") of ``A``; SISO.

    Controllable: ``B = e_1`` and ``A T = T A_c`` gives the columns of ``T`` one from the other, ``t_{k+1} = A t_k + a_k t_1``
    (Kailath 1980, sec. 2.3): no inverse, so that the response is right for systems that are not minimal, too. With
    ``return_transform`` also ``T``, ``(*batch, n, n)``, ``x = T x'`` ("observable": infinite or NaN where there is none). Emits
    :class:`ConversionWarning` where the coefficients lose more than 1e-6 of the response. Not differentiable. Raises ValueError for
    several inputs or outputs and an unknown form.

    >>> from ssmid import ss
    >>> companion_realization(ss([[0.5, 1.0], [0.0, 0.25]], [[0.0], [1.0]], [[1.0, 0.0]])).A
    array([[ 0.75 , -0.125], [ 1.   ,  0.   ]])
    """
    if form not in ("controllable", "observable"):
        raise ValueError(f"form: expected 'controllable' or 'observable', got {form!r}")
    states = natural_state_space(system)
    if not states.outputs == states.inputs == 1:
        raise ValueError(f"expected one input and one output for a companion form, got {states.inputs} and {states.outputs}")
    whole = states.broadcast_arrays()
    A, B, C = (double(whole[name]) for name in "ABC")
    if form == "observable":
        A, B, C = transpose(A), transpose(C), transpose(B)
    poles = eigvals(A)
    companion, T, output = _controllable_companion(A, B, C, poles)
    bits = width(states.A)
    if form == "controllable":
        result = companion, _first_unit(T), output
    else:
        result = transpose(companion), transpose(output), transpose(_first_unit(T))
        T = transpose(inverse(T)) if return_transform else T
    realized = StateSpace(*(astype_width(M, bits) for M in result), D=states.D, dt=states.dt)
    advice = f"coefficients of degree {states.order}; ssmid.balanced_realization and ssmid.modal_realization keep all of it"
    warn_of_loss("companion_realization", states, realized, poles, advice)
    return (realized, astype_width(T, bits)) if return_transform else realized


# ---------------------------------------------------------------- one element


def _with_states(states: StateSpace, element: Any, more: tuple[Array, ...], return_transform: bool) -> Any:
    arrays = (double(states.A), double(states.B), double(states.C), *more)
    A, B, C, T = padded_states(element, arrays, (2,) * len(arrays), (states.inputs, states.outputs, states.order))
    bits = width(states.A)
    result = StateSpace(*(astype_width(M, bits) for M in (A, B, C)), D=states.D, dt=states.dt)
    return (result, astype_width(T, bits)) if return_transform else result


@quiet
def _staircase(A: np.ndarray, B: np.ndarray, tol: float) -> np.ndarray:
    """An orthonormal basis of what ``B`` reaches through ``A``, block by block of the staircase.

    Each block is orthogonalized against all before it, twice, which is as orthogonal as the reflections of the original algorithm
    and takes n^2 operations a column instead of n^3 a block.
    """
    n = len(A)
    basis = np.zeros((n, 0), np.result_type(A, B))
    new, size = B, np.linalg.norm(B)
    while basis.shape[1] < n:
        for _ in range(2):
            new = new - basis @ (basis.conj().T @ new)
        U, s, _ = np.linalg.svd(new, full_matrices=False)
        U = U[:, s > tol * size]
        if U.shape[1] == 0:
            break
        U = np.linalg.qr(U - basis @ (basis.conj().T @ U))[0]
        basis = np.concatenate([basis, U], axis=1)
        new, size = A @ U, np.linalg.norm(A)
    return basis


@quiet
def _controllable_companion(A: Array, B: Array, C: Array, poles: Array) -> tuple[Array, Array, Array]:
    xp = namespace(A, B, C)
    n = A.shape[-1]
    A, B, C = same_field(A, B, C)
    coefficients = expand_roots(poles) if n else xp.ones((*A.shape[:-2], 1), dtype=A.dtype, device=A.device)
    coefficients = coefficients if is_complex(coefficients) == is_complex(A) else (as_complex if is_complex(A) else xp.real)(coefficients)
    columns, t = [], B
    for k in range(n):
        columns.append(t)
        t = A @ t + coefficients[..., k + 1, None, None] * B
    T = xp.concat(columns, axis=-1) if n else xp.zeros((*A.shape[:-2], 0, 0), dtype=A.dtype, device=A.device)
    first = xp.asarray(xp.arange(n, device=A.device) == 0, device=A.device)
    top = -coefficients[..., None, 1:]
    companion = xp.eye(n, k=-1, dtype=A.dtype, device=A.device) + xp.where(first[:, None], top, xp.zeros_like(top))
    return companion, T, C @ T


def _first_unit(T: Array) -> Array:
    xp = namespace(T)
    return xp.eye(T.shape[-1], 1, dtype=T.dtype, device=T.device)
