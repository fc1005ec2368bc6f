"""Causal convolutions with one real filter a channel, and their gradients, in float32, by transforms that stay on the chip.

The plain functions are those of :mod:`ssmid.nn.convolution`. Bytes, of rows up to 8192: inputs are read once and outputs written once,
beside the spectra of the filters (8 bytes a point, twice the length in points), which are made in a few microseconds and read from the
cache. Longer rows go through scratch of two passes, in slabs of channels. Operations, of ``N = 2 L``
points: two complex transforms of N for two rows forward, three backward.

Whoever has the frequency response of a filter instead of its taps pays one inverse transform of a row a channel: 1 / batch of all this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssmid._array import Array
from ssmid.kernels.compiler import ceil_power_of_two
from ssmid.kernels.cuda import can_compile, has_clusters, launch, multiprocessors, shared_memory

_SOURCE = "fft_convolution.cu"
_NAMES = {"torch.float32": "float", "torch.bfloat16": "bfloat", "torch.float16": "half"}
_COMPLEX = "float2"
_LONGEST = 131072
_LEAST_SCRATCH = 32 << 20
"""Bytes of scratch for long rows that fill the device; what is larger is a tenth of inputs and outputs."""

_SUMS_ON_CHIP = 512
"""Threads up to which gradients add up over the batch in shared memory; there is not enough for more."""


def fused_convolution(u: Array) -> bool:
    """Whether the kernels take rows ``u`` ``(batch, channels, length)``."""
    if not can_compile(u) or str(u.dtype) not in _NAMES or u.shape[-1] > _LONGEST or 0 in u.shape:
        return False
    return _Plan.of(u.shape[-1], has_clusters(u.device)).fits(shared_memory(u.device))


def convolve(u: Array, taps: Array, *, adjoint: bool = False) -> Array:
    """``y_t = sum_s taps_0s u_{t-s} + sum_s taps_1s u_{t+s}`` ``(batch, channels, length)`` of ``u`` of that shape and kind.

    taps : float32 ``(1 or 2, channels, taps)`` of the past, and of the future if there are any, no more than the length
    adjoint : the gradient of ``u`` in place of it, ``u`` being that of ``y``
    """
    u = _rows(u)
    y, plan = u.new_empty(u.shape), _Plan.of(u.shape[-1], has_clusters(u.device))
    for part in plan.slabs(u, streams=1):
        spectra = plan.spectra_of(taps, part)
        if plan.radix == 1:
            plan.convolve(u, spectra, y, adjoint)
        elif plan.cluster:
            plan.convolve_long(u, spectra, y, part, adjoint)
        else:
            rows = plan.split(u, part)
            plan.convolve(rows, spectra, rows, adjoint)
            plan.join(rows, y, part)
    return y


def convolve_backward(u: Array, taps: Array, dy: Array) -> tuple[Array, Array]:
    """Gradients of ``u`` (its kind) and of ``taps`` (float32), from that of the convolution; arguments as of :func:`convolve`."""
    u, dy = _rows(u), _rows(dy)
    du, dtaps, plan = u.new_empty(u.shape), taps.new_empty(taps.shape), _Plan.of(u.shape[-1], has_clusters(u.device))
    for part in plan.slabs(u, streams=2):
        spectra = plan.spectra_of(taps, part)
        if plan.radix == 1:
            partial = plan.backward(u, dy, spectra, du)
        elif plan.cluster:
            partial = plan.backward_long(u, dy, spectra, du, part)
        else:
            rows, dy_rows = plan.split(u, part), plan.split(dy, part)
            partial = plan.backward(rows, dy_rows, spectra, dy_rows)
            plan.join(dy_rows, du, part)
        for side, found in zip(dtaps, _of_past_and_future(partial, len(taps)), strict=True):
            plan.gradient_of(found, side, part)
    return du, dtaps


def _of_past_and_future(partial: Array, sides: int) -> list[Array]:
    """Spectra of gradients of taps of the past, and of the future: where one is read at a lag, the other is read at its negative."""
    if sides == 1:
        return [partial]
    mirrored = partial.clone()
    mirrored[..., 1] *= -1
    return [partial, mirrored]


@dataclass(frozen=True)
class _Plan:
    """Transforms of ``radix * points``, ``points`` of them in one block; ``radix`` blocks may be a cluster.

    Rows are real ``(batch, channels, length)``, or, split by ``radix``, complex ``(pairs, channels, radix, points, 2)``.
    """

    radix: int
    points: int
    cluster: bool = False

    @staticmethod
    def of(length: int, clusters: bool = False) -> _Plan:
        total = 2 * ceil_power_of_two(max(length, 32))
        if clusters and 16384 <= total <= 65536:
            points = max(4096, total // 8)
            return _Plan(total // points, points, True)
        if total <= 16384:
            return _Plan(1, total)
        points = max(4096, total // 16)
        return _Plan(total // points, points)

    @property
    def total(self) -> int:
        return self.radix * self.points

    def slabs(self, u: Array, streams: int) -> list[tuple[int, int]]:
        """``(first, count)`` of channels whose rows, ``streams`` of them and the spectra, fit into the scratch; all where there is none."""
        batch, channels, length = u.shape
        if self.radix == 1:
            return [(0, channels)]
        scratch = max(_LEAST_SCRATCH, batch * channels * length * u.element_size() * (streams + 1) // 10)
        rows = 1 + streams if self.cluster else 1 + streams * ((batch + 1) // 2 + 1)
        count = max(1, scratch // (8 * self.total * rows))
        return [(first, min(count, channels - first)) for first in range(0, channels, count)]

    def spectra_of(self, taps: Array, part: tuple[int, int]) -> Array:
        """Those of the channels ``part`` of ``taps`` ``(1 or 2, channels, taps)``: of taps of the future, conjugates are added."""
        sides = [self.spectra(side.contiguous() if self.radix == 1 else self.split(side.contiguous(), part)) for side in taps]
        for future in sides[1:]:
            future[..., 1] *= -1
            sides[0] += future
        return sides[0]

    def spectra(self, taps: Array) -> Array:
        """``(channels, points, 2)`` of ``(channels, taps)``; of split rows, in their place."""
        if taps.ndim == 2:
            (channels, length), out = taps.shape, taps.new_empty((taps.shape[0], self.points, 2))
        else:
            (channels, length), out = (taps.shape[1] * self.radix, 0), taps
        self._transforms("spectrum", taps, channels, taps, out, channels, length, self.total)
        return out

    def convolve(self, u: Array, spectra: Array, y: Array, adjoint: bool) -> None:
        batch, channels, length = self._shape(u)
        self._transforms("convolve", u, channels * ((batch + 1) // 2), u, spectra, y, batch, channels, length, int(adjoint))

    def backward(self, u: Array, dy: Array, spectra: Array, du: Array) -> Array:
        """The gradient of ``u`` into ``du``; spectra of that of the taps, one for each split of the batch."""
        batch, channels, length = self._shape(u)
        splits = self._splits(channels, (batch + 1) // 2, u.device)
        partial = spectra.new_empty((splits, channels, self.points, 2))
        kept = partial.new_empty(partial.shape) if self._threads > _SUMS_ON_CHIP else partial
        self._transforms("backward", u, channels * splits, u, dy, spectra, du, partial, kept, batch, channels, length, splits)
        return partial

    def convolve_long(self, u: Array, spectra: Array, y: Array, part: tuple[int, int], adjoint: bool) -> None:
        (batch, channels, length), (first, count) = u.shape, part
        clusters = count * ((batch + 1) // 2)
        self._clusters("convolve_long", clusters, u, spectra, y, batch, channels, length, first, count, int(adjoint))

    def backward_long(self, u: Array, dy: Array, spectra: Array, du: Array, part: tuple[int, int]) -> Array:
        (batch, channels, length), (first, count) = u.shape, part
        splits = self._splits(count * self.radix, (batch + 1) // 2, u.device)
        partial = spectra.new_empty((splits, count * self.radix, self.points, 2))
        self._clusters("backward_long", count * splits, u, dy, spectra, du, partial, batch, channels, length, first, count, splits)
        return partial

    def gradient_of(self, partial: Array, dtaps: Array, part: tuple[int, int]) -> None:
        """The channels ``part`` of ``dtaps`` ``(channels, taps)`` from its spectra, which may be overwritten."""
        if self.radix == 1:
            self.gradient(partial, dtaps)
            return
        self.gradient(partial, partial)
        self.join(partial[0].reshape(1, -1, self.radix, self.points, 2), dtaps, part)

    def gradient(self, partial: Array, out: Array) -> None:
        splits, channels = partial.shape[:2]
        length = out.shape[-1] if out.ndim == 2 else 0
        self._transforms("gradient", out, channels, partial, out, channels, length, splits, self.total)

    def split(self, rows: Array, part: tuple[int, int]) -> Array:
        batch, channels, length = rows.shape if rows.ndim == 3 else (1, *rows.shape)
        first, count = part
        out = rows.new_empty(((batch + 1) // 2, count, self.radix, self.points, 2), dtype=_float32(rows))
        self._pass("split", rows, out.shape[0] * count, rows, out, batch, channels, length, first, count, self.points)
        return out

    def join(self, rows: Array, out: Array, part: tuple[int, int]) -> None:
        batch, channels, length = out.shape if out.ndim == 3 else (1, *out.shape)
        self._pass("join", out, rows.shape[0] * part[1], rows, out, batch, channels, length, *part, self.points)

    @property
    def _threads(self) -> int:
        return self.points // 16

    @property
    def _groups(self) -> int:
        """Transforms of one block: no block is smaller than four warps."""
        return max(1, 128 // self._threads)

    def _shape(self, u: Array) -> tuple[int, int, int]:
        return tuple(u.shape) if u.ndim == 3 else (2 * u.shape[0], u.shape[1] * self.radix, 0)

    def _splits(self, channels: int, pairs: int, device: Any) -> int:
        """Into how many parts the batch goes: as few rounds of blocks as can be, each paying for its own spectra of gradients."""
        resident = multiprocessors(device) * max(1, 512 // max(self._threads, 128)) * self._groups
        return min(range(1, min(pairs, 64) + 1), key=lambda s: -(-channels * s // resident) * (3 * -(-pairs // s) + 1))

    def _transforms(self, kernel: str, kind: Array, units: int, *arguments: Any) -> None:
        groups = self._groups
        shared = 8 * groups * self._shared(kernel)
        name = f"{kernel}<{self.points}, {_COMPLEX if kind.ndim > 3 else _NAMES[str(kind.dtype)]}>"
        launch(_SOURCE, name, -(-units // groups), (self._threads, groups), *arguments, shared=shared)

    def _clusters(self, kernel: str, clusters: int, u: Array, *arguments: Any) -> None:
        name = f"{kernel}<{self.points}, {self.radix}, {_NAMES[str(u.dtype)]}>"
        launch(_SOURCE, name, clusters * self.radix, (self._threads, 1), u, *arguments, shared=8 * self._shared(kernel))

    def fits(self, available: int) -> bool:
        return 8 * self._groups * self._shared("backward") <= available

    def _shared(self, kernel: str) -> int:
        """Complex numbers of shared memory: points padded, and the sums over the batch of the kernels for gradients."""
        sums = kernel.startswith("backward") and self._threads <= _SUMS_ON_CHIP
        return self.points + self.points // 16 + (self.points if sums else 0)

    def _pass(self, kernel: str, kind: Array, units: int, *arguments: Any) -> None:
        launch(_SOURCE, f"{kernel}<{self.radix}, {_NAMES[str(kind.dtype)]}>", units * self.points // 256, (256, 1), *arguments)


def _rows(u: Array) -> Array:
    """``u`` with samples next to each other; layers give them with channels next to each other."""
    turned = u.transpose(-1, -2)
    if u.is_contiguous() or not turned.is_contiguous():
        return u.contiguous()
    out = u.new_empty(u.shape)
    batch, rows, columns = turned.shape
    tiles = batch * -(-rows // 64) * -(-columns // 64)
    launch(_SOURCE, f"transpose<{_NAMES[str(u.dtype)]}>", tiles, (256, 1), turned, out, rows, columns, shared=64 * 65 * u.element_size())
    return out


def _float32(rows: Array) -> Any:
    return rows.new_empty(0).float().dtype
