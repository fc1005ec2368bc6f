"""Prediction errors of polynomial models and their exact derivatives, by filtering.

``A y = B/F u + C/D e`` of one output (Ljung, System Identification, 2nd ed. 1999, sec. 10.3). What came before a record adds a few
first samples to ``B u``, coefficients of an impulse at the start: the derivatives by all coefficients of one polynomial are then the
shifts of one filtered signal, and a step costs six runs of :func:`scipy.signal.lfilter` however many coefficients there are.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy.signal import lfilter

from ssmid.analysis.polynomial import Host

Experiments = list[tuple[Host, Host]]

_ONE = np.ones(1)


@dataclasses.dataclass(frozen=True)
class Degrees:
    """The numbers of coefficients: na, nb (of each of m inputs), nc, nd, nf, and the first lag of the inputs.

    drift : states that no input drives (:func:`drift_poles`)   period : the samples of one turn between two of them
    """

    na: int
    nb: int
    nc: int
    nd: int
    nf: int
    delay: int
    inputs: int
    drift: int = 0
    period: float = 1.0

    @property
    def start(self) -> int:
        """How many samples the past reaches into a record: the states of A, B and C, or of B and F."""
        lags = self.delay + self.nb - 1 if self.nb and self.inputs else 0
        return max(self.nf, lags) if self.nf or self.nd else max(self.na, lags, self.nc)

    @property
    def free(self) -> int:
        """The coefficients of one experiment: of its start and of its drift."""
        return self.start + self.drift

    @property
    def model(self) -> int:
        """The number of coefficients, without those of the starts."""
        return self.na + self.nb * self.inputs + self.nf + self.nc + self.nd


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """``a, c, d, f`` with their leading 1, ``b`` ``(m, delay+nb)``, ``starts`` ``(experiments, start + drift)``."""

    a: Host
    b: Host
    f: Host
    c: Host
    d: Host
    starts: Host


def unpack(theta: Host, degrees: Degrees, experiments: int) -> Coefficients:
    """The parameter vector, in the order a, b (input after input), f, c, d, starts, as polynomials."""
    g = degrees
    parts, at = [], 0
    for size in (g.na, g.nb * g.inputs, g.nf, g.nc, g.nd, experiments * g.free):
        parts.append(theta[at : at + size])
        at += size
    a, b, f, c, d, starts = parts
    b = np.concatenate([np.zeros((g.inputs, g.delay)), b.reshape(g.inputs, g.nb)], -1) if g.nb else np.zeros((g.inputs, 1))
    a, f, c, d = (np.concatenate([_ONE, x]) for x in (a, f, c, d))
    return Coefficients(a, b, f, c, d, starts.reshape(experiments, g.free))


def pack(x: Coefficients, degrees: Degrees) -> Host:
    """The parameter vector of polynomials."""
    b = x.b[:, degrees.delay :] if degrees.nb else x.b[:, :0]
    return np.concatenate([x.a[1:], b.ravel(), x.f[1:], x.c[1:], x.d[1:], x.starts.ravel()])


def drift_poles(count: int, period: float) -> Host:
    """Poles of ``count`` slow motions: frequencies one turn in ``period`` apart, on both sides of zero alike.

    Over a record of one period their free motions are all that is slower than half the highest spacing, as many as that has
    degrees of freedom (Slepian). They die by a part of 1e-4 in one period, which keeps the system stable.
    """
    turns = np.arange(count) - (count - 1) / 2
    return (1 - 1e-4 / period) * np.exp(2j * np.pi * turns / period)


@functools.lru_cache(16)
def drift_of(count: int, period: float, length: int) -> Host:
    """``(length, count)`` real free motions of :func:`drift_poles`: the constant first where there is one, then cosine and sine.

    The array is kept for the next call: not to be written to.
    """
    poles = drift_poles(count, period)
    upper = poles[poles.imag > 1e-12 * abs(poles.imag).max(initial=0)]
    t = np.arange(length)[:, None]
    motions = upper**t
    pairs = np.stack([motions.real, motions.imag], -1).reshape(length, -1)
    return np.concatenate([np.abs(poles[count // 2]) ** t, pairs], -1) if count % 2 else pairs


def errors_of(x: Coefficients, degrees: Degrees, data: Experiments) -> list[tuple[Host, Host, Host]]:
    """``(w, v, e)`` of each experiment: the output of B/F, what A y leaves of it, the prediction errors ``(T,)``."""
    found = []
    for (u, y), start in zip(data, x.starts, strict=True):
        g, T = degrees, len(y)
        driven = _beginning(start[: g.start], T)
        for row, signal in zip(x.b, u, strict=True):
            driven += filtered(row, _ONE, signal)
        w = filtered(_ONE, x.f, driven) if len(x.f) > 1 else driven
        v = filtered(x.a, _ONE, y) - w
        if g.drift:
            v = v - drift_of(g.drift, g.period, T) @ start[g.start :]
        found.append((w, v, filtered(x.d, x.c, v) if len(x.c) + len(x.d) > 2 else v))
    return found


def jacobian(x: Coefficients, degrees: Degrees, data: Experiments, signals: list[tuple[Host, Host, Host]]) -> Host:
    """``(samples, parameters)`` derivatives of all prediction errors; ``signals`` are those of :func:`errors_of`."""
    g, blocks = degrees, []
    linear, through = linear_columns(x, g, data), np.convolve(x.c, x.f)
    inputs = g.nb * g.inputs
    for (_, y), (w, v, e) in zip(data, signals, strict=True):
        blocks.append((
            _shifts(filtered(x.d, x.c, y), g.na, 1) if g.na else None,
            _shifts(filtered(x.d, through, w), g.nf, 1) if g.nf else None,
            -_shifts(filtered(_ONE, x.c, e), g.nc, 1) if g.nc else None,
            _shifts(filtered(_ONE, x.c, v), g.nd, 1) if g.nd else None,
        ))
    a, f, c, d = (np.concatenate([b for b in part if b is not None] or [linear[:, :0]]) for part in zip(*blocks, strict=True))
    return np.concatenate([a, linear[:, :inputs], f, c, d, linear[:, inputs:]], -1)


def linear_columns(x: Coefficients, degrees: Degrees, data: Experiments) -> Host:
    """Derivatives of the prediction errors by b and the starts, which do not depend on these."""
    g, through, blocks = degrees, np.convolve(x.c, x.f), []
    width = g.nb * g.inputs
    for i, (u, y) in enumerate(data):
        T = len(y)
        block = np.zeros((T, width + len(data) * g.free))
        for j in range(g.inputs if g.nb else 0):
            block[:, j * g.nb : (j + 1) * g.nb] = -_shifts(filtered(x.d, through, u[j]), g.nb, g.delay)
        at = width + i * g.free
        if g.start:
            block[:, at : at + g.start] = -_shifts(filtered(x.d, through, _beginning(_ONE, T)), g.start, 0)
        if g.drift:
            block[:, at + g.start : at + g.free] = -filtered(x.d, x.c, drift_of(g.drift, g.period, T).T).T
        blocks.append(block)
    return np.concatenate(blocks)


def _shifts(signal: Host, count: int, first: int) -> Host:
    """``(T, count)`` the signal ``first``, ``first + 1``, ... samples later."""
    T = len(signal)
    out = np.zeros((count, T))
    for k in range(min(count, max(T - first, 0))):
        out[k, first + k :] = signal[: T - first - k]
    return out.T


def _beginning(start: Host, length: int) -> Host:
    signal = np.zeros(length)
    signal[: len(start)] = start[:length]
    return signal


def filtered(b: Host, a: Host, signal: Host) -> Host:
    """``b/a`` in powers of the delay on signals ``(..., T)``, from rest; ``a`` begins with 1."""
    if len(a) == 1 and len(b) == 1:
        return b[0] * signal
    if len(a) == 1 and signal.ndim == 1:
        return np.convolve(b, signal)[: len(signal)]
    return np.asarray(lfilter(b, a, signal))
