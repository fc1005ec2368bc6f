"""``ssmid bench distill``: banks of trained filters to recurrences, beside gradient descent and beside what the machine allows.

On a GPU the bars of the distiller are measured, on a CPU that 1536 filters take less than a minute. Errors are relative l2 errors over the
taps after the first alone, as gradient descent has them; what a model does after the last tap is in the certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssmid import datasets
from ssmid._array import namespace, to_numpy
from ssmid.bench.device import accelerator, ceilings_of, clock_of, trained_filters
from ssmid.bench.distill_stages import stages
from ssmid.bench.records import OURS, Bar, Case, Progress, Row, result
from ssmid.bench.timing import Timing, limits, machine, wall_seconds
from ssmid.distillation.bank import Bank
from ssmid.distillation.gradient import STEPS, gradient_distill
from ssmid.distillation.pipeline import distill
from ssmid.distillation.result import Distillation
from ssmid.distillation.subspace import leading_subspace
from ssmid.systems import ImpulseResponse

CPU_SECONDS = 60.0
"""1536 filters of 2048 taps at order 16 on two cores, certificates included."""
GPU_SECONDS = 3.0
"""49,152 of them on one H200."""
GRADIENT_TIMES = 300.0
"""How many times as long gradient descent takes for these."""
PUBLISHED_GRADIENT = 29.0 * 32
"""Seconds of these by the published implementation's proportion: 29 s for 1536 filters at order 16 on the same GPU."""
AS_NEAR = 0.95
"""The share of the trained filters that are at least as near as by gradient descent."""
HANKEL_TIMES = {"balanced": 1.3, "hankel": 1.01}
"""How many times sigma_{order+1} the Hankel norm of an error is at the worst."""
_EVERY = 8
_ERROR = "median relative l2 error over the taps after tap 0"


