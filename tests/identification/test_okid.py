"""Impulse responses from records of any inputs: exact without noise, and good enough to realize with it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

import ssmid
from ssmid.identification.initial_state import free_simulation
from ssmid.identification.okid import okid
from ssmid.identification.record import Record
from tests.identification.test_subspace import assert_same_system, lightly_damped, recorded


@pytest.mark.parametrize(("n", "p", "m", "length"), [(1, 1, 1, 60), (6, 1, 1, 300), (7, 2, 3, 600), (31, 3, 1, 900)])
@pytest.mark.parametrize("order", [None, 14])
def test_the_response_is_exact_without_noise_from_any_state(rng, n, p, m, length, order):
    system = lightly_damped(rng, n, p, m, dt=0.1)
    found = okid(recorded(rng, system, length), 40, order=order)
    expected = ssmid.impulse_response(system, 40).taps
    assert found.taps.shape == ((40,) if p == m == 1 else (p, m, 40))
    assert found.dt == 0.1
    np.testing.assert_allclose(found.taps, expected, atol=1e-10 * np.abs(expected).max())


def test_it_stands_before_era(rng):
    system = lightly_damped(rng, 6, 2, 2)
    fit = ssmid.era(okid(recorded(rng, system, 500), 60), 6, mimo=True)
    assert_same_system(fit.system, system, 1e-9)


def test_experiments_levels_and_units(rng):
    system = lightly_damped(rng, 4, 1, 2)
    records = [recorded(rng, system, length) for length in (100, 150)]
    moved = [Record(r.inputs * np.array([[1e100], [1e-6]]), r.outputs * 1e3 + 5e4, r.dt) for r in records]
    want = ssmid.impulse_response(system, 20).taps * 1e3 / np.array([[1e100], [1e-6]])
    found = okid(moved, 20, center=True).taps
    np.testing.assert_allclose(found / np.abs(want).max(-1, keepdims=True), want / np.abs(want).max(-1, keepdims=True), atol=1e-8)


def test_noise_of_an_observer_s_kind_scatters_as_least_squares_says():
    """White equation noise, an ARX model: tap 1 is b_1 + a b_0, whose estimates have variance noise^2 / samples each for white inputs."""
    errors = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        u = rng.standard_normal(1000)
        y = scipy.signal.lfilter([0, 1.0], [1, -0.8], u) + scipy.signal.lfilter([1.0], [1, -0.8], 0.3 * rng.standard_normal(1000))
        errors.append(float(okid(Record(u, y), 3, order=1).taps[1]) - 1.0)
    assert 0.8 < np.std(errors) / (0.3 * (1 + 0.8**2) ** 0.5 / 1000**0.5) < 1.25
    assert abs(np.mean(errors)) < 0.006


def test_more_lags_are_taken_where_the_noise_needs_them(rng):
    system = lightly_damped(rng, 2, 1, 1, high=0.9)
    u = rng.standard_normal((1, 4000))
    y = free_simulation(system, u) + 0.5 * rng.standard_normal((1, 4000))
    found = okid(Record(u, y), 30)
    want = ssmid.impulse_response(system, 30).taps
    assert np.linalg.norm(found.taps - want) < 0.02 * np.linalg.norm(want)
    assert np.linalg.norm(okid(Record(u, y), 30, order=2).taps - want) > 0.05 * np.linalg.norm(want)


def test_kind_is_kept_and_a_batch_equals_a_loop(xp, rng):
    u = rng.standard_normal((3, 2, 120))
    y = free_simulation(lightly_damped(rng, 3, 1, 2), u) + 0.1 * rng.standard_normal((3, 1, 120))
    y[1, 0, 3] = np.nan
    found = okid(Record(xp.asarray(u, "float32"), xp.asarray(y, "float32")), 15)
    assert xp.owns(found.taps)
    assert str(found.taps.dtype).endswith("float32")
    taps = xp.numpy(found.taps)
    assert taps.shape == (3, 1, 2, 15)
    assert np.isnan(taps[1]).all()
    one = okid(Record(u[2].astype("float32"), y[2].astype("float32")), 15)
    np.testing.assert_allclose(taps[2], one.taps, atol=1e-6)


def test_inputs_that_do_not_excite_are_told(rng):
    system = lightly_damped(rng, 2, 1, 1)
    u = np.ones((1, 100))
    with pytest.warns(UserWarning, match="okid: the inputs do not excite all lags"):
        okid(Record(u, free_simulation(system, u)), 10)


def test_an_output_of_zero_has_a_response_of_zero(rng):
    assert not okid(Record(rng.standard_normal(80), np.zeros(80)), 10).taps.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order: expected 1 to 32 for records of .100. samples, got 0"),
        ({"order": 33}, "order: expected 1 to 32"),
        ({"max_order": 99}, "max_order: expected 1 to 32"),
        ({"length": 0}, "length: expected at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(rng, options, message):
    with pytest.raises(ValueError, match=message):
        okid(Record(rng.standard_normal(100), rng.standard_normal(100)), **options)


def test_what_has_no_response_is_refused(rng):
    with pytest.raises(ValueError, match="inputs: expected at least one, got a time series"):
        okid(Record(None, rng.standard_normal(100)))
    with pytest.raises(ValueError, match="expected more samples"):
        okid(Record(np.ones(3), np.ones(3)))
    with pytest.raises(TypeError, match="expected a Record or a list of them"):
        okid(rng.standard_normal(100))  # pyright: ignore


def test_a_steam_generator_is_realized(shared_data):
    import scipy.io

    data = scipy.io.loadmat(shared_data / "sysid" / "steamgen_dat.mat")["steamgen_dat"]
    record = Record(data[:2000, 1:5].T, data[:2000, 5:9].T, 3.0)
    found = okid(record, 200, max_order=20, center=True)
    assert found.taps.shape == (4, 4, 200)
    assert np.isfinite(found.taps).all()
