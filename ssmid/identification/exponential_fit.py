"""From the poles of a method to sums of exponentials: orders, residues, states, and what is said of them.

A batch is taken apart by order: every element has its own. Each part is one batched least-squares problem over all taps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import prod

import numpy as np

from ssmid._array import Array, as_complex, astype_width, from_numpy, is_complex, namespace, quiet, to_numpy, width
from ssmid.analysis.hankel import channels, hankel_triplets, normalized
from ssmid.analysis.impulse import markov_parameters
from ssmid.analysis.modal_form import taken_apart
from ssmid.identification.arguments import checked_count, checked_order, checked_stable, refuse_both
from ssmid.identification.order import order_above_noise
from ssmid.identification.padding import grown, with_states
from ssmid.identification.partial_fractions import RationalFit, as_state_space
from ssmid.identification.result import told_if_unstable
from ssmid.identification.signal_subspace import Subspace, shift_matrix, signal_subspace
from ssmid.identification.stable_poles import are_unstable, held_inside
from ssmid.identification.tangential import fit_directions
from ssmid.linalg import powers, scaled_least_squares, transpose
from ssmid.reduction.result import Change
from ssmid.systems import ImpulseResponse, Modal

_MOST = 64
_CLUSTERED, _GAP = 1e6, 1e-3
_INSIDE = 1e-12
_CHUNK_BYTES = 2**27


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExponentialFit(RationalFit):
    """A sum of exponentials fitted to taps.

    modal : poles and residues   repeated : ``(*batch,)`` whether poles stand so near to each other that these cannot carry the fit
        to rounding: ``system`` then has the state matrix of the signal subspace, Jordan blocks and all, and ``modal`` the nearest
        poles that are apart
    condition : ``(*batch,)`` of the least-squares problem of the residues, columns scaled to length one
    lower_bound : ``(*batch,)`` no system of this order, stable or not, has a smaller relative l2 error over these taps: the energy
        of the Hankel values beyond the order, over the number of times that a tap stands in the matrix at most
    """

    repeated: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Poles:
    """What a method finds at one order, with poles ``(batch, n)``, conjugates as neighbours where the taps are real.

    left : ``(batch, p, n)`` output directions   space : what they were read off   rows : of its Hankel matrix
    """

    poles: Array
    left: Array
    space: Subspace
    rows: int


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """name : in words   verb : the public function   find : of taps, rows and order   rows : what the caller asked for
    from_inputs : whether inputs and outputs change places   most : of outputs, inputs, taps and rows, the largest order that can be told
    """

    name: str
    verb: str
    find: Callable[[Array, int, int], Poles]
    rows: int | None
    most: Callable[[int, int, int, int], int]
    from_inputs: bool = False


@quiet
def fit_exponentials(
    response: ImpulseResponse, order: int | None, most: int | None, method: Method, stable: bool, mimo: bool
) -> ExponentialFit:
    """The fit of every response of the batch by ``method``, which gives the poles."""
    if not isinstance(response, ImpulseResponse):
        raise TypeError(f"expected an ImpulseResponse, got {type(response).__name__}: wrap taps in ssmid.ImpulseResponse(taps)")
    checked_stable(stable)
    if most is not None:
        checked_count("max_order", most)
    refuse_both(order, max_order=most)
    taps = channels(response, mimo)
    xp = namespace(taps)
    batch = taps.shape[:-3]
    flat, sound, scale = normalized(xp.reshape(taps, (prod(batch), *taps.shape[-3:])))
    proper = (xp.moveaxis(flat, -3, -2) if method.from_inputs else flat)[..., 1:]
    if proper.shape[-1] == 0:
        proper = xp.zeros_like(flat if not method.from_inputs else xp.moveaxis(flat, -3, -2))
    rows = proper.shape[-1] // 2 + 1 if method.rows is None else method.rows
    orders, sigma = _orders(proper, rows, order, most, method)
    eps = 2.0**-52 if width(response.taps) == 64 else 2.0**-23
    groups = _groups(proper, orders, rows, method, stable, eps)
    groups = groups or [_group(orders, proper, _nothing(proper, rows), stable, eps)]
    fit = _assembled(groups, response, flat, sound, scale, method, mimo, sigma)
    return fit if stable else told_if_unstable(fit, method.verb, "stable=True gives stable ones", depth=2)


def _orders(taps: Array, rows: int, order: int | None, most: int | None, method: Method) -> tuple[np.ndarray, Array]:
    """``(batch,)`` the orders asked for or chosen, and the singular values they were chosen by (None where they were asked for)."""
    batch, p, m, length = taps.shape
    largest = method.most(p, m, length, rows)
    if method.rows is not None and largest < 1:
        raise ValueError(f"rows, pencil or degree: expected a matrix within {length} taps beyond tap 0, got {rows} rows")
    if order is not None:
        checked_order("order", order, 1, max(1, largest), f"{length} taps beyond tap 0")
        if largest == 0 and bool(namespace(taps).any(taps != 0)):
            raise ValueError(f"order: expected more than {length} taps beyond tap 0 to tell an order, got {order}")
        return np.full(batch, min(order, largest)), None
    height = length // 2 + 1
    count = min(most or _MOST, largest)
    if count == 0 or batch == 0:
        return np.zeros(batch, int), None
    shape = (height, length - height + 1)
    triplets = hankel_triplets(taps, *shape, min(count + 1, p * shape[0], m * shape[1]), rtol=1e-12, tail_rtol=1e-2)
    chosen = order_above_noise(triplets.sigma, *shape, energy=hankel_energy(taps, *shape), noise="hankel", ports=(p, m))
    return np.minimum(to_numpy(chosen), count), triplets.sigma


def hankel_energy(taps: Array, rows: int, columns: int) -> Array:
    """``(batch,)`` the squared Frobenius norm of the Hankel matrix of ``taps`` ``(batch, p, m, length)``."""
    xp = namespace(taps)
    t = np.arange(taps.shape[-1])
    times = from_numpy(np.minimum.reduce([t + 1, np.full(len(t), min(rows, columns)), rows + columns - 1 - t]).astype(float), taps)
    return xp.sum(xp.abs(taps) ** 2 * times, axis=(-3, -2, -1))


# ---------------------------------------------------------------- all orders


def _groups(taps: Array, orders: np.ndarray, rows: int, method: Method, stable: bool, eps: float) -> list[_Group]:
    """The fits of all elements, order by order; what carries less than its order goes on to the order that it carries."""
    xp = namespace(taps)
    per_element = 16 * prod(taps.shape[1:]) * 6
    pending = {int(n): np.flatnonzero(orders == n) for n in np.unique(orders)}
    done: list[_Group] = []
    while pending:
        n = max(pending)
        places = pending.pop(n)
        step = max(1, _CHUNK_BYTES // (per_element * max(1, n)))
        for start in range(0, len(places), step):
            part = places[start : start + step]
            chosen = xp.take(taps, from_numpy(part, taps), axis=0)
            if n == 0:
                done.append(_group(part, chosen, _nothing(chosen, rows), stable, eps))
                continue
            found = method.find(chosen, rows, n)
            rank = found.space.rank
            for k in np.unique(rank[rank < n]):
                pending[int(k)] = np.concatenate([pending.get(int(k), part[:0]), part[rank == k]])
            if (rank >= n).any():
                whole = np.flatnonzero(rank >= n)
                if len(whole) < len(part):
                    chosen, found = xp.take(chosen, from_numpy(whole, taps), axis=0), _taken(found, whole)
                done.append(_group(part[whole], chosen, found, stable, eps))
    return done


def _nothing(taps: Array, rows: int) -> Poles:
    xp = namespace(taps)
    batch, p = taps.shape[:2]
    poles = xp.zeros((batch, 0), dtype=as_complex(taps).dtype, device=taps.device)
    sigma = xp.zeros((batch, 0), dtype=xp.float64, device=taps.device)
    converged = xp.ones(batch, dtype=xp.bool, device=taps.device)
    vectors = xp.zeros((batch, 0, p, rows), dtype=taps.dtype, device=taps.device)
    left = xp.zeros((batch, p, 0), dtype=poles.dtype, device=poles.device)
    return Poles(poles, left, Subspace(vectors, sigma, converged, np.zeros(batch, int)), rows)


def _taken(found: Poles, places: np.ndarray) -> Poles:
    xp, index = namespace(found.poles), from_numpy(places, found.poles)
    space = found.space
    vectors, sigma, converged, poles, left = (
        xp.take(a, index, axis=0) for a in (space.vectors, space.sigma, space.converged, found.poles, found.left)
    )
    return Poles(poles, left, Subspace(vectors, sigma, converged, space.rank[places]), found.rows)


# ---------------------------------------------------------------- one order


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Fits of one order, of the elements at ``places`` of the flat batch, in the scale of the normalized taps.

    residues : ``(batch, p, m, n)``   squares : ``(batch,)`` of the error   least : ``(batch,)`` a lower bound of them
    A, B, C : of those ``repeated``, zero elsewhere   reflected : ``(batch, n)`` the unstable poles, zero elsewhere
    """

    places: np.ndarray
    poles: Array
    residues: Array
    A: Array
    B: Array
    C: Array
    sigma: Array
    squares: Array
    least: Array
    condition: Array
    converged: Array
    repeated: Array
    reflected: Array


