"""Distilling models, against their responses written out and against methods that know only one system at a time."""

import numpy as np
import pytest
import scipy.linalg

import ssmid
from ssmid.distillation.bank import KINDS
from ssmid.distillation.models import distill_system
from ssmid.distillation.options import Options
from ssmid.parametrizations.lru import lru

NORMS = ("l2", "hankel", "hinf", "l1")


def bank(rng, count=5, pairs=5, radius=0.93):
    poles = radius * np.sqrt(rng.uniform(0.1, 1, (count, pairs))) * np.exp(1j * rng.uniform(0.1, 3, (count, pairs)))
    residues = (rng.standard_normal((count, pairs)) + 1j * rng.standard_normal((count, pairs))) * 3.0 ** -np.arange(pairs)
    feedthrough = rng.standard_normal(count)
    return ssmid.Modal(*(np.concatenate([x, x.conj()], axis=-1) for x in (poles, residues)), feedthrough)


def distill(system, order=None, length=None, **options):
    return distill_system(system, Options(order=order, **options), length=length)


@pytest.mark.parametrize("method", ["l2", "balanced", "hankel", "modal-truncation"])
def test_certificate_is_that_of_the_responses(rng, method):
    """Every number measured again from 1200 taps and dense Hankel matrices."""
    original = bank(rng)
    fit = distill(original, 4, length=20, method=method)
    h, found = (ssmid.impulse_response(s, 1200).taps for s in (original, fit.system))
    np.testing.assert_array_equal(h[:, 0], found[:, 0])
    h, e = h[:, 1:], (h - found)[:, 1:]
    c = fit.certificate
    hankel = [scipy.linalg.svdvals(scipy.linalg.hankel(row[:500])) for row in h]
    np.testing.assert_allclose(c.sigma, [s[:10] for s in hankel], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(c.lower_bound, [s[4] for s in hankel], rtol=1e-8)
    np.testing.assert_allclose(c.l2, np.linalg.norm(e, axis=-1) / np.linalg.norm(h, axis=-1), rtol=1e-8)
    np.testing.assert_allclose(c.hankel, [np.linalg.norm(scipy.linalg.hankel(row[:500]), 2) for row in e], rtol=1e-8)
    for kind, value in {"hinf": np.abs(np.fft.rfft(e, 2**18)).max(-1), "l1": np.abs(e).sum(-1)}.items():
        np.testing.assert_allclose(getattr(c, kind), value, rtol=1e-6)
    for kind, value in {"hinf": np.abs(np.fft.rfft(h, 2**18)).max(-1), "l1": np.abs(h).sum(-1)}.items():
        np.testing.assert_allclose(getattr(c, f"filter_{kind}"), value, rtol=1e-6)
    np.testing.assert_allclose(c.spectral_radius, np.abs(fit.system.poles).max(-1))
    np.testing.assert_allclose(c.tail_energy, (found[:, 20:] ** 2).sum(-1) / (h**2).sum(-1), rtol=1e-8)
    assert fit.converged.all()
    assert (c.lower_bound <= c.hankel * (1 + 1e-9)).all()
    assert fit.length == 20


def test_methods_keep_their_promises(rng):
    original = bank(rng)
    l2, balanced, hankel = (distill(original, 4, method=method) for method in ("l2", "balanced", "hankel"))
    assert (l2.error <= balanced.error * (1 + 1e-9)).all()
    np.testing.assert_allclose(hankel.certificate.ratio, 1, rtol=1e-3)
    tails = balanced.certificate.sigma[:, 4:].sum(-1)
    assert (balanced.certificate.hinf <= 2 * tails * (1 + 1e-9)).all()


def test_true_order_is_recovered(xp, rng):
    """Twelve modes of which six are duplicates in pieces: six are enough, to rounding."""
    small = bank(rng, pairs=3)
    poles = np.concatenate([small.poles, small.poles], axis=-1)
    residues = np.concatenate([0.25 * small.residues, 0.75 * small.residues], axis=-1)
    system = ssmid.Modal(xp.asarray(poles), xp.asarray(residues), xp.asarray(small.feedthrough))
    fit = distill(system, 6)
    assert xp.owns(fit.system.poles)
    assert xp.numpy(fit.error).max() < 1e-10
    more = distill(system, 8, method="balanced")
    assert more.order == 6


def test_batch_equals_loop_and_shapes(rng):
    original = bank(rng, count=6)
    grid = original.map(lambda a: a.reshape(2, 3, *a.shape[1:]))
    fit = distill(grid, 4)
    assert fit.system.poles.shape == (2, 3, 4)
    assert fit.certificate.sigma.shape == (2, 3, 10)
    for k in range(6):
        alone = distill(original.map(lambda a, k=k: a[k]), 4)
        assert alone.error.shape == ()
        np.testing.assert_allclose(fit.error.reshape(6)[k], alone.error, rtol=1e-6)


def test_pieces_make_no_difference(rng):
    original = bank(rng, count=7)
    whole, parts = (distill_system(original, Options(order=4), chunk=chunk) for chunk in (1024, 3))
    np.testing.assert_allclose(whole.system.residues, parts.system.residues, rtol=1e-6)
    np.testing.assert_allclose(whole.certificate.hinf, parts.certificate.hinf, rtol=1e-6)


def test_what_is_special_is_named_and_handled_alone(rng):
    original = bank(rng, count=7)
    poles, residues, feedthrough = original.poles.copy(), original.residues.copy(), original.feedthrough.copy()
    residues[1, 0] = np.nan
    poles[2, 0], poles[2, 5] = 1.01, 1.01
    residues[3], feedthrough[3] = 0, 0
    residues[4] = 0
    residues[5] *= 1e30
    fit = distill(ssmid.Modal(poles, residues, feedthrough), 4, gtol=1e-9)
    kinds = [KINDS[k] for k in fit.certificate.kind]
    assert kinds == ["ordinary", "not finite", "unstable", "zero", "tap 0 only", "extreme scale", "ordinary"]
    assert fit.converged.tolist() == [True, False, False, True, True, True, True]
    expected = distill(original, 4, gtol=1e-9)
    sound = [0, 5, 6]
    np.testing.assert_allclose(fit.error[sound], expected.error[sound], rtol=1e-6)
    np.testing.assert_allclose(fit.certificate.hinf[5], 1e30 * expected.certificate.hinf[5], rtol=1e-6)
    assert np.isnan(fit.error[[1, 2]]).all()
    assert np.isnan(fit.system.poles[[1, 2]]).all()
    assert fit.error[[3, 4]].tolist() == [0, 0]
    assert fit.order.tolist() == [4, 0, 0, 0, 0, 4, 4]


@pytest.mark.parametrize("scale", [1e-250, 1e-30, 1e200])
def test_scales(rng, scale):
    original = bank(rng, count=2)
    scaled = ssmid.Modal(original.poles, scale * original.residues, original.feedthrough)
    a, b = distill(original, 4), distill(scaled, 4)
    np.testing.assert_allclose(a.error, b.error, rtol=1e-6)
    np.testing.assert_allclose(scale * a.certificate.hankel, b.certificate.hankel, rtol=1e-6)


@pytest.mark.parametrize("form", [ssmid.to_state_space, ssmid.to_transfer_function, ssmid.to_zpk])
def test_other_forms(rng, form):
    original = bank(rng, count=3, pairs=3)
    np.testing.assert_allclose(distill(form(original), 4).error, distill(original, 4).error, rtol=1e-5)


@pytest.mark.parametrize("method", ["l2", "balanced"])
def test_states_whose_eigenvectors_lose_digits(rng, method):
    """Eight equal poles have one eigenvector: such systems go by Schur forms."""
    A = 0.7 * np.eye(8) + np.diag(np.full(7, 0.2), 1)
    b, c = rng.standard_normal((2, 8, 1)), rng.standard_normal((2, 1, 8))
    fit = distill(ssmid.StateSpace(np.stack([A, A]), b, c), 4, method=method)
    h, found = (ssmid.impulse_response(s, 400).taps for s in (ssmid.StateSpace(A, b, c), fit.system))
    np.testing.assert_allclose(fit.error, np.linalg.norm(h - found, axis=-1) / np.linalg.norm(h, axis=-1), rtol=1e-6)
    assert (fit.error < 0.2).all()
    np.testing.assert_allclose(fit.certificate.l1, np.abs(h - found).sum(-1), rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_tolerance(rng, norm):
    """The order found meets it, and one less does not."""
    original = bank(rng)
    fit = distill(original, tol=0.02, norm=norm, method="balanced")
    assert fit.converged.all()

    def error(found):
        c = found.certificate
        own = {"l2": 1.0, "hankel": c.sigma[:, 0], "hinf": c.filter_hinf, "l1": c.filter_l1}[norm]
        return getattr(c, norm) / own

    assert (error(fit) <= 0.02).all()
    orders = np.broadcast_to(fit.order, (5,))
    less = distill(original, np.maximum(orders - 1, 1), method="balanced")
    assert (error(less)[orders > 1] > 0.02).all()


def test_tolerance_that_is_not_met(rng):
    with pytest.warns(UserWarning, match="tol: a relative l2 error of 1e-06 is not met by 5 of 5 models with orders up to 2"):
        fit = distill(bank(rng), tol=1e-6, max_order=2)
    assert not fit.converged.any()
    assert fit.order == 2


def test_budget_goes_where_it_helps(rng):
    original = bank(rng, count=6)
    easy = ssmid.Modal(original.poles, original.residues * np.where(np.arange(10) % 5 < 1 + np.arange(6)[:, None] // 3, 1, 1e-4))
    fit, uniform = distill(easy, budget=18, method="balanced"), distill(easy, 3, method="balanced")
    assert np.sum(fit.order) <= 18
    assert (fit.error**2).sum() < 0.7 * (uniform.error**2).sum()


def test_multiples_and_orders_of_their_own(rng):
    original = bank(rng, count=3)
    fit = distill(original, np.array([1, 3, 6]), multiple=4, method="balanced")
    assert fit.order.tolist() == [4, 4, 8]
    assert fit.system.poles.shape == (3, 8)
    assert distill(original, 3, multiple=8, method="balanced").system.poles.shape == (3, 8)


def test_kind_and_width(rng):
    import torch

    original = bank(rng, count=2).map(torch.from_numpy)
    fit = distill(original.map(lambda a: a.to(torch.complex64 if a.is_complex() else torch.float32)), 4)
    assert fit.system.poles.dtype == torch.complex64
    assert fit.certificate.l2.dtype == torch.float64
    np.testing.assert_allclose(fit.error, distill(original, 4).error, rtol=1e-4)


def test_one_pole_of_each_pair_is_the_same_system(rng):
    original = bank(rng, count=2)
    half = ssmid.Modal(original.poles[:, :5], 2 * original.residues[:, :5], original.feedthrough)
    np.testing.assert_allclose(distill(half, 4).error, distill(original, 4).error, rtol=1e-6)


def test_empty_bank():
    fit = distill(ssmid.Modal(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)), 2)
    assert fit.system.batch_shape == (0,)
    assert fit.certificate.l2.shape == (0,)


# ---------------------------------------------------------------- several inputs and outputs


def unit(rng, modes=8, width=3):
    names = {"nu_log": (modes,), "theta_log": (modes,), "gamma_log": (modes,)}
    layer = {name: rng.uniform(-1.2, 0.5, shape) for name, shape in names.items()}
    layer |= {name: rng.standard_normal((modes, width)) for name in ("B_re", "B_im")}
    layer |= {name: rng.standard_normal((width, modes)) * 0.5 ** np.arange(modes) for name in ("C_re", "C_im")}
    return lru(**layer, D=rng.standard_normal(width))


@pytest.mark.parametrize("method", ["l2", "balanced", "hankel"])
def test_coupled_systems(rng, method):
    """One system with shared modes; its norms are those of the matrix of responses."""
    original = unit(rng)
    fit = distill(original, 6, method=method, length=9)
    assert fit.system.poles.shape == (1, 1, 6)
    assert fit.system.residues.shape == (3, 3, 6)
    h, found = (ssmid.impulse_response(s, 400).taps for s in (original, fit.system))
    np.testing.assert_array_equal(h[..., 0], found[..., 0])
    h, e, c = h[..., 1:], (h - found)[..., 1:], fit.certificate

    def values(taps):
        blocks = np.block([[taps[:, :, i + j] for j in range(120)] for i in range(120)])
        return scipy.linalg.svdvals(blocks)

    np.testing.assert_allclose(c.sigma, values(h)[:16], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(c.hankel, values(e)[0], rtol=1e-7)
    np.testing.assert_allclose(c.lower_bound, values(h)[6], rtol=1e-7)
    np.testing.assert_allclose(c.l2, np.linalg.norm(e) / np.linalg.norm(h), rtol=1e-8)
    np.testing.assert_allclose(c.l1, np.abs(e).sum((1, 2)).max(), rtol=1e-6)
    gains = np.linalg.svd(np.moveaxis(np.fft.rfft(e, 2**12), -1, 0), compute_uv=False)[:, 0]
    assert gains.max() * (1 - 1e-9) <= c.hinf <= gains.max() * 1.001
    np.testing.assert_allclose(c.tail_energy, (found[..., 9:] ** 2).sum() / (h**2).sum(), rtol=1e-7)
    assert bool(fit.converged)
    if method == "hankel":
        np.testing.assert_allclose(c.ratio, 1, rtol=1e-3)


def test_batches_of_coupled_systems(rng):
    systems = [unit(rng) for _ in range(4)]
    A, B, C, D = (np.stack([getattr(s, name) for s in systems]) for name in "ABCD")
    A[1] = np.nan
    A[2] *= 3
    C[3] = 0
    fit = distill(ssmid.StateSpace(A, B, C, D), 4, method="balanced")
    assert [KINDS[k] for k in fit.certificate.kind] == ["ordinary", "not finite", "unstable", "tap 0 only"]
    assert fit.converged.tolist() == [True, False, False, True]
    assert fit.system.residues.shape == (4, 3, 3, 4)
    np.testing.assert_allclose(fit.error[0], distill(systems[0], 4, method="balanced").error, rtol=1e-9)
    assert np.isnan(fit.system.residues[1:3, :, :, 0]).all()
    np.testing.assert_array_equal(fit.system.feedthrough[3], D[3])


def test_tolerance_of_coupled_systems(rng):
    original = unit(rng)
    fit = distill(original, tol=0.05, method="balanced")
    assert fit.error <= 0.05
    assert distill(original, fit.order - 1, method="balanced").error > 0.05
    with pytest.warns(UserWarning, match="not met by 1 of 1 models with orders up to 2"):
        assert not distill(original, tol=1e-9, max_order=2).converged


# ---------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 2, "method": "prony"}, "method: expected one of 'l2', 'balanced', 'hankel', 'modal-truncation' for a model, got"),
        ({"order": 2, "max_modulus": 0.9}, "max_modulus: expected a bank of filters for it, got a model"),
        ({"order": 2, "real_poles": True}, "real_poles: expected a bank of filters"),
        ({"order": 2, "shared": 2}, "shared: expected a bank of filters"),
        ({"order": 2, "beyond": "free"}, "beyond='free': expected a bank of filters"),
        ({"order": "noise"}, "order='noise': expected a bank of filters"),
        ({"order": 2, "weights": np.ones(5)}, "weights: expected a bank of filters"),
    ],
)
def test_options_that_need_taps(rng, options, message):
    with pytest.raises(ValueError, match=message):
        distill(bank(rng), **options)


def test_wrong_systems(rng):
    with pytest.raises(ValueError, match="expected discrete time, got dt=0"):
        distill(ssmid.ss(-1, 1, 1, dt=0), 1)
    with pytest.raises(ValueError, match="expected a real system"):
        distill(ssmid.Modal([0.5j], [1.0], real=False), 1)
    with pytest.raises(TypeError, match="expected a system with states, got ImpulseResponse"):
        distill(ssmid.ImpulseResponse(np.ones(5)), 1)
    with pytest.raises(ValueError, match="budget: expected a bank of scalar systems"):
        distill(unit(rng), budget=4)
    with pytest.raises(ValueError, match=r"expected a system with states, got Modal\(order=0, batch=\(2,\)"):
        distill(ssmid.Modal(np.zeros((2, 0)), np.zeros((2, 0))), 1)
    with pytest.raises(ValueError, match=r"order: expected shapes that broadcast to \(2,\), got \(3,\)"):
        distill(ssmid.Modal([[0.5, 0.1], [0.2, 0.3]], np.ones((2, 2))), np.array([1, 2, 3]))


def test_one_door(rng):
    """ssmid.distill takes models as it takes filters."""
    original = bank(rng)
    fit, same = ssmid.distill(original, 4, method="balanced"), distill(original, 4, method="balanced")
    np.testing.assert_array_equal(fit.system.residues, same.system.residues)
    assert ssmid.distill(unit(rng), 4, method="balanced").system.residues.shape == (3, 3, 4)
    with pytest.raises(ValueError, match="expected one of order, tol and budget, got none"):
        ssmid.distill(original)


@pytest.mark.parametrize("pairs", [1, 3])
def test_all_orders_there_are(rng, pairs):
    """At the full order the model is met to rounding, and what is above it is refused by none."""
    original = bank(rng, count=3, pairs=pairs)
    for order in (2 * pairs, 2 * pairs + 5):
        fit = distill(original, order, method="balanced")
        assert (fit.error < 1e-10).all()
        assert fit.order == 2 * pairs
        assert fit.converged.all()


def test_channels_share_poles(rng):
    """A bank whose arrays broadcast, as layers with few sets of poles store it."""
    original = bank(rng, count=3)
    shared = ssmid.Modal(original.poles[0][None, None], original.residues[:, None], original.feedthrough[:, None])
    fit = distill(shared, 4, method="balanced")
    assert fit.system.poles.shape == (3, 1, 4)
    alone = distill(ssmid.Modal(original.poles[0], original.residues[2], original.feedthrough[2]), 4, method="balanced")
    np.testing.assert_allclose(fit.error[2, 0], alone.error, rtol=1e-8)
