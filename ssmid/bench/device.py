"""``ssmid bench core --device cuda``: what the GPU does beside what it can: the bare FFTs, the copy bandwidth.

On "cpu" the same jobs run through torch in small sizes: it shows that they run, not how fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from ssmid import datasets
from ssmid._array import next_fast_length, to_numpy
from ssmid.analysis.hankel import hankel_spectrum
from ssmid.analysis.rational_kernel import rational_kernel
from ssmid.analysis.spectrum import frequency_response
from ssmid.bench.records import OURS, Bar, Case, Progress, Row, bars, result
from ssmid.bench.timing import machine, measure, wall_seconds
from ssmid.systems import ImpulseResponse

SPECTRUM = {"torch.fft.rfft alone": 1 / 1.2}
"""The spectrum of a bank of taps costs at most 1.2 times its FFT."""
KERNEL = {"the three FFTs alone": 1 / 1.3}
"""Transfer functions to taps cost at most 1.3 times the three FFTs that they need."""
HANKEL_SECONDS = 1.0
"""32 Hankel values of 1536 filters of 2048 taps take less than this."""

_EXACT = 3
"""Elements of a batch whose result is computed again in float64 on the host."""
_BANK = 1536
"""Filters whose Hankel values are timed, as many as the language model has."""


def device_limits(device: str, *, quick: bool = False, data: Path | None = None, progress: Progress = print) -> dict[str, Any]:
    """All jobs on ``device``, timed with CUDA events where it is a GPU. Raises ValueError where it is not there."""
    import torch

    facts = machine() | accelerator(device)
    small = quick or not device.startswith("cuda")
    clock = clock_of(device)
    repeats = 3 if small else 20
    generator = torch.Generator(device).manual_seed(20261122)
    progress("limits of the device")
    ceilings = ceilings_of(device, small)
    bandwidth = ceilings["copy_bytes_per_second"]
    progress("spectrum of a bank of taps")
    spectrum = _spectrum_of_taps(generator, 256 if small else 131_072, bandwidth, repeats, clock)
    progress("transfer functions to taps")
    kernel = _transfer_functions_to_taps(generator, 256 if small else 131_072, bandwidth, repeats, clock)
    progress("Hankel values of a bank of filters")
    hankel = _hankel_values(device, data, small, 1 if small else 3, clock)
    in_time = Bar(f"{hankel.section}: {hankel.name}", f"{HANKEL_SECONDS:g} s", 1.0, HANKEL_SECONDS / hankel.rows[0].timing.seconds, None)
    checked = [] if small else [*bars([spectrum], SPECTRUM), *bars([kernel], KERNEL), in_time]
    return result(f"core on {device.split(':')[0]}", small, facts, ceilings, [spectrum, kernel, hankel], checked)


# ---------------------------------------------------------------- jobs


def _spectrum_of_taps(generator: Any, count: int, bandwidth: float, repeats: int, clock: Callable[..., Any], length: int = 2048) -> Case:
    """``frequency_response`` of taps on the FFT grid, float32, beside the FFT that it is."""
    import torch

    taps = torch.randn(count, length, generator=generator, device=generator.device)
    bank = ImpulseResponse(taps)
    tools = {
        OURS: lambda: frequency_response(bank, points=length).values,
        "torch.fft.rfft alone": lambda: torch.fft.rfft(taps),
    }
    timed = measure(tools, repeats, 10.0, clock)
    exact = np.fft.rfft(to_numpy(taps[:_EXACT]).astype(float))
    rows = [Row(tool, timing, _error(values, exact)) for tool, (timing, values) in timed.items()]
    floor = (4 * length + 8 * (length // 2 + 1)) * count / bandwidth
    name = f"{count} filters of {length} taps, float32"
    return Case("spectrum of taps", name, tuple(rows), _ERROR, None, count, 1e-6, floor, "reading the taps and writing the spectrum once")


def _transfer_functions_to_taps(
    generator: Any, count: int, bandwidth: float, repeats: int, clock: Callable[..., Any], order: int = 64, length: int = 2048
) -> Case:
    """``rational_kernel`` (RTF), float32, beside its two forward FFTs and one inverse FFT."""
    import torch

    b, a = (torch.randn(count, order, generator=generator, device=generator.device) / 4 / order for _ in range(2))
    spectrum = torch.fft.rfft(b, n=length)

    def three_ffts() -> Any:
        torch.fft.rfft(b, n=length)
        torch.fft.rfft(a, n=length)
        return torch.fft.irfft(spectrum, n=length)

    timed = measure({OURS: lambda: rational_kernel(b, a, length), "the three FFTs alone": three_ffts}, repeats, 10.0, clock)
    exact = rational_kernel(to_numpy(b[:_EXACT]).astype(float), to_numpy(a[:_EXACT]).astype(float), length)
    rows = [Row(tool, timing, _error(values, exact) if tool == OURS else None) for tool, (timing, values) in timed.items()]
    floor = (8 * order + 4 * length) * count / bandwidth
    name = f"{count} transfer functions of order {order} to {length} taps, float32"
    why = "reading the coefficients and writing the taps once"
    return Case("transfer functions to taps", name, tuple(rows), _ERROR, None, count, 1e-5, floor, why)


def _hankel_values(device: str, data: Path | None, small: bool, repeats: int, clock: Callable[..., Any], values: int = 32) -> Case:
    """The leading Hankel values of trained filters: all 1536 where their file is, else the bundled 64 (24 times over)."""
    import torch

    filters, origin = trained_filters(data)
    origin += ", repeated" if not small and len(filters) < _BANK else ""
    filters = filters[:8, :512] if small else np.resize(filters, (_BANK, filters.shape[-1]))
    taps = torch.asarray(filters, device=device)
    bank = ImpulseResponse(taps)
    ((timing, found),) = measure({OURS: lambda: hankel_spectrum(bank, values, rtol=1e-6)}, repeats, 10.0, clock).values()
    sigma, converged = to_numpy(found.sigma).astype(float), to_numpy(found.converged)
    exact = np.stack([np.sort(np.abs(scipy.linalg.eigvalsh(scipy.linalg.hankel(h[1:].astype(float)))))[::-1] for h in filters[:_EXACT]])
    error = np.abs(sigma[:_EXACT] - exact[:, :values]).max() / exact[:, 0].min()
    size = next_fast_length(2 * filters.shape[-1])
    vectors = torch.ones(len(filters), size, dtype=torch.float64, device=device)
    pair = measure({"pair": lambda: torch.fft.irfft(torch.fft.rfft(vectors), n=size)}, 5, 2.0, clock)["pair"][0].seconds
    name = f"{values} of {len(filters)} filters of {filters.shape[-1]} taps ({origin}), {converged.mean():.1%} of the values converged"
    kind = f"largest deviation of {_EXACT} filters from the dense decomposition, of the largest value"
    why = f"the {found.products} FFT pairs that each filter was given"
    return Case("Hankel values", name, (Row(OURS, timing, float(error)),), kind, None, len(filters), 1e-6, found.products * pair, why)


def trained_filters(data: Path | None) -> tuple[np.ndarray, str]:
    """``(n, length)`` and where they are from: all of a model where ``data`` holds them, else the bundled ones."""
    path = data / "hyena_d256_l2048.npz" if data else None
    if path and path.is_file():
        with np.load(path, allow_pickle=False) as archive:
            return archive["filters"].reshape(-1, archive["filters"].shape[-1]), "all of a language model"
    return datasets.hyena_filters().taps, "of a language model"


# ---------------------------------------------------------------- clocks and ceilings

_ERROR = f"largest relative l2 error of {_EXACT} elements, against float64"


def _error(values: Any, exact: np.ndarray) -> float:
    difference = to_numpy(values[: len(exact)]) - exact
    return float((np.linalg.norm(difference, axis=-1) / np.linalg.norm(exact, axis=-1)).max())


def accelerator(device: str) -> dict[str, Any]:
    """The facts of a GPU, none of "cpu"; ValueError where it is not there."""
    import torch

    seen = torch.cuda.device_count()
    if not device.startswith("cuda"):
        return {}
    if (torch.device(device).index or 0) >= seen:
        raise ValueError(f"device: expected one that is there, got {device!r} (torch {torch.__version__} sees {seen} GPUs)")
    return {"accelerator": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}


def clock_of(device: str) -> Callable[..., Any]:
    """Seconds that a function took, and what it returned: by events on a GPU."""
    return _event_seconds if device.startswith("cuda") else wall_seconds


def _event_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Between two events on the stream, so that launching what is timed does not count where the GPU is still busy."""
    import torch

    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    value = function()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 1e3, value


def ceilings_of(device: str, small: bool) -> dict[str, float]:
    """Bytes a second of a large copy (read plus write), flops a second of a float64 product."""
    import torch

    clock = clock_of(device)

    source = torch.ones(2**22 if small else 2**28, device=device)
    target = torch.empty_like(source)
    n = 512 if small else 8192
    matrix = torch.ones(n, n, dtype=torch.float64, device=device)
    timed = measure({"copy": lambda: target.copy_(source), "product": lambda: matrix @ matrix}, 10, 3.0, clock)
    return {
        "copy_bytes_per_second": 2 * source.nbytes / timed["copy"][0].fastest,
        "product_flops_per_second": 2 * n**3 / timed["product"][0].fastest,
    }
