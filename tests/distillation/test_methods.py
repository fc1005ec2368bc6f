"""The methods through the distiller's door: what each is known to reach, and what all of them hold to."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from ssmid.analysis.hankel import hankel_singular_values
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.response_error import response_error
from ssmid.datasets import hyena_filters
from ssmid.distillation.bank import Bank
from ssmid.distillation.fitted import Fitted
from ssmid.distillation.methods import METHODS, method_named
from ssmid.distillation.options import Options
from ssmid.systems import ImpulseResponse, Modal

OTHERS = ["aaa", "gradient", "hankel", "modal-truncation", "prony", "rtf"]
ROUNDING = dict.fromkeys(OTHERS, 1e-7) | {"gradient": 1e-4}
"""Of the largest tap: what another order of sums may change. The descent over poles is in single precision."""
OPTIONS = Options(order=1)


def fitted(name: str, taps: Any, orders: Any, steps: int = 50) -> tuple[Bank, Fitted]:
    fit = METHODS[name].fit
    bank = Bank.of(taps)
    asked = np.where(bank.empty, 0, np.broadcast_to(orders, (bank.count,)))
    return bank, (partial(fit, steps=steps) if name in ("gradient", "rtf") else fit)(bank, asked, None, OPTIONS)


def taps_of(fit: Fitted, length: int, xp: Any = None) -> np.ndarray:
    """Complex, so that a missing conjugate shows."""
    p, r = (np.asarray(x if xp is None else xp.numpy(x)) for x in (fit.poles, fit.residues))
    return np.sum(r[..., None] * p[..., None] ** np.arange(length), axis=-2)


def errors(bank: Bank, fit: Fitted) -> np.ndarray:
    strict = np.asarray(bank.strict)
    return np.linalg.norm(taps_of(fit, bank.length) - strict, axis=-1) / np.linalg.norm(strict, axis=-1)


def exact(length: int = 800) -> np.ndarray:
    """Three filters: a pair and a real pole, two pairs, one real pole; taps 0 of their own."""
    t = np.arange(length - 1)
    rows = [
        0.95**t * np.cos(0.4 * t + 0.3) + 0.5 * 0.8**t,
        0.9**t * np.sin(1.1 * t + 0.5) - 0.96**t * np.cos(0.2 * t),
        -2 * 0.85**t,
    ]
    return np.concatenate([[[7.0], [-3.0], [0.0]], rows], axis=1)


def noisy(rng: np.random.Generator, count: int = 4, length: int = 200) -> np.ndarray:
    return rng.standard_normal((count, length)) * 0.97 ** np.arange(length)


# ---------------------------------------------------------------- one by one


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in ("gradient", "rtf")])
def test_an_exact_filter_is_recovered(name):
    orders = np.array([3, 4, 1])
    bank, fit = fitted(name, exact(), orders)
    assert (errors(bank, fit) < 1e-9).all()
    assert fit.orders.tolist() == orders.tolist()
    assert fit.converged.all()


@pytest.mark.parametrize(("name", "lr", "accuracy"), [("gradient", 1e-2, 5e-3), ("rtf", 1e-2, 1e-9)])
def test_descent_arrives_where_nothing_is_in_its_way(name, lr, accuracy):
    """Of two pairs the poles' descent ends in a minimum with an error of .64; of one it gets as near as weight decay lets it."""
    t = np.arange(99)
    rows = [0.8**t * np.cos(0.9 * t + 0.3), 0.9**t * np.cos(0.4 * t), 0.7**t]
    bank = Bank.of(np.concatenate([np.ones((3, 1)), rows], axis=1))
    fit = METHODS[name].fit(bank, np.array([2, 2, 1]), None, OPTIONS, steps=1500, lr=lr)
    assert (errors(bank, fit) < accuracy).all()


@pytest.mark.parametrize(("order", "every"), [(16, 8), (64, 32)])
def test_hankel_error_is_the_lower_bound(order, every):
    """Adamjan, Arov and Krein: sigma_{order+1}, to 1 percent after the way into modal form."""
    bank, fit = fitted("hankel", hyena_filters().taps[::every].astype(float), order)
    response = ImpulseResponse(np.concatenate([np.zeros((bank.count, 1)), bank.strict], axis=1))
    error = response_error(response, modal_state_space(Modal(fit.poles, fit.residues)), "hankel")
    bound = hankel_singular_values(response, order + 1)[:, order]
    assert (error >= bound * (1 - 1e-6)).all()
    assert (error <= bound * 1.01).all()
    assert fit.converged.all()


def test_hankel_error_in_a_dense_hankel_matrix(rng):
    bank, fit = fitted("hankel", rng.standard_normal((3, 60)) * 0.9 ** np.arange(60), 5)
    assert (np.abs(fit.poles) ** 1200 < 1e-12).all()
    error = -np.real(taps_of(fit, 1200))
    error[:, :59] += bank.strict
    for e, h in zip(error, bank.strict, strict=True):
        sigma = np.linalg.svd(scipy.linalg.hankel(h), compute_uv=False)
        assert np.linalg.norm(scipy.linalg.hankel(e), 2) == pytest.approx(sigma[5], rel=1e-8)


def test_equal_hankel_values_are_of_no_use():
    """All Hankel values of a pure delay are equal: as near as any approximation is none at all."""
    _, fit = fitted("hankel", np.eye(20)[[6, 6]], np.array([3, 6]))
    assert fit.orders[0] == 0
    assert (fit.poles[0] == 0).all()
    assert fit.converged.all()


