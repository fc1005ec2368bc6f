"""Comparisons: the same errors as anyone may measure, refusals as rows, the picture."""

from __future__ import annotations

from functools import partial

import matplotlib
import numpy as np
import pytest
import scipy.sparse

matplotlib.use("Agg")

from ssmid import (
    ImpulseResponse,
    SparseStateSpace,
    StateSpace,
    balanced_truncation,
    compare,
    era,
    frequency_limited_truncation,
    hankel_singular_values,
    norm,
    plot,
    ss,
    time_limited_truncation,
)
from ssmid.datasets import heat
from tests.analysis.test_hinf import benchmark
from tests.reduction.test_balanced import random_system
from tests.systems.test_sparse import grid

NAMES = ["balanced", "singular perturbation", "hankel", "h2", "irka", "modal", "stochastic"]


@pytest.mark.parametrize("discrete", [False, True])
def test_every_method_by_name(rng, discrete):
    system = random_system(rng, discrete, 9, 2, 2)
    system = StateSpace(system.A, system.B, system.C, dt=system.dt)
    found = compare(system, [2, 5])
    assert [(row.method, row.order) for row in found] == [(name, order) for name in NAMES for order in (2, 5)]
    sigma = hankel_singular_values(system)
    for row in found:
        assert not row.failure
        assert row.stable
        result = found.results[row.method, row.order]
        assert row.states == result.system.order
        np.testing.assert_allclose(row.hinf, result.measured("hinf") / norm(system, "hinf"), rtol=1e-5)
        np.testing.assert_allclose(row.h2, result.error, rtol=1e-5)
        assert row.ratio >= 1 - 1e-6
        np.testing.assert_allclose(row.ratio, row.hankel * sigma[0] / sigma[row.states], rtol=1e-6)
        assert row.seconds > 0
    for order in (2, 5):
        assert found.best(order, "hankel").method == "hankel"
        assert found.best(order).method in ("h2", "irka")
        np.testing.assert_allclose(found.best(order, "hankel").ratio, 1.0, rtol=1e-3)


def test_taps_and_functions(rng):
    taps = ImpulseResponse(rng.standard_normal(60) * 0.9 ** np.arange(60))
    found = compare(taps, 4, ["balanced", "hankel", era, partial(balanced_truncation, match_dc=True)])
    assert [row.method for row in found] == ["balanced", "hankel", "era", "balanced_truncation"]
    np.testing.assert_allclose(found.best(4, "hankel").ratio, 1.0, rtol=1e-2)
    np.testing.assert_allclose(found.results["balanced", 4].error, found.rows[0].h2, rtol=1e-9)
    assert {row.method for row in compare(taps, [2])} == {"balanced", "hankel", "h2"}


def test_a_sparse_system():
    system = grid(19)
    found = compare(system, [3, 5], ["balanced", "irka"])
    assert found.original is system
    np.testing.assert_allclose(found.rows[0].h2, balanced_truncation(system, 3).error, rtol=1e-8)
    assert found.best(3).method == "irka"
    small = SparseStateSpace(scipy.sparse.diags_array([-1.0, -2.0]), np.ones((2, 1)), np.ones((1, 2)))
    assert compare(small, 1, ["modal"]).rows[0].stable


def test_refusals_are_rows():
    found = compare(heat(30), [4, 30], ["balanced", "modal"])
    assert [bool(row.failure) for row in found] == [False, True, False, True]
    assert np.isnan(found.rows[1].h2)
    text = found.table()
    assert len(text.splitlines()) == 1 + 4 + 2
    assert "balanced, order 30: order: expected 1 to" in text
    assert text.splitlines()[0].split() == ["method", "order", "H2", "H-infinity", "Hankel", "/", "bound", "seconds", "stable"]
    with pytest.raises(ValueError, match=r"order: expected one of \[4, 30\] with a stable result, got 30"):
        found.best(30)


def test_unstable_results_say_so():
    system = ss(np.array([[-1.0, 0.0], [1.0, -1.2]]), [1.0, 0.0], [0.0, 1.0], dt=0)
    methods = {"early": partial(time_limited_truncation, end=0.5), "slow": partial(frequency_limited_truncation, band=(0, 1.0))}
    found = compare(system, 1, methods)
    assert [row.method for row in found] == ["early", "slow"]
    assert [row.stable for row in found] == [False, True]
    assert np.isinf(found.rows[0].hankel)
    assert " no" in found.table().splitlines()[1]
    plot.comparison(found)


def test_the_picture(shared_data):
    found = compare(benchmark(shared_data, "build"), [4, 8, 12], ["balanced", "hankel", "irka"])
    ax = plot.comparison(found)
    curves = {line.get_label(): line for line in ax.get_lines()}
    assert list(curves) == ["balanced", "hankel", "irka", r"lower bound $\sigma_{r+1}$"]
    np.testing.assert_array_equal(curves["balanced"].get_xdata(), [4, 8, 12])
    bound = dict(zip(*curves[r"lower bound $\sigma_{r+1}$"].get_data(), strict=True))
    for name in ("balanced", "hankel", "irka"):
        for order, error in zip(*curves[name].get_data(), strict=True):
            assert error >= bound[order] * (1 - 1e-3)
    assert len(plot.comparison(found, "h2").get_lines()) == 3
    assert plot.comparison(found, "hinf", ax=ax) is ax
    with pytest.raises(ValueError, match='kind: expected "hankel", "hinf" or "h2", got'):
        plot.comparison(found, "l1")


def test_bad_input(rng):
    system = random_system(rng, False, 4, 1, 1)
    with pytest.raises(ValueError, match=r"methods: expected functions or some of balanced, .* got 'magic'"):
        compare(system, 2, ["magic"])
    with pytest.raises(ValueError, match="orders: expected at least one, got none"):
        compare(system, [])
    with pytest.raises(ValueError, match=r"expected a single system, got a batch \(2,\)"):
        compare(random_system(rng, False, 4, 1, 1, batch=(2,)), 2)
    with pytest.raises(ValueError, match="expected a stable system"):
        compare(ss(0.5, 1, 1, dt=0), 1)
    with pytest.raises(TypeError, match="expected a System"):
        compare([1.0, 2.0], 1)  # pyright: ignore
    with pytest.raises(ValueError, match="kind: expected 'h2', 'hinf' or 'hankel', got 'l1'"):
        compare(system, 2, ["balanced"]).best(2, "l1")
