"""What constructors accept and what they refuse, with messages that quote expected and got."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ssmid.ss([[1, 2]], 1, 2), "A.*2, 2.*got.*1, 2"),
        (lambda: ssmid.StateSpace(np.eye(2), np.ones(2), np.ones((1, 2))), r"B: expected shape \(\*batch, rows, columns\), got \(2,\)"),
        (lambda: ssmid.StateSpace(np.zeros((3, 2, 2)), np.zeros((4, 2, 1)), np.zeros((1, 2))), "batch shapes that broadcast"),
        (lambda: ssmid.Modal([0.5, 0.2], [1.0]), "as many residues as poles"),
        (lambda: ssmid.tf([1, 0, 0], [1, 1]), "proper transfer function.*got degrees 2 and 1"),
        (lambda: ssmid.tf([1], [0]), "first coefficient that is not zero"),
        (lambda: ssmid.TransferFunction([1.0], [0.0, 1.0]), "first coefficient that is not zero"),
        (lambda: ssmid.tf([1], []), "at least one coefficient"),
        (lambda: ssmid.zpk([1, 2], [0.5], 1), "proper system.*got 2 zeros and 1 poles"),
        (lambda: ssmid.SecondOrderSections(np.ones((2, 5))), r"\(\*batch, count, 6\), got \(2, 5\)"),
        (lambda: ssmid.ImpulseResponse([]), "at least one sample, got shape"),
        (lambda: ssmid.ImpulseResponse(3.0), r"taps: expected shape \(\*batch, length\), got \(\)"),
        (lambda: ssmid.ImpulseResponse([1.0], dt=0), "expected a sample time"),
        (lambda: ssmid.ImpulseResponse([1.0, float("inf")]), r"got inf at index \(1,\)"),
        (lambda: ssmid.FrequencyResponse([1, 2], [1.0]), "one value for each frequency"),
        (lambda: ssmid.FrequencyResponse([1], [1j]), "real frequencies"),
        (lambda: ssmid.ss([[np.nan]], 1, 1), r"A: expected finite numbers, got nan at index \(0, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_feedthrough_defaults_to_zero(xp):
    system = ssmid.StateSpace(xp.asarray(np.eye(2)), xp.asarray(np.ones((2, 3))), xp.asarray(np.ones((1, 2))))
    assert xp.owns(system.D)
    assert (system.order, system.inputs, system.outputs) == (2, 3, 1)
    np.testing.assert_array_equal(xp.numpy(system.D), np.zeros((1, 3)))


def test_lists_scalars_and_vectors_make_matrices():
    system = ssmid.ss([[0.5, 0], [0, 0.2]], [1, 2], [3, 4], 5, dt=0.1)
    assert [tuple(a.shape) for a in system.arrays.values()] == [(2, 2), (2, 1), (1, 2), (1, 1)]
    assert system.dt == 0.1


def test_leading_zeros_of_a_numerator_are_dropped():
    np.testing.assert_array_equal(ssmid.tf([0, 0, 3], [2, 1]).num, [3])
    np.testing.assert_array_equal(ssmid.tf([0, 0], [2, 1]).num, [0])


def test_order_zero_is_a_system():
    gain = ssmid.ss(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 3.0)
    assert gain.order == 0
    np.testing.assert_allclose(ssmid.impulse_response(gain, 3).taps, [3, 0, 0])


def test_read_only_and_strided_arrays_are_taken():
    taps = np.arange(12.0).reshape(3, 4)[:, ::2]
    taps.flags.writeable = False
    assert ssmid.ImpulseResponse(taps).batch_shape == (3,)
