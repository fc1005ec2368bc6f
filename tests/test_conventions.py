"""Every row of the table in docs/conventions.md, pinned."""

from __future__ import annotations

import re
from pathlib import Path

import control
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch

import ssmid

PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"


def response(system, length: int = 24) -> np.ndarray:
    return ssmid.impulse_response(system, length).taps


def decaying(rng, *shape: int) -> np.ndarray:
    """Taps ``(*shape[:-1], length)`` of random filters that fade out."""
    return rng.standard_normal(shape) * 0.8 ** np.arange(shape[-1])


def test_axes(rng):
    taps = decaying(rng, 2, 3, 20)
    bank = ssmid.ImpulseResponse(taps)
    assert bank.batch_shape == (2, 3)
    assert ssmid.hankel_singular_values(bank, 4).shape == (2, 3, 4)
    assert ssmid.frequency_response(bank, points=20).values.shape == (2, 3, 11)
    fit = ssmid.balanced_truncation(bank, order=2)
    assert fit.system.batch_shape == fit.error.shape == (2, 3)
    alone = ssmid.balanced_truncation(ssmid.ImpulseResponse(taps[1, 2]), order=2)
    np.testing.assert_allclose(response(fit.system)[1, 2], response(alone.system), atol=1e-9)


def test_several_inputs_and_outputs(rng):
    A, B, C, D = 0.5 * np.diag([1.0, -1.0, 0.5]), rng.standard_normal((3, 2)), rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    system = ssmid.ss(A, B, C, D)
    assert (system.outputs, system.inputs, system.batch_shape) == (4, 2, ())
    taps = response(system)
    assert taps.shape == (4, 2, 24)
    np.testing.assert_allclose(taps[..., 3], C @ A @ A @ B, atol=1e-14)
    assert ssmid.frequency_response(system, points=8).values.shape == (4, 2, 5)

    channels = ssmid.ImpulseResponse(decaying(rng, 4, 2, 6))
    coupled, separate = ssmid.to_state_space(channels, mimo=True), ssmid.to_state_space(channels)
    assert (coupled.outputs, coupled.inputs, coupled.batch_shape) == (4, 2, ())
    assert (separate.outputs, separate.inputs, separate.batch_shape) == (1, 1, (4, 2))
    for realization in (coupled, separate):
        np.testing.assert_allclose(response(realization, 6), channels.taps, atol=1e-12)

    scalar = ssmid.ss([[0.5]], [[1.0]], [[2.0]])
    assert (scalar.outputs, scalar.inputs) == (1, 1)
    assert response(scalar).shape == (24,)


def test_time():
    assert ssmid.ss(0.5, 1, 1).dt == 1
    for dt in (0, 0.1, True):
        assert ssmid.ss(0.5, 1, 1, dt=dt).dt == control.ss(0.5, 1, 1, 0, dt).dt
    assert not ssmid.ss(-0.5, 1, 1, dt=0).is_discrete
    assert ssmid.ss(0.5, 1, 1, dt=True).is_discrete
    omega = np.array([1.0, 2.0, 3.0, 4.0])
    values = 1 / (1 + 1j * omega)
    assert [ssmid.tf([1.0], [1.0, 0.5]).dt, ssmid.zpk([], [0.5], 1.0).dt, ssmid.FrequencyResponse(values, omega).dt] == [1, 1, 1]
    assert [ssmid.frd(values, omega).dt, ssmid.SparseStateSpace(-np.eye(2), np.ones((2, 1)), np.ones((1, 2))).dt] == [0, 0]
    assert ssmid.aaa(1j * omega, values).system.dt == 0
    with pytest.raises(ValueError, match=r"expected .*got"):
        response(ssmid.ss(-0.5, 1, 1, dt=0))


@pytest.mark.parametrize("dt", [1, 0.1, True])
def test_impulse(rng, dt):
    A, B, C, D = np.diag([0.9, -0.4]) + 0.05, rng.standard_normal((2, 1)), rng.standard_normal((1, 2)), np.array([[0.7]])
    system = ssmid.ss(A, B, C, D, dt)
    taps = response(system)
    assert taps[0] == D[0, 0]
    np.testing.assert_allclose(taps[1:], [(C @ np.linalg.matrix_power(A, t) @ B)[0, 0] for t in range(23)], atol=1e-14)
    _, (reference,) = scipy.signal.dimpulse(scipy.signal.dlti(A, B, C, D, dt=dt), n=24)
    np.testing.assert_allclose(taps, reference[:, 0], atol=1e-14)
    u = rng.standard_normal(24)
    np.testing.assert_allclose(np.convolve(taps, u)[:24], ssmid.simulate(system, u), atol=1e-12)


