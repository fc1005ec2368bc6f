"""Wrong input, of every kind a user can bring, through both doors.

Python: one ValueError that quotes what was expected and what came. Command line: exit status 2 and one line on the standard
error, no traceback. What is odd but not wrong (zeros, extreme scales, integers, strided arrays) gives the right result.
"""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.io.wavfile

import ssmid
from ssmid.cli import main
from ssmid.systems import SecondOrderSections

nan, inf = float("nan"), float("inf")
DECAY = 0.9 ** np.arange(60)
TWO_MODES = np.concatenate([[0.5], 0.8 ** np.arange(80) + (-0.5) ** np.arange(80)])


def stable(order: int = 4) -> ssmid.StateSpace:
    return ssmid.ss(np.diag(np.linspace(-0.5, 0.9, order)), np.ones((order, 1)), np.arange(1.0, order + 1)[None], 0.0)


def unstable() -> ssmid.StateSpace:
    return ssmid.ss(np.diag([1.1, 0.5]), np.ones((2, 1)), np.ones((1, 2)))


# ---------------------------------------------------------------- no systems

VERBS: dict[str, Callable[[Any], Any]] = {
    "poles": ssmid.poles, "norm": lambda s: ssmid.norm(s, "h2"), "hankel": ssmid.hankel_singular_values, "to_modal": ssmid.to_modal,
    "to_state_space": ssmid.to_state_space, "impulse": ssmid.impulse_response, "spectrum": lambda s: ssmid.frequency_response(s, [0.1]),
    "truncation": lambda s: ssmid.balanced_truncation(s, 1), "h2": lambda s: ssmid.h2_approximation(s, 1),
    "c2d": lambda s: ssmid.c2d(s, 1.0), "simulate": lambda s: ssmid.simulate(s, np.ones(4)), "gramians": ssmid.gramians,
    "series": lambda s: ssmid.series(s, s), "convert": lambda s: ssmid.convert(s, "modal"), "to_scipy": ssmid.to_scipy,
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_what_is_no_system_is_told_the_way_to_one(verb):
    import control
    import scipy.signal

    given = {
        "got StateSpace of control: ssmid.from_control makes one": control.ss(0.5, 1, 1, 0, 1),
        "got TransferFunctionDiscrete of scipy: ssmid.from_scipy makes one": scipy.signal.dlti([1], [1, -0.5]),
        r"got Reduction: take its \.system": ssmid.balanced_truncation(stable(), 1),
        r"got ndarray: wrap taps in ssmid.ImpulseResponse\(taps\)": DECAY,
    }
    for words, thing in given.items():
        with pytest.raises(TypeError, match=words):
            verb(thing)
    with pytest.raises(ValueError, match="filters: expected an array of numbers, got Reduction"):
        ssmid.distill(ssmid.balanced_truncation(stable(), 1), 1)


# ---------------------------------------------------------------- the Python door

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN in taps": (lambda: ssmid.ImpulseResponse([1.0, nan, nan]), r"taps: expected finite numbers, got nan at index \(1,\)"),
    "infinity in A": (lambda: ssmid.ss([[0.5, 0], [-inf, 0]], [1, 1], [1, 1]), r"A: expected finite numbers, got -inf at index \(1, 0\)"),
    "NaN in a numerator": (lambda: ssmid.tf([nan], [1, 0.5]), r"num: expected finite numbers, got nan at index \(0,\)"),
    "NaN in poles": (lambda: ssmid.zpk([], [0.1, nan], 1), r"poles: expected finite numbers, got nan.* at index \(1,\)"),
    "NaN in a gain": (lambda: ssmid.zpk([], [0.1], nan), r"gain: expected finite numbers, got nan at index \(\)"),
    "NaN in residues": (lambda: ssmid.Modal([0.5], [nan]), r"residues: expected finite numbers, got nan.* at index \(0,\)"),
    "infinity in a spectrum": (lambda: ssmid.frd([1.0, inf], [0, 1]), r"values: expected finite numbers, got inf.* at index \(1,\)"),
    "infinity in sections": (
        lambda: SecondOrderSections([[1, 0, inf, 1, 0, 0]]),
        r"sections: expected finite numbers, got inf at index \(0, 2\)",
    ),
    "NaN among frequencies": (lambda: ssmid.frequency_response(stable(), [0.1, nan]), "omega: expected finite frequencies, got nan"),
    "empty taps": (lambda: ssmid.ImpulseResponse([]), r"taps: expected at least one sample, got shape \(0,\)"),
    "an empty denominator": (lambda: ssmid.TransferFunction([1.0], []), r"den: expected at least one coefficient, got shape \(0,\)"),
    "an empty spectrum": (lambda: ssmid.frd([], []), r"expected one value for each frequency, got values \(0,\) and omega \(0,\)"),
    "taps that are a number": (lambda: ssmid.ImpulseResponse(3.0), r"taps: expected shape \(\*batch, length\), got \(\)"),
    "taps that are words": (lambda: ssmid.ImpulseResponse(["a", "b"]), "taps: expected an array of numbers, got dtype <U1"),
    "taps that are ragged": (lambda: ssmid.ImpulseResponse([[1.0], [1.0, 2.0]]), "taps: expected a rectangular array of numbers, got list"),
    "taps that are objects": (lambda: ssmid.ImpulseResponse(np.array([None, 1])), "taps: expected .*numbers, got dtype object"),
    "complex frequencies": (lambda: ssmid.frd([1.0], [1j]), "omega: expected real frequencies in rad/s, got dtype complex128"),
    "sections of complex poles": (
        lambda: ssmid.to_sos(ssmid.zpk([], [0.5j], 1.0)),
        "expected .*closed under conjugation .*got a complex system",
    ),
    "a sample time that is complex": (lambda: ssmid.ss(0.5, 1, 1, dt=1j), "dt: expected 0 .continuous., a positive sample time, .* got 1j"),
    "a negative sample time": (lambda: ssmid.ss(0.5, 1, 1, dt=-0.1), "dt: expected 0 .continuous., a positive sample time, .* got -0.1"),
    "matrices that do not fit": (
        lambda: ssmid.StateSpace(np.eye(2), np.ones((3, 1)), np.ones((1, 2))),
        r"expected matrices .*'B': \(2, 1\).* got .*'B': \(3, 1\)",
    ),
    "an A that is no square": (
        lambda: ssmid.StateSpace(np.ones((2, 3)), np.ones((3, 1)), np.ones((1, 3))),
        r"expected .*\(3, 3\).* got .*\(2, 3\)",
    ),
    "a vector for B": (
        lambda: ssmid.StateSpace(np.eye(2), np.ones(2), np.ones((1, 2))),
        r"B: expected shape \(\*batch, rows, columns\), got \(2,\)",
    ),
    "five columns of sections": (
        lambda: SecondOrderSections(np.ones((1, 5))),
        r"sections: expected shape \(\*batch, count, 6\), got \(1, 5\)",
    ),
    "residues for other poles": (
        lambda: ssmid.Modal([0.5, 0.1], [1.0]),
        r"expected as many residues as poles, got residues \(1,\) and poles \(2,\)",
    ),
    "batches that do not match": (
        lambda: ssmid.StateSpace(np.zeros((2, 1, 1)), np.ones((3, 1, 1)), np.ones((1, 1))),
        r"expected batch shapes that broadcast, got .*\(2,\).*\(3,\)",
    ),
    "NumPy with torch": (lambda: _mixed_kinds(), "expected arrays of one kind on one device, got .*numpy.*torch"),
    "sample times that differ": (
        lambda: ssmid.series(ssmid.ss(0.5, 1, 1, dt=1), ssmid.ss(0.5, 1, 1, dt=2)),
        r"expected systems of one sample time, got dt",
    ),
    "an improper transfer function": (lambda: ssmid.tf([1, 0, 0], [1, 0.5]), "expected a proper transfer function .* got degrees 2 and 1"),
    "more zeros than poles": (lambda: ssmid.zpk([0.1, 0.2], [0.5], 1), "expected a proper system .* got 2 zeros and 1 poles"),
    "a zero denominator": (lambda: ssmid.tf([1], [0, 0]), "den: expected a first coefficient that is not zero, got 0"),
    "a leading zero": (lambda: ssmid.TransferFunction([1.0], [0.0, 1.0]), "den: expected a first coefficient that is not zero, got 0"),
    "Hankel values of an unstable system": (lambda: ssmid.hankel_singular_values(unstable()), "expected a stable system, got"),
    "Gramians of an unstable system": (lambda: ssmid.gramians(unstable()), "expected a stable system, got"),
    "taps of a continuous system": (
        lambda: ssmid.impulse_response(ssmid.ss(-1, 1, 1, dt=0), 8),
        "expected a discrete-time system, got dt=0",
    ),
    "order 0 of a response": (
        lambda: ssmid.balanced_truncation(ssmid.ImpulseResponse(DECAY), 0),
        "order: expected .*(positive|1 to).*, got 0",
    ),
    "order 0 of a system": (lambda: ssmid.balanced_truncation(stable(), 0), "order: expected .*(positive|1 to 4).*, got 0"),
    "order 0 of era": (lambda: ssmid.era(ssmid.ImpulseResponse(DECAY), 0), "order: expected .*(positive|1 to).*, got 0"),
    "a fractional order": (lambda: ssmid.balanced_truncation(stable(), 1.5), "order: expected .*got 1.5"),  # pyright: ignore[reportArgumentType]
    "an order above the states": (lambda: ssmid.balanced_truncation(stable(), 5), "order: expected 1 to 4.*, got 5"),
    "an order above the taps": (
        lambda: ssmid.balanced_truncation(ssmid.ImpulseResponse([0.0, 1, 2]), 3),
        "order: expected 1 to 2.*, got 3",
    ),
    "an order above the rank": (lambda: ssmid.era(ssmid.ImpulseResponse(TWO_MODES), 9), "order: expected 1 to 2.* got 9"),
    "neither order nor tol": (lambda: ssmid.balanced_truncation(stable()), "expected either order or tol, got order=None and tol=None"),
    "both order and tol": (
        lambda: ssmid.balanced_truncation(stable(), 2, tol=0.1),
        "expected either order or tol, got order=2 and tol=0.1",
    ),
    "a negative tolerance": (lambda: ssmid.balanced_truncation(stable(), tol=-1e-3), "tol: expected .*got -0.001"),
    "a negative tolerance for taps": (lambda: ssmid.balanced_truncation(ssmid.ImpulseResponse(DECAY), tol=-1.0), "tol: expected .*got -1"),
    "a tolerance that is NaN": (lambda: ssmid.balanced_truncation(ssmid.ImpulseResponse(DECAY), tol=nan), "tol: expected .*got nan"),
    "a negative tolerance for era": (lambda: ssmid.era(ssmid.ImpulseResponse(DECAY), tol=-1.0), "tol: expected .*got -1"),
    "a count below one": (lambda: ssmid.hankel_singular_values(ssmid.ImpulseResponse(DECAY), 0), "count: expected .*got 0"),
    "a length below one": (lambda: ssmid.impulse_response(stable(), 0), "length: expected .*got 0"),
    "an unknown norm": (lambda: ssmid.norm(stable(), "h7"), "expected .*h2.*got 'h7'"),
}


