"""To and from python-control and SciPy: bit for bit, with the meaning of the sample time kept."""

from __future__ import annotations

import control
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid import FrequencyResponse, ImpulseResponse, Modal, SecondOrderSections, StateSpace, TransferFunction, ZerosPolesGain

STEPS = [0, 0.1, 1, True]
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


def same(a: ssmid.System, b: ssmid.System) -> None:
    assert type(a) is type(b)
    assert type(a.dt) is type(b.dt)
    assert a.dt == b.dt
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], strict=True)


@st.composite
def state_spaces(draw):
    n, m, p = draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    A, B, C, D = (draw(hnp.arrays(float, shape, elements=NUMBERS)) for shape in ((n, n), (n, m), (p, n), (p, m)))
    return StateSpace(A, B, C, D, draw(st.sampled_from(STEPS)))


@st.composite
def transfer_functions(draw):
    n = draw(st.integers(0, 5))
    num = draw(hnp.arrays(float, n + 1, elements=NUMBERS).filter(lambda c: c[0] != 0))
    den = draw(hnp.arrays(float, n + 1, elements=NUMBERS).filter(lambda c: c[0] != 0))
    return TransferFunction(num, den, draw(st.sampled_from(STEPS)))


@settings(max_examples=60, deadline=None)
@given(state_spaces() | transfer_functions())
def test_there_and_back(system):
    same(ssmid.from_control(ssmid.to_control(system)), system)
    same(ssmid.from_scipy(ssmid.to_scipy(system)), system)


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(complex, st.integers(1, 6), elements=st.complex_numbers(max_magnitude=1e6)), st.sampled_from(STEPS))
def test_frequency_response_there_and_back(values, dt):
    response = FrequencyResponse(values, np.linspace(0, 3, len(values)), dt)
    same(ssmid.from_control(ssmid.to_control(response)), response)


@pytest.mark.parametrize("dt", STEPS)
def test_zeros_poles_gain_and_sections(dt):
    system = ZerosPolesGain([-1.0, 0.3 + 0.1j, 0.3 - 0.1j], [0.5, 0.2, 0.9j, -0.9j], 2.5, dt)
    same(ssmid.from_scipy(ssmid.to_scipy(system)), system)
    if dt != 0:
        sections = SecondOrderSections(scipy.signal.ellip(6, 1, 60, 0.2, output="sos"), dt)
        same(ssmid.from_scipy(ssmid.to_scipy(sections), dt=dt), sections)


def test_small_numerators_and_leading_coefficients_survive_scipy():
    # scipy's own constructor divides by den[0] and drops numerator coefficients below 1e-14
    system = TransferFunction([1e-16, 1.0], [3.0, 0.1], dt=True)
    there = ssmid.to_scipy(system)
    np.testing.assert_array_equal(there.num, [1e-16, 1.0])
    np.testing.assert_array_equal(there.den, [3.0, 0.1])


def test_the_same_system_there(xp, rng):
    A, B, C, D = (xp.asarray(rng.standard_normal(s)) for s in ((3, 3), (3, 2), (2, 3), (2, 2)))
    system = StateSpace(A, B, C, D, dt=0)
    omega = np.geomspace(0.1, 10, 7)
    expected = np.stack([xp.numpy(C) @ np.linalg.solve(1j * w * np.eye(3) - xp.numpy(A), xp.numpy(B)) + xp.numpy(D) for w in omega], -1)
    np.testing.assert_allclose(ssmid.to_control(system)(1j * omega), expected, rtol=1e-10)
    there = ssmid.to_scipy(system)
    assert isinstance(there, scipy.signal.lti)
    np.testing.assert_array_equal(there.A, xp.numpy(A))


@pytest.mark.parametrize(
    "system",
    [
        Modal([0.5 + 0.3j, 0.5 - 0.3j, 0.8], [1 - 2j, 1 + 2j, 0.5], 0.25),
        ZerosPolesGain([0.2], [0.5 + 0.3j, 0.5 - 0.3j], 3.0),
        SecondOrderSections(scipy.signal.butter(4, 0.3, output="sos")),
        ImpulseResponse([0.5, 1.0, -2.0, 0.25]),
    ],
    ids=lambda s: type(s).__name__,
)
def test_forms_that_control_lacks_keep_their_response(system):
    omega = np.linspace(0.1, 3, 9)
    expected = ssmid.frequency_response(system, omega).values
    np.testing.assert_allclose(ssmid.to_control(system)(np.exp(1j * omega)), expected, atol=1e-12)


def test_impulse_response_becomes_an_exact_fir():
    taps = np.array([0.5, 1.0, -2.0, 0.25])
    there = ssmid.to_scipy(ImpulseResponse(taps, dt=0.5))
    np.testing.assert_array_equal(there.num, taps)
    np.testing.assert_array_equal(scipy.signal.dimpulse(there, n=4)[1][0][:, 0], taps)
    assert there.dt == 0.5


def test_control_sample_times():
    assert ssmid.from_control(control.tf([1], [1, 2])).dt == 0
    assert ssmid.from_control(control.tf([1], [1, 2], True)).dt is True
    gain = control.ss([], [], [], [[2.0]])
    assert gain.dt is None
    with pytest.raises(ValueError, match=r"dt: expected 0 .continuous., a sample time or True, got None"):
        ssmid.from_control(gain)
    assert ssmid.from_control(gain, dt=0.2).dt == 0.2
    with pytest.raises(ValueError, match=r"dt: expected the system's own 0.1, got 0.2"):
        ssmid.from_control(control.tf([1], [1, 2], 0.1), dt=0.2)
    with pytest.raises(ValueError, match="own 1, got True"):
        ssmid.from_control(control.tf([1], [1, 2], 1), dt=True)


