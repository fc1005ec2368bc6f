"""Conversions keep the response and the poles: the accuracy that the project promises, and what happens where it cannot be kept."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid._array import astype_width, dtype_name
from ssmid.analysis.conversion import to_modal, to_sos, to_state_space, to_transfer_function, to_zpk
from ssmid.analysis.convert import FORMS, convert
from ssmid.analysis.evaluation import evaluate

FILTERS = {
    "butter(16, 0.05)": scipy.signal.butter(16, 0.05, output="zpk"),
    "ellip(12, 0.1, 80, 0.1)": scipy.signal.ellip(12, 0.1, 80, 0.1, output="zpk"),
    "cheby2(20, 60, 0.03)": scipy.signal.cheby2(20, 60, 0.03, output="zpk"),
}
CIRCLE = np.exp(1j * np.linspace(0.001, 3.1, 200))


def distance(found, expected):
    """The largest distance of a pole to its partner, in the pairing that a sort by angle and radius gives."""
    found, expected = np.asarray(found).ravel(), np.asarray(expected).ravel()
    assert found.shape == expected.shape
    gaps = np.abs(found[:, None] - expected)
    taken = scipy.optimize.linear_sum_assignment(gaps)
    return gaps[taken].max()


def random_stable(rng, n, *batch, inputs=1, outputs=1, radius=0.95):
    A = rng.standard_normal((*batch, n, n))
    A *= radius / np.abs(np.linalg.eigvals(A)).max(-1)[..., None, None]
    return ssmid.StateSpace(A, *(rng.standard_normal((*batch, *s)) for s in ((n, inputs), (outputs, n), (outputs, inputs))))


def taps_by_powers(system, length):
    """C A^(t-1) B, one product at a time."""
    taps, state = [system.D], system.B
    for _ in range(length - 1):
        taps.append(system.C @ state)
        state = system.A @ state
    return np.stack(taps, -1)


def close(a, b, tolerance, points=CIRCLE):
    a, b = evaluate(a, points), evaluate(b, points)
    assert np.max(np.abs(a - b)) <= tolerance * np.max(np.abs(b))


# ---------------------------------------------------------------- accuracy


@pytest.mark.parametrize("name", FILTERS)
def test_narrow_filters_keep_every_pole_through_state_space_and_modal_form(name):
    z, p, k = FILTERS[name]
    states = to_state_space(ssmid.zpk(z, p, k))
    modal = to_modal(states)
    back = to_zpk(modal)
    again = to_state_space(modal)
    for poles in (np.linalg.eigvals(states.A), modal.poles, back.poles, np.linalg.eigvals(again.A), to_zpk(again).poles):
        assert distance(poles, p) < 1e-10
        assert np.abs(poles).max() < 1
    for system in (states, modal, back, again, to_sos(states), to_zpk(to_sos(ssmid.zpk(z, p, k)))):
        close(system, ssmid.zpk(z, p, k), 1e-10)


def test_the_way_through_polynomials_is_what_we_avoid():
    """scipy's zpk -> tf -> roots ends unstable on the first of the filters above."""
    _, a = scipy.signal.zpk2tf(*FILTERS["butter(16, 0.05)"])
    assert np.abs(np.roots(a)).max() > 1.05


@pytest.mark.parametrize("name", FILTERS)
def test_cascades_hold_the_poles_to_the_last_bit(name):
    z, p, k = FILTERS[name]
    for order in (np.arange(len(p)), np.random.default_rng(0).permutation(len(p))):
        found = np.linalg.eigvals(to_state_space(ssmid.zpk(z, p[order], k)).A)
        assert distance(found, p) <= 2 * np.finfo(float).eps


@pytest.mark.parametrize("n", [10, 30, 100])
def test_random_systems_keep_their_impulse_response_through_modal_form(rng, n):
    system = random_stable(rng, n)
    expected = taps_by_powers(system, 300)[0, 0]
    got = ssmid.impulse_response(to_modal(system), 300).taps
    assert np.abs(got - expected).max() <= 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("n", [8, 33, 64])
