"""The state that a prompt leaves in modal recurrences, ``x = sum_s lambda^(T-1-s) u_s``, without an array of time by modes.

Only the last state of a prompt is needed, which makes it one weighted reduction (Massaroli et al. 2023, section 3.4). Time is cut into
blocks, in which the weights are the same but for one factor a block: tables of some dozen powers do for any length. Their phases
are reduced in double precision, so that a pole of modulus 0.9999 is exact to rounding after a hundred thousand tokens.

On a GPU the input is read once and nothing else of its length is read or written. Products of blocks with the table run on tensor cores,
as good as single precision: float32 in three parts of TF32; bf16 as it is, with the table in three parts of bf16.
"""

from __future__ import annotations

from math import pi

from ssmid._array import Array, as_complex, astype_width, double, namespace, needs_gradient
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl
from ssmid.kernels.vandermonde import _exponential
from ssmid.linalg import powers, transpose

_BLOCK = 64
"""Samples that share a table."""
_MODES = 32
"""Modes of a program; banks with more are reduced in several passes over the input."""
_ROWS = 64
"""Blocks of a tile, of one sequence or of several short ones."""
_LONG = 16384
"""Samples from which on a program makes its own table in place of reading it; of a single sequence, from the first."""
_PROGRAMS = 8192
"""So many keep a GPU busy; beyond, a program that has its table in registers takes more sequences."""


def modal_state(u: Array, poles: Array, exponents: Array = None) -> Array:
    """``sum_s poles^(T-1-s) u_s``: complex ``(batch, channels, modes)``, of single precision unless ``u`` is double.

    u : ``(batch, channels, T)`` real   poles : ``(channels, modes)`` complex, best in double precision
    exponents : :func:`exponents_of` the poles, where they are at hand
    """
    xp = namespace(u)
    if not fused(u) or u.dtype == xp.float64 or needs_gradient(u, poles):
        return plain_modal_state(u, poles)
    (batch, channels, length), modes = u.shape, poles.shape[-1]
    u = u if u.stride(-1) == 1 else u.contiguous()
    make = xp.empty if length else xp.zeros
    state = make((batch, channels, modes), dtype=xp.complex64, device=u.device)
    if batch and channels and modes and length:
        given = exponents_of(poles) if exponents is None else exponents
        _launch(u, given, xp.view_as_real(state), u.dtype == xp.bfloat16)
    return state


