"""What each stage of the distiller takes, beside the bytes that it cannot but move: FFTs in and out, taps read once an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmid.bench.records import OURS, Case, Row
from ssmid.bench.timing import Timing
from ssmid.distillation.bank import Bank
from ssmid.distillation.certificate import certify
from ssmid.distillation.l2 import fit_l2
from ssmid.distillation.options import Options
from ssmid.distillation.subspace import leading_subspace, products_of

_LANCZOS = 60
"""Products of a Hankel norm of an error, in the median."""
_EVALUATIONS = 40
"""Of the error and its derivatives in a fit, in the mean: Newton steps before and after each exchange, and the prunings."""


def stages(taps: Any, order: int, bandwidth: float, clock: Callable[..., Any]) -> list[Case]:
    """Subspace, fit and certificate of all filters, one stage after another. ``bandwidth`` : bytes a second of a copy"""
    bank = Bank.of(taps)
    n, N = bank.count, bank.length
    size = 1 << (2 * N - 2).bit_length()
    seconds, subspace = clock(lambda: leading_subspace(bank, order))
    single, exact = products_of(N, order)
    moved = n * (single * _product_bytes(N, size, 4) + exact * _product_bytes(N, size, 8))
    cases = [_case("Hankel subspace", seconds, moved, bandwidth, n, f"{single} products in float32 and {exact} in float64")]
    orders = np.where(bank.empty, 0, np.minimum(order, subspace.rank))
    seconds, fitted = clock(lambda: fit_l2(bank, orders, subspace, Options(order=order)))
    cases.append(_case("l2 optimum", seconds, n * 8 * N * _EVALUATIONS, bandwidth, n, f"the taps read for {_EVALUATIONS} evaluations"))
    seconds, _ = clock(lambda: certify(bank, fitted, subspace.sigma))
    moved = n * (_LANCZOS * _product_bytes(N, size, 8) + 16 * 8 * N)
    return [*cases, _case("certificate", seconds, moved, bandwidth, n, f"{_LANCZOS} products in float64, and the taps of the error")]


def _product_bytes(N: int, size: int, width: int) -> int:
    """Of a product of a vector with a Hankel matrix by one FFT pair: vector in, spectrum out and in, vector out."""
    return width * (2 * N + 2 * (size + 2))


def _case(name: str, seconds: float, moved: int, bandwidth: float, count: int, why: str) -> Case:
    row = Row(OURS, Timing.of([seconds]))
    return Case("stages", f"{name}, {moved / 1e9:.0f} GB", (row,), "", None, count, floor=moved / bandwidth, floor_kind=f"{name}: {why}")
