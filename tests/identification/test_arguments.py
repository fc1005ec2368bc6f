"""Every fit of samples takes its arguments in one way: what is wrong is refused in the same words, what is odd has the right result."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid

S = 1j * np.linspace(0.1, 10, 40)
FITS = {
    "aaa": ssmid.aaa,
    "vector_fitting": ssmid.vector_fitting,
    "loewner": ssmid.loewner,
    "rational_least_squares": ssmid.rational_least_squares,
    "frequency_subspace": ssmid.frequency_subspace,
    "rkfit": ssmid.rkfit,
}
WEIGHTED = sorted(set(FITS) - {"loewner"})
COUPLED = sorted(set(FITS) - {"rational_least_squares"})
SHARED = ["aaa", "vector_fitting", "rkfit"]
SEARCHING = sorted(set(COUPLED) - {"rkfit"})


def smooth(s=S):
    return (s + 3) / (s**2 + 0.2 * s + 4)


@pytest.fixture(params=list(FITS))
def fit(request):
    return FITS[request.param]


BATCH = np.stack([smooth(), 2 * smooth(), smooth()])
REFUSED = {
    "order 1000": (list(FITS), (S, smooth(), 1000), {}, "order: expected . to [0-9]+ for 40 .*, got 1000"),
    "order -1": (list(FITS), (S, smooth(), -1), {}, "order: expected . to [0-9]+ for 40 .*, got -1"),
    "order 2.5": (list(FITS), (S, smooth(), 2.5), {}, "order: expected . to [0-9]+ for 40 .*, got 2.5"),
    "order True": (list(FITS), (S, smooth(), True), {}, "order: expected . to [0-9]+ for 40 .*, got True"),
    "order in words": (list(FITS), (S, smooth(), "2"), {}, "order: expected . to [0-9]+ for 40 .*, got '2'"),
    "largest order 2.5": (SEARCHING, (S, smooth()), {"max_order": 2.5}, "max_order: expected . to [0-9]+ for 40 points, got 2.5"),
    "order and largest order": (SEARCHING, (S, smooth(), 2), {"max_order": 4}, r"expected order or max_order, got both \(2 and 4\)"),
    "order and tolerance": (
        ["aaa", "vector_fitting", "loewner"],
        (S, smooth(), 2),
        {"tol": 0.1},
        r"expected order or tol, got both \(2 and 0.1\)",
    ),
    "tolerance NaN": (["aaa", "vector_fitting", "loewner"], (S, smooth()), {"tol": np.nan}, "tol: expected a positive number, got nan"),
    "tolerance in words": (["aaa", "vector_fitting", "loewner"], (S, smooth()), {"tol": "x"}, "tol: expected a positive number, got 'x'"),
    "stable in words": (list(FITS), (S, smooth(), 2), {"stable": "maybe"}, "stable: expected False, True.*, got 'maybe'"),
    "few weights": (WEIGHTED, (S, smooth(), 2), {"weights": np.ones(7)}, r"weights: expected 40 positive numbers .*shape \(7,\)"),
    "one weight": (WEIGHTED, (S, smooth(), 2), {"weights": 2.0}, r"weights: expected 40 positive numbers .*shape \(\)"),
    "no weights": (WEIGHTED, (S, smooth(), 2), {"weights": np.zeros(40)}, "weights: expected 40 positive numbers .*got 0.0"),
    "weights NaN": (WEIGHTED, (S, smooth(), 2), {"weights": np.full(40, np.nan)}, "weights: expected 40 positive numbers .*got nan"),
    "weights infinite": (WEIGHTED, (S, smooth(), 2), {"weights": np.full(40, np.inf)}, "weights: expected 40 positive numbers .*got inf"),
    "weights complex": (WEIGHTED, (S, smooth(), 2), {"weights": np.full(40, 1j)}, "weights: expected 40 positive numbers .*got complex128"),
    "weights of others": (WEIGHTED, (S, BATCH, 2), {"weights": np.ones((2, 40))}, r"'weights': \(2, 40\), 'values': \(3, 40\)"),
    "weights of more": (WEIGHTED, (S, smooth(), 2), {"weights": np.ones((2, 40))}, r"weights: expected shape \(40,\) .*got \(2, 40\)"),
    "one axis of channels": (COUPLED, (S, BATCH, 2), {"mimo": True}, r"mimo: expected values .*got shape \(3, 40\)"),
    "no outputs": (COUPLED, (S, np.zeros((0, 2, 40)), 2), {"mimo": True}, r"mimo: expected values .*got shape \(0, 2, 40\)"),
    "shared 9": (SHARED, (S, BATCH, 2), {"shared": 9}, r"shared: expected 9 batch axes of channels, got shape \(3, 40\)"),
    "shared -1": (SHARED, (S, BATCH, 2), {"shared": -1}, "shared: expected a number of batch axes, got -1"),
    "shared and coupled": (SHARED, (S, BATCH[None], 2), {"shared": 1, "mimo": True}, "expected mimo=True or shared, got both"),
    "one point": (list(FITS), (np.full(9, 2j), np.ones(9), 1), {}, r"points: expected at least two different ones, got 9 times 2j"),
    "far apart": (list(FITS), (np.append(S, 1e300j), np.ones(41), 2), {}, r"points: expected moduli within a factor of 1e\+100"),
    "order beside a response": (list(FITS), (ssmid.frd(smooth(), S.imag), 2), {}, "expected a FrequencyResponse alone .*name order="),
    "one frequency": (list(FITS), (ssmid.frd([1.0], [1.0]),), {"order": 1}, "expected a FrequencyResponse of at least two points, got 1"),
    "unpaired poles": (
        ["vector_fitting", "rational_least_squares"],
        (S, smooth(), 2),
        {"poles": [-1 + 1j, -1 + 2j]},
        "poles: expected a set closed under conjugation",
    ),
    "poles of others": (
        ["vector_fitting", "rational_least_squares"],
        (S, BATCH, 2),
        {"poles": -np.ones((2, 2))},
        r"'poles': \(2,\), 'values': \(3,\)",
    ),
}


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, (names, *_) in REFUSED.items() for name in names])
def test_what_is_wrong_is_refused_in_the_same_words(case, name):
    _, data, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        FITS[name](*data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
def test_empty_batches_have_empty_results(fit, shape):
    found = fit(S, np.zeros((*shape, 40), complex), 2)
    assert found.error.shape == found.converged.shape == found.system.batch_shape == shape
    assert found.explain()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_spoil_one_element_only(fit, bad):
    points = np.stack([S, np.where(np.arange(40) == 3, bad, S), 2 * S])
    found = fit(points, smooth(np.stack([S, S, 2 * S])), 2)
    assert found.converged.tolist() == [True, False, True]
    assert found.stable.tolist() == [True, False, True]
    assert np.isnan(found.error[1])
    assert found.error[[0, 2]].max() < 1e-13


@pytest.mark.parametrize("values", [np.zeros(40), np.full(40, 2.0), np.full(40, -1e300), np.full(40, 1e-300)])
def test_constants_are_fitted(fit, values):
    assert float(fit(S, values, 1, stable=True).error) < 1e-12


@pytest.mark.parametrize(("unit", "size"), [(1e12, 1.0), (1e-12, 1.0), (1.0, 1e300), (1.0, 1e-300)])
def test_units_of_time_and_values_do_not_matter(fit, unit, size):
    found = fit(S * unit, smooth() * size, 2)
    assert float(found.error) < 1e-13
    np.testing.assert_allclose(np.linalg.eigvals(found.system.A) / unit, [-0.1 + 3.99**0.5 * 1j, -0.1 - 3.99**0.5 * 1j], rtol=1e-11)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("name", WEIGHTED)
def test_only_the_ratios_of_weights_matter(rng, name, scale):
    values, weights = smooth() + 1e-3 * rng.standard_normal(40), rng.uniform(1, 10, 40)
    first, second = (FITS[name](S, values, 2, weights=w) for w in (weights, scale * weights))
    np.testing.assert_allclose(second.error, first.error, rtol=1e-6)


@pytest.mark.parametrize("name", ["aaa", "vector_fitting", "frequency_subspace"])
def test_weights_of_coupled_channels_are_those_of_their_system(rng, name):
    values = np.stack([[smooth(), 2 * smooth()]] * 2)[:, None] + 1e-3 * rng.standard_normal((2, 1, 2, 40))
    weights = rng.uniform(1, 10, (2, 40))
    both = FITS[name](S, values, 2, weights=weights, mimo=True)
    for i in range(2):
        one = FITS[name](S, values[i], 2, weights=weights[i], mimo=True)
        np.testing.assert_allclose(both.error[i], one.error, rtol=1e-6)


def test_single_precision_stays_single(fit):
    found = fit(S.astype(np.complex64), smooth().astype(np.complex64), 2)
    assert found.system.A.dtype == np.float32
    assert float(found.error) < 1e-6


def test_integers_of_any_kind_are_orders_and_points_may_be_below_the_axis(fit):
    assert float(fit(-S, smooth(-S), np.int64(2)).error) < 1e-13


def test_unstable_models_are_told_where_the_fit_is_called(fit):
    with pytest.warns(UserWarning, match="the model is unstable; stable=True gives stable ones") as told:
        found = fit(S, 1 / (S - 1), 1, stable=False) if fit is not ssmid.vector_fitting else pytest.skip("says so in fit.stable")
    assert told[0].filename == __file__
    assert not found.stable
