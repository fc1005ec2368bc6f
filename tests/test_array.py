"""What users pass in: kinds, dtypes, precision, and messages that quote expected and got."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmid import _array


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [("int32", "float64"), ("uint8", "float64"), ("bool", "float64"), ("float16", "float32"), ("float32", "float32"),
     ("float64", "float64"), ("longdouble", "float64"), ("complex64", "complex64"), ("clongdouble", "complex128")],
)  # fmt: skip
def test_dtypes_become_the_four_of_the_numerics(given_dtype, expected):
    assert _array.as_array(np.ones(3, dtype=given_dtype), "x").dtype == expected


def test_bfloat16_becomes_float32():
    assert _array.as_array(torch.ones(3, dtype=torch.bfloat16), "x").dtype == torch.float32


@pytest.mark.parametrize("value", ["text", [[1, 2], [3]], [object()], np.array(["a"]), None])
def test_what_is_not_numbers_is_refused(value):
    with pytest.raises(ValueError, match=r"x: expected .* got"):
        _array.as_array(value, "x")


def test_lists_take_the_kind_of_their_neighbours(xp):
    first, second = _array.harmonize(a=xp.asarray(np.ones(3)), b=[1, 2, 3])
    assert xp.owns(first)
    assert xp.owns(second)


def test_kinds_do_not_mix():
    with pytest.raises(ValueError, match=r"expected arrays of one kind.*numpy.*torch"):
        _array.harmonize(a=np.ones(2), b=torch.ones(2))


def test_the_widest_precision_wins_and_real_stays_real():
    a, b = _array.harmonize(a=np.ones(2, "float32"), b=np.ones(2, "complex128"))
    assert (a.dtype, b.dtype) == ("float64", "complex128")


def test_a_single_system_with_nan_is_refused_with_its_index():
    with pytest.raises(ValueError, match=r"taps: expected finite numbers, got nan at index \(2,\)"):
        _array.check_finite(np.array([0, 1, np.nan]), "taps", 1)
    _array.check_finite(np.array([[np.nan]]), "taps", 1)


def test_finite_elements_over_a_batch(xp):
    x = np.zeros((3, 2, 2))
    x[1, 0, 1] = np.inf
    np.testing.assert_array_equal(xp.numpy(_array.finite_elements(xp.asarray(x), 2)), [True, False, True])


def test_host_round_trip_keeps_kind_and_width(xp, rng):
    x = xp.asarray(rng.standard_normal((4, 3, 3)), "float32")
    doubled, trace = _array.batched_on_host(lambda a: (2.0 * a.astype(float), np.trace(a)), x)
    assert xp.owns(doubled)
    assert _array.dtype_name(doubled) == "float32"
    np.testing.assert_array_equal(xp.numpy(doubled), 2 * xp.numpy(x))
    assert tuple(trace.shape) == (4,)


def test_fft_of_keeps_single_precision():
    x = np.random.default_rng(0).standard_normal(16).astype("float32")
    spectrum = _array.fft_of(x).rfft(x)
    assert spectrum.dtype == "complex64"
    np.testing.assert_allclose(spectrum, np.fft.rfft(x), rtol=1e-5)


def test_quiet_is_silent_and_compilers_look_through_it():
    inverse = _array.quiet(lambda x: 1 / x)
    assert np.isinf(inverse(np.zeros(1))).all()
    torch._dynamo.reset()
    x = torch.tensor([0.0, 2.0])
    assert torch.equal(torch.compile(inverse, backend="eager", fullgraph=True)(x), 1 / x)


def test_reversed_axes_of_length_one_reach_torch():
    assert _array.from_numpy(np.ones((3, 1))[:, ::-1], torch.ones(1)).shape == (3, 1)


@pytest.mark.parametrize("name", ["rfft", "irfft", "fft", "ifft"])
def test_transforms_of_empty_batches(xp, name):
    """Torch's raise "MKL FFT error: Inconsistent configuration parameters"."""
    given = np.zeros((0, 5), complex if name != "rfft" else float)
    expected = getattr(np.fft, name)(np.zeros((1, 5), given.dtype), 8)[:0]
    got = getattr(_array.fft_of(xp.asarray(given)), name)(xp.asarray(given), n=8)
    assert xp.owns(got)
    assert tuple(got.shape) == expected.shape
    assert _array.dtype_name(got) == expected.dtype.name
    beside = xp.asarray(np.ones(5, given.dtype))
    transform = getattr(_array.fft_of(beside, xp.asarray(given)), name)
    np.testing.assert_allclose(xp.numpy(transform(beside, n=8)), getattr(np.fft, name)(np.ones(5), 8), atol=1e-14)


def test_views_that_cannot_be_written_reach_torch_without_a_warning():
    found = _array.from_numpy(np.broadcast_to(np.ones(1), (3,)), torch.zeros(1))
    found[0] = 2.0
    assert found.tolist() == [2.0, 1.0, 1.0]