def _mixed_kinds() -> ssmid.ImpulseResponse:
    torch = pytest.importorskip("torch")
    return ssmid.StateSpace(np.eye(1), torch.ones(1, 1), np.eye(1))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("case", REFUSED)
def test_python_refuses(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value), "one line"


@pytest.mark.parametrize(
    "verb",
    ["balanced_truncation", "era", "hankel_singular_values", "to_modal", "to_state_space", "poles", "norm", "impulse_response"],
)
def test_a_bare_array_is_not_a_system(verb):
    with pytest.raises(TypeError, match=r"expected an? \w+.* got ndarray"):
        getattr(ssmid, verb)(DECAY, *{"norm": ["h2"], "impulse_response": [4], "balanced_truncation": [2], "era": [2]}.get(verb, []))


# ---------------------------------------------------------------- odd, but not wrong


@pytest.mark.parametrize("how", [{"order": 3}, {"tol": 1e-3}], ids=["order", "tol"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_zero_is_order_0_and_keeps_tap_0(how, dtype):
    for taps in (np.zeros(20, dtype), np.eye(1, 20, dtype=dtype)[0]):
        fit = ssmid.balanced_truncation(ssmid.ImpulseResponse(taps), **how)
        assert np.max(fit.order) == 0
        assert bool(fit.converged)
        np.testing.assert_array_equal(ssmid.impulse_response(fit.system, 20).taps, taps)


@pytest.mark.parametrize("how", [{"order": 1}, {"tol": 1e-3}], ids=["order", "tol"])
def test_one_sample_is_a_gain(how):
    fit = ssmid.balanced_truncation(ssmid.ImpulseResponse([3.0]), **how)
    assert np.max(fit.order) == 0
    np.testing.assert_array_equal(ssmid.impulse_response(fit.system, 3).taps, [3, 0, 0])


def test_constants_have_a_stable_model():
    fit = ssmid.balanced_truncation(ssmid.ImpulseResponse(np.ones(64)), 4)
    assert bool(fit.converged)
    assert np.abs(ssmid.poles(fit.system)).max() < 1
    assert float(fit.lower_bound) <= float(fit.measured("hankel")) * (1 + 1e-9) <= float(fit.bound) * (1 + 2e-9)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_extreme_scales_change_nothing_but_the_scale(scale):
    plain, scaled = (ssmid.balanced_truncation(ssmid.ImpulseResponse(s * TWO_MODES), 1) for s in (1.0, scale))
    np.testing.assert_allclose(scaled.sigma / scale, plain.sigma, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ssmid.poles(scaled.system), ssmid.poles(plain.system), rtol=1e-9)
    np.testing.assert_allclose(float(scaled.error), float(plain.error), rtol=1e-9)
    expected = ssmid.impulse_response(plain.system, 40).taps
    np.testing.assert_allclose(ssmid.impulse_response(scaled.system, 40).taps / scale, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_extreme_scales_of_matrices(scale):
    base, model = stable(), stable()
    scaled = ssmid.StateSpace(model.A, model.B * scale, model.C, model.D)
    for s, factor in ((base, 1.0), (scaled, scale)):
        fit = ssmid.balanced_truncation(s, 2)
        np.testing.assert_allclose(fit.sigma / factor, ssmid.hankel_singular_values(base), rtol=1e-8, atol=1e-10)
        assert np.isfinite(ssmid.impulse_response(fit.system, 10).taps).all()


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "bool", "float16", "longdouble"])
def test_other_dtypes_are_taken_as_the_numbers_they_are(dtype):
    taps = np.array([1, 1, 0, 1, 1, 0, 0, 1]).astype(dtype)
    expected = ssmid.hankel_singular_values(ssmid.ImpulseResponse(taps.astype(float)))
    got = ssmid.hankel_singular_values(ssmid.ImpulseResponse(taps))
    assert got.dtype == ("float32" if dtype == "float16" else "float64")
    np.testing.assert_allclose(got, expected, rtol=1e-6 if dtype == "float16" else 1e-12, atol=1e-6 if dtype == "float16" else 1e-12)


@pytest.mark.parametrize("make", ["strided", "reversed", "fortran", "read-only", "big-endian"])
def test_how_an_array_lies_in_memory_does_not_matter(make):
    bank = np.stack([TWO_MODES, TWO_MODES[::-1], np.cos(TWO_MODES)])
    odd = {
        "strided": np.repeat(bank, 2, axis=1)[:, ::2], "reversed": bank[:, ::-1].copy()[:, ::-1], "fortran": np.asfortranarray(bank),
        "read-only": bank.copy(), "big-endian": bank.astype(">f8"),
    }[make]  # fmt: skip
    odd.flags.writeable = make != "read-only"
    before = odd.copy()
    got, expected = (ssmid.balanced_truncation(ssmid.ImpulseResponse(b), 2) for b in (odd, bank))
    np.testing.assert_array_equal(got.sigma, expected.sigma)
    np.testing.assert_array_equal(ssmid.impulse_response(got.system, 30).taps, ssmid.impulse_response(expected.system, 30).taps)
    np.testing.assert_array_equal(odd, before)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("name", ["balanced_truncation", "era"])
def test_one_bad_filter_is_reported_for_itself(bad, name):
    verb = getattr(ssmid, name)
    bank = np.stack([TWO_MODES, TWO_MODES, 0.7 ** np.arange(81), np.zeros(81)])
    bank[1, 7] = bad
    fit = verb(ssmid.ImpulseResponse(bank), 1)
    np.testing.assert_array_equal(fit.converged, [True, False, True, True])
    assert np.isnan(fit.error[1])
    assert np.isnan(fit.sigma[1]).all()
    for i in (0, 2):
        alone = verb(ssmid.ImpulseResponse(bank[i]), 1)
        np.testing.assert_allclose(fit.error[i], alone.error, rtol=1e-9, atol=1e-14)
        together = ssmid.impulse_response(fit.system, 81).taps[i]
        np.testing.assert_allclose(together, ssmid.impulse_response(alone.system, 81).taps, atol=1e-12)


def test_one_bad_model_in_a_batch_of_matrices():
    A = np.stack([np.diag([0.5, 0.2]), np.full((2, 2), nan), np.diag([-0.5, 0.1])])
    fit = ssmid.balanced_truncation(ssmid.StateSpace(A, np.ones((2, 1)), np.ones((1, 2))), 1)
    np.testing.assert_array_equal(fit.converged, [True, False, True])
    assert np.isfinite(fit.error[[0, 2]]).all()
    assert np.isnan(fit.error[1])


# ---------------------------------------------------------------- files, through both doors


def _npy(path: Path, array: Any) -> None:
    np.save(path, np.asarray(array))


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _wav(path: Path, cut: int = 0) -> None:
    scipy.io.wavfile.write(path, 8000, (8000 * DECAY).astype(np.int16))
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - cut])