def test_scipy_sample_times():
    assert ssmid.from_scipy(scipy.signal.lti([1], [1, 2])).dt == 0
    assert ssmid.from_scipy(scipy.signal.dlti([1], [1, 0.5])).dt is True
    assert ssmid.from_scipy(scipy.signal.dlti([1], [1, 0.5], dt=0.1)).dt == 0.1
    assert ssmid.from_scipy(np.array([[1.0, 0, 0, 1, 0, 0]])).dt is True
    with pytest.raises(ValueError, match="positive sample time or True"):
        ssmid.from_scipy(scipy.signal.dlti([1], [1, 0.5], dt=0))


def test_many_channels(rng):
    system = TransferFunction(rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 3, 4)), dt=0.1)
    there = ssmid.to_control(system, mimo=True)
    assert (there.noutputs, there.ninputs) == (2, 3)
    back = ssmid.from_control(there)
    np.testing.assert_array_equal(back.den, system.den)
    np.testing.assert_array_equal(back.num, np.concatenate([np.zeros((2, 3, 1)), system.num], -1))
    response = FrequencyResponse(rng.standard_normal((2, 3, 5)) + 1j, np.arange(5.0), dt=0)
    same(ssmid.from_control(ssmid.to_control(response, mimo=True)), response)


@pytest.mark.parametrize("dt", [0, 0.1])
def test_channels_of_different_degree(dt):
    num = [[[2.0], [1.0, 3.0]], [[0.0], [4.0]]]
    den = [[[1.0, 0.5], [1.0, 0.5, 0.25]], [[1.0], [3.0, 1.0]]]
    there = control.TransferFunction(num, den, dt)
    back = ssmid.from_control(there)
    assert back.order == 2
    assert back.batch_shape == (2, 2)
    points = np.array([0.3 + 0.4j, 1j, 2.0])
    channels = zip(back.num.reshape(4, -1), back.den.reshape(4, -1), strict=True)
    ours = np.stack([np.polyval(n, points) / np.polyval(d, points) for n, d in channels])
    np.testing.assert_allclose(ours.reshape(2, 2, -1), there(points), rtol=4e-16 * 8, atol=0)
    roots = np.concatenate([np.roots(d) for d in back.den.reshape(4, -1)])
    # what was multiplied in is stable and away from the boundary
    assert (np.abs(roots) < 1).all() if dt else (roots.real < -0.1).all()
    if dt:
        np.testing.assert_array_equal(back.den[0, 0], [1.0, 0.5, 0.0])


def test_batches_are_nested_lists(rng):
    bank = TransferFunction(rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 4)), dt=0.5)
    for to, back in ((ssmid.to_control, ssmid.from_control), (ssmid.to_scipy, ssmid.from_scipy)):
        there = to(bank)
        assert (len(there), len(there[0])) == (2, 3)
        same(back(there), TransferFunction(bank.num, np.broadcast_to(bank.den, (2, 3, 4)), dt=0.5))
    with pytest.raises(ValueError, match="one kind, size and sample time"):
        ssmid.from_control([control.tf([1], [1, 2]), control.tf([1], [1, 2, 3])])


def test_several_outputs_in_scipy():
    there = scipy.signal.TransferFunction([[1.0, 2.0], [3.0, 4.0]], [1.0, 0.5, 0.1])
    back = ssmid.from_scipy(there)
    assert back.batch_shape == (2, 1)
    again = ssmid.to_scipy(back, mimo=True)
    np.testing.assert_array_equal(again.num, there.num)
    np.testing.assert_array_equal(again.den, there.den)
    with pytest.raises(ValueError, match="one denominator"):
        ssmid.to_scipy(TransferFunction(np.ones((1, 2, 1)), [1.0, 2.0]), mimo=True)


def test_precision_and_kind(xp):
    system = StateSpace(*(xp.asarray(np.full((1, 1), v), "float32") for v in (0.1, 0.2, 0.3, 0.4)))
    assert ssmid.to_scipy(system).A.dtype == np.float32
    assert ssmid.to_control(system).A[0, 0] == np.float32(0.1)


def test_what_cannot_go():
    with pytest.raises(ValueError, match="real systems only"):
        ssmid.to_control(StateSpace([[1j]], [[1.0]], [[1.0]]))
    with pytest.raises(ValueError, match="real=False"):
        ssmid.to_control(Modal([0.5j], [1.0], real=False))
    with pytest.raises(TypeError, match="no class of frequency responses"):
        ssmid.to_scipy(FrequencyResponse([1.0], [0.0]))
    with pytest.raises(TypeError, match=r"wrap taps in ssmid.ImpulseResponse"):
        ssmid.to_control(np.ones(3))
    with pytest.raises(TypeError, match="nested lists"):
        ssmid.from_control(scipy.signal.lti([1], [1, 2]))
    with pytest.raises(TypeError, match=r"ssmid.zpk, ssmid.from_ba"):
        ssmid.from_scipy(scipy.signal.butter(2, 0.1))
    with pytest.raises(ValueError, match="mimo=True: expected batch axes"):
        ssmid.to_control(TransferFunction([1.0], [1.0, 0.5]), mimo=True)
    with pytest.raises(ValueError, match="same frequencies"):
        ssmid.to_control(FrequencyResponse(np.ones((1, 2, 2)), [[[0.0, 1.0], [0.0, 2.0]]]), mimo=True)
    with pytest.raises(ValueError, match="empty list"):
        ssmid.from_control([])
