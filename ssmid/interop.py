"""To and from python-control and SciPy: the same arrays, bit for bit, and the same sample time.

What each form becomes, and back:

=====================  ======================================  ======================================
ssmid                  python-control                          scipy.signal
=====================  ======================================  ======================================
StateSpace             StateSpace                              lti / dlti in StateSpace form
TransferFunction       TransferFunction                        lti / dlti in TransferFunction form
ZerosPolesGain         StateSpace (control has no such form)   lti / dlti in ZerosPolesGain form
SecondOrderSections    StateSpace                              the ``sos`` array
Modal                  StateSpace                              lti / dlti in StateSpace form
ImpulseResponse        TransferFunction over ``z^(length-1)``  dlti in TransferFunction form
FrequencyResponse      FrequencyResponseData                   none
=====================  ======================================  ======================================

A batch becomes nested lists of its shape, and such lists become a batch again. With ``mimo=True`` the last two batch axes
are outputs and inputs of one object. Control computes in float64; values survive that unchanged.

Sample times: 0, a positive number and True mean the same in control. Control's ``dt=None`` (either continuous or discrete)
has no counterpart here: ``from_control(system, dt=...)`` says which is meant. SciPy's ``lti`` is continuous and its ``dlti``
discrete, with ``dt=True`` where the step is unspecified.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.signal

from ssmid._array import is_complex, to_numpy
from ssmid.analysis.conversion import to_state_space
from ssmid.systems import (
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import checked_dt, not_a_system

__all__ = ["from_control", "from_scipy", "to_control", "to_scipy"]


def to_control(system: System, *, mimo: bool = False) -> Any:
    """``system`` as a python-control object (see the table above); a batch as nested lists of its shape.

    ``mimo=True``: the last two batch axes of scalar channels are the outputs and inputs of one object.
    Control removes leading zeros of polynomials and writes a zero numerator over 1; nothing else changes.
    Raises ValueError for complex systems, which control cannot hold, and TypeError for anything that is not a system.

    >>> to_control(TransferFunction([1.0], [1.0, -0.5], dt=0.1)).dt
    0.1
    """
    import control

    system = _storable(system)
    if isinstance(system, StateSpace):
        mimo = False  # its channels are inside
    _expect_real(system)
    dt = system.dt

    def transfer_function(num: np.ndarray, den: np.ndarray) -> Any:
        if not mimo:
            return control.TransferFunction(num, den, dt)
        return control.TransferFunction([list(row) for row in num], [list(row) for row in den], dt)

    def response(values: np.ndarray, omega: np.ndarray) -> Any:
        grid = omega.reshape(-1, omega.shape[-1])
        if (grid != grid[0]).any():
            raise ValueError("omega: expected the same frequencies for all channels of one FrequencyResponseData, got different ones")
        return control.FrequencyResponseData(values, grid[0], dt)

    if isinstance(system, StateSpace):
        return nested(system, lambda A, B, C, D: control.StateSpace(A, B, C, D, dt))
    return nested(system, transfer_function if isinstance(system, TransferFunction) else response, 2 if mimo else 0)


def from_control(system: Any, *, dt: float | bool | None = None) -> System:
    """A :class:`StateSpace`, :class:`TransferFunction` or :class:`FrequencyResponse` from a python-control object.

    Objects of several inputs or outputs give scalar channels of batch ``(outputs, inputs)``, except for state space, which
    carries them inside. Nested lists of objects of one kind and size give a batch. ``dt`` says what control's ``dt=None`` means.

    Channels whose denominators differ in degree get one common degree: in discrete time by powers of z, exactly; in
    continuous time by powers of ``s + a``, a being a power of two near the size of the channel's poles, which rounds each
    coefficient once for each power (a factor of s would put a pole on the imaginary axis).

    >>> import control
    >>> from_control(control.tf([1.0], [1.0, -0.5], 0.1))
    TransferFunction(order=1, batch=(), dt=0.1, float64)
    """
    import control

    if isinstance(system, (list, tuple)):
        return _stacked([from_control(element, dt=dt) for element in system])
    if not isinstance(system, (control.StateSpace, control.TransferFunction, control.FrequencyResponseData)):
        raise TypeError(
            f"expected a control.StateSpace, TransferFunction or FrequencyResponseData, or nested lists of one of them, "
            f"got {type(system).__name__}"
        )
    step = _agreed_dt(system.dt, dt, "control's dt=None says neither continuous nor discrete")
    if isinstance(system, control.StateSpace):
        return StateSpace(system.A, system.B, system.C, system.D, step)
    if isinstance(system, control.FrequencyResponseData):
        values = np.asarray(system.frdata)
        return FrequencyResponse(values[0, 0] if values.shape[:2] == (1, 1) else values, np.asarray(system.omega), step)
    num, den = _common_degree(np.asarray(system.num_array), np.asarray(system.den_array), step)
    return TransferFunction(num[0, 0], den[0, 0], step) if num.shape[:2] == (1, 1) else TransferFunction(num, den, step)


def to_scipy(system: System, *, mimo: bool = False) -> Any:
    """``system`` as an ``lti`` or ``dlti`` object of scipy.signal, or as an ``sos`` array; a batch as nested lists of its shape.

    An ``sos`` array keeps its batch axes and carries no sample time. ``mimo=True``: a transfer function of batch
    ``(outputs, 1)`` with one denominator becomes one object of several outputs, which is all that scipy's form can hold.
    SciPy's constructor divides by the first coefficient and drops small ones; here the coefficients are kept as they are.

    >>> to_scipy(ZerosPolesGain([-1.0], [0.5], 2.0, dt=0.1)).dt
    0.1
    """
    if isinstance(system, FrequencyResponse):
        raise TypeError("scipy.signal has no class of frequency responses: use system.values and system.omega")
    system = _storable(system, "ZerosPolesGain", "SecondOrderSections")
    time = {"dt": system.dt} if system.is_discrete else {}
    if isinstance(system, SecondOrderSections):
        return to_numpy(system.sections)
    if isinstance(system, StateSpace):
        return nested(system, lambda A, B, C, D: scipy.signal.StateSpace(A, B, C, D, **time))
    if isinstance(system, ZerosPolesGain):
        return nested(system, lambda zeros, poles, gain: scipy.signal.ZerosPolesGain(zeros, poles, gain[()], **time))

    def transfer_function(num: np.ndarray, den: np.ndarray) -> Any:
        if mimo:
            if num.shape[1] != 1 or (den != den[0, 0]).any():
                raise ValueError(
                    f"expected a batch (outputs, 1) with one denominator, got {num.shape[:2]}: "
                    f"go through ssmid.to_state_space(system, mimo=True)"
                )
            num, den = num[:, 0], den[0, 0]
        made = scipy.signal.TransferFunction([1.0], [1.0], **time)
        made.num, made.den = (num if mimo else _trimmed(num)), den
        return made

    return nested(system, transfer_function, 2 if mimo else 0)


def from_scipy(system: Any, *, dt: float | bool | None = None) -> System:
    """The ssmid form of an ``lti`` or ``dlti`` object of scipy.signal, or of an ``sos`` array ``(*batch, sections, 6)``.

    Nested lists of objects of one kind and size give a batch. Only an array needs ``dt``: True (unspecified) when left out.
    A transfer function of several outputs gives scalar channels of batch ``(outputs, 1)``.

    >>> import scipy.signal
    >>> from_scipy(scipy.signal.butter(4, 0.1, output="sos"))
    SecondOrderSections(sections=2, batch=(), dt=True, float64)
    """
    if isinstance(system, np.ndarray) and system.ndim >= 2 and system.shape[-1] == 6:
        return SecondOrderSections(system, True if dt is None else dt)
    if isinstance(system, (list, tuple)) and system and not np.isscalar(system[0]) and not isinstance(system[0], np.ndarray):
        return _stacked([from_scipy(element, dt=dt) for element in system])
    if not isinstance(system, (scipy.signal.lti, scipy.signal.dlti)):
        raise TypeError(
            f"expected an lti or dlti object, nested lists of one of them, or an sos array (*batch, sections, 6), got "
            f"{type(system).__name__}: bare tuples go through ssmid.zpk, ssmid.from_ba, ssmid.tf or ssmid.ss"
        )
    discrete = isinstance(system, scipy.signal.dlti)
    step = _agreed_dt(system.dt if discrete else 0, dt, "a dlti object without a sample time")
    if discrete and step is not True and step == 0:
        raise ValueError("dt: expected a positive sample time or True for a dlti object, got 0")
    if isinstance(system, scipy.signal.StateSpace):
        return StateSpace(system.A, system.B, system.C, system.D, step)
    if isinstance(system, scipy.signal.ZerosPolesGain):
        return ZerosPolesGain(system.zeros, system.poles, np.asarray(system.gain), step)
    if not isinstance(system, scipy.signal.TransferFunction):
        raise TypeError(f"expected a StateSpace, TransferFunction or ZerosPolesGain of scipy.signal, got {type(system).__name__}")
    num, den = np.asarray(system.num), np.asarray(system.den)
    return TransferFunction(num if num.ndim == 1 else num[:, None, :], den, step)


# ---------------------------------------------------------------- batches and lists


def _storable(system: Any, *more: str) -> System:
    """``system`` in a form that the other library has: itself where it is one, FIR as taps over a power of z, else state space."""
    if not isinstance(system, System):
        raise not_a_system(system)
    if isinstance(system, (StateSpace, TransferFunction, FrequencyResponse)) or type(system).__name__ in more:
        return system
    if isinstance(system, ImpulseResponse):
        taps = to_numpy(system.taps)
        return TransferFunction(taps, np.eye(1, system.length, dtype=taps.dtype)[0], system.dt)
    if isinstance(system, Modal) and not system.real:
        raise ValueError("expected a real system, got Modal(real=False): other libraries hold real state spaces")
    return to_state_space(system)


def _expect_real(system: System) -> None:
    if not isinstance(system, FrequencyResponse) and any(is_complex(a) for a in system.arrays.values()):
        raise ValueError(f"expected real coefficients, got {system!r}: python-control holds real systems only")


def nested(system: System, build: Callable[..., Any], channel_axes: int = 0) -> Any:
    """``build(**arrays)`` for every element of the batch, as nested lists; the last ``channel_axes`` batch axes go to ``build``."""
    shape = system.batch_shape
    if len(shape) < channel_axes:
        raise ValueError(f"mimo=True: expected batch axes (*batch, outputs, inputs), got batch {shape}")
    outer = shape[: len(shape) - channel_axes]
    arrays = {name: to_numpy(array) for name, array in system.broadcast_arrays().items()}

    def descend(index: tuple[int, ...]) -> Any:
        if len(index) == len(outer):
            return build(**{name: np.array(array[index]) for name, array in arrays.items()})
        return [descend((*index, i)) for i in range(outer[len(index)])]

    return descend(())


def _stacked(systems: list[System]) -> System:
    """One batch of systems of one kind, size and sample time."""
    if not systems:
        raise ValueError("expected at least one system, got an empty list")
    facts = [(type(s).__name__, s.dt, {name: tuple(a.shape) for name, a in s.arrays.items()}) for s in systems]
    for fact in facts:
        if fact != facts[0]:
            raise ValueError(f"expected systems of one kind, size and sample time, got {facts[0]} and {fact}")
    return dataclasses.replace(systems[0], **{name: np.stack([s.arrays[name] for s in systems]) for name in systems[0].arrays})


# ---------------------------------------------------------------- sample time and polynomials


def _agreed_dt(theirs: Any, wanted: float | bool | None, unspecified: str) -> float | bool:
    if theirs is None:
        if wanted is None:
            raise ValueError(f"dt: expected 0 (continuous), a sample time or True, got None ({unspecified}): give dt=")
        return checked_dt(wanted)
    step = checked_dt(theirs)
    if wanted is not None and ((step is True) != (wanted is True) or step != wanted):
        raise ValueError(f"dt: expected the system's own {step!r}, got {wanted!r}")
    return step


def _trimmed(coefficients: np.ndarray) -> np.ndarray:
    nonzero = np.flatnonzero(coefficients)
    return coefficients[nonzero[0] if len(nonzero) else len(coefficients) - 1 :]


def _common_degree(num: np.ndarray, den: np.ndarray, dt: float | bool) -> tuple[np.ndarray, np.ndarray]:
    """``(outputs, inputs, n + 1)`` arrays of numerators and denominators of one degree n, from object arrays of polynomials."""
    degree = max(len(d) for d in den.flat) - 1
    nums, dens = [], []
    for b, a in zip(num.flat, den.flat, strict=True):
        missing = degree - (len(a) - 1)
        root = 0.0 if dt is True or dt != 0 else -_typical_modulus(a)
        for _ in range(missing):
            b, a = (np.append(c, 0.0) - root * np.append(0.0, c) for c in (b, a))
        nums.append(np.append(np.zeros(degree + 1 - len(b)), b))
        dens.append(a)
    return np.reshape(nums, (*num.shape, degree + 1)), np.reshape(dens, (*den.shape, degree + 1))


def _typical_modulus(den: np.ndarray) -> float:
    """The power of two nearest to the geometric mean of the moduli of the roots of ``den`` that are not zero."""
    last = np.flatnonzero(den)[-1]
    return float(2.0 ** np.round(np.log2(abs(den[last] / den[0])) / last)) if last else 1.0