def _mat(path: Path, cut: int | None = None, **matrices: Any) -> None:
    scipy.io.savemat(path, matrices)
    path.write_bytes(path.read_bytes()[:cut])


def _torch(path: Path) -> None:
    pytest.importorskip("torch").save({"w": DECAY}, path)


def _tensors(path: Path, cut: int) -> None:
    from safetensors.numpy import save

    path.write_bytes(save({"h": DECAY})[:-cut])


class Exploding:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no such file": ("x.wav", lambda p: None, "expected a file that can be opened, got: No such file or directory"),
    "a folder": ("x.npy", lambda p: p.mkdir(), "expected a file that can be opened, got: Is a directory"),
    "an unknown suffix": ("x.doc", lambda p: p.write_text("1\n"), r"expected a file of kind \.wav .*, got \.doc"),
    "no suffix": ("x", lambda p: p.write_text("1\n"), r"expected a file of kind \.wav .*, got no suffix"),
    "an empty wav": ("x.wav", lambda p: p.write_bytes(b""), "expected WAV data, got an empty file"),
    "a truncated wav": ("x.wav", lambda p: _wav(p, 20), "expected WAV data, got a damaged or truncated file .*Reached EOF"),
    "a wav cut in its header": ("x.wav", lambda p: _wav(p, 140), "expected WAV data, got a damaged or truncated file"),
    "a wav without samples": (
        "x.wav",
        lambda p: scipy.io.wavfile.write(p, 8000, np.zeros(0, np.int16)),
        r"taps: expected at least one sample, got shape \(0,\)",
    ),
    "text under a wav's name": ("x.wav", lambda p: p.write_text("1,2,3\n"), "expected WAV data, got bytes that begin with b'1,2,3"),
    "an array under a wav's name": (
        "x.wav",
        lambda p: p.write_bytes(_npy_bytes(DECAY)),
        "expected WAV data, as the file's name says, got NPY data",
    ),
    "a wav under an array's name": ("x.npy", _wav, "expected NPY data, as the file's name says, got WAV data"),
    "a truncated array": (
        "x.npy",
        lambda p: p.write_bytes(_npy_bytes(DECAY)[:-9]),
        "expected NPY data, got a damaged or truncated file",
    ),
    "an array of objects": (
        "x.npy",
        lambda p: np.save(p, np.array([Exploding()], object), allow_pickle=True),
        "expected arrays of numbers, got pickled objects .never unpickled",
    ),
    "objects in an archive": (
        "x.npz",
        lambda p: np.savez(p, h=np.array([Exploding()] * 3, object)),
        "expected arrays of numbers, got pickled objects .never unpickled",
    ),
    "a truncated archive": (
        "x.npz",
        lambda p: (np.savez(p, h=DECAY), p.write_bytes(p.read_bytes()[:-30])),
        "expected NPZ data, got a damaged or truncated file",
    ),
    "an archive without arrays": ("x.npz", lambda p: np.savez(p, n=3), r"expected one array, or key= to choose one, got none in \['n'\]"),
    "several arrays and no key": (
        "x.npz",
        lambda p: np.savez(p, a=DECAY, b=DECAY),
        r"expected one array, or key= to choose one, got a \(60,\), b \(60,\)",
    ),
    "a pickle under a tensor file's name": (
        "x.safetensors",
        lambda p: p.write_bytes(pickle.dumps(Exploding())),
        "expected safetensors data, got a pickle .never unpickled",
    ),
    "a pickle under an array's name": (
        "x.npy",
        lambda p: p.write_bytes(pickle.dumps(Exploding())),
        "expected NPY data, got a pickle .never unpickled",
    ),
    "a checkpoint under an archive's name": ("x.npz", _torch, "expected NPZ data, got a pickle .never unpickled"),
    "a checkpoint": ("x.pt", _torch, r"expected a tensor file .*, got a pickle format \.pt .*safetensors"),
    "a pickle": ("x.pkl", lambda p: p.write_bytes(pickle.dumps(Exploding())), r"expected a tensor file .*, got a pickle format \.pkl"),
    "a truncated tensor file": ("x.safetensors", lambda p: _tensors(p, 8), "expected safetensors data, got a damaged or truncated file"),
    "a truncated mat": ("x.mat", lambda p: _mat(p, 300, h=DECAY), "expected MAT .* data, got a damaged or truncated file"),
    "a mat of version 7.3": (
        "x.mat",
        lambda p: p.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(600)),
        "expected MAT data, as the file's name says, got HDF5 data",
    ),
    "matrices that do not fit": (
        "x.mat",
        lambda p: _mat(p, A=np.eye(2), B=np.ones((3, 1)), C=np.ones((1, 2))),
        r"expected matrices .* got",
    ),
    "words in a csv": (
        "x.csv",
        lambda p: p.write_text("1,2\n3,four\n"),
        "expected rows of equally many numbers, got: could not convert string 'four'",
    ),
    "a ragged csv": (
        "x.csv",
        lambda p: p.write_text("1,2\n3\n"),
        "expected rows of equally many numbers, got: the number of columns changed from 2 to 1",
    ),
    "a csv with a header alone": ("x.csv", lambda p: p.write_text("t,h\n"), "expected rows of numbers, got a header alone"),
    "an empty csv": ("x.csv", lambda p: p.write_text("\n\n"), "expected rows of numbers, got none"),
    "NaN in a csv": ("x.csv", lambda p: p.write_text("1\n2\nnan\n"), r"taps: expected finite numbers, got nan at index \(2,\)"),
    "infinity in an array": ("x.npy", lambda p: _npy(p, [0.0, inf]), r"taps: expected finite numbers, got inf at index \(1,\)"),
    "an empty array": ("x.npy", lambda p: _npy(p, []), r"taps: expected at least one sample, got shape \(0,\)"),
    "an array of words": ("x.npy", lambda p: _npy(p, ["a"]), "taps: expected .*numbers, got dtype <U1"),
    "a number": ("x.npy", lambda p: _npy(p, 3.0), r"expected an array of at least one axis .*, got a single number"),
    "a damaged network": (
        "x.s2p",
        lambda p: p.write_text("# Hz S RI\n1 2 3\n"),
        "line 2: expected 9 numbers for a frequency of 2 ports, got 3",
    ),
    "JSON of somebody else": ("x.json", lambda p: p.write_text('{"a": 1}'), r"expected a model written by ssmid\.save, got other JSON"),
    "truncated JSON": ("x.json", lambda p: p.write_text('{"a": '), "expected JSON data, got a damaged or truncated file"),
}