def test_modal_form(rng):
    pole, residue = 0.9 * np.exp(0.7j), 1.0 - 2.0j
    t = np.arange(1, 24)
    expected = np.r_[3.0, (2 * residue * pole ** (t - 1)).real]
    closed = ssmid.Modal(np.array([pole, pole.conjugate()]), np.array([residue, residue.conjugate()]), 3.0)
    half = ssmid.Modal(np.array([pole]), np.array([2 * residue]), 3.0)
    for modal in (closed, half):
        np.testing.assert_allclose(response(modal), expected, atol=1e-13)
    returned = ssmid.to_modal(ssmid.to_state_space(half))
    assert returned.order == 2
    np.testing.assert_array_equal(np.sort_complex(returned.poles), np.sort_complex(returned.poles.conj()))


def test_polynomials(rng):
    b, a = rng.standard_normal(3), np.array([1.0, -0.5, 0.2, 0.1])
    impulse = np.r_[1.0, np.zeros(23)]
    np.testing.assert_allclose(response(ssmid.from_ba(b, a)), scipy.signal.lfilter(b, a, impulse), atol=1e-14)
    descending = scipy.signal.lfilter(np.r_[0.0, b], a, impulse)  # degree 2 over degree 3 in z: one sample later
    np.testing.assert_allclose(response(ssmid.tf(b, a)), descending, atol=1e-14)
    np.testing.assert_allclose(control.impulse_response(control.tf(b, a, 1), np.arange(24)).outputs, descending, atol=1e-12)


def test_frequency():
    omega = np.array([0.0, 0.3, 2.0])
    discrete = ssmid.frequency_response(ssmid.tf([1.0], [1.0, -0.5], dt=0.1), omega)
    np.testing.assert_allclose(discrete.values, 1 / (np.exp(1j * omega * 0.1) - 0.5), rtol=1e-14)
    continuous = ssmid.frequency_response(ssmid.tf([1.0], [1.0, 0.5], dt=0), omega)
    np.testing.assert_allclose(continuous.values, 1 / (1j * omega + 0.5), rtol=1e-14)
    grid = ssmid.frequency_response(ssmid.tf([1.0], [1.0, -0.5], dt=0.1), points=10)
    np.testing.assert_allclose(grid.omega, 2 * np.pi * np.arange(6) / (10 * 0.1), rtol=1e-14)


def test_data_and_points(rng):
    """Points of s or z with their values, a frequency response alone, half of the axis, and records with time last."""
    omega = np.linspace(0.1, 5, 30)
    s, z = 1j * omega, np.exp(1j * omega / 2)
    continuous = ssmid.vector_fitting(s, 1 / (s + 2), order=1)
    np.testing.assert_allclose(continuous.system.A, [[-2]], atol=1e-9)
    discrete = ssmid.vector_fitting(z, 1 / (z - 0.5), order=1, dt=0.5)
    np.testing.assert_allclose(discrete.system.A, [[0.5]], atol=1e-9)
    alone = ssmid.vector_fitting(ssmid.FrequencyResponse(1 / (z - 0.5), omega, dt=0.5), order=1)
    np.testing.assert_allclose(alone.system.A, discrete.system.A, atol=1e-12)
    pair = ssmid.vector_fitting(s, 1 / ((s + 0.2) ** 2 + 4), order=2)
    assert not np.iscomplexobj(pair.system.A)
    np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(pair.system.A)), [-0.2 - 2j, -0.2 + 2j], atol=1e-9)
    record = ssmid.Record(np.ones((3, 100)), np.ones((2, 100)))
    assert (record.inputs.shape, record.outputs.shape, record.length) == ((3, 100), (2, 100), 100)


def test_order():
    pair = ssmid.zpk([], [0.5 + 0.5j, 0.5 - 0.5j], 1.0)
    assert pair.order == ssmid.to_state_space(pair).order == ssmid.to_modal(pair).order == ssmid.to_transfer_function(pair).order == 2
    assert not np.iscomplexobj(ssmid.to_state_space(pair).A)
    half = ssmid.Modal(np.array([0.5 + 0.5j]), np.array([1.0j]))
    assert ssmid.to_state_space(half).order == 2


def test_errors(rng):
    taps = decaying(rng, 3, 60)
    fit = ssmid.balanced_truncation(ssmid.ImpulseResponse(taps), order=4)
    long = np.pad(taps, ((0, 0), (0, 4000)))
    difference = long - response(fit.system, 4060)
    relative = np.linalg.norm(difference, axis=-1) / np.linalg.norm(long, axis=-1)
    np.testing.assert_allclose(fit.error, relative, rtol=1e-8)


def test_errors_of_distilling(rng):
    """Tap 0 plays no part, however large; what comes after the last tap does, or does not on request."""
    taps = decaying(rng, 3, 60)
    taps[:, 0] = [0.0, 1e6, -5.0]
    fit = ssmid.distill(taps, 4)
    np.testing.assert_array_equal(fit.system.feedthrough, taps[:, 0])
    long = np.pad(taps, ((0, 0), (0, 4000)))[:, 1:]
    difference = long - response(fit.system, 4060)[:, 1:]
    relative = np.linalg.norm(difference, axis=-1) / np.linalg.norm(long, axis=-1)
    np.testing.assert_allclose(fit.error, relative, rtol=1e-8)
    t = np.arange(60)
    ringing = 1 + 0.5 * np.cos(0.3 * t) + 0.3 * np.cos(1.1 * t)
    free = ssmid.distill(ringing, 3, beyond="free")
    over_taps = np.linalg.norm((ringing - response(free.system, 60))[1:]) / np.linalg.norm(ringing[1:])
    np.testing.assert_allclose(free.error, over_taps, rtol=1e-8)
    assert free.error < 0.8 * ssmid.distill(ringing, 3).error