def test_transfer_functions_of_high_order_through_companion_form(n):
    """Denominators with roots spread round a circle, against the recursion in 60 digits."""
    poles = 0.9 * np.exp(2j * np.pi * (np.arange(n) + 0.5) / n) * (1 + 0.02 * np.cos(np.arange(n)))
    upper = poles[poles.imag > 1e-9]
    poles = np.concatenate([upper, upper.conj(), [-0.9] * (n % 2)])
    system = ssmid.tf(np.cos(np.arange(len(poles) + 1.0)), np.poly(poles).real)
    with mpmath.workdps(60):
        a, b = ([mpmath.mpf(float(x)) for x in c] for c in (system.den, system.num))
        h: list = []
        for t in range(400):
            h.append((b[t] if t < len(b) else 0) - mpmath.fsum(a[j] * h[t - j] for j in range(1, min(t, len(a) - 1) + 1)))
        expected = np.array([float(x) for x in h])
    for states in (to_state_space(system), to_state_space(system, form="observable"), to_state_space(to_modal(system))):
        got = taps_by_powers(states, 400)[0, 0]
        assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()
    assert np.abs(ssmid.impulse_response(to_modal(system), 400).taps - expected).max() <= 1e-9 * np.abs(expected).max()


# ---------------------------------------------------------------- every pair, every array library


def sources(rng):
    upper = np.array([0.5 + 0.4j, -0.3 + 0.6j])
    poles = np.stack([upper, upper.conj()], -1).ravel()
    poles = np.concatenate([poles, [0.7, -0.2, 0.1]]) * np.array([[1.0], [0.9]])
    zeros = np.array([0.9j, -0.9j, 1.5, -2.0, 0.3]) * np.array([[1.0], [0.8]])
    gain = np.array([2.0, -0.5])
    factors = ssmid.ZerosPolesGain(zeros, poles, gain)
    return {
        "zpk": factors,
        "state-space": random_stable(rng, 5, 2),
        "modal": to_modal(factors),
        "transfer-function": to_transfer_function(factors),
        "sos": to_sos(factors),
    }


TARGETS = [
    "state-space", "modal", "transfer-function", "zpk", "sos",
    "companion", "controllable", "observable", "balanced", "minimal", "block-modal",
]  # fmt: skip


@pytest.mark.parametrize("source", ["zpk", "state-space", "modal", "transfer-function", "sos"])
def test_every_pair_converts_batched_as_one_by_one(xp, rng, source):
    whole = sources(rng)[source]
    for target in TARGETS:
        result = convert(whole.map(xp.asarray), target)
        assert np.all(xp.numpy(result.backward_error) < 1e-11), target
        assert xp.numpy(result.backward_error).shape == xp.numpy(result.condition).shape == (2,)
        assert np.all(xp.numpy(result.condition) >= 1 - 1e-12)
        assert all(xp.owns(a) for a in result.system.arrays.values())
        got = xp.numpy(evaluate(result.system, xp.asarray(CIRCLE)))
        for i in range(2):
            single = convert(whole.map(lambda a, i=i: a[i]), target).system
            expected = evaluate(single, CIRCLE)
            np.testing.assert_allclose(got[i], expected, atol=1e-11 * np.abs(expected).max(), err_msg=target)


@pytest.mark.parametrize("source", ["zpk", "state-space", "modal", "transfer-function", "sos"])
def test_single_precision_stays_single(xp, rng, source):
    system = sources(rng)[source].map(lambda a: astype_width(xp.asarray(a), 32))
    for target in TARGETS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ssmid.ConversionWarning)
            result = convert(system, target)
        assert {dtype_name(a) for a in result.system.arrays.values()} <= {"float32", "complex64"}, target
        assert np.all(xp.numpy(result.backward_error) < 1e-3)


@pytest.mark.parametrize("source", ["zpk", "state-space", "modal", "transfer-function", "sos"])
@pytest.mark.parametrize("target", TARGETS)
def test_one_bad_element_spoils_no_other(rng, source, target):
    system = sources(rng)[source]
    expected = evaluate(convert(system, target).system, CIRCLE)[1]

    def spoil(array):
        array = array.copy()
        array[0] = np.nan
        return array

    got = evaluate(convert(system.map(spoil), target).system, CIRCLE)
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1], expected, atol=1e-10 * np.abs(expected).max())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 6),
    st.sampled_from([1e-150, 1e-3, 1.0, 1e150]),
    st.sampled_from(["state-space", "modal", "zpk", "sos", "balanced"]),
    st.integers(0, 999),
)
def test_round_trips_at_any_scale(n, scale, target, seed):
    rng = np.random.default_rng(seed)
    system = random_stable(rng, n, radius=0.9) if n else ssmid.tf([1.0], [1.0])
    system = to_state_space(system)
    system = ssmid.StateSpace(system.A, system.B, scale * system.C, scale * system.D)
    back = to_state_space(convert(system, target).system)
    close(back, system, 1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(0, 4), st.integers(0, 999), st.booleans())