@pytest.mark.parametrize("case", FILES)
def test_read_refuses(tmp_path, case):
    name, make, message = FILES[case]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        ssmid.read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def assert_refused(capsys, arguments: list[str], message: str) -> None:
    status = main(arguments)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("ssmid: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert re.search(message, err), err


@pytest.mark.parametrize("command", ["inspect", "fit", "convert"])
@pytest.mark.parametrize("case", FILES)
def test_the_command_line_refuses_files(tmp_path, capsys, monkeypatch, case, command):
    monkeypatch.chdir(tmp_path)
    name, make, message = FILES[case]
    make(tmp_path / name)
    options = {"inspect": [], "fit": ["--order", "2", "-o", "out"], "convert": ["out.json", "--to", "modal"]}[command]
    assert_refused(capsys, [command, name, *options], message)
    assert not list(tmp_path.glob("out*")), "nothing is written for a file that cannot be read"


ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "no order": (["fit", "h.npy"], "expected --order or --tol, got neither"),
    "order and tolerance": (["fit", "h.npy", "--order", "2", "--tol", "0.1"], "expected --order or --tol, got both"),
    "order 0": (["fit", "h.npy", "--order", "0"], "order: expected .*(positive|1 to).*, got 0"),
    "an order above the data": (["fit", "h.npy", "--order", "80"], "order: expected 1 to [0-9]+.*, got 80"),
    "an order in words": (["fit", "h.npy", "--order", "two"], "Invalid value for '--order': .*integer"),
    "a negative tolerance": (["fit", "h.npy", "--tol", "-1"], "tol: expected .*got -1"),
    "an unknown method": (
        ["fit", "h.npy", "--order", "2", "--method", "magic"],
        "method: expected one of balanced, .*era, .*aaa, .*n4sid, .*, got 'magic'",
    ),
    "a file for a folder": (["fit", "h.npy", "--order", "2", "-o", "h.npy"], "h.npy: expected a folder, got a file"),
    "a channel that is not there": (
        ["inspect", "h.npy", "--channel", "7"],
        r"channel: expected an index within the channels' shape \(2,\), got",
    ),
    "a channel in words": (["inspect", "h.npy", "--channel", "left"], "--channel: expected whole numbers such as 3 or 0,2, got 'left'"),
    "a count of none": (["inspect", "h.npy", "--count", "0"], "count: expected a whole number of at least 1, got 0"),
    "no sampling frequency": (["inspect", "h.npy", "--fs", "0"], "fs: expected a positive sampling frequency in Hz, got 0"),
    "a channel that does not couple": (
        ["fit", "h.npy", "--order", "2", "--mimo", "--channel", "0"],
        "--mimo: expected several channels to couple, got one: leave it out",
    ),
    "a one-port that does not couple": (["fit", "s.s1p", "--mimo"], "--mimo: expected several channels to couple, got one"),
    "one channel to be looked at coupled": (["inspect", "h.npy", "--channel", "0", "--mimo"], "--mimo: expected several channels"),
    "an order above the samples": (["fit", "s.s1p", "--order", "2"], "order: expected 0 to 1 for 2 points, got 2"),
    "samples for a method of taps": (
        ["fit", "s.s1p", "--order", "1", "--method", "era"],
        "method era: expected an impulse response, got a frequency response; methods for that: aaa, ",
    ),
    "an unknown form": (["convert", "m.json", "o.json", "--to", "prose"], "--to: expected one of .*modal, .*, got 'prose'"),
    "an unknown suffix to write": (
        ["convert", "m.json", "o.xyz", "--to", "modal"],
        "o.xyz: expected the suffix .safetensors or .json for a model",
    ),
    "no length": (
        ["convert", "m.json", "o.json", "--to", "impulse-response"],
        "length: expected a number of taps for a StateSpace, got None",
    ),
    "a length that means nothing": (
        ["convert", "m.json", "o.json", "--to", "modal", "--length", "8"],
        "--length: expected none for --to modal, got 8",
    ),
    "a folder that is not there": (
        ["convert", "m.json", "no/o.json", "--to", "modal"],
        "no/o.json: expected a file that can be opened, got: No such file",
    ),
    "Hankel values of an unstable model": (["fit", "u.json", "--order", "9"], "order: expected .*got 9"),
    "an unknown benchmark": (["bench", "everything"], "benchmark: expected one of core.*, got 'everything'"),
    "an unknown command": (["distil", "h.npy"], "No such command 'distil'"),
    "an unknown option": (["fit", "h.npy", "--rank", "3"], "No such option: --rank"),
    "no file": (["inspect"], "Missing argument 'FILE'"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_the_command_line_refuses_arguments(tmp_path, capsys, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    np.save("h.npy", np.stack([0.9 ** np.arange(61), 0.5 ** np.arange(61)]))
    Path("s.s1p").write_text("# Hz S RI\n1 0.5 0\n2 0.25 0\n")
    ssmid.save(stable(), "m.json")
    ssmid.save(unstable(), "u.json")
    arguments, message = ARGUMENTS[case]
    before = sorted(tmp_path.iterdir())
    assert_refused(capsys, arguments, message)
    assert sorted(tmp_path.iterdir()) == before, "nothing is left behind"


def test_the_program_itself_says_one_line_and_no_traceback(tmp_path):
    command = [sys.executable, "-c", "import sys, ssmid.cli; sys.exit(ssmid.cli.main())", "inspect", str(tmp_path / "none.wav")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    expected = f"ssmid: {tmp_path / 'none.wav'}: expected a file that can be opened, got: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
