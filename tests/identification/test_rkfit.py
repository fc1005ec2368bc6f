"""RKFIT: the decomposition holds, modes are recovered, poles stay inside."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid
from ssmid.identification.rkfit import rational_basis, rkfit

OMEGA = np.linspace(0.05, 12, 80)
POLES = np.array([-2, -0.1 + 3j, -0.1 - 3j, -0.4 + 7j, -0.4 - 7j])


def modes(points, poles, residues):
    return (residues[..., None, :] / (points[:, None] - poles)).sum(-1)


def test_the_rational_arnoldi_decomposition():
    points = 1j * OMEGA
    V, K, H = rational_basis(points, POLES)
    np.testing.assert_allclose((V.conj().T @ V).real, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(points[:, None] * (V @ K), V @ H, atol=1e-10 * np.abs(V @ H).max())


@pytest.mark.parametrize("order", [1, 2, 7, 20, 60])
def test_modes_near_the_circle_are_recovered(rng, order):
    z = np.exp(1j * np.linspace(0, np.pi, 600))
    upper = (1 - np.geomspace(1e-5, 0.1, order // 2)) * np.exp(1j * (np.arange(order // 2) + 0.7) * 3 / max(1, order // 2))
    poles = np.r_[upper, upper.conj(), np.full(order % 2, 0.5)]
    residues = np.r_[rng.standard_normal(order // 2) + 1j, np.zeros(order // 2), np.ones(order % 2)]
    residues[order // 2 : 2 * (order // 2)] = residues[: order // 2].conj()
    fit = rkfit(z, modes(z, poles, residues), order, dt=1)
    assert bool(fit.converged)
    assert float(fit.error) < 1e-12
    assert np.abs(fit.modal.poles[:, None] - poles).min(0).max() < 1e-10


def test_a_matrix_of_channels_has_common_poles(xp, rng):
    residues = rng.standard_normal((2, 3, 5)) + 1j * rng.standard_normal((2, 3, 5))
    residues[..., 0] = residues[..., 0].real
    residues[..., [2, 4]] = residues[..., [1, 3]].conj()
    values = modes(1j * OMEGA, POLES, residues)
    fit = rkfit(xp.asarray(1j * OMEGA), xp.asarray(values), 5, mimo=True)
    assert (fit.system.outputs, fit.system.inputs, fit.order) == (2, 3, 10)
    assert xp.owns(fit.system.A)
    assert float(fit.error) < 1e-12
    bank = rkfit(xp.asarray(1j * OMEGA), xp.asarray(values), 5, shared=2)
    assert bank.system.batch_shape == (2, 3)
    assert bank.modal.poles.shape == (1, 1, 5)
    np.testing.assert_allclose(xp.numpy(bank.modal.residues).sum(-1), residues.sum(-1), atol=1e-9)


def test_unstable_poles_are_mirrored_and_said(rng):
    values = np.exp(-1.0j * OMEGA) + 0.3 * rng.standard_normal(80)
    fit = rkfit(1j * OMEGA, values, 6)
    assert bool(fit.stable)
    with pytest.warns(UserWarning, match="unstable; stable=True"):
        free = rkfit(1j * OMEGA, values, 6, stable=False)
    assert not bool(free.stable)


def test_a_batch_equals_a_loop_and_a_bad_element_spoils_no_other(rng):
    residues = np.r_[1, 1 + 1j, 1 - 1j, 2j, -2j]
    values = modes(1j * OMEGA, POLES, residues) + 1e-3 * rng.standard_normal((3, 80))
    values[1] = np.nan
    fit = rkfit(1j * OMEGA, values, 5)
    assert np.isnan(fit.error[1])
    assert not fit.converged[1]
    for i in (0, 2):
        np.testing.assert_allclose(fit.error[i], rkfit(1j * OMEGA, values[i], 5).error, rtol=1e-12)


@pytest.mark.parametrize(("size", "unit"), [(1e-200, 1.0), (1e200, 1.0), (1.0, 1e-12), (1.0, 1e12)])
def test_scale_and_unit_of_time_do_not_matter(size, unit):
    residues = np.r_[1, 1 + 1j, 1 - 1j, 2j, -2j]
    values = modes(1j * OMEGA, POLES, residues) + 1e-3 * np.cos(5 * OMEGA)
    fit, other = rkfit(1j * OMEGA, values, 5), rkfit(1j * OMEGA * unit, values * size, 5)
    np.testing.assert_allclose(other.error, fit.error, rtol=1e-7)
    np.testing.assert_allclose(np.sort_complex(other.modal.poles / unit), np.sort_complex(fit.modal.poles), rtol=1e-6)


def test_measured_inductor(shared_data):
    response = ssmid.read(shared_data / "freq" / "milan_3port.s3p", channel=(0, 0))
    fit = rkfit(response, order=9)
    assert float(fit.error) < 1e-14
    assert bool(fit.stable)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "order: expected 1 to 79 for 80 points, got None"),
        ({"order": 0}, "order: expected 1 to 79"),
        ({"order": 3, "poles": [-1.0]}, "poles: expected shape"),
        ({"order": 3, "mimo": True}, "mimo: expected values"),
    ],
)
def test_wrong_input(options, message):
    with pytest.raises(ValueError, match=message):
        rkfit(1j * OMEGA, 1 / (1j * OMEGA + 1), **options)
