"""The tools that fit models to data, each behind a function of NumPy arrays: scikit-rf, SciPy, pyMOR, python-control, SIPPY.

Each function calls its tool as its own documentation does. Nothing is cached between calls.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import scipy.interpolate

from ssmid.bench.peers import have
from ssmid.systems import ImpulseResponse, StateSpace


class Model(NamedTuple):
    """What a tool made of samples: values at the points, and its poles of s or z."""

    values: np.ndarray
    poles: np.ndarray


Tool = Callable[[], Model]


def frequency_tools(hertz: np.ndarray, values: np.ndarray, order: int) -> dict[str, Tool]:
    """Tools for one continuous response ``(k,)`` that end with models of about ``order``, by name; scikit-rf where it is installed."""
    tools: dict[str, Tool] = {"SciPy AAA": lambda: scipy_aaa(2j * np.pi * hertz, values, order // 2 + 1)}
    if have("skrf"):
        tools["scikit-rf vector_fit"] = lambda: vector_fit(hertz, values, order)
        tools["scikit-rf auto_fit"] = lambda: vector_fit(hertz, values, None)
    if have("pymor"):
        tools["pyMOR PAAA"] = lambda: _pymor_aaa(2j * np.pi * hertz, values, order)
    return tools


def scipy_aaa(points: np.ndarray, values: np.ndarray, terms: int) -> Model:
    """``scipy.interpolate.AAA`` with at most ``terms`` support points."""
    with _quiet():
        fit = scipy.interpolate.AAA(points, values, max_terms=terms)
    return Model(fit(points), fit.poles())


def scipy_aaa_default(points: np.ndarray, values: np.ndarray) -> Model:
    """``scipy.interpolate.AAA`` with its defaults."""
    with _quiet():
        fit = scipy.interpolate.AAA(points, values)
    return Model(fit(points), fit.poles())


def vector_fit(hertz: np.ndarray, values: np.ndarray, order: int | None) -> Model:
    """scikit-rf's ``vector_fit`` with as many poles, or its ``auto_fit``."""
    skrf: Any = import_module("skrf")
    network = skrf.Network(f=hertz, f_unit="Hz", s=values[:, None, None], z0=50)
    fit = import_module("skrf.vectorFitting").VectorFitting(network)
    with _quiet():
        if order is None:
            fit.auto_fit()
        else:
            fit.vector_fit(n_poles_real=order % 2, n_poles_cmplx=order // 2, fit_constant=True, fit_proportional=False)
    complex_poles = fit.poles[fit.poles.imag != 0]
    return Model(fit.get_model_response(0, 0, freqs=hertz), np.r_[fit.poles, complex_poles.conj()])


def _pymor_aaa(points: np.ndarray, values: np.ndarray, order: int) -> Model:
    import_module("pymor.core.logger").set_log_levels({"pymor": "ERROR"})
    reductor = import_module("pymor.reductors.aaa").PAAAReductor([points], values, conjugate=True)
    with _quiet():
        model = reductor.reduce(tol=1e-16, max_itpl=[order + 1])
        fitted = np.array([np.ravel(model.eval_tf(x))[0] for x in points])
    return Model(fitted, _rational_poles(points, fitted, order))


def _rational_poles(points: np.ndarray, fitted: np.ndarray, order: int) -> np.ndarray:
    """The poles of a rational function known by its values, as SciPy's AAA of both halves of the axis finds them."""
    both = np.r_[points, points.conj()]
    with _quiet():
        return scipy.interpolate.AAA(both, np.r_[fitted, fitted.conj()], max_terms=order + 2).poles()


# ---------------------------------------------------------------- taps


def control_era(response: ImpulseResponse, order: int, size: int) -> StateSpace:
    """python-control's ``era`` of a square Hankel matrix of ``size``."""
    control: Any = import_module("control")
    taps = np.asarray(response.taps, float)[None, None, :]
    system = control.era(taps[..., : 2 * size + 1], r=order, m=size, n=size, dt=float(response.dt))[0]
    return StateSpace(system.A, system.B, system.C, system.D, response.dt)


def pymor_dense_era(response: ImpulseResponse, order: int) -> StateSpace:
    """pyMOR's ``ERAReductor``, which takes the SVD of the whole Hankel matrix."""
    import_module("pymor.core.logger").set_log_levels({"pymor": "ERROR"})
    taps = np.asarray(response.taps, float).reshape(-1, 1, 1)
    reductor = import_module("pymor.reductors.era").ERAReductor(taps[1:], float(response.dt), feedthrough=taps[0])
    A, B, C, D, E = reductor.reduce(order).to_matrices()
    assert E is None
    return StateSpace(A, B, C, D, response.dt)


# ---------------------------------------------------------------- systems


def pymor_irka(system: StateSpace, order: int) -> StateSpace:
    """pyMOR's ``IRKAReductor`` with its defaults."""
    import_module("pymor.core.logger").set_log_levels({"pymor": "ERROR"})
    build = import_module("pymor.models.iosys").LTIModel.from_matrices
    model = build(system.A, system.B, system.C, system.D if np.any(system.D) else None)
    with _quiet():
        reduced = import_module("pymor.reductors.h2").IRKAReductor(model).reduce(order)
    A, B, C, D, E = reduced.to_matrices()
    if E is not None:
        A, B = np.linalg.solve(E, A), np.linalg.solve(E, B)
    return StateSpace(A, B, C, D, system.dt)


# ---------------------------------------------------------------- records


def sippy(method: str, inputs: np.ndarray, outputs: np.ndarray, order: int) -> StateSpace:
    """A subspace method of SIPPY on signals ``(T,)`` whose means were taken away."""
    module: Any = import_module("sippy_unipi")
    with _quiet():
        model = module.system_identification(outputs, inputs, method, SS_fixed_order=order, SS_f=20, SS_p=20, SS_D_required=True)
    return StateSpace(model.A, model.B, model.C, model.D)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings and without what a tool prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
