"""Certificates against dense matrices, brute-force grids, closed forms and state spaces; laws that hold for every model."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid._array import to_numpy
from ssmid.analysis.modal_blocks import modal_state_space
from ssmid.analysis.response_error import response_error
from ssmid.distillation import certificate, error_hankel, error_norms, error_peak
from ssmid.distillation.bank import Bank
from ssmid.distillation.certificate import VERDICTS, Certificate, certify
from ssmid.distillation.error_hankel import hankel_norm
from ssmid.distillation.error_norms import Difference, l1_norm
from ssmid.distillation.error_peak import hinf_norm
from ssmid.distillation.fitted import Fitted
from ssmid.linalg import vandermonde_product
from tests.distillation.test_double_double import exact

TOP = 1 + error_norms.ACCURACY


def modes(rng, n, d, radius):
    """Poles of modulus up to ``radius`` and residues, closed under conjugation, some real."""
    poles, residues = np.zeros((n, d), complex), np.zeros((n, d), complex)
    for i in range(n):
        k = 0
        while k < d:
            size = radius ** rng.choice([1, 3, 20])
            if k + 1 < d and rng.random() < 0.7:
                pole, residue = size * np.exp(1j * rng.uniform(0, np.pi)), rng.standard_normal() + 1j * rng.standard_normal()
                poles[i, k : k + 2], residues[i, k : k + 2] = (pole, pole.conjugate()), (residue, residue.conjugate())
                k += 2
            else:
                poles[i, k], residues[i, k] = size * rng.choice([-1, 1]), rng.standard_normal()
                k += 1
    return poles, residues


def response(poles, residues, count):
    """The taps of one model, one after the other."""
    taps, states = [], np.array(residues, complex)
    for _ in range(count):
        taps.append(states.sum().real)
        states = states * poles
    return np.array(taps)


def brute_peak(strict, poles, residues):
    """The largest gain on a uniform grid and on points that crowd towards the angles of the poles."""
    near = np.concatenate([[0], np.logspace(-11, 0.5, 1500)])
    omega = np.concatenate([np.linspace(0, np.pi, 60 * len(strict) + 3001), *(a + s * near for a in np.angle(poles) for s in (1, -1))])
    z = np.exp(-1j * omega)
    E = np.polyval(strict[::-1], z)
    for p, r in zip(poles, residues, strict=True):
        E = E - r / (1 - p * z)
    return np.abs(E).max()


def norms(strict, poles, residues, beyond="zero", precision="float64"):
    """l2 norm, two bounds of the Hankel norm, H-infinity and l1 norm of the differences, without any of the laws to help."""
    e = Difference.between(strict, poles, residues, beyond)
    l1, hinf = l1_norm(e), hinf_norm(e)
    low, high = hankel_norm(e, 0 * l1, 10 * l1, precision)
    return tuple(to_numpy(x * e.scale) for x in (e.energy**0.5, low, high, hinf, l1))


def filters_with_models(rng, n, length, d, radius):
    poles, residues = modes(rng, n, d, radius)
    strict = rng.standard_normal((n, length)) * 0.5 ** rng.uniform(0, 10, (n, 1))
    strict[::2] += np.stack([response(p, r, length) for p, r in zip(poles, residues, strict=True)])[::2]
    return strict, poles, residues


# ---------------------------------------------------------------- each norm


@pytest.mark.parametrize(("length", "d", "radius"), [(1, 1, 0.5), (1, 5, 0.9), (2, 2, 0.95), (5, 3, 0.9), (40, 6, 0.95), (60, 0, 0.0)])
def test_norms_match_taps_written_out(rng, length, d, radius):
    strict, poles, residues = filters_with_models(rng, 4, length, d, radius)
    l2, low, high, hinf, l1 = norms(strict, poles, residues)
    for i in range(4):
        e = -response(poles[i], residues[i], 1200)
        e[:length] += strict[i]
        H = scipy.linalg.hankel(e[:600], e[599:1199])
        true = np.linalg.norm(H, 2)
        assert l2[i] == pytest.approx(np.sqrt((e**2).sum()), rel=1e-12)
        assert low[i] <= true * (1 + 1e-12)
        assert true * (1 - 1e-12) <= high[i] <= TOP * true
        assert np.abs(e).sum() * (1 - 1e-12) <= l1[i] <= TOP * np.abs(e).sum()
        peak = brute_peak(strict[i], poles[i], residues[i])
        assert peak * (1 - 1e-12) <= hinf[i] <= TOP * peak


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_slow_pole_has_closed_forms(distance, sign):
    p = sign * (1 - distance)
    gap, squared = 1 - abs(p), (1 - abs(p)) * (1 + abs(p))
    l2, low, high, hinf, l1 = norms(np.zeros((1, 50)), np.array([[p + 0j]]), np.array([[0.3 + 0j]]))
    assert l2[0] == pytest.approx(0.3 / squared**0.5, rel=1e-10)
    assert low[0] <= 0.3 / squared * (1 + 1e-10)
    assert 0.3 / squared * (1 - 1e-10) <= high[0] <= TOP * 0.3 / squared
    assert 0.3 / gap * (1 - 1e-10) <= hinf[0] <= TOP * 0.3 / gap
    assert 0.3 / gap * (1 - 1e-10) <= l1[0] <= TOP * 0.3 / gap


@pytest.mark.parametrize("distance", [1e-4, 1e-6, 1e-9])
def test_the_peak_of_a_slow_pair_is_found_between_all_grids(rng, distance):
    p = (1 - distance) * np.exp(0.7123j)
    strict = rng.standard_normal((1, 64))
    poles, residues = np.array([[p, p.conj()]]), np.array([[0.2 + 0.1j, 0.2 - 0.1j]])
    _, low, high, hinf, _ = norms(strict, poles, residues)

    def gain(x):
        z = np.exp(-1j * (0.7123 + x * distance))
        return -abs(np.polyval(strict[0, ::-1], z) - ((0.2 + 0.1j) / (1 - p * z) + (0.2 - 0.1j) / (1 - p.conj() * z)))

    best = -scipy.optimize.minimize_scalar(gain, bounds=(-2, 2), method="bounded", options={"xatol": 1e-9}).fun
    assert best * (1 - 1e-7) <= hinf[0] <= TOP * best
    true = response_error(ssmid.ImpulseResponse(np.append(0, strict[0])), modal_state_space(ssmid.Modal(poles[0], residues[0])), "hankel")
    assert low[0] <= true * (1 + 1e-6)
    assert true * (1 - 1e-6) <= high[0] <= TOP * true


@pytest.mark.parametrize("length", [3, 300])
def test_long_tails_against_gramians(rng, length):
    strict, poles, residues = filters_with_models(rng, 6, length, 5, 0.9999)
    l2, low, high, _, l1 = norms(strict, poles, residues)
    system, original = modal_state_space(ssmid.Modal(poles, residues)), ssmid.ImpulseResponse(np.pad(strict, ((0, 0), (1, 0))))
    np.testing.assert_allclose(l2, response_error(original, system, "h2"), rtol=1e-9)
    true = response_error(original, system, "hankel")
    assert (low <= true * (1 + 1e-7)).all()
    assert (true * (1 - 1e-7) <= high).all()
    assert (high <= TOP * true).all()
    true = response_error(original, system, "l1")
    assert (true * (1 - 1e-10) <= l1).all()
    assert (l1 <= TOP * true).all()


def test_the_sum_of_moduli_of_endless_ringing_is_a_bound():
    p = (1 - 1e-9) * np.exp(1j)
    *_, l1 = norms(np.zeros((1, 10)), np.array([[p, p.conj()]]), np.array([[0.5 + 0j, 0.5 + 0j]]))
    true = 2 / np.pi * 1e9  # the mean of |cos|
    assert true * (1 - 1e-6) <= l1[0] <= 1.6 * true
    p = np.array([[1 - 1e-9, 1 - 2e-9]], complex)
    *_, l1 = norms(np.zeros((1, 10)), p, np.array([[1, -1 + 0j]]))
    assert 0.5e9 * (1 - 1e-6) <= l1[0] <= 1.6 * 0.5e9


def test_residues_that_cancel_do_not_spoil_the_tail():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    p = 0.9 + 1e-3 * np.arange(4)
    gaps = np.array([np.prod([p[i] - p[j] for j in range(4) if j != i]) for i in range(4)])
    r = 1 / gaps  # the third divided difference of p^t: of size t^3, from residues of 1e8
    exact = [mpmath.mpf(float(x)) for x in r]
    energy = sum(a * b * (mpmath.mpf(float(x)) * mpmath.mpf(float(y))) ** 30 / (1 - mpmath.mpf(float(x)) * mpmath.mpf(float(y)))
                 for a, x in zip(exact, p, strict=True) for b, y in zip(exact, p, strict=True))  # fmt: skip
    e = Difference.between(np.zeros((1, 30)), p[None] + 0j, r[None] + 0j)
    assert float((e.tail**2).sum() * e.scale[0] ** 2) == pytest.approx(float(energy), rel=1e-9)


def exact_errors(mpmath, taps, poles, residues, silence=None):
    """Relative l2 and l1 of taps 1 on and of three times as many after them, or of ``silence``."""
    error = exact(mpmath, np.concatenate([taps[1:], np.zeros(3 * len(taps) if silence is None else silence)]), poles, residues)
    size = mpmath.sqrt(sum(mpmath.mpf(float(tap)) ** 2 for tap in taps[1:]))
    return float(mpmath.sqrt(sum(e * e for e in error)) / size), float(sum(abs(e) for e in error))


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-5])
def test_digits_that_modes_lose_in_their_sum_are_counted(rng, spread):
    """Poles next to each other make a delta of residues up to 1e15, which double precision cannot sum."""
    mpmath = pytest.importorskip("mpmath")
    taps = np.eye(20)[4]
    for _ in range(10):
        poles = spread * np.sort(rng.uniform(-1, 1, 4))
        gaps = [np.prod([p - q for q in poles if q != p]) for p in poles]
        c = certified(taps[None], poles[None] + 0j, (1 / np.array(gaps))[None] + 0j)
        l2, l1 = exact_errors(mpmath, taps, poles, 1 / np.array(gaps))
        assert c.l2[0] >= l2
        assert c.l1[0] >= l1
        assert c.hankel[0] >= l2
        assert c.l2[0] <= l2 + 1e-14 * np.abs(1 / np.array(gaps)).sum()


@pytest.mark.parametrize("radius", [0.5, 0.99, 0.9999])
@pytest.mark.parametrize("beyond", ["zero", "free"])
def test_slow_modes_lose_with_every_tap(rng, radius, beyond):
    """A filter that is what double precision makes of its model has an error all the same."""
    mpmath = pytest.importorskip("mpmath")
    poles = radius + 0.01 * (1 - radius) * np.array([-1, -0.3, 1])
    residues = 1 / np.array([np.prod([p - q for q in poles if q != p]) for p in poles])
    modes = poles + 0j, residues / np.abs(residues).max() * 1e6 + 0j
    taps = np.concatenate([[0.0], vandermonde_product(*modes, 400, real=True)])
    c = certified(taps[None], modes[0][None], modes[1][None], beyond=beyond)
    l2, l1 = exact_errors(mpmath, taps, *modes, 0 if beyond == "free" else 3 * len(taps))
    assert c.l2[0] >= l2
    assert c.l1[0] >= l1
    assert beyond == "zero" or c.l2[0] <= 1.001 * l2


def test_huge_residues_do_not_blur_a_certificate():
    """Real poles for an oscillation take residues of 1e12 and more: as near to the truth as without them."""
    mpmath = pytest.importorskip("mpmath")
    t = np.arange(150)
    taps = 0.99**t * np.cos(0.1 * t)
    found = ssmid.distill(taps, 6, real_poles=True)
    assert np.abs(found.system.residues).max() > 1e12
    l2, l1 = exact_errors(mpmath, taps, found.system.poles, found.system.residues, 1500)
    assert l2 <= found.error <= TOP * l2
    assert l1 <= found.certificate.l1 <= TOP * l1


@pytest.mark.parametrize(("tap", "order"), [(5, 5), (5, 7), (12, 12), (3, 3), (1, 1)])
def test_a_delay_is_a_sum_of_modes_that_double_precision_holds(tap, order):
    """The optimum has all poles at 0, where residues grow without limit."""
    mpmath = pytest.importorskip("mpmath")
    taps = np.eye(64)[tap]
    found = ssmid.distill(taps, order)
    l2, l1 = exact_errors(mpmath, taps, found.system.poles, found.system.residues)
    assert l2 <= found.error <= TOP * l2 + 1e-15
    assert l2 <= 3e-8
    assert l1 <= found.certificate.l1
    assert found.converged


def test_tiny_errors_are_measured(rng):
    poles, residues = modes(rng, 1, 6, 0.95)
    clean = response(poles[0], residues[0], 400)
    for size in (1e-6, 1e-9, 1e-12):
        noise = size * np.abs(clean).max() * rng.standard_normal(400)
        l2, _, high, hinf, l1 = norms((clean + noise)[None], poles, residues)
        tail = response(poles[0], residues[0], 800)[400:]
        assert l2[0] ** 2 == pytest.approx((noise**2).sum() + (tail**2).sum(), rel=5e-3)
        assert l1[0] == pytest.approx(np.abs(noise).sum() + np.abs(tail).sum(), rel=5e-3)
        assert l2[0] <= high[0] <= hinf[0] * TOP <= l1[0] * TOP**2


@pytest.mark.parametrize("kind", ["tap", "all-pass", "constant", "alternating", "noise"])
def test_flat_and_peaked_gains(rng, kind):
    n = 130
    taps = {
        "tap": np.eye(1, n, 17)[0],
        "all-pass": np.append(-0.9, (1 - 0.81) * 0.9 ** np.arange(n - 1.0)),
        "constant": np.ones(n),
        "alternating": (-1.0) ** np.arange(n),
        "noise": rng.standard_normal(n),
    }[kind]
    none = np.zeros((1, 0), complex)
    _, low, high, hinf, l1 = norms(taps[None], none, none)
    true, peak = np.linalg.norm(scipy.linalg.hankel(taps), 2), np.abs(np.fft.rfft(taps, 2**17)).max()
    assert low[0] <= true * (1 + 1e-12)
    assert true * (1 - 1e-12) <= high[0] <= TOP * true
    assert peak * (1 - 1e-12) <= hinf[0] <= TOP * peak
    assert l1[0] == pytest.approx(np.abs(taps).sum())
    np.testing.assert_allclose(error_peak.hinf_of_taps(taps[None]), hinf)


def test_a_start_that_misses_the_largest_value_is_not_believed(monkeypatch):
    """A start all but orthogonal to the vector of the largest value, which shows itself late."""
    d = np.append(1.0, np.linspace(-0.97, 0.97, 399))
    section = error_hankel._Section(np.zeros((1, 1)), 1, np.zeros((1, 0, 400)), np.zeros((1, 0, 0)))
    monkeypatch.setattr(error_hankel._Section, "apply", lambda self, x: x * d)
    start = np.ones(400)
    start[0] = 1e-4

    class Fixed:
        def standard_normal(self, n):
            return start

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Fixed())
    low, high = error_hankel._bracketed(section, np.array([0.01]), np.array([10.0]))
    assert low[0] <= 1 + 1e-12
    assert 1 - 1e-12 <= high[0] <= TOP * low[0]


def test_who_is_done_early_is_not_touched_again(rng):
    t = np.arange(400)
    strict = rng.standard_normal((24, 400))
    strict[::8] = np.stack([0.5**t, 0.9**t * np.cos(t), 0.99**t])
    none = np.zeros((24, 0), complex)
    whole = norms(strict, none, none)
    for i in range(24):
        one = norms(strict[i : i + 1], none[:1], none[:1])
        assert [x[0] for x in one[1:]] == [x[i] for x in whole[1:]]


def test_a_small_tail_counts():
    strict, p = np.eye(1, 40, 0), 0.9 + 0j
    for size in (1e-3, 0.015, 0.1):
        # in step with the tap at frequency 0 after 40 taps
        residue = -size * 0.1 / p**40
        _, low, high, hinf, _ = norms(strict + response([p], [residue], 40), np.array([[p]]), np.array([[residue]]))
        assert (1 + size) * (1 - 1e-12) <= hinf[0] <= TOP * (1 + size)
        e = np.concatenate([strict[0], -response([p], [residue], 800)[40:]])
        true = np.linalg.norm(scipy.linalg.hankel(e), 2)
        assert low[0] <= true * (1 + 1e-9)
        assert true * (1 - 1e-9) <= high[0] <= TOP * true


def test_single_precision_is_accounted_for(rng):
    strict, poles, residues = filters_with_models(rng, 12, 200, 6, 0.99)
    _, low, high, *_ = norms(strict, poles, residues)
    _, low32, high32, *_ = norms(strict, poles, residues, precision="float32")
    assert (low32 <= high).all()
    assert (low <= high32).all()
    assert (high32 <= TOP * low32).all()
    assert (low32 != low).any()


# ---------------------------------------------------------------- whole certificates


def fitted_of(bank, poles, residues, like=lambda x: x):
    """Residues in the unit of the taps."""
    residues = residues / to_numpy(bank.scale)[:, None]
    orders = np.where(bank.empty, 0, (poles != 0).sum(-1))
    live = np.arange(poles.shape[-1]) < orders[:, None]
    n = len(orders)
    return Fitted(like(np.where(live, poles, 0)), like(np.where(live, residues, 0)), orders, like(np.ones(n, bool)), like(np.ones(n)))


def hankel_values(strict, count):
    return np.stack([np.linalg.svd(scipy.linalg.hankel(h), compute_uv=False)[:count] for h in strict])


def certified(taps, poles, residues, beyond="zero", **options):
    bank = Bank.of(taps)
    return certify(bank, fitted_of(bank, poles, residues), hankel_values(bank.strict, poles.shape[-1] + 2), beyond=beyond, **options)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(2, 60),
    order=st.integers(0, 7),
    radius=st.sampled_from([0.3, 0.9, 0.999, 0.9999]),
    beyond=st.sampled_from(["zero", "free"]),
)
def test_laws(seed, length, order, radius, beyond):
    rng = np.random.default_rng(seed)
    strict, poles, residues = filters_with_models(rng, 5, length, order, radius)
    c = certified(np.pad(strict, ((0, 0), (1, 0)), constant_values=3.0), poles, residues, beyond)
    size, eps = np.sqrt((strict**2).sum(-1)), 1e-12
    assert (c.lower_bound <= c.hankel * (1 + eps)).all()
    assert (c.l2 * size <= c.hankel * (1 + eps)).all()
    assert (c.hankel <= c.hinf * (1 + eps)).all()
    assert (c.hinf <= c.l1 * (1 + eps)).all()
    assert (c.sigma[:, 0] <= c.filter_hinf * (1 + eps)).all()
    assert (c.filter_hinf <= c.filter_l1).all()
    # without any help of the laws
    _, low, high, *_ = norms(strict, poles, residues, beyond)
    assert (c.lower_bound <= high * (1 + eps)).all()
    assert (low <= high).all()
    assert (high <= TOP * low).all()
    known = np.isfinite(c.ratio)
    assert (c.ratio[known] >= 1).all()
    np.testing.assert_allclose(c.spectral_radius, np.abs(poles).max(-1, initial=0))


@pytest.fixture
def few(rng):
    strict, poles, residues = filters_with_models(rng, 9, 80, 4, 0.98)
    return np.pad(strict, ((0, 0), (1, 0)), constant_values=0.5), poles, residues


def fields(c):
    return {f.name: to_numpy(getattr(c, f.name)) for f in dataclasses.fields(c)}


def test_backends_agree(xp, few):
    taps, poles, residues = few
    expected = fields(certified(taps, poles, residues))
    bank = Bank.of(xp.asarray(taps))
    sigma = xp.asarray(hankel_values(to_numpy(bank.strict), 6))
    for beyond in ("zero", "free"):
        c = certify(bank, fitted_of(bank, poles, residues, xp.asarray), sigma, beyond=beyond)
        assert all(xp.owns(getattr(c, f.name)) for f in dataclasses.fields(c) if f.name not in ("kind", "delay"))
        expected = fields(certified(taps, poles, residues, beyond))
        for name, value in fields(c).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-9, err_msg=name)
        assert c.verdict.shape == (9,)
        assert xp.owns(c.ratio)


def test_a_batch_equals_its_elements_to_the_last_bit(few):
    taps, poles, residues = few
    whole = fields(certified(taps, poles, residues))
    for i in range(len(taps)):
        one = fields(certified(taps[i : i + 1], poles[i : i + 1], residues[i : i + 1]))
        for name in ("hankel", "hinf", "l1", "filter_hinf", "tail_energy"):
            assert one[name][0] == whole[name][i], name


def test_memory_is_bounded_without_changing_anything(few, monkeypatch):
    taps, poles, residues = few
    expected = fields(certified(taps, poles, residues))
    for module in (error_peak, error_hankel):
        monkeypatch.setattr(module, "_MEMORY", {"host": 1})
    monkeypatch.setattr(error_norms, "_BLOCK", 1)
    monkeypatch.setitem(certificate._AT_ONCE, "host", 200)
    for name, value in fields(certified(taps, poles, residues)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-13, err_msg=name)


def test_scales(few):
    taps, poles, residues = few
    expected = fields(certified(taps, poles, residues))
    for scale in (2.0**-500, 2.0**500, 2.0**-1000):
        for name, value in fields(certified(scale * taps, poles, scale * residues)).items():
            unit = scale if name in ("sigma", "lower_bound", "hankel", "hinf", "l1", "filter_hinf", "filter_l1") else 1
            if name != "kind":
                np.testing.assert_allclose(value / unit, expected[name], rtol=1e-12, err_msg=name)


def test_what_is_special_is_alone(few):
    taps, poles, residues = (x.copy() for x in few)
    expected = fields(certified(*few))
    taps[1, 5], taps[2], taps[3, 1:] = np.nan, 0, 0
    residues[4, 0] = np.nan
    poles[5, :2], poles[6, 0] = (1.1j, -1.1j), np.inf
    c = certified(taps, poles, residues)
    got = fields(c)
    errors = ("l2", "hankel", "hinf", "l1", "tail_energy")
    for name in errors:
        np.testing.assert_array_equal(got[name][1:6], [np.nan, 0, 0, np.nan, np.inf], err_msg=name)
        np.testing.assert_array_equal(got[name][[0, 7, 8]], expected[name][[0, 7, 8]])
    assert not got["converged"][1]
    assert got["converged"][[0, 7, 8]].all()
    assert [list(VERDICTS)[v] for v in c.verdict[1:6]] == [
        "no result", "nothing to approximate", "nothing to approximate", "no result", "unstable"
    ]  # fmt: skip
    assert c.words((2,)) == "zero. Nothing to approximate: the filter is zero after tap 0."


def test_beyond_free_counts_the_taps_only(rng):
    strict, poles, residues = filters_with_models(rng, 4, 50, 5, 0.99)
    poles[2], residues[2] = [1.02, 0.5, 0.2, 0.1, -0.3], [0.1, 1, 1, 1, 1]
    c = certified(np.pad(strict, ((0, 0), (1, 0))), poles, residues, "free")
    for i in range(4):
        e = strict[i] - response(poles[i], residues[i], 50)
        H, square = scipy.linalg.hankel(e), scipy.linalg.hankel(strict[i, :25], strict[i, 24:50])
        assert c.l2[i] == pytest.approx(np.linalg.norm(e) / np.linalg.norm(strict[i]), rel=1e-10)
        assert np.linalg.norm(H, 2) <= c.hankel[i] * (1 + 1e-12) <= TOP * np.linalg.norm(H, 2)
        assert c.l1[i] == pytest.approx(np.abs(e).sum(), rel=1e-10)
        least = np.linalg.svd(square, compute_uv=False)[5]
        assert 0 < c.lower_bound[i] <= least * (1 + 1e-10)
        assert c.lower_bound[i] > 0.9 * least
    assert np.isinf(c.tail_energy[2])
    assert np.isfinite(c.tail_energy[[0, 1, 3]]).all()


def test_tail_energy_is_all_of_it(rng):
    poles, residues = modes(rng, 1, 3, 0.999)
    taps = rng.standard_normal((1, 31))
    later = response(poles[0], residues[0], 30000)[30:]
    assert certified(taps, poles, residues).tail_energy[0] == pytest.approx((later**2).sum() / (taps[0, 1:] ** 2).sum(), rel=1e-9)


def test_the_bound_is_zero_where_the_order_reaches_the_rank():
    h = np.append(0.0, 0.5 ** np.arange(80) - (-0.3) ** np.arange(80))
    p, r = np.array([[0.5, -0.3 + 0j]]), np.array([[1, -1 + 0j]])
    c = certified(h[None], p, r)
    assert c.l2[0] < 1e-14
    assert np.isnan(c.ratio[0])
    assert list(VERDICTS)[int(c.verdict[0])] == "exact"
    full = certified(np.array([[0.0, 1.0, 0.5]]), p, r)  # as many states as taps
    assert full.lower_bound[0] == 0


def test_trained_filters():
    taps = ssmid.datasets.hyena_filters().taps[:6, :700]
    c = ssmid.distill(taps, 8).certificate
    poles, residues = (to_numpy(x) for x in ssmid.distill(taps, 8).system.arrays.values() if x.ndim == 2)
    for i in range(6):
        e = -response(poles[i], residues[i], 4000)
        e[:699] += taps[i, 1:]
        top = scipy.linalg.eigh(scipy.linalg.hankel(e[:1000], e[999:1999]), eigvals_only=True)[[0, -1]]
        true = np.abs(top).max()
        assert true * (1 - 1e-9) <= c.hankel[i] <= TOP * true
        sigma = np.linalg.svd(scipy.linalg.hankel(taps[i, 1:]), compute_uv=False)[8]
        assert c.lower_bound[i] <= sigma * (1 + 1e-10) <= c.hankel[i] * (1 + 1e-10)
        assert 1 <= true / sigma * (1 - 1e-9) <= c.ratio[i]


# ---------------------------------------------------------------- words


def made_up(**changes):
    values = {
        "sigma": [10.0, 5.0, 1.0, 0.5, 0.1], "lower_bound": 0.1, "l2": 0.1, "hankel": 0.11, "hinf": 1.0, "l1": 2.0, "filter_hinf": 20.0,
        "filter_l1": 30.0, "spectral_radius": 0.9, "tail_energy": 0.0, "converged": True, "kind": 0, "delay": 0,
    }  # fmt: skip
    return Certificate(**{name: np.asarray([changes.get(name, value)]) for name, value in values.items()})


@pytest.mark.parametrize(
    ("title", "changes", "part"),
    [
        ("no result", {"kind": 1, "l2": np.nan}, "not finite"),
        ("nothing to approximate", {"kind": 3, "l2": 0.0}, "zero after tap 0"),
        ("unstable", {"l2": np.inf, "hankel": np.inf}, "does not die out"),
        ("not converged", {"converged": False}, "max_iterations"),
        ("exact", {"l2": 1e-13}, "to rounding"),
        ("still ringing", {"tail_energy": 0.004}, "40% of the squared error"),
        ("may be refined", {"hankel": 0.17}, "1.7 times nearer"),
        ("near the best", {"l2": 1e-3}, "no model of this order is much nearer"),
        ("near the best", {"lower_bound": 0.0}, "no model of this order is much nearer"),
        ("order pays", {}, "from order 2 to 4 the least error fell 10 times"),
        ("noise-like", {"sigma": [0.2, 0.15, 0.13, 0.12, 0.1]}, "from order 2 to 4 the least error fell only 1.3 times"),
    ],
)
def test_words_say_what_to_do(title, changes, part):
    c = made_up(**changes)
    assert list(VERDICTS)[int(c.verdict[0])] == title
    assert title.capitalize() in c.words((0,))
    assert part in c.words((0,))
    assert "nan" not in c.words((0,))


def test_every_verdict_is_reached():
    marks = test_words_say_what_to_do.pytestmark[0].args[1]
    assert {title for title, *_ in marks} == set(VERDICTS)
