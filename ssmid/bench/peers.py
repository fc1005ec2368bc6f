"""The other tools, each behind a function of NumPy matrices: pyMOR, SLICOT's Fortran through slycot, python-control, SciPy loops.

Each function calls its tool as its own documentation does and returns a ``StateSpace`` or an array. Nothing is cached between
calls: pyMOR keeps Gramians with a model, so every call makes a new model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.signal
import scipy.sparse

from ssmid.systems import ImpulseResponse, StateSpace
from ssmid.systems.base import sample_time


def have(*packages: str) -> bool:
    """Whether all ``packages`` are installed."""
    return all(find_spec(package) for package in packages)


# ---------------------------------------------------------------- Hankel values: system -> (n,)


def hankel_tools(system: StateSpace) -> dict[str, Callable[[], np.ndarray]]:
    """The tools that are installed and take ``system``, by name."""
    tools: dict[str, Callable[[], np.ndarray]] = {}
    if have("slycot"):
        tools["SLICOT AB09AD"] = lambda: _slicot(system, 1)[1]
    if have("pymor"):
        tools["pyMOR"] = lambda: _pymor_model(system).hsv()
        if _is_sparse(system):
            tools["pyMOR, sparse (ADI)"] = lambda: _pymor_model(system, sparse=True).hsv()
    if have("control", "slycot") and not system.is_discrete and system.order <= 500:
        tools["python-control"] = lambda: _control_hankel(system)
    return tools


def balanced_tools(system: StateSpace, order: int) -> dict[str, Callable[[], StateSpace]]:
    """As :func:`hankel_tools`: balanced truncation to ``order``."""
    tools: dict[str, Callable[[], StateSpace]] = {}
    if have("slycot"):
        tools["SLICOT AB09AD"] = lambda: slicot_balanced(system, order)
    if have("pymor"):
        tools["pyMOR"] = lambda: pymor_balanced(system, order)
        if _is_sparse(system):
            tools["pyMOR, sparse (ADI)"] = lambda: pymor_balanced(system, order, sparse=True)
    if have("control", "slycot") and not system.is_discrete:
        tools["python-control"] = lambda: _control_balanced(system, order)
    return tools


def pymor_balanced(system: StateSpace, order: int, sparse: bool = False) -> StateSpace:
    """``BTReductor`` with its defaults."""
    model = _pymor_model(system, sparse)
    return _from_pymor(import_module("pymor.reductors.bt").BTReductor(model).reduce(order), system.dt)


def slicot_balanced(system: StateSpace, order: int) -> StateSpace:
    """SLICOT's AB09AD, square-root method, no scaling: the routine behind ``control.balred``."""
    return _slicot(system, order)[0]


def pymor_era(response: ImpulseResponse, order: int, power_iterations: int = 2) -> StateSpace:
    """``RandomizedERAReductor`` on all samples, zero-padded (its default)."""
    _quiet_pymor()
    taps = np.asarray(response.taps, float).reshape(-1, 1, 1)
    feedthrough = taps[0]
    step = sample_time(response)
    reductor = import_module("pymor.reductors.era").RandomizedERAReductor
    return _from_pymor(reductor(taps[1:], step, feedthrough=feedthrough, power_iterations=power_iterations).reduce(order), step)


# ---------------------------------------------------------------- taps and spectra of banks, one filter at a time


def lfilter_taps(num: np.ndarray, den: np.ndarray, length: int) -> np.ndarray:
    """``(count, length)`` taps: ``scipy.signal.lfilter`` of an impulse, filter by filter."""
    impulse = np.zeros(length, num.dtype)
    impulse[0] = 1
    return np.stack([scipy.signal.lfilter(b, a, impulse) for b, a in zip(num, den, strict=True)])


def dimpulse_taps(bank: StateSpace, length: int) -> np.ndarray:
    """``(count, length)`` taps: ``scipy.signal.dimpulse`` on state-space models, filter by filter."""
    responses: Any = [scipy.signal.dimpulse(model, n=length)[1] for model in _dlti(bank)]
    return np.stack([np.ravel(response) for response in responses])