def test_order_of_distilling(rng):
    t = np.arange(200)
    bank = np.stack([0.9**t * np.cos(0.4 * t), 0.8**t, decaying(rng, 200)])
    fit = ssmid.distill(bank, np.array([2, 1, 4]))
    assert fit.order.tolist() == [2, 1, 4]
    assert fit.system.poles.shape == (3, 4)
    assert (np.abs(fit.system.poles) > 0).sum(-1).tolist() == [2, 1, 4]
    assert np.max(fit.error[:2]) < 1e-8  # a decaying cosine is a pair, which is two states, and an exponential one
    assert ssmid.to_state_space(ssmid.Modal(fit.system.poles[0, :2], fit.system.residues[0, :2])).order == 2


def test_certificate(rng):
    """Against the singular values of the whole Hankel matrices, filter and error, and the gain on a fine grid."""
    taps = 1e3 * decaying(rng, 4, 80)
    certificate = ssmid.distill(taps, 3).certificate
    modelled = response(ssmid.distill(taps, 3).system, 400)
    for k in range(4):
        own = scipy.linalg.svdvals(scipy.linalg.hankel(taps[k, 1:]))
        assert certificate.lower_bound[k] <= own[3] * (1 + 1e-12)
        assert (certificate.sigma[k] <= own[: certificate.sigma.shape[-1]] * (1 + 1e-12)).all()
        error = np.pad(taps[k], (0, 320)) - modelled[k]
        hankel = scipy.linalg.svdvals(scipy.linalg.hankel(error[1:]))[0]
        assert hankel * (1 - 1e-9) <= certificate.hankel[k] <= hankel * 1.001
        assert np.abs(np.fft.rfft(error[1:], 8192)).max() <= certificate.hinf[k]
        assert np.abs(error[1:]).sum() * (1 - 1e-12) <= certificate.l1[k]
        assert certificate.ratio[k] >= hankel / own[3] * (1 - 1e-9) >= 1 - 1e-9
        assert certificate.l2[k] < 1 < certificate.hankel[k]


def test_precision(rng):
    taps = decaying(rng, 2, 200).astype(np.float32)
    exact = ssmid.hankel_singular_values(ssmid.ImpulseResponse(taps.astype(np.float64)), 8)
    single = ssmid.hankel_singular_values(ssmid.ImpulseResponse(taps), 8)
    assert (single.dtype, exact.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, exact, rtol=1e-6)  # rounded once, at the end: float32 throughout loses the small values
    assert ssmid.balanced_truncation(ssmid.ImpulseResponse(taps), order=4).system.A.dtype == np.float32


def test_kind_and_device(xp, rng):
    h = ssmid.ImpulseResponse(xp.asarray(decaying(rng, 2, 30)))
    fit = ssmid.balanced_truncation(h, order=2)
    for array in (*fit.system.arrays.values(), fit.sigma, fit.error, ssmid.frequency_response(fit.system, points=8).values):
        assert xp.owns(array)


def test_wrong_input(rng):
    h = ssmid.ImpulseResponse(decaying(rng, 20))
    with pytest.raises(ValueError, match=r"order: expected .*, got 0"):
        ssmid.balanced_truncation(h, order=0)
    with pytest.raises(TypeError, match=r"expected .*, got ndarray"):
        ssmid.balanced_truncation(h.taps, order=2)
    with pytest.raises(ValueError, match=r"got nan at index \(3,\)"):
        ssmid.ImpulseResponse(np.where(np.arange(20) == 3, np.nan, h.taps))
    with pytest.raises(ValueError, match="kind"):
        ssmid.ss(np.eye(2), torch.ones(2, 1), np.ones((1, 2)))

    bank = decaying(rng, 3, 20)
    sound = ssmid.balanced_truncation(ssmid.ImpulseResponse(bank), order=2)
    bank[1, 5] = np.nan
    spoiled = ssmid.balanced_truncation(ssmid.ImpulseResponse(bank), order=2)
    assert spoiled.converged.tolist() == [True, False, True]
    assert np.isnan(spoiled.error[1])
    np.testing.assert_allclose(spoiled.error[[0, 2]], sound.error[[0, 2]], rtol=1e-9)


def test_the_table_and_the_tests_have_the_same_rows():
    rows = re.findall(r"^\| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)[1:]
    names = {name.removeprefix("test_").replace("_", " ") for name in globals() if name.startswith("test_")}
    assert set(rows) <= names
    assert len(rows) == len(names) - 1
