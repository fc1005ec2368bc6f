"""The state a record starts from: exact without noise, least squares with it, whatever the kind, scale or number of channels."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid
from ssmid.identification.initial_state import estimate_initial_state, free_simulation
from ssmid.identification.least_squares import least_squares
from ssmid.identification.record import Record


def stable_system(rng, n, p, m, *batch, radius=0.95):
    A = rng.standard_normal((*batch, n, n))
    A = radius * A / np.abs(np.linalg.eigvals(A)).max(-1)[..., None, None]
    return ssmid.StateSpace(
        A, rng.standard_normal((*batch, n, m)), rng.standard_normal((*batch, p, n)), rng.standard_normal((*batch, p, m)), dt=0.1
    )


def stepped(system, u, x):
    """Outputs by the definition, one sample at a time."""
    y = []
    for t in range(u.shape[-1]):
        y.append(system.C @ x + system.D @ u[:, t])
        x = system.A @ x + system.B @ u[:, t]
    return np.stack(y, -1)


@pytest.mark.parametrize(("n", "p", "m"), [(1, 1, 1), (4, 1, 1), (5, 3, 2), (3, 1, 2), (4, 2, 0), (30, 2, 1)])
def test_the_state_of_a_simulated_record_is_found(rng, n, p, m):
    system, u, x = stable_system(rng, n, p, m), rng.standard_normal((m, 150)), rng.standard_normal(n)
    record = Record(u, stepped(system, u, x), dt=0.1)
    np.testing.assert_allclose(free_simulation(system, u, x), record.outputs, atol=1e-11 * np.abs(record.outputs).max())
    found = estimate_initial_state(system, record)
    np.testing.assert_allclose(free_simulation(system, u, found), record.outputs, atol=1e-11 * np.abs(record.outputs).max())
    if n < 30:
        np.testing.assert_allclose(found, x, atol=1e-9)


def test_it_is_the_least_squares_solution_of_noisy_outputs(rng):
    system, u = stable_system(rng, 3, 2, 1), rng.standard_normal((1, 60))
    y = stepped(system, u, np.zeros(3)) + rng.standard_normal((2, 60))
    free = np.stack([system.C @ np.linalg.matrix_power(system.A, t) for t in range(60)])
    expected = np.linalg.lstsq(free.reshape(-1, 3), (y - stepped(system, u, np.zeros(3))).T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(estimate_initial_state(system, Record(u, y, 0.1)), expected, atol=1e-12)


def test_kind_and_width_are_kept_and_a_batch_equals_a_loop(xp, rng):
    system, u, x = stable_system(rng, 3, 2, 2, 4), rng.standard_normal((4, 2, 50)), rng.standard_normal((4, 3))
    y = np.stack([stepped(system.map(lambda a, i=i: a[i]), u[i], x[i]) for i in range(4)])
    y[1, 0, 7] = np.nan
    moved = system.map(lambda a: xp.asarray(a, "float32"))
    found = estimate_initial_state(moved, Record(xp.asarray(u, "float32"), xp.asarray(y, "float32"), 0.1))
    assert xp.owns(found)
    assert str(found.dtype).endswith("float32")
    values = xp.numpy(found)
    assert np.isnan(values[1]).all()
    np.testing.assert_allclose(values[[0, 2, 3]], x[[0, 2, 3]], atol=1e-4)


def test_one_system_on_many_records_and_many_systems_on_one(rng):
    system, u = stable_system(rng, 2, 1, 1, 3), rng.standard_normal((1, 40))
    one = system.map(lambda a: a[0])
    records = Record(np.broadcast_to(u, (3, 1, 40)), rng.standard_normal((3, 1, 40)), 0.1)
    assert estimate_initial_state(one, records).shape == (3, 2)
    single = Record(u, records.outputs[0], 0.1)
    np.testing.assert_allclose(estimate_initial_state(system, single)[0], estimate_initial_state(one, single), atol=1e-13)


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e200])
def test_results_scale_with_the_record(rng, scale):
    system, u, x = stable_system(rng, 3, 1, 1), rng.standard_normal((1, 60)), rng.standard_normal(3)
    y = stepped(system, u, x)
    found = estimate_initial_state(system, Record(u * scale, y * scale, 0.1))
    np.testing.assert_allclose(found / scale, x, atol=1e-10)


def test_states_that_the_outputs_do_not_show_are_zero():
    system = ssmid.StateSpace(np.diag([0.9, 0.5]), np.ones((2, 1)), np.array([[1.0, 0.0]]))
    record = Record(np.zeros((1, 30)), 0.9 ** np.arange(30)[None])
    np.testing.assert_allclose(estimate_initial_state(system, record), [1.0, 0.0], atol=1e-14)


def test_a_motion_that_overflows_gives_nan():
    system = ssmid.StateSpace(np.array([[1e30]]), np.ones((1, 1)), np.ones((1, 1)))
    assert np.isnan(estimate_initial_state(system, Record(np.ones(50), np.ones(50)))).all()


def test_least_squares_reports_the_condition_of_scaled_columns(rng):
    columns = rng.standard_normal((50, 3))
    x, condition = least_squares(columns * np.array([1e-200, 1, 1e150]), columns @ np.ones((3, 1)))
    unit = columns / np.linalg.norm(columns, axis=0)
    np.testing.assert_allclose(x[:, 0], [1e200, 1, 1e-150], rtol=1e-12)
    assert condition == pytest.approx(np.linalg.cond(unit))
    assert least_squares(np.ones((5, 2)), np.ones((5, 1)))[1] > 1e15


def test_what_does_not_fit_is_refused(rng):
    system, record = stable_system(rng, 2, 1, 1), Record(np.ones(20), np.ones(20), 0.1)
    with pytest.raises(TypeError, match="expected a StateSpace, got TransferFunction"):
        estimate_initial_state(ssmid.tf([1.0], [1.0, 0.5]), record)  # pyright: ignore
    with pytest.raises(TypeError, match="expected a Record, got ndarray"):
        estimate_initial_state(system, np.ones(20))  # pyright: ignore
    with pytest.raises(ValueError, match="expected a record of 1 outputs and 1 inputs, got 2 and 1"):
        estimate_initial_state(system, Record(np.ones(20), np.ones((2, 20)), 0.1))
    with pytest.raises(ValueError, match=r"sample time of the system, 0.1, got 0.2"):
        estimate_initial_state(system, Record(np.ones(20), np.ones(20), 0.2))
