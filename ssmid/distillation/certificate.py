"""How near a small recurrence is to its filter, and to the nearest that any of its order could be: measured, filter by filter."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssmid._array import Array, from_numpy, namespace, to_numpy
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.response_error import response_error
from ssmid.distillation.bank import KINDS, Bank
from ssmid.distillation.fitted import Fitted
from ssmid.linalg import vandermonde_product
from ssmid.systems import ImpulseResponse, Modal


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Certificate:
    """What is known of each distilled filter. Errors are those of the taps after tap 0, which is kept exactly.

    The filter is the finite response that it is: what the model does after the last tap counts as error too, unless
    ``beyond="free"`` was asked for. NaN where a filter is not finite.

    sigma : ``(*batch, k)`` Hankel singular values of the filter, from below (Ritz values)
    lower_bound : ``(*batch,)`` sigma_{order+1}, from below: no stable system of this order is nearer in Hankel norm (Adamjan, Arov &
        Krein, Math. USSR Sbornik 15, 1971)
    l2 : ``(*batch,)`` relative l2 error   hankel, hinf, l1 : ``(*batch,)`` norms of the error, in the unit of the taps
    filter_hinf, filter_l1 : ``(*batch,)`` of the filter without tap 0; its Hankel norm is ``sigma[..., 0]``
    spectral_radius : ``(*batch,)`` the largest modulus of a pole
    tail_energy : ``(*batch,)`` energy of the model after the last tap, relative to that of the filter
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
        """``(*batch,)`` Hankel norm of the error over the lower bound, at least 1; NaN where the bound is 0 to rounding."""
        xp = namespace(self.hankel)
        known = self.lower_bound > 64 * np.finfo(np.float64).eps * self.sigma[..., 0]
        safe = xp.where(known, self.lower_bound, xp.ones_like(self.hankel))
        return xp.where(known, self.hankel / safe, xp.full_like(self.hankel, np.nan))

    def words(self, index: tuple[int, ...]) -> str:
        """One filter in a sentence."""
        kind = KINDS[int(self.kind[index])]
        ratio = float(to_numpy(self.ratio)[index])
        error = float(to_numpy(self.l2)[index])
        best = "" if np.isnan(ratio) else f"; in Hankel norm {ratio:.3g} times what no system of this order gets below"
        return f"{kind}: relative l2 error {error:.3g}{best}"


def certify(bank: Bank, fitted: Fitted, sigma: Array) -> Certificate:
    """The certificate of the ``n`` filters of a bank, in their own scale.

    sigma : ``(n, k)`` Hankel values of the normalized filters from below, more than the largest order
    """
    xp = namespace(bank.strict)
    zeros = xp.zeros_like(bank.strict[:, :1])
    original = ImpulseResponse(xp.concat([zeros, bank.strict], axis=-1))
    model = modal_state_space(Modal(fitted.poles, fitted.residues))
    nothing = modal_state_space(Modal(fitted.poles[:, :0], fitted.residues[:, :0]))
    energy = xp.sum(bank.strict**2, axis=-1)
    size = xp.where(energy > 0, energy, xp.ones_like(energy)) ** 0.5
    norms = {kind: response_error(original, model, kind) for kind in ("h2", "hankel", "hinf", "l1")}
    later = fitted.residues * fitted.poles ** bank.length
    tail = vandermonde_product(fitted.poles, later, bank.length, real=True)
    own = {kind: response_error(original, nothing, kind) for kind in ("hinf", "l1")}
    radius = xp.max(xp.abs(fitted.poles), axis=-1) if fitted.poles.shape[-1] else xp.zeros_like(energy)
    places = np.minimum(fitted.orders, sigma.shape[-1] - 1)
    bound = xp.take_along_axis(sigma, from_numpy(places[:, None], sigma), axis=-1)[:, 0]
    sound = from_numpy(bank.kind != 1, sigma)

    def shown(array: Array, scale: Array = None) -> Array:
        array = array if scale is None else array * scale
        return xp.where(sound, array, xp.full_like(array, np.nan))

    return Certificate(
        sigma=sigma * bank.scale[:, None],
        lower_bound=shown(bound, bank.scale),
        l2=shown(norms["h2"] / size),
        hankel=shown(norms["hankel"], bank.scale),
        hinf=shown(norms["hinf"], bank.scale),
        l1=shown(norms["l1"], bank.scale),
        filter_hinf=shown(own["hinf"], bank.scale),
        filter_l1=shown(own["l1"], bank.scale),
        spectral_radius=shown(radius),
        tail_energy=shown(xp.sum(tail**2, axis=-1) / size**2),
        converged=fitted.converged & sound,
        kind=bank.kind,
        delay=bank.delay,
    )
