"""Laws that every method of the distiller obeys, through its one door and on whatever filters are."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid._array import to_numpy
from ssmid.distillation.bank import KINDS, Bank
from ssmid.distillation.constraints import OverAllTime
from ssmid.distillation.methods import METHODS
from ssmid.distillation.pole_search import Region, descend

LENGTH = 40
TIMES = np.arange(LENGTH)
FILTERS = {
    "ordinary": 0.9**TIMES * np.cos(0.7 * TIMES) + 0.3 * (-0.6) ** TIMES + 0.1 / (1 + TIMES),
    "not finite": np.where(TIMES == 4, np.nan, 1.0),
    "zero": np.zeros(LENGTH),
    "tap 0 only": np.where(TIMES == 0, -2.0, 0.0),
    "constant": np.ones(LENGTH),
    "delayed": np.where(TIMES == 3, 1.0, 0.0),
    "extreme scale": 1e30 * np.random.default_rng(3).standard_normal(LENGTH) * 0.9**TIMES,
    "tiny": 1e-30 * np.random.default_rng(4).standard_normal(LENGTH),
    "one pole": 0.5**TIMES,
    "alternating": (-1.0) ** TIMES,
}
NAMED = ["ordinary", "not finite", "zero", "tap 0 only", "constant", "delayed", "extreme scale", "extreme scale", "ordinary", "ordinary"]
BANK = np.stack(list(FILTERS.values()))
SOUND = [i for i, name in enumerate(FILTERS) if name != "not finite"]
ORDER = 3
RELATIVE, ABSOLUTE = ("l2", "spectral_radius", "tail_energy"), ("sigma", "lower_bound", "hankel", "hinf", "l1", "filter_hinf", "filter_l1")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """Laws hold after any number of them."""
    for name in ("gradient", "rtf"):
        monkeypatch.setitem(METHODS, name, dataclasses.replace(METHODS[name], fit=partial(METHODS[name].fit, steps=20)))


@pytest.fixture(params=sorted(METHODS))
def method(request):
    return request.param


def arrays(found):
    p, r, D = (to_numpy(found.system.broadcast_arrays()[name]) for name in ("poles", "residues", "feedthrough"))
    return p, r, D


def written_out(found, length):
    """Taps of the system, complex if a conjugate is missing."""
    p, r, D = arrays(found)
    later = np.sum(r[..., None] * p[..., None] ** np.arange(length - 1), axis=-2)
    return np.concatenate([D[..., None], later], axis=-1)


def test_everything_together(method):
    found = ssmid.distill(BANK, ORDER, method=method)
    c = found.certificate
    p, r, D = arrays(found)
    assert [KINDS[k] for k in c.kind] == NAMED
    # not a number is alone with it
    assert np.isnan(p[1]).all()
    assert np.isnan([c.l2[1], c.hankel[1], c.hinf[1], c.l1[1], c.sigma[1, 0], D[1]]).all()
    assert not found.converged[1]
    p, r = p[SOUND], r[SOUND]
    orders = np.broadcast_to(to_numpy(found.order), (len(BANK),))
    assert (orders <= ORDER).all()
    assert (np.count_nonzero(r, axis=-1) <= orders[SOUND]).all()
    assert (orders[[2, 3]] == 0).all()
    assert (np.abs(p) < 1).all()
    for poles, residues in zip(p + 0, r + 0, strict=True):
        both = zip(poles.conj() + 0, residues.conj() + 0, strict=True)
        assert set(zip(poles, residues, strict=True)) == set(both)
    lower, hankel, hinf, l1 = (getattr(c, name)[SOUND] for name in ("lower_bound", "hankel", "hinf", "l1"))
    assert (lower <= hankel).all()
    assert (hankel <= hinf * (1 + 1e-12)).all()
    assert (hinf <= l1 * (1 + 1e-12)).all()
    assert np.array_equal(c.l2[[2, 3]], [0, 0])
    assert (found.certificate.verdict >= 0).all()
    assert all(c.words((i,)) for i in range(len(BANK)))
    assert found.explain()


def test_errors_are_those_of_the_response(method):
    """Of as many taps more as the slowest pole lasts, with the sum over time and the gain on a fine grid."""
    taps = BANK[[0, 5, 8]]
    found = ssmid.distill(taps, ORDER, method=method)
    length = int(min(20_000, 2 * LENGTH - 40 / np.log(float(np.max(found.certificate.spectral_radius)))))
    error = ssmid.impulse_response(found.system, length).taps
    error[:, :LENGTH] -= taps
    size = np.linalg.norm(taps[:, 1:], axis=-1)
    lost = lost_in_the_sum(found.system)
    assert between(found.error, np.linalg.norm(error, axis=-1) / size, lost, rtol=1e-9)
    assert (error[:, 0] == 0).all()
    gain = np.abs(np.fft.rfft(error, n=1 << 16, axis=-1)).max(axis=-1)
    assert between(found.certificate.hinf, gain, lost, rtol=2e-3)
    l1 = np.abs(error).sum(axis=-1)
    assert (found.certificate.l1 >= l1 * (1 - 1e-12) - lost).all()
    assert between(found.certificate.l1, l1, lost, rtol=2e-3)


def lost_in_the_sum(system: ssmid.Modal) -> np.ndarray:
    """``(n,)`` the rounding of the modes, summed, of a certificate and of the same sum of the same numbers."""
    poles, residues = (np.asarray(x, complex) for x in (system.poles, system.residues))
    lasting = 1 / (1 - np.abs(poles))
    return 6e-16 * np.sum(np.abs(residues) * lasting * (1 + poles.shape[-1] + 1.5 * lasting), axis=-1)


def between(certified, measured, lost, *, rtol) -> bool:
    low, high = measured * (1 - rtol) - 1e-13 - lost, measured * (1 + rtol) + 1e-13 + lost
    return bool(((low <= certified) & (certified <= high)).all())


def test_scale(method):
    found = ssmid.distill(BANK[[0, 5]], ORDER, method=method)
    for power in (-800, 100, 900):
        scaled = ssmid.distill(2.0**power * BANK[[0, 5]], ORDER, method=method)
        assert np.array_equal(scaled.system.poles, found.system.poles)
        assert np.array_equal(scaled.system.residues, 2.0**power * found.system.residues)
        for name in RELATIVE:
            assert np.array_equal(getattr(scaled.certificate, name), getattr(found.certificate, name))
        for name in ABSOLUTE:
            assert np.allclose(getattr(scaled.certificate, name) / 2.0**power, getattr(found.certificate, name), rtol=1e-12)


def test_shapes_and_neighbours(method):
    """A batch is its elements, whatever their shape, their chunks and their neighbours: errors agree to rounding."""
    taps = BANK[[0, 1, 5, 2, 8, 9]].reshape(2, 3, LENGTH)
    whole = ssmid.distill(taps, ORDER, method=method)
    assert whole.system.batch_shape == whole.error.shape == whole.certificate.kind.shape == (2, 3)
    assert whole.certificate.sigma.shape[:2] == (2, 3)
    # that descent is in single precision; the poles of a delay's large model are one, which splits as the third root of rounding
    tolerance = {"gradient": 2e-5, "modal-truncation": 2e-5}.get(method, 1e-8)
    for other in (ssmid.distill(taps[::-1, ::-1], ORDER, method=method), ssmid.distill(taps[::-1, ::-1], ORDER, method=method, chunk=1)):
        assert np.allclose(other.error[::-1, ::-1], whole.error, rtol=tolerance, atol=tolerance, equal_nan=True)
    one = ssmid.distill(taps[0, 0], ORDER, method=method)
    assert one.system.batch_shape == one.error.shape == ()
    assert np.allclose(one.error, whole.error[0, 0], rtol=tolerance)


def test_kinds_are_kept(method):
    torch = pytest.importorskip("torch")
    taps = BANK[[0, 8]]
    wide = ssmid.distill(taps, ORDER, method=method)
    cases = [
        (torch.from_numpy(taps), torch.complex128), (torch.from_numpy(taps).float(), torch.complex64),
        (torch.from_numpy(taps).bfloat16(), torch.complex64), (torch.from_numpy(taps).requires_grad_(), torch.complex128),
    ]  # fmt: skip
    for given_taps, dtype in cases:
        found = ssmid.distill(given_taps, ORDER, method=method)
        assert found.system.poles.dtype == found.system.residues.dtype == dtype
        assert isinstance(found.error, torch.Tensor)
        assert not found.system.poles.requires_grad
        if given_taps.dtype == torch.float64:
            assert np.allclose(found.error.numpy(), wide.error, rtol=2e-5 if method == "gradient" else 1e-8, atol=1e-10)
    for given_taps, dtype in ((taps.astype(np.float32), np.complex64), (taps.astype(np.float16), np.complex64), (taps, np.complex128)):
        assert ssmid.distill(given_taps, ORDER, method=method).system.poles.dtype == dtype
    assert ssmid.distill(np.asfortranarray(taps), ORDER, method=method).error.tolist() == wide.error.tolist()


@pytest.mark.parametrize("order", [2, LENGTH])
def test_what_is_certified_is_what_is_returned(method, order):
    """In float32 too, and where a model has as many states as taps, whose residues rounding spoils."""
    taps = BANK[[0, 5, 8 if method == "prony" else 9]].astype(np.float32)  # Prony's poles of the last are all but on the circle
    if order == LENGTH and method in ("prony", "gradient", "rtf"):
        order = LENGTH // 2
    found = ssmid.distill(taps, order, method=method)
    assert found.system.poles.dtype == np.complex64
    doubled = ssmid.Modal(found.system.poles.astype(complex), found.system.residues.astype(complex), found.system.feedthrough)
    length = int(min(50_000, 2 * LENGTH - 40 / np.log(float(np.max(found.certificate.spectral_radius)))))
    error = ssmid.impulse_response(doubled, length).taps
    error[:, :LENGTH] -= taps
    size = np.linalg.norm(taps[:, 1:].astype(float), axis=-1)
    assert between(found.error, np.linalg.norm(error[:, 1:], axis=-1) / size, lost_in_the_sum(found.system), rtol=1e-8)
    if method in ("l2", "balanced", "hankel"):
        assert (found.error < 1.0001).all()


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_small_bank(data):
    """Methods that need no descent, filters that are mostly zeros and powers of two, orders that may be more than the taps."""
    length, count = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 3))
    values = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 1e-8, 1e30])
    taps = np.array(data.draw(st.lists(values, min_size=count * length, max_size=count * length))).reshape(count, length)
    name = data.draw(st.sampled_from(["l2", "balanced", "hankel", "modal-truncation", "aaa", "prony"]))
    few = {"max_order": 4}
    asked = data.draw(st.sampled_from([{"order": 1}, {"order": 2}, {"order": 12}, {"order": "noise", **few}, {"budget": 5, **few}]))
    found = ssmid.distill(taps, method=name, **asked)
    c = found.certificate
    assert found.system.poles.shape[0] == count
    assert np.isfinite(c.l2).all()
    assert (np.abs(found.system.poles) < 1).all()
    assert (c.lower_bound <= c.hankel).all()
    assert (c.hankel <= c.l1 * (1 + 1e-12)).all()
    error = np.abs(written_out(found, length) - taps)[:, 1:]
    rounding = 8 * np.finfo(float).eps * np.abs(taps).max(axis=-1, initial=0.0)
    assert (error.max(axis=-1, initial=0.0) <= c.hinf * (1 + 1e-9) + rounding).all()


# ---------------------------------------------------------------- found once, held for good


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (0, 1)])
@pytest.mark.parametrize("asked", [{"order": 3}, {"tol": 0.1}, {"budget": 3}, {"order": "noise"}, {"order": 2, "shared": 1}])
def test_no_filters(shape, asked):
    found = ssmid.distill(np.zeros(shape), **asked)
    assert found.error.shape == found.certificate.kind.shape == shape[:-1]
    assert found.system.residues.shape[:-1] == shape[:-1]


def test_two_taps():
    found = ssmid.distill(np.array([[0.0, 1.0], [1.0, -2.0], [3.0, 0.0]]), 1)
    assert np.array_equal(np.real(written_out(found, 2)), [[0, 1], [1, -2], [3, 0]])
    assert found.order.tolist() == [1, 1, 0]


def test_a_single_filter_that_is_not_finite():
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"filters: expected finite numbers, got {bad} at index \(2,\)"):
            ssmid.distill(np.array([1.0, 0.5, bad, 0.1]), 1)


def test_a_search_does_not_see_the_others(rng):
    """Of filters that are searched together some are done long before others: they stay where they ended."""
    taps = rng.standard_normal((12, 60)) * rng.uniform(0.8, 0.99, (12, 1)) ** np.arange(60)
    bank, region, limits = Bank.of(taps), Region(0.97), {"max_iterations": 30, "gtol": 1e-2}
    poles = np.array([0.5 + 0.3j, 0.5 - 0.3j, -0.2 + 0.6j, -0.2 - 0.6j]) + np.zeros((12, 1))
    whole = descend(OverAllTime.of(bank), poles, poles != 0, region, **limits)
    alone = [descend(OverAllTime.of(bank.take(np.array([i]))), poles[:1], poles[:1] != 0, region, **limits) for i in range(12)]
    assert len(set(whole.iterations.tolist())) > 3
    assert whole.iterations.tolist() == [found.iterations[0] for found in alone]
    assert np.allclose(whole.error, [found.error[0] for found in alone], rtol=1e-12)


def test_residues_that_no_number_holds():
    """float32 taps next to the largest number there is: named, NaN, and the others stand."""
    taps = np.stack([TIMES * 0.8**TIMES, 1e38 * np.where(TIMES < 2, 0, 3.0), 0.5**TIMES]).astype(np.float32)
    found = ssmid.distill(taps, 2)
    assert np.isfinite(found.error[[0, 2]]).all()
    assert np.isnan(found.error[1])
    assert np.isnan(found.system.poles[1]).all()
    assert "not finite" in found.certificate.words((1,))


def test_float32_keeps_slow_poles_inside():
    """A pole that rounds to 1 would ring for ever."""
    taps = (0.999999995 ** np.arange(400.0)).astype(np.float32)[None]
    found = ssmid.distill(taps, 1, beyond="free")
    assert (np.abs(found.system.poles) < 1).all()
    assert (np.abs(found.system.poles.astype(np.complex128)) < 1).all()


@pytest.mark.parametrize("scale", [1e-310, 5e-324])
def test_filters_next_to_nothing_have_a_result(rng, scale):
    taps = np.stack([scale * np.round(100 * 0.9 ** np.arange(64)), rng.standard_normal(64)])
    found, alone = ssmid.distill(taps, ORDER), ssmid.distill(taps[1], ORDER)
    assert np.isfinite(found.error).all()
    assert found.error[1] == alone.error
    assert found.error[0] < 0.02 or scale < 1e-320  # of which the smallest number is one


def test_what_does_not_fit_the_precision_is_not_converged():
    """And nothing else is lost, nor is its cost."""
    taps = np.stack([0.9 ** np.arange(50), 1e40 * 0.8 ** np.arange(50), 0.7 ** np.arange(50)])
    found = ssmid.distill(taps, 2, precision="float32")
    assert np.isnan(found.error).tolist() == [False, True, False]
    assert found.converged.tolist() == [True, False, True]
    assert found.cost is not None
    assert found.cost.filters == 2
    assert np.isfinite([found.cost.l2, found.cost.hankel, found.cost.hinf, found.cost.l1]).all()
    model = ssmid.Modal([[0.9, 0.5], [0.3, 0.1]], [[1.0, 1.0], [1e60, 1e60]])
    assert ssmid.distill(model, 1, precision="float32").converged.tolist() == [True, False]


def test_what_single_precision_costs():
    taps = ssmid.datasets.hyena_filters().taps[:5, :256].astype(float)
    single, double = ssmid.distill(taps, 6, precision="float32"), ssmid.distill(taps, 6)
    assert single.system.poles.dtype == np.complex64
    assert double.cost is None
    cost = single.cost
    assert cost.filters == 5
    own = {"l2": 1, "hankel": double.certificate.sigma[:, 0], "hinf": double.certificate.filter_hinf, "l1": double.certificate.filter_l1}
    for name, size in own.items():
        difference = np.abs(getattr(single.certificate, name) - getattr(double.certificate, name)) / size
        assert getattr(cost, name) == pytest.approx(difference.max(), rel=1e-3, abs=1e-9)
    assert 0 < cost.l2 < 1e-6
    assert 0 < cost.hankel < 1e-4
    assert f"Single precision changes relative errors by at most {cost.l2:.2g} in l2" in single.explain()
    assert "measured on 5 filters" in single.explain()
    chunked = ssmid.distill(taps, 6, precision="float32", chunk=2)
    assert chunked.cost.filters == 5
    assert "Single precision" not in double.explain()


def test_other_starts_never_lose_and_exchanges_gain():
    """Of several starts the best end is kept; an exchange sets out from another place of the way down, so that single filters may lose."""
    taps = ssmid.datasets.hyena_filters().taps[::8, :1024].astype(float)
    usual = ssmid.distill(taps, 8).error
    assert (ssmid.distill(taps, 8, restarts=2).error <= usual * (1 + 1e-12)).all()
    without, one, two = (ssmid.distill(taps, 8, exchanges=k).error for k in (0, 1, 2))
    assert two.mean() <= one.mean() < without.mean()
