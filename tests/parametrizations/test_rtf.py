"""RTF, against its kernel as a circular division, and against state-space matrices with the transpose right."""

import numpy as np
import pytest
import scipy.signal

import ssmid
from ssmid.parametrizations.rtf import rtf, rtf_kernel

CHANNELS, ORDER = 6, 4


def layer(rng, sets, spread=0.2):
    return rng.uniform(-spread, spread, (sets + CHANNELS, ORDER)), rng.standard_normal(CHANNELS)


def trained_kernel(ab, h_0, length):
    """A circulant system of equations: the denominator, wrapped around, times the kernel gives the numerator."""
    points, sets = length + length % 2, len(ab) - CHANNELS
    kernels = []
    for c in range(CHANNELS):
        a, b = (np.concatenate([x, np.zeros(points)])[:points] for x in ([1, *ab[c * sets // CHANNELS]], [0, *ab[sets + c]]))
        circulant = np.array([np.roll(a, j) for j in range(points)]).T
        k = np.linalg.solve(circulant, b)
        k[0] += h_0[c]
        kernels.append(k[:length])
    return np.array(kernels)


@pytest.mark.parametrize("sets", [1, 3, 6])
@pytest.mark.parametrize("length", [5, 6, 17, 18])
def test_kernel_and_response(xp, rng, sets, length):
    ab, h_0 = layer(rng, sets)
    expected = trained_kernel(ab, h_0, length)
    given = xp.asarray(ab), xp.asarray(h_0), length
    np.testing.assert_allclose(xp.numpy(rtf_kernel(*given).taps), expected, atol=1e-12)
    system = rtf(*given)
    taps = xp.numpy(ssmid.impulse_response(system, length).taps)
    np.testing.assert_allclose(taps, expected, atol=1e-11)


@pytest.mark.parametrize("length", [9, 10])
def test_numerator_is_the_c_of_the_recurrence(rng, length):
    """C (I - A^P) = b for row vectors, and tap 0 carries tap P: with slow poles both show."""
    a = np.poly([0.9, -0.8, 0.7 + 0.5j, 0.7 - 0.5j]).real[1:]
    b, points = rng.standard_normal(ORDER), length + length % 2
    A = np.diag(np.ones(ORDER - 1), -1)
    A[0] = -a
    B = np.eye(ORDER)[0]
    C = np.linalg.solve((np.eye(ORDER) - np.linalg.matrix_power(A, points)).T, b)
    system = rtf(np.stack([a, b]), np.array([2.0]), length)
    taps = ssmid.impulse_response(system, length).taps[0]
    np.testing.assert_allclose(taps[1:], [C @ np.linalg.matrix_power(A, t - 1) @ B for t in range(1, length)], rtol=1e-10)
    np.testing.assert_allclose(taps[0], 2 + C @ np.linalg.matrix_power(A, points - 1) @ B, rtol=1e-10)
    assert abs(taps[0] - 2) > 1e-2
    np.testing.assert_allclose(scipy.signal.lfilter(system.num[0], system.den[0], np.eye(length)[0]), taps, rtol=1e-10)


@pytest.mark.parametrize("sets", [2, 6])
@pytest.mark.parametrize("length", [16, 17])
def test_numerators_of_a_recurrence_read_after_its_update(xp, rng, sets, length):
    """``x_t = A x_{t-1} + B u_t, y_t = C x_t + h_0 u_t``, step by step; transformed on an even number of points, which shows where the
    length is odd."""
    ab, h_0 = layer(rng, sets)
    points = length + length % 2
    expected = np.zeros((CHANNELS, length))
    for c in range(CHANNELS):
        A = np.diag(np.ones(ORDER - 1), -1)
        A[0] = -ab[c * sets // CHANNELS]
        x, C = np.eye(ORDER)[0], ab[sets + c]
        taps = []
        for _ in range(60 * points):
            taps.append(C @ x)
            x = A @ x
        taps = np.array(taps)
        wrapped = taps.copy()
        wrapped[: len(taps) - length] -= taps[length:]  # C (I - A^length)
        expected[c] = wrapped[: 59 * points].reshape(59, points).sum(0)[:length]
        expected[c, 0] += h_0[c]
        if length == points:
            np.testing.assert_allclose(expected[c, 1:], taps[1:length], rtol=1e-9, atol=1e-12)
    given = xp.asarray(ab), xp.asarray(h_0), length
    np.testing.assert_allclose(xp.numpy(rtf_kernel(*given, recurrent=True).taps), expected, atol=1e-11)
    np.testing.assert_allclose(xp.numpy(ssmid.impulse_response(rtf(*given, recurrent=True), length).taps), expected, atol=1e-11)


def test_constraint(rng):
    ab, h_0 = layer(rng, 2, spread=3.0)
    scalar = rng.standard_normal(2)
    a = ab[:2] / (np.abs(ab[:2]).sum(-1) + np.abs(scalar) + 1e-6)[:, None]
    system, expected = rtf(ab, h_0, 12, scalar), rtf(np.concatenate([a, ab[2:]]), h_0, 12)
    np.testing.assert_allclose(system.num, expected.num, rtol=1e-12)
    assert ssmid.is_stable(system).all()


def test_taps_of_unstable_denominators(rng):
    ab, h_0 = layer(rng, 6)
    ab[0] = np.poly([1.4, 0.3, 0.2, 0.1])[1:]
    taps = rtf_kernel(ab, h_0, 16).taps
    np.testing.assert_allclose(taps, trained_kernel(ab, h_0, 16), atol=1e-11)
    assert ssmid.is_stable(rtf(ab, h_0, 16)).tolist() == [False] + 5 * [True]


@pytest.mark.parametrize(
    ("shape", "length", "message"),
    [
        ((10, 4), 4, "length: expected more than the order 4, got 4"),
        ((10, 4), 8, r"ab: expected shape \(denominators \+ 6, n\), denominators dividing 6, got \(10, 4\)"),
        ((6, 4), 8, r"denominators dividing 6, got \(6, 4\)"),
    ],
)
def test_wrong_arguments(shape, length, message):
    with pytest.raises(ValueError, match=message if length > 4 else "length"):
        rtf(np.zeros(shape if length > 4 else (12, 4)), np.zeros(6), length)


def test_width_and_gradient(rng):
    import torch

    ab, h_0 = (torch.tensor(x, requires_grad=True) for x in layer(rng, 3))
    assert torch.autograd.gradcheck(lambda *p: rtf(*p, 9).num, (ab, h_0))
    assert rtf(ab.float(), h_0.float(), 9).num.dtype == torch.float32
