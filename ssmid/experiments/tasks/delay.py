"""Delay: give a band-limited noise a second time, later.

Continuous Delay of Gu et al. 2023 (How to Train Your HiPPO), as the RTF paper (Parnichkun et al. 2024) runs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ssmid.experiments.tasks.task import Batch, Drawn, Kind, Split, checked, stream


@dataclass(frozen=True)
class Delay(Drawn):
    """White noise that ends at ``bandwidth`` Hz, to be given again ``lag`` samples later.

    length : samples   lag : samples   dt : seconds   bandwidth : Hz   rms : of the noise
    train, held_out : examples of an epoch, and of each of the two other splits
    fresh : training draws new examples every epoch, as published

    Target: the input moved by ``lag``, zero before; every position counts, and the error is reported as RMSE. Every signal is moved so
    that it begins at zero (as published), so its mean square is ``2 rms^2``: answering zero costs ``rms sqrt(2 (length - lag) / length)``,
    .612 with the defaults.

    >>> Delay().batch("valid", [0])["targets"].shape
    (1, 4000, 1)
    """

    length: int = 4000
    lag: int = 1000
    dt: float = 2.5e-4
    bandwidth: float = 1000.0
    rms: float = 0.5
    train: int = 16_384
    held_out: int = 1024
    seed: int = 0
    fresh: bool = True

    name: ClassVar[str] = "delay"
    kind: ClassVar[Kind] = "regress"
    inputs: ClassVar[Literal["tokens", "signals"]] = "signals"
    vocabulary: ClassVar[int] = 0
    channels: ClassVar[int] = 1
    outputs: ClassVar[int] = 1
    sequences: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.lag < self.length:
            raise ValueError(f"lag: expected 1 to {self.length - 1} samples, got {self.lag}")
        if not 1 / (self.length * self.dt) <= self.bandwidth <= 0.5 / self.dt:
            low, high = 1 / (self.length * self.dt), 0.5 / self.dt
            raise ValueError(f"bandwidth: expected {low:g} Hz (one period) to {high:g} Hz (Nyquist), got {self.bandwidth:g}")

    def batch(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        index = checked(split, indices, self.size(split), fresh=self.fresh)
        signals = np.empty((len(index), self.length, 1), dtype=np.float32)
        for row, i in enumerate(index):
            signals[row, :, 0] = self._noise(stream(self.name, self.seed, split, int(i)))
        targets = np.zeros_like(signals)
        targets[:, self.lag :] = signals[:, : -self.lag]
        return {"inputs": signals, "targets": targets, "mask": np.ones(signals.shape[:2], dtype=bool)}

    def _noise(self, random: np.random.Generator) -> np.ndarray:
        """One period of a sum of sines of random amplitude and phase up to the bandwidth, less its first sample: ``(length,)``.

        Power: n lines of ``|X_k|^2`` with mean c give a real signal of variance ``2 n c / N^2`` over the period of N samples.
        """
        period = 2 * math.ceil(self.length / 2)
        lines = np.arange(1, period // 2)
        # as published the band ends with the last line at or below the bandwidth
        lines = lines[lines / (period * self.dt) <= self.bandwidth * (1 + 1e-12)]
        scale = self.rms * period / math.sqrt(4 * len(lines))
        spectrum = np.zeros(period // 2 + 1, dtype=complex)
        spectrum[lines] = scale * (random.standard_normal(len(lines)) + 1j * random.standard_normal(len(lines)))
        signal = np.fft.irfft(spectrum, period)
        return (signal - signal[0])[: self.length]