def vandermonde_taps(poles: np.ndarray, residues: np.ndarray, length: int) -> np.ndarray:
    """``(count, length)`` taps: the Vandermonde matrix of each filter written out in NumPy."""
    steps = np.arange(length - 1)
    return np.stack([np.r_[0.0, (r @ p[:, None] ** steps).real] for p, r in zip(poles, residues, strict=True)])


def freqz_spectra(num: np.ndarray, den: np.ndarray, length: int) -> np.ndarray:
    """``(count, length // 2 + 1)``: ``scipy.signal.freqz`` on the FFT grid, filter by filter."""
    points = length // 2 + 1
    return np.stack([scipy.signal.freqz(b, a, worN=points, include_nyquist=True)[1] for b, a in zip(num, den, strict=True)])


def dfreqresp_spectra(bank: StateSpace, length: int) -> np.ndarray:
    """``(count, length // 2 + 1)``: ``scipy.signal.dfreqresp`` on state-space models, filter by filter."""
    grid = 2 * np.pi * np.arange(length // 2 + 1) / length
    with warnings.catch_warnings(category=scipy.signal.BadCoefficients, action="ignore"):  # it goes through polynomials
        return np.stack([np.ravel(scipy.signal.dfreqresp(model, w=grid)[1]) for model in _dlti(bank)])


# ---------------------------------------------------------------- helpers


def _is_sparse(system: StateSpace) -> bool:
    """Large enough for pyMOR's low-rank solvers (n >= 1000) and with few nonzeros."""
    return bool(system.order >= 1000 and np.count_nonzero(system.A) < 0.01 * system.order**2)


def _quiet_pymor() -> None:
    import_module("pymor.core.logger").set_log_levels({"pymor": "ERROR"})


def _pymor_model(system: StateSpace, sparse: bool = False) -> Any:
    _quiet_pymor()
    A = scipy.sparse.csc_array(system.A) if sparse else system.A
    D = system.D if np.any(system.D) else None
    build = import_module("pymor.models.iosys").LTIModel.from_matrices
    return build(A, system.B, system.C, D, sampling_time=sample_time(system) if system.is_discrete else 0)


def _from_pymor(model: Any, dt: float | bool) -> StateSpace:
    A, B, C, D, E = model.to_matrices()
    if E is not None:
        A, B = np.linalg.solve(E, A), np.linalg.solve(E, B)
    return StateSpace(A, B, C, D, dt)


def _slicot(system: StateSpace, order: int) -> tuple[StateSpace, np.ndarray]:
    """The reduced system and all Hankel values."""
    A, B, C = (np.array(M, order="F") for M in (system.A, system.B, system.C))
    sizes = system.order, system.inputs, system.outputs
    routine = import_module("slycot").ab09ad
    kept, A, B, C, sigma = routine("D" if system.is_discrete else "C", "B", "N", *sizes, A, B, C, nr=order, tol=0.0)
    return StateSpace(A[:kept, :kept], B[:kept], C[:, :kept], system.D, system.dt), sigma


def _control_hankel(system: StateSpace) -> np.ndarray:
    import control

    values = control.hankel_singular_values(control.ss(system.A, system.B, system.C, system.D))
    return np.asarray(values)


def _control_balanced(system: StateSpace, order: int) -> StateSpace:
    import control

    reduced: Any = control.balanced_reduction(control.ss(system.A, system.B, system.C, system.D), order)
    return StateSpace(reduced.A, reduced.B, reduced.C, reduced.D, system.dt)


def _dlti(bank: StateSpace) -> list[Any]:
    matrices = [np.broadcast_to(M, (*bank.batch_shape, *M.shape[-2:])) for M in (bank.A, bank.B, bank.C, bank.D)]
    return [scipy.signal.dlti(*one, dt=1) for one in zip(*matrices, strict=True)]
