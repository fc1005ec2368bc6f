"""Prediction errors of polynomial models and their exact derivatives, by filtering.

``A y = B/F u + C/D e`` of one output (Ljung, System Identification, 2nd ed. 1999, sec. 10.3). What came before a record adds a few
first samples to ``B u``, coefficients of an impulse at the start: the derivatives by all coefficients of one polynomial are then the
shifts of one filtered signal, and a step costs six runs of :func:`scipy.signal.lfilter` however many coefficients there are.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.signal import lfilter

Experiments = list[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Degrees:
    """The numbers of coefficients: na, nb (of each of m inputs), nc, nd, nf, and the first lag of the inputs."""

    na: int
    nb: int
    nc: int
    nd: int
    nf: int
    delay: int
    inputs: int

    @property
    def start(self) -> int:
        """How many samples the past reaches into a record: the states of A, B and C, or of B and F."""
        lags = self.delay + self.nb - 1 if self.nb and self.inputs else 0
        return max(self.nf, lags) if self.nf or self.nd else max(self.na, lags, self.nc)

    @property
    def model(self) -> int:
        """The number of coefficients, without those of the starts."""
        return self.na + self.nb * self.inputs + self.nf + self.nc + self.nd


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """``a, c, d, f`` with their leading 1, ``b`` ``(m, delay+nb)``, ``starts`` ``(experiments, start)``."""

    a: np.ndarray
    b: np.ndarray
    f: np.ndarray
    c: np.ndarray
    d: np.ndarray
    starts: np.ndarray


def unpack(theta: np.ndarray, degrees: Degrees, experiments: int) -> Coefficients:
    """The parameter vector, in the order a, b (input after input), f, c, d, starts, as polynomials."""
    g = degrees
    sizes = np.cumsum([g.na, g.nb * g.inputs, g.nf, g.nc, g.nd])
    a, b, f, c, d, starts = np.split(theta, sizes)
    one = np.ones(1)
    b = np.concatenate([np.zeros((g.inputs, g.delay)), b.reshape(g.inputs, g.nb)], -1) if g.nb else np.zeros((g.inputs, 1))
    a, f, c, d = (np.concatenate([one, x]) for x in (a, f, c, d))
    return Coefficients(a, b, f, c, d, starts.reshape(experiments, g.start))


def pack(x: Coefficients, degrees: Degrees) -> np.ndarray:
    """The parameter vector of polynomials."""
    b = x.b[:, degrees.delay :] if degrees.nb else x.b[:, :0]
    return np.concatenate([x.a[1:], b.ravel(), x.f[1:], x.c[1:], x.d[1:], x.starts.ravel()])


def errors_of(x: Coefficients, data: Experiments) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``(w, v, e)`` of each experiment: the output of B/F, what A y leaves of it, the prediction errors ``(T,)``."""
    found = []
    for (u, y), start in zip(data, x.starts, strict=True):
        driven = _beginning(start, len(y))
        for row, signal in zip(x.b, u, strict=True):
            driven += _filter(row, signal)
        w = lfilter([1.0], x.f, driven) if len(x.f) > 1 else driven
        v = _filter(x.a, y) - w
        found.append((w, v, lfilter(x.d, x.c, v) if len(x.c) + len(x.d) > 2 else v))
    return found


def jacobian(x: Coefficients, degrees: Degrees, data: Experiments, signals: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """``(samples, parameters)`` derivatives of all prediction errors; ``signals`` are those of :func:`errors_of`."""
    g, blocks, model = degrees, [], degrees.model
    through = np.convolve(x.c, x.f)
    for i, ((u, y), (w, v, e)) in enumerate(zip(data, signals, strict=True)):
        T = len(y)
        J = np.zeros((T, model + len(data) * g.start))
        at = 0

        def put(signal: np.ndarray, count: int, first: int, sign: float, J: np.ndarray = J, T: int = T) -> None:
            nonlocal at
            for k in range(count):
                if k + first < T:
                    J[k + first :, at + k] = sign * signal[: T - k - first]
            at += count

        if g.na:
            put(lfilter(x.d, x.c, y), g.na, 1, 1.0)
        if g.nb:
            for signal in u:
                put(lfilter(x.d, through, signal), g.nb, g.delay, -1.0)
        if g.nf:
            put(lfilter(x.d, through, w), g.nf, 1, 1.0)
        if g.nc:
            put(lfilter([1.0], x.c, e), g.nc, 1, -1.0)
        if g.nd:
            put(lfilter([1.0], x.c, v), g.nd, 1, 1.0)
        at = model + i * g.start
        put(lfilter(x.d, through, _beginning(np.ones(1), T)), g.start, 0, -1.0)
        blocks.append(J)
    return np.concatenate(blocks)


def _beginning(start: np.ndarray, length: int) -> np.ndarray:
    signal = np.zeros(length)
    signal[: len(start)] = start[:length]
    return signal


def _filter(b: np.ndarray, signal: np.ndarray) -> np.ndarray:
    return lfilter(b, [1.0], signal)
