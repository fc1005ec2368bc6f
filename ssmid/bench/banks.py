"""A thousand small systems in one call, against a loop over tools that take one system at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ssmid.analysis.impulse import impulse_response
from ssmid.analysis.spectrum import frequency_response
from ssmid.bench import peers
from ssmid.bench.records import OURS, Case, Progress, Row
from ssmid.bench.singles import hinf_error
from ssmid.bench.timing import Timing, measure
from ssmid.reduction.balanced import balanced_truncation
from ssmid.systems import Modal, StateSpace, TransferFunction

_EXACT = 5
"""Filters of a bank that are computed in extended precision."""


def banks_of_small_systems(quick: bool, progress: Progress) -> list[Case]:
    """Balanced truncation of 1000 systems of order 16 to 6."""
    count, looped, order, reduced_order = (60, 6, 16, 6) if quick else (1000, 200, 16, 6)
    discrete = np.linspace(0.01, 3.0, 64)
    continuous = 2 * np.tan(discrete / 2)
    bank = modal_bank(count, order)
    cases = []
    for name, system, omega in (
        ("state space, discrete", state_space_bank(bank), discrete),
        ("state space, continuous", state_space_bank(dataclasses.replace(bank, poles=np.log(bank.poles), dt=0)), continuous),
        ("modal, discrete", bank, discrete),
    ):
        progress(f"balanced truncation of a bank: {count} x {name}")
        singles = _singles(system if isinstance(system, StateSpace) else block_modal(system))[:looped]
        tools: dict[str, Callable[[], Any]] = {OURS: lambda s=system: balanced_truncation(s, reduced_order).system}
        if peers.have("pymor"):
            tools["pyMOR, loop"] = lambda s=singles: _stacked([peers.pymor_balanced(one, reduced_order) for one in s])
        if peers.have("slycot"):
            tools["SLICOT AB09AD, loop"] = lambda s=singles: _stacked([peers.slicot_balanced(one, reduced_order) for one in s])
        timed = measure(tools, 1 if quick else 5, 0.2 if quick else 3.0)
        full = frequency_response(system, omega).values
        rows = [_row(tool, timing, hinf_error(full[: _rounds(tool, count, looped)], reduced, omega), count, looped)
                for tool, (timing, reduced) in timed.items()]  # fmt: skip
        kind = f"median over the bank of the H-infinity error at {len(omega)} frequencies, of the largest gain"
        cases.append(Case("bank, balanced truncation", f"{count} x {name}, {order} to {reduced_order}", tuple(rows), kind, order, count))
    return cases


def taps_and_spectra(quick: bool, ceilings: dict[str, float], progress: Progress) -> list[Case]:
    """2048 taps, and the spectrum on the FFT grid, of 1000 filters of order 16."""
    count, looped, order, length = (50, 5, 16, 512) if quick else (1000, 100, 16, 2048)
    cases = []
    for job in _jobs(modal_bank(count, order), looped, length):
        progress(f"{job.section}: {job.name}")
        timed = measure({OURS: job.ours, **job.others}, 2 if quick else 9, 0.2 if quick else 3.0)
        rows = [_row(tool, timing, _l2_error(values, job.exact), count, looped) for tool, (timing, values) in timed.items()]
        floor = max(job.bytes / ceilings["copy_bytes_per_second"], job.flops / ceilings["product_flops_per_second"])
        kind = f"largest relative l2 error of {len(job.exact)} filters, against extended precision"
        why = "reading and writing what goes in and out, or the products, whichever is slower"
        name = f"{count} x {job.name}, order {order}, {length}"
        cases.append(Case(job.section, name, tuple(rows), kind, order, count, floor=floor, floor_kind=why))
    return cases


@dataclasses.dataclass(frozen=True)
class _Job:
    """``bytes``: what goes in and out; ``flops``: the products that any method of this kind makes."""

    section: str
    name: str
    ours: Callable[[], np.ndarray]
    others: dict[str, Callable[[], np.ndarray]]
    exact: np.ndarray
    bytes: float
    flops: float = 0.0


def _jobs(modal: Modal, looped: int, length: int) -> list[_Job]:
    states, (num, den) = block_modal(modal), _polynomials(modal)
    rational = TransferFunction(num, den)
    part = StateSpace(states.A[:looped], states.B[:looped], states.C[:looped], np.zeros((looped, 1, 1)))
    count, order = modal.poles.shape
    numbers = count * length
    long_num, long_den = num[:_EXACT].astype(np.longdouble), den[:_EXACT].astype(np.longdouble)

    def lfilter() -> np.ndarray:
        return peers.lfilter_taps(num[:looped], den[:looped], length)

    def freqz() -> np.ndarray:
        return peers.freqz_spectra(num[:looped], den[:looped], length)

    return [
        _Job("bank, taps", "modal", lambda: impulse_response(modal, length).taps, {
            "NumPy Vandermonde, loop": lambda: peers.vandermonde_taps(modal.poles[:looped], modal.residues[:looped], length),
            "SciPy dimpulse, loop": lambda: peers.dimpulse_taps(part, length),
            "SciPy lfilter, loop": lfilter,
        }, _exact_taps(modal, length), 8 * numbers, 2 * numbers * order),
        _Job("bank, taps", "transfer function", lambda: impulse_response(rational, length).taps, {"SciPy lfilter, loop": lfilter},
             peers.lfilter_taps(long_num, long_den, length), 8 * numbers),
        _Job("bank, spectrum", "modal", lambda: frequency_response(modal, points=length).values, {
            "SciPy dfreqresp, loop": lambda: peers.dfreqresp_spectra(part, length),
            "SciPy freqz, loop": freqz,
        }, _exact_spectrum(modal, length), 8 * numbers, 4 * numbers * order / 2),
        _Job("bank, spectrum", "transfer function", lambda: frequency_response(rational, points=length).values, {
            "SciPy freqz, loop": freqz,
        }, np.stack([np.polyval(b, z) / np.polyval(a, z) for z in [_circle(length)] for b, a in zip(long_num, long_den, strict=True)]),
             8 * numbers),
    ]  # fmt: skip


# ---------------------------------------------------------------- the systems


def modal_bank(count: int, order: int) -> Modal:
    """Random stable real filters: conjugate pairs of modulus 0.6 to 0.98 at well-spread angles, Gaussian residues."""
    rng = np.random.default_rng(20261122)
    pairs = order // 2
    angles = np.pi * (np.arange(pairs) + rng.uniform(0.2, 0.8, (count, pairs))) / pairs
    poles = rng.uniform(0.6, 0.98, (count, pairs)) * np.exp(1j * angles)
    residues = rng.standard_normal((count, pairs)) + 1j * rng.standard_normal((count, pairs))
    return Modal(np.concatenate([poles, poles.conj()], -1), np.concatenate([residues, residues.conj()], -1))


def block_modal(bank: Modal) -> StateSpace:
    """The same systems with a real 2 x 2 block for each conjugate pair of :func:`modal_bank`: states (Re z, Im z)."""
    count, order = bank.poles.shape
    pairs = order // 2
    poles, residues = bank.poles[:, :pairs], bank.residues[:, :pairs]
    A = np.zeros((count, order, order))
    re, im = np.arange(0, order, 2), np.arange(1, order, 2)
    A[:, re, re], A[:, re, im], A[:, im, re], A[:, im, im] = poles.real, -poles.imag, poles.imag, poles.real
    B = np.zeros((count, order, 1))
    B[:, re] = 1
    C = 2 * np.stack([residues.real, -residues.imag], -1).reshape(count, 1, order)
    return StateSpace(A, B, C, dt=bank.dt)


def state_space_bank(bank: Modal) -> StateSpace:
    """The same systems in random coordinates, where nothing of their structure is left."""
    rng = np.random.default_rng(20261123)
    blocks = block_modal(bank)
    T = np.eye(bank.order) + 0.3 * rng.standard_normal(blocks.A.shape) / np.sqrt(bank.order)
    return StateSpace(np.linalg.solve(T, blocks.A @ T), np.linalg.solve(T, blocks.B), blocks.C @ T, dt=bank.dt)


def _polynomials(bank: Modal) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators of :func:`modal_bank`: the first taps times the denominator are the numerator."""
    den = np.stack([np.poly(poles).real for poles in bank.poles])
    taps = _exact_taps(bank, bank.order + 1, len(den)).astype(float)
    num = np.stack([np.convolve(h, a)[: bank.order + 1] for h, a in zip(taps, den, strict=True)])
    return num, den