def test_modal_truncation_keeps_the_most_dominant_poles(rng):
    """A balanced model of 64 states from a dense singular value decomposition, and its poles weighed one by one."""
    bank, fit = fitted("modal-truncation", noisy(rng, 3, 300), np.array([8, 8, 7]))
    for h, p, r, order in zip(bank.strict, fit.poles, fit.residues, (8, 8, 7), strict=True):
        U = scipy.linalg.svd(scipy.linalg.hankel(h))[0][:, :64]
        poles, V = np.linalg.eig(U.T @ np.vstack([U[1:], np.zeros(64)]))
        residues = (U[0] @ V) * np.linalg.solve(V, U.T @ h)
        kept: list[int] = []
        for k in np.argsort(-np.abs(residues) / (1 - np.abs(poles) ** 2)):
            if k not in kept and len(kept) + (1 if np.imag(poles[k]) == 0 else 2) <= order:
                kept += [int(j) for j in np.flatnonzero(np.isclose(poles, poles[k]) | np.isclose(poles, poles[k].conj()))]
        assert np.count_nonzero(p) == len(kept)
        match = kept[int(np.abs(poles[kept] - p[0]).argmin())]
        assert np.allclose([p[0], r[0]], [poles[match], residues[match]], atol=1e-6)
        modes = residues[kept] * poles[kept] ** np.arange(299)[:, None]
        assert np.allclose((r * p ** np.arange(299)[:, None]).sum(axis=1), modes.sum(axis=1), atol=1e-6)


def test_modal_truncation_of_few_taps_is_no_delay_line():
    """The large model of a filter of thirty taps would have every pole at 0 and residues of 1e14."""
    bank, fit = fitted("modal-truncation", 0.6 ** np.arange(30.0)[None], 2)
    assert errors(bank, fit)[0] < 1e-4


def test_prony_takes_at_most_half_of_the_taps(rng):
    _, fit = fitted("prony", rng.standard_normal((2, 6)), 5)
    assert (fit.orders <= 2).all()
    _, fit = fitted("prony", rng.standard_normal((2, 2)), 1)
    assert (fit.orders == 0).all()
    assert not fit.converged.any()


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", OTHERS)
def test_laws(name, rng):
    """Orders at most those asked for, pairs side by side, zeros beyond, stable; a filter that is not a number and zeros do no harm."""
    taps = noisy(rng, 6)
    taps[1, 30], taps[4], taps[3, 1:] = np.nan, 0, 0
    asked = np.array([6, 6, 5, 6, 6, 1])
    bank, fit = fitted(name, taps, asked)
    assert fit.poles.shape == fit.residues.shape == (6, 6)
    assert fit.orders[[1, 3, 4]].tolist() == [0, 0, 0]
    assert (fit.orders <= asked).all()
    assert (fit.orders[[0, 2, 5]] >= np.array([5, 4, 0])).all()
    assert np.isfinite(fit.poles).all()
    assert np.isfinite(fit.residues).all()
    assert (np.abs(fit.poles) < 1).all()
    assert np.asarray(fit.condition >= 1).all()
    for p, r, order in zip(fit.poles, fit.residues, fit.orders, strict=True):
        assert (p[order:] == 0).all()
        assert (r[order:] == 0).all()
        k = 0
        while k < order:
            single = p[k].imag == 0
            assert r[k].imag == 0 if single else (p[k + 1] == p[k].conj() and r[k + 1] == r[k].conj())
            k += 1 if single else 2
    alone = [fitted(name, taps[[i]], asked[i])[1] for i in (0, 2, 5)]
    for i, one in zip((0, 2, 5), alone, strict=True):
        there = taps_of(one, bank.length)[0]
        assert np.allclose(taps_of(fit, bank.length)[i], there, atol=ROUNDING[name] * np.abs(there).max())


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("power", [-900, 30, 900])
def test_scale_makes_no_difference(name, power, rng):
    taps = noisy(rng, 2, 100)
    _, fit = fitted(name, taps, 3)
    _, scaled = fitted(name, taps * 2.0**power, 3)
    assert np.array_equal(fit.poles, scaled.poles)
    assert np.array_equal(fit.residues, scaled.residues)


@pytest.mark.parametrize("name", OTHERS)
def test_kinds_are_kept(name, xp, rng):
    taps = noisy(rng, 3, 120)
    _, host = fitted(name, taps, 4)
    _, fit = fitted(name, xp.asarray(taps), 4)
    assert all(xp.owns(array) for array in (fit.poles, fit.residues, fit.converged, fit.condition))
    assert xp.numpy(fit.poles).dtype == xp.numpy(fit.residues).dtype == np.complex128
    assert xp.numpy(fit.converged).dtype == bool
    there = taps_of(host, 119)
    assert np.allclose(taps_of(fit, 119, xp), there, atol=ROUNDING[name] * np.abs(there).max())


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("shape", [(0, 12), (2, 1), (2, 2), (2, 3), (1, 5)])
def test_no_filters_and_few_taps(name, shape, rng):
    taps = rng.standard_normal(shape)
    bank, fit = fitted(name, taps, 3 if shape[1] > 3 else max(1, shape[1] - 1))
    assert fit.poles.shape == (shape[0], int(np.where(bank.empty, 0, 3 if shape[1] > 3 else max(1, shape[1] - 1)).max(initial=0)))
    assert np.isfinite(fit.poles).all()
    assert (np.abs(fit.poles) < 1).all()


def test_every_method_is_found_by_name():
    assert all(method_named(name) is METHODS[name] for name in [*OTHERS, "l2", "balanced"])
    with pytest.raises(ValueError, match=r"method: expected one of l2, .*, got 'pade'"):
        method_named("pade")
