"""The state that a prompt leaves in modal recurrences, ``x = sum_s lambda^(T-1-s) u_s``, without an array of time by modes.

Only the last state of a prompt is needed, which makes it one weighted reduction (Massaroli et al. 2023, section 3.4). Time is cut into
blocks, in which the weights are the same but for one factor a block: tables of some dozen powers do for any length. They are made
in double precision, so that a pole of modulus 0.9999 is exact to rounding after a hundred thousand tokens.

On a GPU the input is read once and nothing else of its length is read or written: products of blocks with the table run on
tensor cores in three parts of TF32, which is single precision.
"""

from __future__ import annotations

from typing import Any

from ssmid._array import Array, as_complex, astype_width, double, namespace, needs_gradient
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl
from ssmid.linalg import powers, transpose

_BLOCK = 64
"""Samples that share a table."""
_MODES = 32
"""Modes of a program; banks with more are reduced in several passes over the input."""


def modal_state(u: Array, poles: Array) -> Array:
    """``sum_s poles^(T-1-s) u_s``: complex ``(batch, channels, modes)``, of single precision unless ``u`` is double.

    u : ``(batch, channels, T)`` real   poles : ``(channels, modes)`` complex, best in double precision
    """
    if not fused(u) or u.dtype == namespace(u).float64 or needs_gradient(u, poles):
        return plain_modal_state(u, poles)
    xp, (batch, channels, length) = namespace(u), u.shape
    modes = poles.shape[-1]
    u = u if u.stride(-1) == 1 else u.contiguous()
    width = min(_MODES, max(8, ceil_power_of_two(modes)))
    rows = min(64, max(16, ceil_power_of_two(-(-length // _BLOCK))))
    state = xp.zeros((batch, channels, modes), dtype=xp.complex64, device=u.device)
    if batch and channels and modes and length:
        tables = [xp.view_as_real(x).contiguous() for x in _tables(poles, rows, -(-modes // width) * width)]
        grid = (channels * batch, -(-modes // width))
        _reduce[grid](u, *tables, xp.view_as_real(state), channels, length, u.stride(0), u.stride(1), modes, -(-modes // width) * width,
                      MODES=width, ROWS=rows, COLUMNS=_BLOCK)  # fmt: skip
    return state


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


def _tables(poles: Array, rows: int, padded: int) -> tuple[Array, Array, Array]:
    """Powers in single precision: within a block ``(channels, block, modes)``, of a tile of ``rows`` blocks ``(channels, modes)``, and of
    the blocks behind each of a tile ``(channels, rows, modes)``."""
    xp: Any = namespace(poles)
    poles = double(poles)
    gap = xp.zeros((poles.shape[0], padded - poles.shape[1]), dtype=poles.dtype, device=poles.device)
    poles = xp.concat([poles, gap], axis=-1)
    fine = powers(poles, _BLOCK)
    coarse = powers(fine[..., -1] * poles, rows + 1)
    tables = transpose(xp.flip(fine, axis=-1)), coarse[..., rows], transpose(xp.flip(coarse[..., :rows], axis=-1))
    within, advance, behind = (astype_width(x, 32) for x in tables)
    return within, advance, behind


@jit
def _reduce(
    u, within, advance, behind, state, channels, length, by_sequence, by_channel, modes, padded,
    MODES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    channel = tl.program_id(0) % channels
    sequence = tl.program_id(0) // channels
    mode = tl.program_id(1) * MODES + tl.arange(0, MODES)
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)
    lane = 2 * MODES * tl.program_id(1) + tl.arange(0, 2 * MODES)[None, :]
    table = tl.load(within + (channel * COLUMNS + column[:, None]) * 2 * padded + lane)
    decay = advance + (channel * padded + mode) * 2
    dr, di = tl.load(decay)[None, :], tl.load(decay + 1)[None, :]
    sr = tl.zeros((ROWS, MODES), dtype=tl.float32)
    si = tl.zeros((ROWS, MODES), dtype=tl.float32)
    start = u + sequence.to(tl.int64) * by_sequence + channel.to(tl.int64) * by_channel
    tiles = tl.cdiv(length, ROWS * COLUMNS)
    # the last tile ends with the last sample; what the first lacks is zero
    before = length - tiles * (ROWS * COLUMNS)
    for tile in range(tiles):
        time = before + tile * (ROWS * COLUMNS) + row * COLUMNS + column[None, :]
        block = tl.load(start + time, time >= 0, 0.0).to(tl.float32)
        sums = tl.dot(block, table, input_precision="tf32x3")
        re, im = tl.split(tl.reshape(sums, (ROWS, MODES, 2)))
        sr, si = dr * sr - di * si + re, dr * si + di * sr + im
    weight = behind + ((channel * ROWS + row) * padded + mode[None, :]) * 2
    wr, wi = tl.load(weight), tl.load(weight + 1)
    out = state + ((sequence.to(tl.int64) * channels + channel) * modes + mode) * 2
    tl.store(out, tl.sum(wr * sr - wi * si, axis=0), mode < modes)
    tl.store(out + 1, tl.sum(wr * si + wi * sr, axis=0), mode < modes)
