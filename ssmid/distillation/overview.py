"""A distilled model as a whole: its filters in rows on the host, and what they would be at other orders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ssmid._array import to_numpy
from ssmid.distillation.bank import NOT_FINITE, TAP_0_ONLY, UNSTABLE, ZERO
from ssmid.distillation.certificate import Certificate
from ssmid.distillation.result import Distillation

_WITHOUT = (NOT_FINITE, ZERO, TAP_0_ONLY, UNSTABLE)
"""Kinds that have no recurrence: nothing to fit, or nothing that could be."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """The ``n`` filters of one layer in a row, NumPy arrays in double precision.

    batch : the shape they came in   length : taps of each   order : ``(n,)`` states
    l2 : ``(n,)`` relative l2 error   hankel : ``(n,)`` Hankel norm of the error over that of the filter
    ratio : ``(n,)`` Hankel norm of the error over sigma_{order+1}   radius, tail, converged, kind, delay : ``(n,)`` of the certificate
    missed : ``(n,)`` boolean: finite, but over the tolerance that was asked for
    channels : outputs and inputs of each, ``()`` where it is a single filter
    sigma : ``(n, k)`` Hankel values over the largest, from below; NaN where they are not known   poles : ``(n, d)``, NaN beyond the order
    """

    name: str
    batch: tuple[int, ...]
    channels: tuple[int, ...]
    length: int
    order: np.ndarray
    l2: np.ndarray
    hankel: np.ndarray
    ratio: np.ndarray
    radius: np.ndarray
    tail: np.ndarray
    converged: np.ndarray
    kind: np.ndarray
    delay: np.ndarray
    missed: np.ndarray
    sigma: np.ndarray
    poles: np.ndarray

    @property
    def count(self) -> int:
        return len(self.order)

    @property
    def fitted(self) -> np.ndarray:
        """``(n,)`` boolean: filters that took a recurrence; the others are not finite, unstable, zero, or nothing but tap 0."""
        return ~np.isin(self.kind, _WITHOUT)

    @property
    def stopped(self) -> np.ndarray:
        """``(n,)`` boolean: filters whose search did not come to rest; those that missed the tolerance are not among them."""
        return self.fitted & ~self.converged & ~self.missed

    @property
    def past(self) -> int:
        """Numbers that the convolutions keep of their past inputs: length - 1 each."""
        return self.count * prod(self.channels[1:]) * (self.length - 1)

    @property
    def states(self) -> int:
        """Numbers that the recurrences keep in their place."""
        return int(self.order.sum())

    @property
    def padded(self) -> int:
        """The same when all filters of the layer are stored at its largest order."""
        return self.count * int(self.order.max(initial=0))

    def index(self, place: int) -> tuple[int, ...]:
        """Where the filter in a ``place`` of the row stands in the batch."""
        return tuple(int(i) for i in np.unravel_index(place, self.batch)) if self.batch else ()

    def ranked(self) -> np.ndarray:
        """Places of the fitted filters of known error, the smallest error first."""
        places = np.flatnonzero(self.fitted & np.isfinite(self.l2))
        return places[np.argsort(self.l2[places], kind="stable")]


def overview(layers: Mapping[str, Distillation] | Distillation, tol: float | None = None, norm: str = "l2") -> list[Layer]:
    """The layers of a distilled model, or a single bank, as rows of filters. Raises ValueError for an empty mapping.

    tol, norm : what every filter was asked to meet

    >>> import ssmid
    >>> (layer,) = overview(ssmid.distill(ssmid.ImpulseResponse([[1.0, 0.5, 0.25, 0.125], [1.0, 0.0, 0.0, 0.0]]), 1))
    >>> layer.count, layer.past, layer.states, layer.fitted.tolist()
    (2, 6, 1, [True, False])
    """
    if isinstance(layers, Distillation):
        layers = {"": layers}
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    return [_layer(name, distillation, tol, norm) for name, distillation in layers.items()]


def relative_error(certificate: Certificate, norm: str) -> np.ndarray:
    """``(*batch,)`` on the host: the error in a norm over that of the filter without tap 0; 0 where both are 0."""
    if norm == "l2":
        return to_numpy(certificate.l2).astype(float)
    sizes = {"hankel": certificate.sigma[..., 0], "hinf": certificate.filter_hinf, "l1": certificate.filter_l1}
    error, size = (to_numpy(array).astype(float) for array in (getattr(certificate, norm), sizes[norm]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / size)


def _layer(name: str, distillation: Distillation, tol: float | None, norm: str) -> Layer:
    certificate = distillation.certificate
    batch = tuple(distillation.converged.shape)

    def row(array: object) -> np.ndarray:
        return to_numpy(array).reshape(-1)

    sigma = to_numpy(certificate.sigma).astype(float)
    sigma = sigma.reshape(prod(batch), sigma.shape[-1])
    order = np.broadcast_to(to_numpy(distillation.order), batch).reshape(-1).astype(int)
    order = np.where(np.isin(row(certificate.kind), _WITHOUT), 0, order)
    sigma = sigma / np.where(sigma[:, :1] > 0, sigma[:, :1], 1.0)
    poles = to_numpy(distillation.system.broadcast_arrays()["poles"])
    # coupled channels have their poles in common: those of the first are all
    poles = poles.reshape(len(order), prod(poles.shape[len(batch) : -1]), poles.shape[-1])[:, 0, :]
    return Layer(
        name=name,
        batch=batch,
        channels=distillation.system.batch_shape[len(batch) :],
        length=distillation.length,
        order=order,
        l2=row(certificate.l2).astype(float),
        hankel=relative_error(certificate, "hankel").reshape(-1),
        ratio=row(certificate.ratio).astype(float),
        radius=row(certificate.spectral_radius).astype(float),
        tail=row(certificate.tail_energy).astype(float),
        converged=row(certificate.converged).astype(bool),
        kind=row(certificate.kind).astype(int),
        delay=row(certificate.delay).astype(int),
        missed=np.zeros(len(order), bool) if tol is None else relative_error(certificate, norm).reshape(-1) > tol,
        sigma=sigma,
        poles=np.where(np.arange(poles.shape[-1]) < order[:, None], poles, np.nan),
    )


def joined(layers: list[Layer], field: str) -> np.ndarray:
    """A field of all fitted filters, layer after layer; ``sigma`` padded with NaN to the longest."""
    rows = [getattr(layer, field)[layer.fitted] for layer in layers]
    if rows[0].ndim == 1:
        return np.concatenate(rows)
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1])), constant_values=np.nan) for row in rows])


def spread(values: np.ndarray, shares: tuple[float, ...] = (0.1, 0.5, 0.9)) -> np.ndarray:
    """``(len(shares), *rest)`` quantiles over the first axis of what is finite; NaN where nothing is.

    >>> spread(np.array([[1.0, np.nan], [3.0, np.nan]]), (0.5,)).tolist()
    [[2.0, nan]]
    """
    values = np.where(np.isfinite(values), values, np.nan)
    found = np.full((len(shares), *values.shape[1:]), np.nan)
    some = np.isfinite(values).any(axis=0) if len(values) else np.zeros(values.shape[1:], bool)
    if values.ndim == 1:
        return np.nanquantile(values, shares) if some else found
    found[:, some] = np.nanquantile(values[:, some], shares, axis=0)
    return found


def complete(sigma: np.ndarray) -> np.ndarray:
    """``(n, k)`` the leading columns that are known of every filter: k bounds, of the orders 0 to k - 1."""
    return sigma[:, : int(np.isfinite(sigma).all(axis=0).sum())] if len(sigma) else sigma[:, :0]


def bound_at(sigma: np.ndarray, order: int) -> np.ndarray:
    """``(n,)`` what the Hankel error of any model of this order is at least, sigma_{order+1}; NaN where that is not known."""
    return sigma[:, order] if order < sigma.shape[1] else np.full(len(sigma), np.nan)


def memory(poles: np.ndarray) -> np.ndarray:
    """Time constants ``-1 / ln|p|`` in samples, after which the part of a pole has fallen to 37 %; infinite on and outside the circle.

    >>> memory(np.array([0.0, np.exp(-0.5), 1.0])).tolist()
    [0.0, 2.0, inf]
    """
    modulus = np.abs(poles)
    with np.errstate(divide="ignore"):
        return np.where(modulus < 1, -1 / np.log(np.minimum(modulus, 1.0)), np.inf)


def least_orders(sigma: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` the least order whose bound sigma_{order+1} is at most ``tol``, and whether it is known.

    Where the known values do not fall that far the order is one more than the last known: a lower bound, marked False.

    >>> [a.tolist() for a in least_orders(np.array([[1.0, 0.1, 0.01], [1.0, 0.9, np.nan]]), 0.05)]
    [[2, 2], [True, False]]
    """
    above = sigma > tol
    known = np.isfinite(sigma)
    count = (above & known).sum(axis=1)
    return count, count < known.sum(axis=1)


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """What tells layers apart, and the common form with a star in its place ("" where nothing is common).

    >>> short_names(["model.0.filter", "model.10.filter"])
    (['0', '10'], 'model.*.filter')
    >>> short_names([""])
    (['all'], '')
    """
    parts = [name.split(".") for name in names]
    shortest = min(len(p) for p in parts)
    if len(names) == 1:
        return [names[0] or "all"], ""
    head = next((i for i in range(shortest - 1) if len({p[i] for p in parts}) > 1), shortest - 1)
    tail = next((i for i in range(shortest - 1 - head) if len({p[-1 - i] for p in parts}) > 1), shortest - 1 - head)
    short = [".".join(p[head : len(p) - tail]) for p in parts]
    common = ".".join([*parts[0][:head], "*", *parts[0][len(parts[0]) - tail :]]) if head or tail else ""
    return short, common