def test_factored_forms_of_any_shape(pairs, reals, seed, discrete):
    """Any mixture of real and complex zeros, with any number missing, fits into sections."""
    rng = np.random.default_rng(seed)

    def closed(pairs, reals):
        upper = rng.uniform(0.2, 0.95, pairs) * np.exp(1j * rng.uniform(0.1, 3, pairs))
        roots = np.concatenate([upper, upper.conj(), rng.uniform(-0.95, 0.95, reals)])
        return roots if discrete else roots - 1

    poles = closed(pairs, reals)
    zero_pairs = int(rng.integers(0, len(poles) // 2 + 1))
    zeros = closed(zero_pairs, int(rng.integers(0, len(poles) - 2 * zero_pairs + 1)))
    system = ssmid.zpk(zeros, rng.permutation(poles), -1.7, dt=1 if discrete else 0)
    points = CIRCLE if discrete else 1j * np.geomspace(0.01, 100, 50)
    states = to_state_space(system)
    assert dtype_name(states.A) == "float64"
    assert distance(np.linalg.eigvals(states.A), poles) < 1e-12 if len(poles) else states.order == 0
    close(states, system, 1e-10, points)
    if discrete:
        sections = to_sos(system)
        assert sections.sections.shape[-2] == max(1, (len(poles) + 1) // 2)
        close(sections, system, 1e-10)
        close(to_zpk(sections), system, 1e-10)


@pytest.mark.parametrize("unit", [1e-150, 1e-6, 1e6, 1e100])
def test_continuous_time_in_any_unit_of_frequency(unit):
    z, p, k = scipy.signal.ellip(5, 1, 40, 1.0, analog=True, output="zpk")
    system = ssmid.zpk(z * unit, p * unit, k * unit ** (len(p) - len(z)), dt=0)
    expected = scipy.signal.freqs_zpk(z, p, k, np.geomspace(0.1, 10, 40))[1]
    points = 1j * unit * np.geomspace(0.1, 10, 40)
    for form in (to_state_space(system), to_modal(system), to_modal(to_state_space(system)), to_zpk(to_state_space(system))):
        np.testing.assert_allclose(evaluate(form, points), expected, atol=1e-9)


# ---------------------------------------------------------------- conventions, edges, refusals


def test_missing_zeros_are_delays():
    """1 / (z - 1/2) begins at t = 1; scipy's zpk2sos would start it at 0."""
    np.testing.assert_array_equal(to_sos(ssmid.zpk([], [0.5], 1.0)).sections, [[0, 1, 0, 1, -0.5, 0]])
    np.testing.assert_allclose(ssmid.impulse_response(to_sos(ssmid.zpk([], [0.5, 0.25], 1.0)), 3).taps, [0, 0, 1])


def test_taps_become_a_shift_register(xp, rng):
    taps = rng.standard_normal((2, 5))
    states = to_state_space(ssmid.ImpulseResponse(xp.asarray(taps)))
    assert states.order == 4
    host = states.map(xp.numpy)
    for i in range(2):
        np.testing.assert_array_equal(taps_by_powers(ssmid.StateSpace(host.A, host.B, host.C[i], host.D[i]), 7)[0, 0], [*taps[i], 0, 0])


@pytest.mark.parametrize(("outputs", "inputs"), [(2, 3), (3, 2), (1, 2), (2, 2)])
def test_channels_become_one_shift_register(rng, outputs, inputs):
    taps = rng.standard_normal((outputs, inputs, 4))
    states = to_state_space(ssmid.ImpulseResponse(taps), mimo=True)
    assert (states.outputs, states.inputs, states.order) == (outputs, inputs, 3 * min(outputs, inputs))
    np.testing.assert_allclose(taps_by_powers(states, 4), taps, atol=1e-15)


def test_multivariable_systems_become_channels(rng):
    system = random_stable(rng, 4, 2, inputs=3, outputs=2)
    for convert_one in (to_modal, to_zpk, to_transfer_function):
        channels = convert_one(system)
        assert channels.batch_shape == (2, 2, 3)
        np.testing.assert_allclose(evaluate(channels, CIRCLE), evaluate(system, CIRCLE), atol=1e-9)


def test_elements_with_different_numbers_of_zeros(rng):
    """A channel without feedthrough has a zero less than one with; the missing one stands out of sight."""
    system = ssmid.StateSpace(np.diag([0.5, -0.3, 0.2]), np.ones((3, 1)), np.ones((1, 3)), np.array([[[0.0]], [[2.0]]]))
    factors = to_zpk(system)
    assert factors.zeros.shape == (2, 3)
    np.testing.assert_allclose(evaluate(factors, CIRCLE), evaluate(system, CIRCLE), rtol=1e-12)


def test_pure_gain_and_zero():
    for system in (ssmid.ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 3.0), ssmid.tf([3.0], [1.0]), ssmid.zpk([], [], 3.0)):
        for target in ("state-space", "modal", "zpk", "sos", "transfer-function", "companion", "block-modal", "balanced", "minimal"):
            result = convert(system, target)
            np.testing.assert_allclose(evaluate(result.system, CIRCLE), 3.0)
    nothing = ssmid.ss(np.diag([0.5, 0.25]), np.ones((2, 1)), np.zeros((1, 2)))
    for target in ("modal", "zpk", "sos", "transfer-function", "companion", "minimal", "balanced"):
        assert np.all(evaluate(convert(nothing, target).system, CIRCLE) == 0), target


@pytest.mark.parametrize("dt", [0, 1])
def test_integrators_stay_where_they_are(dt):
    pole = float(dt)
    system = ssmid.zpk([0.3], [pole, 0.5 - (dt == 0)], 2.0, dt=dt)
    states = to_state_space(system)
    assert pole in np.linalg.eigvals(states.A)
    assert pole in to_modal(states).poles
    close(to_zpk(to_modal(states)), system, 1e-12, CIRCLE if dt else 1j * CIRCLE.real)


def test_poles_at_zero_are_exact():
    system = ssmid.from_ba([1.0, 2.0, 3.0], [1.0, -0.5])
    assert 0 in to_zpk(system).poles
    close(to_modal(system), system, 1e-12)
    close(to_sos(to_state_space(system)), system, 1e-12)


def test_complex_systems(rng):
    poles = 0.9 * np.exp(1j * rng.uniform(0, 6, 4))
    system = ssmid.zpk(1.1 * np.exp(1j * rng.uniform(0, 6, 2)), poles, 1.0 + 2j)
    whole = np.exp(2j * np.pi * np.arange(17) / 17)
    for target in ("state-space", "modal", "transfer-function", "zpk", "companion", "block-modal"):
        np.testing.assert_allclose(evaluate(convert(system, target).system, whole), evaluate(system, whole), rtol=1e-9)
    assert not to_modal(system).real
    with pytest.raises(ValueError, match="closed under conjugation"):
        to_sos(system)


def test_responses_convert_by_their_own_verbs(rng):
    modal = to_modal(random_stable(rng, 4))
    np.testing.assert_array_equal(convert(modal, "impulse-response", length=9).system.taps, ssmid.impulse_response(modal, 9).taps)
    sampled = convert(modal, ssmid.FrequencyResponse, points=16)
    assert sampled.backward_error == 0
    np.testing.assert_array_equal(sampled.system.values, ssmid.frequency_response(modal, points=16).values)


def test_names_classes_and_options(rng):
    system = random_stable(rng, 3)
    assert isinstance(convert(system, ssmid.Modal).system, ssmid.Modal)
    assert convert(system, "state-space").system is system
    np.testing.assert_array_equal(convert(system, "state-space", form="balanced").system.A, to_state_space(system, form="balanced").A)
    for name in FORMS:
        options = {"impulse-response": {"length": 8}, "frequency-response": {"points": 8}}.get(name, {})
        assert convert(system, name, **options).original is system
    with pytest.raises(ValueError, match=r"to: expected a class or one of .*block-modal, got 'parallel'"):
        convert(system, "parallel")
    with pytest.raises(ValueError, match=r"options: expected those of 'modal', got .'speed'"):
        convert(system, "modal", speed=3)
    with pytest.raises(ValueError, match="form: expected None, 'controllable'"):
        to_state_space(system, form="diagonal")


def test_what_is_fitted_is_not_converted():
    response = ssmid.FrequencyResponse([1.0, 0.5], [0.0, 1.0])
    for verb in (to_state_space, to_modal, to_zpk, to_transfer_function, to_sos):
        with pytest.raises(ValueError, match=r"2 samples: fit a model to it first .ssmid.identification"):
            verb(response)
        with pytest.raises(TypeError, match=r"expected a System .* got ndarray: wrap taps in ssmid.ImpulseResponse"):
            verb(np.ones(3))
    with pytest.raises(ValueError, match="poles of a FIR filter all stand at 0"):
        to_modal(ssmid.ImpulseResponse([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="got dt=0"):
        to_sos(ssmid.zpk([], [-1.0], 1.0, dt=0))
    with pytest.raises(ValueError, match="mimo=True: expected a Modal bank"):
        to_state_space(ssmid.zpk([], [0.5], 1.0), mimo=True)


def test_backward_error_is_what_an_independent_grid_sees():
    """A transfer function of a narrow filter: convert says how wrong it is, and is right about it."""
    z, p, k = FILTERS["butter(16, 0.05)"]
    with pytest.warns(ssmid.ConversionWarning, match="to_transfer_function: the system off by up to .* coefficients of degree 16"):
        result = convert(ssmid.zpk(z, p, k), "transfer-function")
    w, seen = scipy.signal.freqz(result.system.num, result.system.den, worN=np.pi * (np.arange(128) + 0.5) / 128)
    expected = scipy.signal.freqz_zpk(z, p, k, w)[1]
    measured = np.abs(seen - expected).max() / np.abs(expected).max()
    assert measured > 1e-6
    assert measured / 3 < result.backward_error < measured * 3
    assert result.condition > 1e10


# ---------------------------------------------------------------- narrow passbands


@pytest.mark.parametrize(("order", "edge"), [(4, 1e-4), (6, 1e-3), (8, 1e-2)])
@pytest.mark.parametrize("form", ["transfer-function", "companion"])
def test_what_is_lost_in_a_narrow_passband_is_said(order, edge, form):
    """Between 0 and the first frequency of any coarse grid stands all of the filter: its dc gain is off by 1 % and more."""
    design = ssmid.zpk(*scipy.signal.butter(order, edge, output="zpk"))
    with pytest.warns(ssmid.ConversionWarning, match="off by up to"):
        found = convert(design, form)
    missed = abs(ssmid.dc_gain(found.system) - 1)
    assert missed > 1e-3
    assert found.backward_error > missed / 10
    for kept in ("state-space", "sos", "modal", "balanced", "block-modal"):
        same = convert(design, kept)
        assert abs(ssmid.dc_gain(same.system) - 1) < 1e-6
        assert same.backward_error < 1e-6


def test_shared_poles_of_coupled_channels_are_looked_at(rng):
    """Points beside poles for elements that are whole on one side and channels on the other, batch axes on either array."""
    system = random_stable(rng, 5, 2, inputs=3, outputs=2, radius=0.999999)
    mixed = ssmid.StateSpace(system.A[0], system.B, system.C[0], system.D)
    for one in (system, mixed):
        found = convert(one, "modal")
        assert found.backward_error.shape == (2,)
        assert (found.backward_error < 1e-8).all()
        coupled = convert(found.system, "state-space", mimo=True)
        assert coupled.backward_error.shape == (2,)
        assert (coupled.backward_error < 1e-8).all()
        assert (convert(one, "zpk").backward_error < 1e-6).all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_condition_is_one_number_for_each_coupled_system(batch):
    system = ssmid.StateSpace(np.full((*batch, 1, 1), 0.5), np.ones((*batch, 1, 2)), np.ones((*batch, 4, 1)))
    for form in ("transfer-function", "zpk", "modal", "balanced"):
        found = convert(system, form)
        assert np.shape(found.condition) == np.shape(found.backward_error) == batch