def _group(places: np.ndarray, taps: Array, found: Poles, stable: bool, eps: float) -> _Group:
    xp = namespace(taps)
    batch, p, m, length = taps.shape
    poles = found.poles
    n = poles.shape[-1]
    outside = are_unstable(poles, 1) & stable
    unstable = xp.where(outside, poles, xp.zeros_like(poles))
    poles = xp.where(outside, held_inside(poles, 1, _INSIDE), poles)
    poles, left = _apart(poles, found.left)
    table, last = exponential_table(poles, length)
    fit = fit_directions(table, poles, taps, left, real=not is_complex(taps), feedthrough=False)
    residues = fit.left[:, :, None, :] * xp.moveaxis(fit.right, -1, -2)[:, None, :, :]
    # by the residues themselves: those of poles next to each other cancel, which the solution of the real problem does not show
    fitted = xp.reshape(xp.reshape(residues, (batch, p * m, n)) @ transpose(table), (batch, p, m, length))
    squares = xp.sum(xp.abs((fitted if is_complex(taps) else xp.real(fitted)) - taps) ** 2, axis=(-3, -2, -1))
    # what is lost where they cancel when the result is rounded to its precision
    modes = xp.reshape(xp.abs(residues), (batch, p * m, n)) @ transpose(xp.abs(table))
    rounding = eps**2 * xp.sum(modes**2, axis=(-2, -1))
    residues = residues * last[:, None, None, :]
    energy = xp.sum(xp.abs(taps) ** 2, axis=(-3, -2, -1))
    cancelling = (rounding > squares) & (rounding > (100 * eps) ** 2 * energy)
    clustered = to_numpy((fit.condition > _CLUSTERED) | cancelling) | _neighbours(poles)
    near = np.flatnonzero(clustered & ~to_numpy(xp.any(outside, axis=-1)))
    shapes = ((batch, n, n), (batch, n, m), (batch, p, n))
    A, B, C = (xp.zeros(shape, dtype=taps.dtype, device=taps.device) for shape in shapes)
    repeated = xp.zeros(batch, dtype=xp.bool, device=taps.device)
    if near.size and n <= most_by_shift(p, m, length, length // 2 + 1):
        chosen = from_numpy(near, taps)
        whole, kept = _in_state_space(xp.take(taps, chosen, axis=0), n), xp.take(squares + rounding, chosen, axis=0)
        better = whole[3] < xp.where(xp.isnan(kept), xp.full_like(kept, float("inf")), kept / 4)
        A, B, C = (_placed(M, near, batch, better) for M in whole[:3])
        squares = xp.where(_placed(better, near, batch, better), _placed(whole[3], near, batch, better), squares)
        repeated = _placed(better, near, batch, better)
    shape = (found.rows, length - found.rows + 1)
    tail = hankel_energy(taps, *shape) * (1 - 1e-13 * max(shape)) - xp.sum(found.space.sigma**2, axis=-1)
    least = xp.where(tail > 0, tail / min(shape), xp.zeros_like(tail))
    facts = (found.space.sigma, squares, least, fit.condition, found.space.converged, repeated, unstable)
    return _Group(places, poles, residues, A, B, C, *facts)


def _in_state_space(taps: Array, order: int) -> tuple[Array, Array, Array, Array]:
    """``A, B, C`` of ESPRIT's state matrix in the coordinates of the signal subspace, B by least squares, and the squares of the error."""
    xp = namespace(taps)
    batch, p, m, length = taps.shape
    space = signal_subspace(taps, length // 2 + 1, order)
    A, C = shift_matrix(space.vectors, total=True), transpose(space.vectors[..., 0])
    eye = xp.broadcast_to(xp.eye(order, dtype=A.dtype, device=A.device), A.shape)
    columns = xp.reshape(xp.moveaxis(markov_parameters(A, eye, C, length), -1, -2), (batch, p * length, order))
    right = xp.reshape(xp.moveaxis(taps, -2, -1), (batch, p * length, m))
    B, _ = scaled_least_squares(columns, right)
    return A, B, C, xp.sum(xp.abs(columns @ B - right) ** 2, axis=(-2, -1))


def _neighbours(poles: Array) -> np.ndarray:
    """``(batch,)`` whether two of the poles are nearer to each other than ``_GAP``, on the host."""
    host = to_numpy(poles)
    distance = np.abs(host[:, :, None] - host[:, None, :]) + 2 * np.eye(host.shape[-1])
    return distance.min((-2, -1), initial=2.0) < _GAP


def _apart(poles: Array, left: Array) -> tuple[Array, Array]:
    """Equal poles, which have no partial fractions, moved onto a small circle; their output directions go with them."""
    host = to_numpy(poles)
    spread, touched = taken_apart(host, True)
    if not touched.any():
        return poles, left
    # pairs are sorted anew: each pole takes the direction of the nearest one
    nearest = np.argmin(np.abs(spread[:, :, None] - host[:, None, :]), axis=-1)
    nearest = np.where(touched[:, None], nearest, np.arange(host.shape[-1]))
    directions = np.take_along_axis(to_numpy(left), nearest[:, None, :], axis=-1)
    return from_numpy(spread, poles), from_numpy(directions, left)


def _placed(array: Array, places: np.ndarray, batch: int, mask: Array) -> Array:
    """``array`` at its ``places`` of a batch of zeros, where ``mask``."""
    xp = namespace(array)
    array = xp.where(xp.reshape(mask, (-1, *(1,) * (array.ndim - 1))), array, xp.zeros_like(array))
    index = np.full(batch, len(places))
    index[places] = np.arange(len(places))
    return xp.take(xp.concat([array, xp.zeros_like(array[:1, ...])], axis=0), from_numpy(index, array), axis=0)


def exponential_table(poles: Array, length: int) -> tuple[Array, Array]:
    """``poles^t`` ``(batch, length, n)``, of poles outside the circle ``poles^(t - length + 1)``, and what coefficients are then times."""
    xp = namespace(poles)
    outside = xp.abs(poles) > 1
    base = 1 / xp.where(outside, poles, xp.ones_like(poles))
    table = powers(xp.where(outside, base, poles), length)
    last = xp.where(outside, base ** float(length - 1), xp.ones_like(poles))
    return transpose(xp.where(outside[..., None], xp.flip(table, axis=-1), table)), last


def most_by_shift(p: int, m: int, length: int, rows: int) -> int:
    return min(p * (rows - 1), m * (length - rows + 1))


# ---------------------------------------------------------------- results


def _assembled(
    groups: list[_Group], response: ImpulseResponse, flat: Array, sound: Array, scale: Array, method: Method, mimo: bool, sigma: Array
) -> ExponentialFit:
    """One result in the order, shape, scale and precision of the response's batch."""
    xp, bits = namespace(flat), width(response.taps)
    batch = response.batch_shape[: -2 if mimo else None]
    places = np.argsort(np.concatenate([g.places for g in groups]))
    n = max(g.poles.shape[-1] for g in groups)

    def whole(arrays: list[Array], *sizes: int, bad: float | None = float("nan")) -> Array:
        array = xp.take(xp.concat([grown(a, sizes) for a in arrays], axis=0), from_numpy(places, flat), axis=0)
        if bad is not None:
            array = xp.where(xp.reshape(sound, (-1, *(1,) * len(sizes))), array, xp.full_like(array, bad))
        return array

    p, m = flat.shape[1:3]
    q, k = (m, p) if method.from_inputs else (p, m)
    poles = whole([g.poles for g in groups], n)
    residues = whole([g.residues for g in groups], q, k, n)
    residues = xp.moveaxis(residues, -2, -3) if method.from_inputs else residues
    residues = residues * as_complex(scale)[:, None, None, None]
    feedthrough = flat[..., 0] * xp.astype(scale, flat.dtype)[:, None, None]
    poles, shape = (xp.reshape(poles, (*batch, 1, 1, n)), (*batch, p, m)) if mimo else (xp.reshape(poles, (*batch, n)), batch)
    modal = Modal(poles, xp.reshape(residues, (*shape, n)), xp.reshape(feedthrough, shape), response.dt, not is_complex(flat))
    repeated = whole([g.repeated for g in groups], bad=0)
    matrices = [whole([getattr(g, name) for g in groups], *size) for name, size in (("A", (n, n)), ("B", (n, k)), ("C", (q, n)))]
    if method.from_inputs:
        matrices = [transpose(matrices[0]), transpose(matrices[2]), transpose(matrices[1])]
    root = xp.astype(scale**0.5, flat.dtype)[:, None, None]
    matrices = [matrices[0], matrices[1] * root, matrices[2] * root]
    A, B, C = (xp.reshape(M, (*batch, *M.shape[1:])) for M in matrices)
    system = as_state_space(modal, mimo=mimo)
    system = with_states(system, xp.reshape(repeated, batch), A, B, C, system.D)
    squares, least = (whole([getattr(g, name) for g in groups]) for name in ("squares", "least"))
    energy = xp.sum(xp.abs(flat) ** 2, axis=(-3, -2, -1))
    energy = xp.where(energy > 0, energy, xp.ones_like(energy))
    orders = np.concatenate([np.full(len(g.places), g.poles.shape[-1]) for g in groups])[places].reshape(batch)
    if sigma is None:
        size = max(g.sigma.shape[-1] for g in groups)
        sigma = whole([grown(g.sigma, (size,), fill=float("nan")) for g in groups], size)
    sigma = sigma * scale[:, None]

    def shaped(array: Array) -> Array:
        return xp.reshape(astype_width(array, bits) if "float" in str(array.dtype) else array, (*batch, *array.shape[1:]))

    return ExponentialFit(
        system=system.map(lambda a: astype_width(a, bits)),
        modal=modal.map(lambda a: astype_width(a, bits)),
        method=method.name,
        order=int(orders.flat[0]) if orders.size and (orders == orders.flat[0]).all() else from_numpy(orders, flat),
        converged=xp.reshape(whole([g.converged for g in groups], bad=0) & sound, batch),
        condition=shaped(whole([g.condition for g in groups])),
        changes=_changes(groups, batch),
        data=response,
        error=shaped(xp.sqrt(squares / energy)),
        sigma=shaped(sigma),
        lower_bound=shaped(xp.sqrt(least / energy)),
        repeated=xp.reshape(repeated, batch),
    )


def _changes(groups: list[_Group], batch: tuple[int, ...]) -> tuple[Change, ...]:
    changes = []
    for group in groups:
        poles = to_numpy(group.reflected)
        for row in np.flatnonzero(poles.any(-1)):
            element = tuple(int(i) for i in np.unravel_index(group.places[row], batch)) if batch else ()
            listed = tuple(complex(z) for z in poles[row] if z != 0)
            changes.append(Change("reflected", listed, "outside or on the unit circle", element))
    return tuple(sorted(changes, key=lambda change: change.element))