def _launch(u: Array, exponents: Array, state: Array, half: bool) -> None:
    """The kernels: one that makes tables and one that reads them, or one that does both where few sequences would share a table."""
    (batch, channels, length), modes = u.shape, state.shape[-2]
    width = min(_MODES, max(8, ceil_power_of_two(modes)))
    blocks = ceil_power_of_two(-(-length // _BLOCK))
    together = min(_ROWS // blocks, ceil_power_of_two(batch))
    shared = together > 1 and together * blocks >= 16
    rows = blocks if shared else min(_ROWS, max(16, blocks))
    parts = -(-modes // width)
    sizes = {"MODES": width, "ROWS": rows, "COLUMNS": _BLOCK}
    own = not shared and (batch == 1 or length >= _LONG)
    within = behind = exponents
    if not own:
        within, behind = (state.new_empty((channels, n, parts * width, 2)) for n in (_BLOCK, rows + 1))
        _tables[(channels, parts)](exponents, within, behind, modes, parts * width, **sizes)
    arguments = u, within, behind, state, channels, length, u.stride(0), u.stride(1), modes, parts * width
    if shared:
        groups = -(-batch // together)
        each = max(1, min(groups, channels * groups // _PROGRAMS))
        grid = (channels, parts, -(-groups // each))
        _reduce_together[grid](*arguments, batch, each, HALF=half, TOGETHER=together, **sizes)
    else:
        _reduce[(channels * batch, parts)](*arguments, HALF=half, OWN=own, **sizes)


def plain_modal_state(u: Array, poles: Array) -> Array:
    """The reduction in array operations: products of blocks with the table of powers, and a sum over the blocks."""
    xp = namespace(u)
    *batch, channels, length = u.shape
    bits = 64 if u.dtype == xp.float64 else 32
    u = xp.astype(u, xp.float64 if bits == 64 else xp.float32)
    poles = double(poles)
    blocks, rest = divmod(length, _BLOCK)
    fine = powers(poles, _BLOCK)
    whole = fine[..., -1] * poles
    coarse = powers(whole, blocks + 1)

    def product(x: Array, count: int) -> Array:
        """``(*batch, channels, blocks, count)`` with the last ``count`` weights, to ``(*batch, channels, blocks, modes)``."""
        table = transpose(xp.flip(fine[..., :count], axis=-1))
        real, imaginary = (x @ astype_width(part(table), bits) for part in (xp.real, xp.imag))
        return as_complex(real) + 1j * as_complex(imaginary)

    state = xp.zeros((*batch, channels, poles.shape[-1]), dtype=xp.complex128 if bits == 64 else xp.complex64, device=u.device)
    if rest:
        state = product(u[..., None, :rest], rest)[..., 0, :] * astype_width(coarse[..., blocks], bits)
    if blocks:
        sums = product(xp.reshape(u[..., rest:], (*batch, channels, blocks, _BLOCK)), _BLOCK)
        weights = transpose(xp.flip(coarse[..., :blocks], axis=-1))
        state = state + xp.sum(sums * astype_width(weights, bits), axis=-2)
    return state


def exponents_of(poles: Array) -> Array:
    """Decay and turns a sample, ``(channels, modes, 2)`` in double precision; a pole at 0 decays by exp(-10,000)."""
    xp, poles = namespace(poles), double(poles)
    zero = poles == 0
    logs = xp.log(xp.where(zero, xp.ones_like(poles), poles))
    rate = xp.where(zero, xp.full_like(xp.real(logs), -1e4), xp.real(logs))
    return xp.stack([rate, xp.imag(logs) / (2 * pi)], axis=-1)


@jit
def _tables(
    exponents, within, behind, modes, padded, MODES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    """Powers that end with 1: within a block; of a tile and of the blocks behind each of a tile."""
    channel = tl.program_id(0)
    mode = tl.program_id(1) * MODES + tl.arange(0, MODES)
    at = exponents + (channel * modes + mode) * 2
    rate, turns = tl.load(at, mode < modes, 0.0)[None, :], tl.load(at + 1, mode < modes, 0.0)[None, :]
    column, row = tl.arange(0, COLUMNS)[:, None], tl.arange(0, ROWS)[:, None]
    wr, wi = _exponential(rate, turns, (COLUMNS - 1 - column).to(tl.float64))
    place = within + ((channel * COLUMNS + column) * padded + mode[None, :]) * 2
    tl.store(place, wr)
    tl.store(place + 1, wi)
    # entry 0 is the factor of a whole tile, entry 1 + row that of the blocks behind a row
    wr, wi = _exponential(rate, turns, (COLUMNS * (ROWS - 1 - row)).to(tl.float64))
    place = behind + ((channel * (ROWS + 1) + 1 + row) * padded + mode[None, :]) * 2
    tl.store(place, wr)
    tl.store(place + 1, wi)
    wr, wi = _exponential(rate, turns, (COLUMNS * ROWS + 0 * tl.arange(0, 1)).to(tl.float64)[:, None])
    place = behind + (channel * (ROWS + 1) * padded + mode[None, :]) * 2
    tl.store(place, wr)
    tl.store(place + 1, wi)


@jit
def _three_parts(table):
    """Of bf16, whose sum is single precision."""
    high = table.to(tl.bfloat16)
    rest = table - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@jit
def _product(block, table, high, middle, low, HALF: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    if HALF:
        sums = tl.dot(block, low)
        sums = tl.dot(block, middle, sums)
        sums = tl.dot(block, high, sums)
    else:
        sums = tl.dot(block.to(tl.float32), table, input_precision="tf32x3")
    return sums


@jit
def _reduce(
    u, within, behind, state, channels, length, by_sequence, by_channel, modes, padded, HALF: tl.constexpr, OWN: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
    MODES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    """One sequence of one channel; with OWN, ``within`` and ``behind`` are the exponents, and tables are made here and never written."""
    channel = tl.program_id(0) % channels
    sequence = tl.program_id(0) // channels
    mode = tl.program_id(1) * MODES + tl.arange(0, MODES)
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)
    if OWN:
        at = within + (channel * modes + mode) * 2
        rate, turns = tl.load(at, mode < modes, 0.0)[None, :], tl.load(at + 1, mode < modes, 0.0)[None, :]
        wr, wi = _exponential(rate, turns, (COLUMNS - 1 - column[:, None]).to(tl.float64))
        table = tl.reshape(tl.join(wr, wi), (COLUMNS, 2 * MODES))
        dr, di = _exponential(rate, turns, (COLUMNS * ROWS + 0 * tl.arange(0, 1)).to(tl.float64)[:, None])
    else:
        lane = 2 * MODES * tl.program_id(1) + tl.arange(0, 2 * MODES)[None, :]
        table = tl.load(within + (channel * COLUMNS + column[:, None]) * 2 * padded + lane)
        decay = behind + (channel * (ROWS + 1) * padded + mode) * 2
        dr, di = tl.load(decay)[None, :], tl.load(decay + 1)[None, :]
    high, middle, low = _three_parts(table)
    sr = tl.zeros((ROWS, MODES), dtype=tl.float32)
    si = tl.zeros((ROWS, MODES), dtype=tl.float32)
    start = u + sequence.to(tl.int64) * by_sequence + channel.to(tl.int64) * by_channel
    tiles = tl.cdiv(length, ROWS * COLUMNS)
    # the last tile ends with the last sample; what the first lacks is zero
    before = length - tiles * (ROWS * COLUMNS)
    for tile in range(tiles):
        time = before + tile * (ROWS * COLUMNS) + row * COLUMNS + column[None, :]
        block = tl.load(start + time, time >= 0, 0.0)
        re, im = tl.split(tl.reshape(_product(block, table, high, middle, low, HALF), (ROWS, MODES, 2)))
        sr, si = dr * sr - di * si + re, dr * si + di * sr + im
    if OWN:
        at = within + (channel * modes + mode) * 2
        rate, turns = tl.load(at, mode < modes, 0.0)[None, :], tl.load(at + 1, mode < modes, 0.0)[None, :]
        wr, wi = _exponential(rate, turns, (COLUMNS * (ROWS - 1 - row)).to(tl.float64))
    else:
        weight = behind + ((channel * (ROWS + 1) + 1 + row) * padded + mode[None, :]) * 2
        wr, wi = tl.load(weight), tl.load(weight + 1)
    out = state + ((sequence.to(tl.int64) * channels + channel) * modes + mode) * 2
    tl.store(out, tl.sum(wr * sr - wi * si, axis=0), mode < modes)
    tl.store(out + 1, tl.sum(wr * si + wi * sr, axis=0), mode < modes)


@jit
def _reduce_together(
    u, within, behind, state, channels, length, by_sequence, by_channel, modes, padded, batch, each, HALF: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
    TOGETHER: tl.constexpr, MODES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    """Sequences of at most ROWS blocks, TOGETHER of them in a tile and ``each`` tiles by one program, whose tables are loaded once."""
    channel = tl.program_id(0)
    mode = tl.program_id(1) * MODES + tl.arange(0, MODES)
    row, column = tl.arange(0, TOGETHER * ROWS), tl.arange(0, COLUMNS)
    lane = 2 * MODES * tl.program_id(1) + tl.arange(0, 2 * MODES)[None, :]
    table = tl.load(within + (channel * COLUMNS + column[:, None]) * 2 * padded + lane)
    high, middle, low = _three_parts(table)
    weight = behind + ((channel * (ROWS + 1) + 1 + (row % ROWS)[:, None]) * padded + mode[None, :]) * 2
    wr, wi = tl.load(weight), tl.load(weight + 1)
    # the last block ends with the last sample; what the first lacks is zero
    time = length - ROWS * COLUMNS + (row % ROWS)[:, None] * COLUMNS + column[None, :]
    first = tl.program_id(2) * each * TOGETHER
    for start in range(first, tl.minimum(first + each * TOGETHER, batch), TOGETHER):
        sequence = (start + row // ROWS).to(tl.int64)[:, None]
        place = u + sequence * by_sequence + channel.to(tl.int64) * by_channel + time
        block = tl.load(place, (time >= 0) & (sequence < batch), 0.0)
        re, im = tl.split(tl.reshape(_product(block, table, high, middle, low, HALF), (TOGETHER * ROWS, MODES, 2)))
        sr = tl.sum(tl.reshape(wr * re - wi * im, (TOGETHER, ROWS, MODES)), axis=1)
        si = tl.sum(tl.reshape(wr * im + wi * re, (TOGETHER, ROWS, MODES)), axis=1)
        row_of = (start + tl.arange(0, TOGETHER)).to(tl.int64)[:, None]
        out = state + ((row_of * channels + channel) * modes + mode[None, :]) * 2
        there = (row_of < batch) & (mode < modes)[None, :]
        tl.store(out, sr, there)
        tl.store(out + 1, si, there)