def distilling(*, quick: bool = False, data: Path | None = None, progress: Progress = print, device: str = "cpu") -> dict[str, Any]:
    """All sections on ``device``. Raises ValueError where it is not there."""
    import torch

    facts = machine() | accelerator(device)
    gpu = device.startswith("cuda")
    progress("limits of the device")
    ceilings = ceilings_of(device, quick) if gpu else limits(quick)
    filters, origin = trained_filters(data)
    filters = filters[:: len(filters) // 4, :256] if quick else filters
    taps = torch.asarray(filters, device=device) if gpu else filters
    steps = 50 if quick else STEPS
    cases, bars = [], []

    def add(section: tuple[Case, list[Bar]]) -> Case:
        cases.append(section[0])
        bars.extend(section[1])
        return section[0]

    progress("trained filters, order 16")
    trained = add(_trained(taps, origin, 16, steps if gpu or quick else 0, clock_of(device)))
    if gpu or quick:
        source, count = ImpulseResponse(taps), 48 if quick else 49_152
        progress(f"{count} filters")
        add(_many(source, count, None, clock_of(device), trained))
        progress("stage by stage")
        cases += stages(datasets.drawn_filters(count, source).taps, 16, ceilings["copy_bytes_per_second"], clock_of(device))
        progress("longer filters")
        add(_many(source, count // 4, 4 * taps.shape[-1], clock_of(device), None))
        progress("a stream of filters")
        cases.append(_stream(source, 3 if quick else 16, 16 if quick else 62_500))
        progress("trained filters, order 64")
        add(_trained(taps, origin, 64, steps, clock_of(device)))
    if not gpu:
        for order in (16, 64):
            progress(f"Hankel errors, order {order}")
            add(_hankel_errors(filters[::_EVERY], origin, min(order, filters.shape[-1] // 8)))
    name = "distill" if device == "cpu" else f"distill on {device.split(':')[0]}"
    return result(name, quick, facts, ceilings, cases, [] if quick else bars)


# ---------------------------------------------------------------- trained filters


def _trained(taps: Any, origin: str, order: int, steps: int, clock: Callable[..., Any]) -> tuple[Case, list[Bar]]:
    """All trained filters by our method and, where ``steps`` are asked for, by gradient descent."""
    distill(taps[:8], order)  # compiles
    seconds, found = clock(lambda: distill(taps, order))
    ours, timing = errors_over_taps(found), Timing.of([seconds])
    rows = [Row(OURS, timing, float(np.median(ours)), order=order)]
    name = f"{len(taps)} filters of {taps.shape[-1]} taps ({origin}), order {order}"
    notes = f", mean error {ours.mean():.4f}, {to_numpy(found.converged).mean():.1%} converged"
    bars = [] if steps else [Bar(f"trained filters: {name}", f"{CPU_SECONDS:g} s", 1.0, CPU_SECONDS / timing.seconds, None)]
    if steps:
        bank = Bank.of(taps)
        seconds, (poles, residues, _) = clock(lambda: gradient_distill(bank.strict, order // 2, steps=steps))
        theirs = _errors_of_modes(poles, residues, bank.strict)
        rows.append(Row(f"gradient descent, {steps} steps", Timing.of([seconds]), float(np.median(theirs)), order=order))
        share = float(np.mean(ours <= theirs))
        notes += f", gradient descent {theirs.mean():.4f}; ours at least as near for {share:.1%}"
        notes += f", at worst {(ours / theirs).max():.3f} times as far"
        where = f"trained filters, order {order}"
        bars.append(Bar(where, "share at least as near as gradient descent", AS_NEAR, share, bool(np.median(ours) < np.median(theirs))))
    return Case("trained filters", name + notes, tuple(rows), _ERROR, None, len(taps), 1e-6), bars


def _hankel_errors(taps: np.ndarray, origin: str, order: int) -> tuple[Case, list[Bar]]:
    """Balanced truncation and the Hankel-norm optimum beside what no system gets below, known tightly."""
    bank = Bank.of(taps)
    bound = to_numpy(leading_subspace(bank, order, "tight").sigma[:, order] * bank.scale)
    rows, bars = [], []
    for method, allowed in HANKEL_TIMES.items():
        seconds, found = wall_seconds(lambda method=method: distill(taps, order, method=method))
        worst = float((to_numpy(found.certificate.hankel) / bound).max())
        rows.append(Row(OURS if not rows else f"ssmid, {method}", Timing.of([seconds]), worst, order=order))
        bars.append(Bar(f"Hankel errors, order {order}: {method}", f"{allowed:g} times the bound at worst", 1.0, allowed / worst, None))
    name = f"{len(taps)} filters of {taps.shape[-1]} taps ({origin}, every {_EVERY}th), order {order}, balanced"
    return Case("Hankel errors", name, tuple(rows), "largest Hankel norm of an error over sigma_{order+1}", None, len(taps), 1e-6), bars


def errors_over_taps(found: Distillation) -> np.ndarray:
    """``(n,)`` relative l2 errors over the taps after tap 0: of the certificate's error what follows the last tap is taken away."""
    certificate = found.certificate
    squares = to_numpy(certificate.l2) ** 2 - to_numpy(certificate.tail_energy)
    return np.sqrt(np.clip(squares, 0, None))


def _errors_of_modes(poles: Any, residues: Any, strict: Any) -> np.ndarray:
    """``(n,)`` relative l2 errors of sums of modes, one after another: another way than the certificate's."""
    xp = namespace(strict)
    time, left = xp.arange(strict.shape[-1], dtype=xp.float64, device=strict.device), strict
    for k in range(poles.shape[-1]):
        pole, residue = (xp.astype(x[:, k : k + 1], xp.complex128) for x in (poles, residues))
        left = left - xp.real(residue * pole**time)
    return to_numpy(xp.linalg.vector_norm(left, axis=-1) / xp.linalg.vector_norm(strict, axis=-1))


# ---------------------------------------------------------------- many filters


_SETTINGS = {
    OURS: {},
    "ssmid, exchanges=0": {"exchanges": 0},
    "ssmid, exchanges=0, precision='float32'": {"exchanges": 0, "precision": "float32"},
}
"""What is left out for speed: the way out of local minima, then half of the digits where bounds account for it."""


def _many(
    source: ImpulseResponse, count: int, length: int | None, clock: Callable[..., Any], trained: Case | None
) -> tuple[Case, list[Bar]]:
    """``count`` drawn filters at order 16, certificates included; gradient descent by proportion to the trained ones."""
    taps = datasets.drawn_filters(count, source, length=length).taps
    distill(taps[: count // 12, :], 16)
    name = f"{count} filters of {taps.shape[-1]} taps, order 16, with certificates"
    rows, bars, notes = [], [], ""
    for tool, options in (_SETTINGS if trained else {OURS: {}}).items():
        seconds, found = clock(lambda options=options: distill(taps, 16, **options))
        rows.append(Row(tool, Timing.of([seconds]), float(np.median(errors_over_taps(found))), order=16))
        bars.append(Bar(f"many filters: {count}, {tool}", f"{GPU_SECONDS:g} s", 1.0, GPU_SECONDS / seconds, None))
        if tool == OURS:
            ratio = np.nanmedian(to_numpy(found.certificate.ratio))
            notes = f"; {to_numpy(found.converged).mean():.1%} converged, Hankel error {ratio:.3g} times the bound in the median"
    if trained is None:
        return Case("many filters", name + notes, tuple(rows), _ERROR, None, count, 1e-6), []
    gradient = trained.rows[1]
    descent = gradient.timing.scaled(count / trained.count)
    for row in rows:
        where = f"many filters: {count}, {row.tool}"
        bars.append(Bar(where, gradient.tool, GRADIENT_TIMES, descent.seconds / row.timing.seconds, None))
        bars.append(Bar(where, "the published gradient descent", GRADIENT_TIMES, PUBLISHED_GRADIENT / row.timing.seconds, None))
    rows.append(Row(gradient.tool, descent, None, scaled_from=trained.count, order=16))
    return Case("many filters", name + notes, tuple(rows), _ERROR, None, count, 1e-6), bars


def _stream(source: ImpulseResponse, rounds: int, count: int) -> Case:
    """Filters that are drawn, distilled and forgotten: what is kept on the device does not grow with their number."""
    import torch

    gpu = torch.is_tensor(source.taps) and source.taps.is_cuda
    if gpu:
        torch.cuda.reset_peak_memory_stats()

    def all_of_them() -> float:
        errors = [np.median(to_numpy(distill(datasets.drawn_filters(count, source, seed=k).taps, 16).error)) for k in range(rounds)]
        return float(np.median(errors))

    seconds, error = wall_seconds(all_of_them)
    memory = f", at most {torch.cuda.max_memory_allocated() / 2**30:.0f} GiB" if gpu else ""
    name = f"{rounds * count} filters of {source.length} taps, order 16, with certificates{memory}"
    return Case("a stream", name, (Row(OURS, Timing.of([seconds]), error, order=16),), _ERROR, None, rounds * count, 1e-6)
