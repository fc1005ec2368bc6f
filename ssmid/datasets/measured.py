"""Data as a network analyser and a recorder of signals would give them: a band-pass filter, and a flexible arm."""

from __future__ import annotations

import math

import numpy as np
import scipy.signal

from ssmid.analysis.discretization import c2d
from ssmid.analysis.simulation import simulate
from ssmid.identification.record import Record
from ssmid.systems import FrequencyResponse, Modal


def band_pass(points: int = 401, *, quality: float = 200.0, line: float = 0.3e-9, noise: float = 0.0) -> FrequencyResponse:
    """Scattering parameters ``(2, 2, points)`` of a band-pass filter from 450 to 550 MHz, seen at 300 to 700 MHz in 50 ohms.

    A third-order Chebyshev ladder of 0.1 dB ripple (series, shunt, series resonator; prototype elements 1.0316, 1.1474, 1.0316) with
    coils of the given ``quality`` at the centre, between two lines of ``line`` seconds each: order 6 beside the delay. ``noise``: standard
    deviation of real and imaginary part that a network analyser adds (fixed seed).

    >>> band_pass()
    FrequencyResponse(points=401, batch=(2, 2), dt=0, complex128)
    """
    omega = 2 * np.pi * np.linspace(300e6, 700e6, points)
    centre = 2 * np.pi * math.sqrt(450e6 * 550e6)
    width, impedance = 2 * np.pi * 100e6, 50.0
    s = 1j * omega
    chain = np.broadcast_to(np.eye(2, dtype=complex), (points, 2, 2))
    for k, element in enumerate((1.0316, 1.1474, 1.0316)):
        if k % 2 == 0:
            inductance = element * impedance / width
            branch = s * inductance + centre * inductance / quality + 1 / (s * (1 / (centre**2 * inductance)))
            section = np.stack([np.ones_like(s), branch, np.zeros_like(s), np.ones_like(s)], -1)
        else:
            capacitance = element / (impedance * width)
            inductance = 1 / (centre**2 * capacitance)
            branch = s * capacitance + 1 / (s * inductance + centre * inductance / quality)
            section = np.stack([np.ones_like(s), np.zeros_like(s), branch, np.ones_like(s)], -1)
        chain = chain @ section.reshape(points, 2, 2)
    a, b, c, d = (chain[:, i, j] for i in (0, 1) for j in (0, 1))
    b, c = b / impedance, c * impedance
    total = a + b + c + d
    values = np.array([[(a + b - c - d) / total, 2 / total], [2 / total, (-a + b - c + d) / total]]) * np.exp(-2 * s * line)
    rng = np.random.default_rng(450)
    values = values + noise * (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape))
    return FrequencyResponse(values, omega, 0)


def flexible_arm(length: int = 1000, *, noise: float = 0.02) -> Record:
    """A record of motor torque in, acceleration of a flexible arm out, at 50 Hz: order 4, with coloured measurement noise.

    Two lightly damped modes (3.1 and 8.7 Hz, dampings 3 and 2 %) driven by a random binary signal held for 3 samples; ``noise`` is
    the standard deviation of the noise as a fraction of that of the output. The seed is fixed.

    >>> flexible_arm()
    Record(outputs=1, inputs=1, length=1000, batch=(), dt=0.02)
    """
    rng = np.random.default_rng(31)
    inputs = np.repeat(rng.choice([-1.0, 1.0], -(-length // 3)), 3)[:length]
    poles = [2 * np.pi * f * complex(-z, math.sqrt(1 - z * z)) for f, z in ((3.1, 0.03), (8.7, 0.02))]
    modes = c2d(Modal(np.array([[p, p.conjugate()] for p in poles]).ravel(), np.array([1 + 0.5j, 1 - 0.5j, -0.7, -0.7]), 0.2, dt=0), 0.02)
    clean = simulate(modes, inputs)
    coloured = np.asarray(scipy.signal.lfilter([1.0], [1.0, -0.8], rng.standard_normal(length + 100)))[100:]
    return Record(inputs, clean + noise * clean.std() * coloured / coloured.std(), 0.02)
