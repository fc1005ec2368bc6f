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
        signals = self._noise([stream(self.name, self.seed, split, int(i)) for i in index]).astype(np.float32)[..., None]
        targets = np.zeros_like(signals)
        targets[:, self.lag :] = signals[:, : -self.lag]
        return {"inputs": signals, "targets": targets, "mask": np.ones(signals.shape[:2], dtype=bool)}

    def _noise(self, streams: Sequence[np.random.Generator]) -> np.ndarray:
        """One period each of a sum of sines of random amplitude and phase up to the bandwidth, less its first sample: ``(n, length)``.

        Power: n lines of ``|X_k|^2`` with mean c give a real signal of variance ``2 n c / N^2`` over the period of N samples.
        """
        period = 2 * math.ceil(self.length / 2)
        lines = np.arange(1, period // 2)
        # as published the band ends with the last line at or below the bandwidth
        lines = lines[lines / (period * self.dt) <= self.bandwidth * (1 + 1e-12)]
        scale = self.rms * period / math.sqrt(4 * len(lines))
        spectra = np.zeros((len(streams), period // 2 + 1), dtype=complex)
        for row, random in enumerate(streams):
            real, imaginary = random.standard_normal((2, len(lines)))
            spectra[row, lines] = scale * (real + 1j * imaginary)
        signals = np.fft.irfft(spectra, period)
        return (signals - signals[:, :1])[:, : self.length]
