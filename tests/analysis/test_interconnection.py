"""Systems wired together: the response of the whole is what the responses of the parts say, for every mixture of forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid._array import astype_width, dtype_name, to_numpy
from ssmid.analysis.conversion import to_modal, to_sos, to_state_space, to_transfer_function, to_zpk
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.interconnection import feedback, parallel, series, subtract
from tests.analysis.test_conversion import CIRCLE, random_stable


def forms(rng):
    """The same kind of bank, ``(2,)`` systems of order 3, in every form."""
    states = random_stable(rng, 3, 2, radius=0.7)
    return {
        "state-space": states,
        "modal": to_modal(states),
        "transfer-function": to_transfer_function(states),
        "zpk": to_zpk(states),
        "sos": to_sos(states),
        "impulse-response": ssmid.impulse_response(states, 40),
        "frequency-response": ssmid.frequency_response(states, np.angle(CIRCLE)),
    }


def response(system):
    if isinstance(system, ssmid.FrequencyResponse):
        return to_numpy(system.values)
    return to_numpy(evaluate(system, CIRCLE))


LAWS = {
    series: lambda a, b: a * b,
    parallel: lambda a, b: a + b,
    subtract: lambda a, b: a - b,
    feedback: lambda a, b: a / (1 + a * b),
}
NAMES = ["state-space", "modal", "transfer-function", "zpk", "sos", "impulse-response", "frequency-response"]


@pytest.mark.parametrize("verb", LAWS, ids=lambda v: v.__name__)
def test_every_mixture_of_forms(rng, verb):
    first, second = forms(rng), forms(rng)
    for a, b in itertools.product(NAMES, NAMES):
        expected = LAWS[verb](response(first[a]), response(second[b]))
        got = response(verb(first[a], second[b]))
        assert got.shape == expected.shape, (a, b)
        np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max(), err_msg=f"{a}, {b}")


@pytest.mark.parametrize("verb", LAWS, ids=lambda v: v.__name__)
@pytest.mark.parametrize("form", NAMES)
def test_array_libraries_and_precision_are_kept(xp, rng, verb, form):
    a, b = forms(rng)[form], forms(rng)[form]
    whole = verb(a.map(xp.asarray), b.map(xp.asarray))
    assert all(xp.owns(x) for x in whole.arrays.values())
    np.testing.assert_allclose(response(whole.map(xp.numpy)), response(verb(a, b)), rtol=1e-8, atol=1e-9)
    single = verb(*(s.map(lambda x: xp.asarray(astype_width(x, 32))) for s in (a, b)))
    assert {dtype_name(x) for x in single.arrays.values()} <= {"float32", "complex64"}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 999))
def test_several_inputs_and_outputs(p, m, k, n1, n2, seed):
    rng = np.random.default_rng(seed)

    def system(n, outputs, inputs):
        if n:
            return random_stable(rng, n, 2, inputs=inputs, outputs=outputs)
        return ssmid.StateSpace(np.zeros((0, 0)), np.zeros((0, inputs)), np.zeros((outputs, 0)), rng.standard_normal((2, outputs, inputs)))

    def H(system):
        out = evaluate(system, CIRCLE[::20])
        out = out[..., None, None, :] if (system.outputs, system.inputs) == (1, 1) else out
        return np.moveaxis(out, -1, -3)

    a, b, c = system(n1, p, m), system(n2, k, p), system(n2, p, m)
    np.testing.assert_allclose(H(series(a, b)), H(b) @ H(a), atol=1e-9 * np.abs(H(b) @ H(a)).max())
    np.testing.assert_allclose(H(parallel(a, c)), H(a) + H(c), atol=1e-10 * np.abs(H(a)).max() + 1e-9)
    back = system(n2, m, p)
    loop = np.linalg.solve(np.eye(p) + H(a) @ H(back), H(a))
    np.testing.assert_allclose(H(feedback(a, back)), loop, atol=1e-7 * max(1, np.abs(loop).max() ** 2))
    np.testing.assert_allclose(H(feedback(a, back, 1)), np.linalg.solve(np.eye(p) - H(a) @ H(back), H(a)), rtol=1e-4, atol=1e-6)


def test_factored_forms_stay_factored(rng):
    banks = forms(rng)
    assert isinstance(series(banks["zpk"], banks["zpk"]), ssmid.ZerosPolesGain)
    assert isinstance(series(banks["sos"], banks["sos"]), ssmid.SecondOrderSections)
    assert isinstance(subtract(banks["modal"], banks["modal"]), ssmid.Modal)
    assert isinstance(series(banks["impulse-response"], banks["zpk"]), ssmid.ImpulseResponse)
    assert isinstance(feedback(banks["modal"]), ssmid.StateSpace)


def test_channels_of_a_bank_beside_a_multivariable_system(rng):
    system = random_stable(rng, 4, 2, inputs=3, outputs=2)
    difference = subtract(system, to_modal(system))
    assert (difference.outputs, difference.inputs, difference.order) == (2, 3, 8)
    assert np.abs(response(difference)).max() < 1e-10
    taps = ssmid.impulse_response(system, 40)
    rest = subtract(taps, system)
    np.testing.assert_allclose(to_numpy(rest.taps)[..., :40], 0, atol=1e-13)
    assert rest.batch_shape == (2, 2, 3)


def test_the_difference_to_taps_holds_the_tail():
    """An FIR of 4 taps against a pole at 0.9: the tail that the taps lack is there to rounding, and a length may be asked for."""
    modal = ssmid.Modal([0.9], [1.0])
    taps = ssmid.impulse_response(modal, 4)
    rest = subtract(taps, modal).taps
    np.testing.assert_allclose(rest[:4], 0, atol=1e-16)
    np.testing.assert_allclose(np.sum(rest**2), 0.9**6 / (1 - 0.81), rtol=1e-14)
    assert subtract(taps, modal, length=50).length == 50
    slow = subtract(taps, ssmid.Modal([1 - 1e-9], [1.0]))
    assert slow.length == 65536
    assert subtract(taps, ssmid.Modal([1.5], [1.0])).length == 5


def test_unit_feedback_and_signs():
    integrator = ssmid.ss(1.0, 1.0, 0.5)
    np.testing.assert_array_equal(feedback(integrator).A, [[0.5]])
    np.testing.assert_array_equal(feedback(integrator, sign=1).A, [[1.5]])
    np.testing.assert_allclose(response(feedback(ssmid.frd([2.0], [1.0]))), [2 / 3])
    with pytest.raises(ValueError, match=r"sign: expected -1 .* got 0"):
        feedback(integrator, sign=0)
    with pytest.raises(ValueError, match="unit feedback: expected as many outputs as inputs, got 1 and 2"):
        feedback(ssmid.ss(0.5, [[1.0, 1.0]], [[1.0]], [[0.0, 0.0]]))


def test_a_loop_without_a_solution_is_refused_alone_and_marked_in_a_batch():
    minus = ssmid.ss(0.5, 1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="expected a well-posed loop, got I - sign D_backward D_forward singular"):
        feedback(minus)
    bank = ssmid.StateSpace(np.full((1, 1), 0.5), np.ones((1, 1)), np.ones((1, 1)), np.array([[[-1.0]], [[0.5]]]))
    closed = feedback(bank)
    assert np.isnan(closed.A[0]).all()
    np.testing.assert_allclose(closed.A[1], 0.5 - 1 / 1.5)


def test_sizes_and_times_that_do_not_fit(rng):
    a, b = random_stable(rng, 2, outputs=2), random_stable(rng, 2, inputs=3)
    sums = "systems of one size"
    for verb, message in ((series, "as many outputs"), (parallel, sums), (subtract, sums), (feedback, "backward system of 1")):
        with pytest.raises(ValueError, match=message):
            verb(a, b)
    for verb in LAWS:
        with pytest.raises(ValueError, match="one sample time"):
            verb(ssmid.zpk([], [0.5], 1.0, dt=1), ssmid.zpk([], [0.5], 1.0, dt=0.1))
        with pytest.raises(TypeError, match="expected a System"):
            verb(ssmid.zpk([], [0.5], 1.0), np.ones(3))
    assert series(ssmid.zpk([], [0.5], 1.0, dt=True), ssmid.zpk([], [0.5], 1.0, dt=0.1)).dt == 0.1


def test_complex_beside_real(rng):
    real = to_state_space(forms(rng)["modal"])
    rotated = ssmid.Modal([0.5j], [1.0 + 1j], real=False)
    for verb in LAWS:
        np.testing.assert_allclose(response(verb(real, rotated)), LAWS[verb](response(real), response(rotated)), rtol=1e-9)


def two_by_two(rng):
    return ssmid.ss(np.diag([0.5, 0.2]), rng.standard_normal((2, 2)), rng.standard_normal((2, 2)), rng.standard_normal((2, 2)))


def test_channels_beside_a_mimo_state_space_are_its_inputs_and_outputs(rng):
    """Taps and spectra of channels (outputs, inputs) are multiplied as matrices, as their state space would be."""
    states, taps = two_by_two(rng), ssmid.ImpulseResponse(rng.standard_normal((2, 3, 5)))
    filtered = to_state_space(taps, mimo=True)
    chain = series(filtered, states)
    np.testing.assert_allclose(series(taps, states).taps[..., :20], ssmid.impulse_response(chain, 20).taps, atol=1e-13)
    spectrum = ssmid.frequency_response(filtered, np.angle(CIRCLE))
    np.testing.assert_allclose(series(spectrum, states).values, response(chain), rtol=1e-12)
    with pytest.raises(ValueError, match="as many outputs of the first system"):
        series(states, taps)
    with pytest.raises(ValueError, match=r"expected channels \(\*batch, outputs, inputs\)"):
        series(ssmid.ImpulseResponse([1.0, 0.5]), states)


def test_feedback_through_sampled_channels_is_a_matrix_loop(rng):
    plant, back = two_by_two(rng), two_by_two(rng)
    sampled = ssmid.frequency_response(back, np.angle(CIRCLE))
    np.testing.assert_allclose(feedback(plant, sampled).values, response(feedback(plant, back)), rtol=1e-10)


def test_a_loop_around_nan_spoils_no_other(xp, rng):
    A, B, C, D = (xp.asarray(rng.standard_normal((2, *s))) for s in ((2, 2), (2, 1), (1, 2), (1, 1)))
    mask = xp.asarray(np.array([0.0, np.nan]).reshape(2, 1, 1))
    closed = feedback(ssmid.StateSpace(A, B, C, D + mask))
    assert np.isnan(xp.numpy(closed.D)[1]).all()
    alone = feedback(ssmid.StateSpace(A[0, ...], B[0, ...], C[0, ...], D[0, ...]))
    np.testing.assert_allclose(xp.numpy(closed.A)[0], xp.numpy(alone.A), rtol=1e-12)


def test_a_sampled_loop_with_a_pole_on_the_contour_is_infinite_there():
    closed = feedback(ssmid.frd([1.0, 3.0, -1.0], [0.0, 1.0, 2.0]))
    np.testing.assert_allclose(closed.values[:2], [0.5, 0.75])
    assert not np.isfinite(closed.values[2])
