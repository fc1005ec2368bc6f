"""How near a small recurrence is to its filter, and to the nearest that any of its order could be: measured, filter by filter."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, from_numpy, namespace, on_gpu, quiet, to_numpy
from ssmid.analysis.hankel import hankel_triplets
from ssmid.distillation.bank import KINDS, NOT_FINITE, TAP_0_ONLY, ZERO, Bank
from ssmid.distillation.error_hankel import hankel_norm
from ssmid.distillation.error_norms import Difference, energy_of_modes, integer_power, l1_norm
from ssmid.distillation.error_peak import hinf_norm, hinf_of_taps
from ssmid.distillation.fitted import Fitted

VERDICTS = {
    "no result": "the filter or its model is not finite",
    "nothing to approximate": "the filter is zero after tap 0",
    "unstable": "what does not die out has no such errors",
    "not converged": "another start or more iterations may come nearer: raise max_iterations or restarts",
    "exact": "the filter is a recurrence of this order, to rounding",
    "still ringing": "{ringing:.0%} of the squared error is what the model does after the last tap: longer filters, or beyond='free' "
    "where nothing after it is ever used",
    "may be refined": "a model of this order up to {ratio:.3g} times nearer in Hankel norm is not ruled out, by a bound that may itself "
    "be a tenth low: method='hankel' finds the nearest, which is not what least l2 error aims at",
    "near the best": "no model of this order is much nearer",
    "order pays": "no model of this order is much nearer, but from order {half} to {order} the least error fell {decay:.3g} times: raise "
    "the order",
    "noise-like": "no model of this order is much nearer, and from order {half} to {order} the least error fell only {decay:.3g} times, as "
    "that of noise does: a higher order buys little",
}
"""What to make of a certificate, in short and in a sentence: the first that applies, but for the last three."""
EXACT = 1e-10
"""Relative l2 error that only rounding explains."""
RINGING = 0.1
"""Share of the squared error, after the last tap, from which the length of the filter rather than the order decides."""
NEAR = 1.3
"""Times the lower bound: what balanced truncation of trained filters stays within, so that a search has little left to find."""
SMALL = 0.01
"""Relative l2 error with which one stops asking for more: 1e-4 of the energy, as the rounding of 8-bit signals."""
SLOW = 1.5
"""Fall of sigma from half the order to the order. That of white noise falls by 1.1, of a smooth filter by powers of ten; 1.5 means that
ten times the accuracy takes fifty times the order."""
_ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Hankel values so much smaller than the largest are not known."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Certificate:
    """What is known of each distilled filter. Errors are those of the taps after tap 0, which is kept exactly.

    The filter is the finite response that it is: what the model does after the last tap counts as error too, unless
    ``beyond="free"`` was asked for. NaN where a filter or its model is not finite, infinite where the model is unstable.

    sigma : ``(*batch, k)`` Hankel singular values of the filter, from below (Ritz values); NaN beyond those that were sought
    lower_bound : ``(*batch,)`` of the Hankel norm of the error of any model of this order: sigma_{order+1} from below (Adamjan, Arov &
        Krein, Math. USSR Sbornik 15, 1971), 0 where the order reaches the rank. With ``beyond="free"``, of the square Hankel matrix of
        the taps alone (Eckart & Young, Psychometrika 1, 1936)
    l2 : ``(*batch,)`` relative l2 error, to rounding of the taps, never below the truth
    hankel, hinf, l1 : ``(*batch,)`` norms of the error, in the unit of the taps: never below the truth and at most 0.1 % above it.
        ``hankel`` is an upper bound but for a chance of one in a million (error_hankel.py); ``l1`` may be 1.6 times too large of poles
        within 1e-4 of the circle whose ringing dominates (error_norms.py). Where residues are far larger than the filter the taps
        of the error are summed with twice the digits; what rings after the last tap is not, and all four errors count the most it may lose
    filter_hinf, filter_l1 : ``(*batch,)`` of the filter without tap 0; its Hankel norm is ``sigma[..., 0]``
    spectral_radius : ``(*batch,)`` the largest modulus of a pole
    tail_energy : ``(*batch,)`` energy of the model after the last tap, all of it, relative to that of the filter
    converged : ``(*batch,)`` boolean, of the method   kind : ``(*batch,)`` indices of :data:`KINDS`   delay : ``(*batch,)`` taps
    """

    sigma: Array
    lower_bound: Array
    l2: Array
    hankel: Array
    hinf: Array
    l1: Array
    filter_hinf: Array
    filter_l1: Array
    spectral_radius: Array
    tail_energy: Array
    converged: Array
    kind: np.ndarray
    delay: np.ndarray

    @property
    def ratio(self) -> Array:
        """``(*batch,)`` Hankel norm of the error over the lower bound, at least 1; NaN where the bound is 0 to rounding.

        The error from above over the bound from below: never better than the truth. It exceeds the truth by at most 0.1 %, and by as much
        as the Ritz value is below sigma: for the subspaces that fits start from, a tenth on filters whose Hankel values end in noise (on 32
        trained ones at order 16 from 5 to 15 %, which makes a largest ratio of 1.41 one of 1.56).
        """
        xp = namespace(self.hankel)
        known = self.lower_bound > _ROUNDING * self.sigma[..., 0]
        safe = xp.where(known, self.lower_bound, xp.ones_like(self.hankel))
        return xp.where(known, self.hankel / safe, xp.full_like(self.hankel, np.nan))

    @property
    def verdict(self) -> np.ndarray:
        """``(*batch,)`` what to make of each, on the host: indices of :data:`VERDICTS`."""
        facts = self._facts()
        ratio, l2, kind = facts["ratio"], facts["l2"], np.asarray(self.kind)
        good, slow = l2 <= SMALL, facts["decay"] < SLOW
        cases = [
            (kind == NOT_FINITE) | np.isnan(l2),
            np.isin(kind, (ZERO, TAP_0_ONLY)),
            np.isinf(l2),
            ~to_numpy(self.converged),
            l2 <= EXACT,
            (facts["ringing"] > RINGING) & ~good,
            ratio > NEAR,
            good | np.isnan(facts["decay"]),
            ~slow,
        ]
        return np.select(cases, range(len(cases)), len(cases))

    def words(self, index: tuple[int, ...]) -> str:
        """One filter in two sentences: what was measured, and what to make of it."""
        facts = {name: values[index] for name, values in self._facts().items()}
        title, meaning = list(VERDICTS.items())[int(self.verdict[index])]
        kind = KINDS[int(self.kind[index])]
        if not np.isfinite(facts["l2"]) or title == "nothing to approximate":
            return f"{kind}. {title.capitalize()}: {meaning}."
        measured = f"{kind}: relative l2 error {facts['l2']:.3g}"
        if not np.isnan(facts["ratio"]):
            measured += f"; in Hankel norm {facts['ratio']:.3g} times what no system of this order gets below"
        return f"{measured}. {title.capitalize()}: {meaning.format(**facts)}."

    def _facts(self) -> dict[str, np.ndarray]:
        """On the host. The lower bound stands at the order among the Hankel values, if it is one of them; decay is how they fall over
        the last half of the order."""
        sigma, bound, l2 = to_numpy(self.sigma), to_numpy(self.lower_bound), to_numpy(self.l2)
        order = np.where(bound > 0, np.argmax(sigma == bound[..., None], axis=-1), 0)
        before = np.take_along_axis(sigma, (order // 2)[..., None], axis=-1)[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            decay = np.where(order > 0, before / bound, np.nan)
            ringing = np.where(l2 > 0, to_numpy(self.tail_energy) / l2**2, 0.0)
        return {"ratio": to_numpy(self.ratio), "l2": l2, "ringing": ringing, "order": order, "half": order // 2, "decay": decay}


@quiet
def certify(bank: Bank, fitted: Fitted, sigma: Array, *, beyond: str = "zero", precision: str = "float64") -> Certificate:
    """The certificate of the ``n`` filters of a bank, in their own scale. Not differentiable.

    sigma : ``(n, k)`` Hankel values of the normalized filters from below, more than the largest order
    beyond : "free" counts the given taps only   precision : "float32" takes the products of the Hankel norm in single precision
    """
    xp, n = namespace(bank.strict), bank.count
    step = max(1, _AT_ONCE["gpu" if on_gpu(bank.strict) else "host"] // (bank.length + fitted.poles.shape[-1] ** 2))
    parts = []
    for start in range(0, max(n, 1), step):
        chosen = np.arange(start, min(start + step, n))
        index = from_numpy(chosen, sigma)
        poles, residues, own = (xp.take(x, index, axis=0) for x in (fitted.poles, fitted.residues, sigma))
        parts.append(_measured(bank.take(chosen), poles, residues, own, fitted.orders[chosen], beyond, precision))
    values = {name: xp.concat([part[name] for part in parts]) for name in parts[0]}
    sound = from_numpy(bank.kind != NOT_FINITE, sigma)
    values = {name: xp.where(sound, x, xp.full_like(x, float("nan"))) for name, x in values.items()}
    known = xp.where(sound[:, None], sigma, xp.full_like(sigma, float("nan")))
    converged = fitted.converged & sound & ~xp.isnan(values["l2"])
    return Certificate(sigma=known * bank.scale[:, None], converged=converged, kind=bank.kind, delay=bank.delay, **values)


_AT_ONCE = {"host": 2**25, "gpu": 2**28}
"""Taps, and pairs of poles, that are worked on together; each norm takes fewer at once where it needs more memory."""


@quiet
def _measured(
    bank: Bank, poles: Array, residues: Array, sigma: Array, orders: np.ndarray, beyond: str, precision: str
) -> dict[str, Array]:
    """The fields ``(n,)`` of a certificate that are measured."""
    xp = namespace(bank.strict)
    energy = xp.sum(bank.strict**2, axis=-1)
    size = xp.where(energy > 0, energy, xp.ones_like(energy)) ** 0.5
    own_l1 = xp.sum(xp.abs(bank.strict), axis=-1)
    error = Difference.between(bank.strict, poles, residues, beyond)
    bound = _lower_bound(bank, orders, sigma) if beyond == "zero" else _lower_bound_of_taps(bank, orders)
    l1 = l1_norm(error)
    hinf = xp.minimum(hinf_norm(error), l1)
    scale = error.scale
    hankel = hankel_norm(error, bound / scale, hinf, precision)[1]
    # of a pole within rounding of the circle nothing but that bound is known
    hankel = xp.maximum(xp.where(xp.isnan(hankel), hinf, hankel), bound / scale)

    return {
        "lower_bound": bound * bank.scale,
        "l2": error.measured(error.energy**0.5, "l2") / size,
        "hankel": error.measured(hankel, "hankel") * bank.scale,
        "hinf": error.measured(hinf, "hinf") * bank.scale,
        "l1": error.measured(l1, "l1") * bank.scale,
        "filter_hinf": xp.minimum(hinf_of_taps(bank.strict), own_l1) * bank.scale,
        "filter_l1": own_l1 * bank.scale,
        "spectral_radius": xp.max(xp.abs(poles), axis=-1) if poles.shape[-1] else xp.zeros_like(energy),
        "tail_energy": _tail_energy(poles, residues, bank.length) / size**2,
    }


def _tail_energy(poles: Array, residues: Array, length: int) -> Array:
    """``(n,)`` of the models after the last tap; infinite where they are unstable."""
    xp = namespace(poles)
    modulus = xp.abs(poles)
    stable = xp.all(modulus < 1, axis=-1)
    inside = xp.where(stable[:, None], poles, xp.zeros_like(poles))
    if poles.shape[-1] == 0:
        return xp.zeros(stable.shape, dtype=xp.float64, device=poles.device)
    energy = energy_of_modes(inside, residues * integer_power(inside, length))
    without = xp.where(xp.any(modulus >= 1, axis=-1), xp.full_like(energy, float("inf")), xp.full_like(energy, float("nan")))
    return xp.where(stable, energy, without)


def _lower_bound(bank: Bank, orders: np.ndarray, sigma: Array) -> Array:
    """sigma_{order+1}, 0 where that is rounding or lies beyond the last tap."""
    xp = namespace(sigma)
    places = np.minimum(orders, sigma.shape[-1] - 1)
    bound = xp.take_along_axis(sigma, from_numpy(places[:, None], sigma), axis=-1)[:, 0]
    known = from_numpy((orders < min(bank.length, sigma.shape[-1])) & ~bank.empty, sigma)
    return xp.where(known & (bound > _ROUNDING * sigma[:, 0]), bound, xp.zeros_like(bound))


def _lower_bound_of_taps(bank: Bank, orders: np.ndarray) -> Array:
    """As :func:`_lower_bound` of the Hankel matrix that has no zeros beyond the last tap: that of a model has no more than its order's
    rank, stable or not."""
    rows = (bank.length + 1) // 2
    columns = bank.length - rows + 1
    count = min(int(orders.max(initial=0)) + 1, rows, columns)
    found = hankel_triplets(bank.strict[:, None, None, :], rows, columns, count, rtol=1e-2, tail_rtol=1e-1)
    return _lower_bound(dataclasses.replace(bank, strict=bank.strict[:, :columns]), orders, found.sigma)
