"""Real columns with real coefficients say the same as complex ones with complex coefficients."""

from __future__ import annotations

import numpy as np

from ssmid.identification.conjugate_pairs import complex_coefficients, neighbours, real_columns, real_rows


def test_sums_are_those_of_the_complex_terms(xp, rng):
    poles = np.array([-1 + 2j, -1 - 2j, -3, -0.1 + 9j, -0.1 - 9j])
    points = rng.standard_normal(7) + 1j * rng.standard_normal(7)
    terms, x = 1 / (points[:, None] - poles), rng.standard_normal(5)
    real = xp.numpy(real_columns(xp.asarray(terms), xp.asarray(poles)))
    coefficients = xp.numpy(complex_coefficients(xp.asarray(x), xp.asarray(poles)))
    np.testing.assert_allclose(real @ x, terms @ coefficients, atol=1e-14)
    assert coefficients[2].imag == 0
    assert coefficients[0] == coefficients[1].conj()
    np.testing.assert_allclose(real_rows(real) @ x, np.concatenate([(real @ x).real, (real @ x).imag]), atol=1e-14)


def test_pairs_stand_side_by_side():
    slots = np.array([[1 + 1j, 2 + 2j, 1 - 1j, 2 - 2j, 5]])
    assert neighbours(slots).tolist() == [[1 + 1j, 1 - 1j, 2 + 2j, 2 - 2j, 5]]