def _singles(bank: StateSpace) -> list[StateSpace]:
    return [StateSpace(A, B, C, dt=bank.dt) for A, B, C in zip(bank.A, bank.B, bank.C, strict=True)]


def _stacked(systems: list[StateSpace]) -> StateSpace:
    return StateSpace(*(np.stack([getattr(s, name) for s in systems]) for name in "ABCD"), dt=systems[0].dt)


# ---------------------------------------------------------------- rows and references


def _rounds(tool: str, count: int, looped: int) -> int:
    return count if tool == OURS else looped


def _row(tool: str, timing: Timing, error: float, count: int, looped: int) -> Row:
    """Loops were timed over their first ``looped`` rounds; their seconds are scaled to all ``count``."""
    return Row(tool, timing, error) if tool == OURS else Row(tool, timing.scaled(count / looped), error, looped)


def _l2_error(values: np.ndarray, exact: np.ndarray) -> float:
    difference = values[: len(exact)] - exact
    return float((np.linalg.norm(difference.astype(complex), axis=-1) / np.linalg.norm(exact.astype(complex), axis=-1)).max())


def _exact_taps(bank: Modal, length: int, count: int = _EXACT) -> np.ndarray:
    """Taps by the recurrence of the modes, in the longest complex numbers that there are."""
    poles, state = (a[:count].astype(np.clongdouble) for a in (bank.poles, bank.residues))
    taps = np.zeros((len(poles), length), np.longdouble)
    for t in range(1, length):
        taps[:, t] = state.sum(-1).real
        state = state * poles
    return taps


def _exact_spectrum(bank: Modal, length: int) -> np.ndarray:
    poles, residues = (a[:_EXACT].astype(np.clongdouble)[..., None] for a in (bank.poles, bank.residues))
    return (residues / (_circle(length) - poles)).sum(-2)


def _circle(length: int) -> np.ndarray:
    """``exp(i omega)`` on the FFT grid, extended precision."""
    turn = np.arange(length // 2 + 1, dtype=np.longdouble) / length
    angle = 8 * np.arctan(np.longdouble(1)) * turn
    return np.cos(angle) + 1j * np.sin(angle)
