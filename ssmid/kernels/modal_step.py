"""One token through modal recurrences: the output and the state behind it, with every number of the state read once and written once.

``y = D u + Re sum_i r_i x_i`` and ``x_i <- lambda_i x_i + u`` (Massaroli et al. 2023, eq. 3.2), alone, between the gates of Hyena, and
over the outer products of MultiHyena. The functions whose names end in ``_`` put the new state in the place of the old one, on a GPU
in one kernel; those without are the plain ones that they stand for.

States are complex; poles and residues are pairs of reals on a last axis of two, one pole of each conjugate pair. Of a state of
8 modes in single precision a token moves 2 x 64 bytes a channel, which is all that counts: 15 multiply-adds a mode are nothing.
"""

from __future__ import annotations

from ssmid._array import Array, as_complex, namespace, width
from ssmid.kernels.compiler import ceil_power_of_two, fused, jit, tl

_MOST_MODES = 128
_TILE = 2048
"""Real numbers of the state that a program holds at once."""


# ---------------------------------------------------------------- the plain functions


def modal_step(u: Array, state: Array, poles: Array, residues: Array, feedthrough: Array) -> tuple[Array, Array]:
    """Output ``(batch, channels)`` of the dtype of ``u``, and the state behind it.

    u : ``(batch, channels)``   state : ``(batch, channels, modes)`` complex   poles, residues : ``(channels, modes, 2)``
    feedthrough : ``(channels,)``
    """
    xp = namespace(state)
    w = xp.astype(u, xp.real(state).dtype)
    y = feedthrough * w + xp.sum(xp.real(_complex(residues) * state), axis=-1)
    return xp.astype(y, u.dtype), _complex(poles) * state + as_complex(w)[..., None]


def hyena_step(
    projected: Array, history: Array, weight: Array, bias: Array, state: Array, poles: Array, residues: Array, feedthrough: Array
) -> tuple[Array, Array, Array]:
    """The inside of a Hyena operator of order 2: short convolution, gate, recurrence, gate.

    projected : ``(batch, 3 D)``, the streams x0, x1, v   history : ``(batch, 3 D, taps - 1)``, the last of these, the latest last
    weight : ``(3 D, taps)``   bias : ``(3 D,)`` or None   state, poles, residues, feedthrough : as of :func:`modal_step`, D channels

    Returns ``x0 (h * (x1 v))`` ``(batch, D)``, the history and the state behind the token.
    """
    xp, D = namespace(projected), feedthrough.shape[0]
    window = xp.concat([history, xp.astype(projected, history.dtype)[..., None]], axis=-1)
    real = xp.real(state).dtype
    short = xp.sum(xp.astype(window, real) * xp.astype(weight, real), axis=-1)
    if bias is not None:
        short = short + xp.astype(bias, real)
    y, state = modal_step(short[:, D : 2 * D] * short[:, 2 * D :], state, poles, residues, feedthrough)
    return xp.astype(short[:, :D] * y, projected.dtype), window[..., 1:], state


def multihyena_step(
    q: Array, k: Array, v: Array, state: Array, poles: Array, residues: Array, feedthrough: Array
) -> tuple[Array, Array]:
    """``sum_i q_i (h * z)_ij`` of ``z_ij = k_i v_j``, every entry of which runs through the one filter of its head.

    q, k, v : ``(batch, heads, N)``   state : ``(batch, heads, N, N, modes)`` complex   poles, residues : ``(heads, modes, 2)``
    feedthrough : ``(heads,)``. Returns ``(batch, heads, N)`` and the state behind the token.
    """
    xp, real = namespace(state), namespace(state).real(state).dtype
    q, k, v, dtype = xp.astype(q, real), xp.astype(k, real), xp.astype(v, real), q.dtype
    z = k[..., :, None] * v[..., None, :]
    filtered = feedthrough[:, None, None] * z + xp.sum(xp.real(_complex(residues)[:, None, None, :] * state), axis=-1)
    y = xp.sum(q[..., :, None] * filtered, axis=-2)
    return xp.astype(y, dtype), _complex(poles)[:, None, None, :] * state + as_complex(z)[..., None]


def _complex(pairs: Array) -> Array:
    return as_complex(pairs[..., 0]) + 1j * as_complex(pairs[..., 1])


# ---------------------------------------------------------------- in place


def modal_step_(u: Array, state: Array, poles: Array, residues: Array, feedthrough: Array) -> Array:
    """:func:`modal_step`, the new state in the place of the old one."""
    if not _fits(state, poles, residues, u):
        y, state[...] = modal_step(u, state, poles, residues, feedthrough)
        return y
    xp, (batch, channels, modes) = namespace(state), state.shape
    u, y = u.contiguous(), u.new_empty(u.shape)
    padded = ceil_power_of_two(modes)
    block, sequences = _blocks(channels, padded, batch)
    if batch and channels:
        grid = (-(-channels // block), -(-batch // sequences))
        pairs = xp.view_as_real(state), poles.contiguous(), residues.contiguous()
        _modal[grid](u, *pairs, feedthrough, y, batch, channels, MODES=modes, PADDED=padded, CHANNELS=block, SEQUENCES=sequences)
    return y


def hyena_step_(
    projected: Array, history: Array, weight: Array, bias: Array, state: Array, poles: Array, residues: Array, feedthrough: Array
) -> Array:
    """:func:`hyena_step`, the new history and state in the place of the old ones. The kernel takes a short convolution of 3 taps."""
    same = history.dtype == projected.dtype and history.is_contiguous()
    if history.shape[-1] != 2 or not same or not _fits(state, poles, residues, projected):
        y, history[...], state[...] = hyena_step(projected, history, weight, bias, state, poles, residues, feedthrough)
        return y
    xp, (batch, channels, modes) = namespace(state), state.shape
    projected, weight = projected.contiguous(), weight.contiguous()
    y = projected.new_empty((batch, channels))
    padded = ceil_power_of_two(modes)
    block, sequences = _blocks(channels, padded, batch, _TILE // 2)
    if batch and channels:
        grid = (-(-channels // block), -(-batch // sequences))
        pairs = xp.view_as_real(state), poles.contiguous(), residues.contiguous()
        bits = 8 * history.element_size()
        pair = history.view(xp.int32 if bits == 16 else xp.int64)
        short = projected, pair, weight, weight if bias is None else bias
        _hyena[grid](
            *short, *pairs, feedthrough, y, batch, channels,
            BIAS=bias is not None, BITS=bits, MODES=modes, PADDED=padded, CHANNELS=block, SEQUENCES=sequences,
        )  # fmt: skip
    return y


def multihyena_step_(q: Array, k: Array, v: Array, state: Array, poles: Array, residues: Array, feedthrough: Array) -> Array:
    """:func:`multihyena_step`, the new state in the place of the old one."""
    if not _fits(state, poles, residues, q):
        y, state[...] = multihyena_step(q, k, v, state, poles, residues, feedthrough)
        return y
    xp, (batch, heads, N, _, modes) = namespace(state), state.shape
    if any(x.stride() != (q.stride(0), N, 1) for x in (q, k, v)):  # they may be parts of one array
        q, k, v = (x.contiguous() for x in (q, k, v))
    y = q.new_empty(q.shape)
    padded, columns = ceil_power_of_two(modes), ceil_power_of_two(N)
    rows = max(1, min(columns, _TILE // (2 * padded * columns)))
    together = max(1, _TILE // (2 * padded * columns * columns))
    if batch and heads and N:
        pairs = xp.view_as_real(state), poles.contiguous(), residues.contiguous()
        grid = (-(-heads // together), batch)
        _multihyena[grid](
            q, k, v, *pairs, feedthrough, y, q.stride(0), heads, MODES=modes, PADDED=padded, N=N, ROWS=rows, COLUMNS=columns, HEADS=together
        )  # fmt: skip
    return y


def _fits(state: Array, poles: Array, residues: Array, u: Array) -> bool:
    """Single precision that no gradient is recorded through, in one piece, and few enough modes for registers."""
    if not fused(state) or state.shape[-1] == 0 or state.shape[-1] > _MOST_MODES:
        return False
    return width(state) == 32 and width(poles) == 32 and width(residues) == 32 and state.is_contiguous() and not u.requires_grad


def _blocks(channels: int, padded: int, batch: int, tile: int = _TILE) -> tuple[int, int]:
    """Channels of a program, and sequences: those that follow the first find poles and residues in registers."""
    block = max(1, min(tile // (2 * padded), ceil_power_of_two(channels)))
    programs = -(-channels // block) * batch
    return block, max(1, min(8, programs // 2048))


# ---------------------------------------------------------------- the kernels


@jit
def _pairs(interleaved, ROWS: tl.constexpr, MODES: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    """Real and imaginary parts ``(ROWS, MODES)`` of what lies side by side: 16 bytes a load, no shuffles."""
    return tl.split(tl.reshape(interleaved, (ROWS, MODES, 2)))


@jit
def _interleaved(real, imaginary, ROWS: tl.constexpr, MODES: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    return tl.reshape(tl.join(real, imaginary), (ROWS, 2 * MODES))


@jit
def _modal(
    u, state, poles, residues, feedthrough, y, batch, channels,
    MODES: tl.constexpr, PADDED: tl.constexpr, CHANNELS: tl.constexpr, SEQUENCES: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    lane = tl.arange(0, 2 * PADDED)[None, :]
    inside = c < channels
    there = inside[:, None] & (lane < 2 * MODES)
    at = c[:, None] * (2 * MODES) + lane
    pr, pi = _pairs(tl.load(poles + at, there, 0.0), CHANNELS, PADDED)
    rr, ri = _pairs(tl.load(residues + at, there, 0.0), CHANNELS, PADDED)
    through = tl.load(feedthrough + c, inside, 0.0)
    first = tl.program_id(1).to(tl.int64) * SEQUENCES
    for b in range(first, tl.minimum(first + SEQUENCES, batch)):
        w = tl.load(u + b * channels + c, inside, 0.0).to(tl.float32)
        place = state + b * channels * (2 * MODES) + at
        xr, xi = _pairs(tl.load(place, there, 0.0), CHANNELS, PADDED)
        out = through * w + tl.sum(rr * xr - ri * xi, axis=1)
        tl.store(y + b * channels + c, out.to(y.dtype.element_ty), inside)
        # no thread may write what another one has yet to read
        tl.debug_barrier()
        tl.store(place, _interleaved(pr * xr - pi * xi + w[:, None], pr * xi + pi * xr, CHANNELS, PADDED), there)


@jit
def _short(projected, history, b, c, width, inside, w0, w1, w2, bias, BITS: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    """A short convolution of 3 taps, and the history moved on by one: two numbers of ``BITS`` bits in one integer."""
    token = tl.load(projected + b * width + c, inside, 0.0)
    both = tl.load(history + b * width + c, inside, 0)
    small = tl.int16 if BITS == 16 else tl.int32
    kind = token.dtype
    late = both >> BITS
    older, newer = both.to(small).to(kind, bitcast=True), late.to(small).to(kind, bitcast=True)
    out = bias + w0 * older.to(tl.float32) + w1 * newer.to(tl.float32) + w2 * token.to(tl.float32)
    moved = (late & ((1 << BITS) - 1)) | (token.to(small, bitcast=True).to(both.dtype) << BITS)
    return out, moved


@jit
def _taps(weight, bias, c, inside, BIAS: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    w0 = tl.load(weight + c * 3, inside, 0.0).to(tl.float32)
    w1 = tl.load(weight + c * 3 + 1, inside, 0.0).to(tl.float32)
    w2 = tl.load(weight + c * 3 + 2, inside, 0.0).to(tl.float32)
    offset = w0 * 0
    if BIAS:
        offset = tl.load(bias + c, inside, 0.0).to(tl.float32)
    return w0, w1, w2, offset


@jit
def _hyena(
    projected, history, weight, bias, state, poles, residues, feedthrough, y, batch, channels, BIAS: tl.constexpr, BITS: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
    MODES: tl.constexpr, PADDED: tl.constexpr, CHANNELS: tl.constexpr, SEQUENCES: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    lane = tl.arange(0, 2 * PADDED)[None, :]
    inside = c < channels
    there = inside[:, None] & (lane < 2 * MODES)
    at = c[:, None] * (2 * MODES) + lane
    pr, pi = _pairs(tl.load(poles + at, there, 0.0), CHANNELS, PADDED)
    rr, ri = _pairs(tl.load(residues + at, there, 0.0), CHANNELS, PADDED)
    through = tl.load(feedthrough + c, inside, 0.0)
    width = 3 * channels
    a0, a1, a2, a3 = _taps(weight, bias, c, inside, BIAS)
    b0, b1, b2, b3 = _taps(weight, bias, c + channels, inside, BIAS)
    c0, c1, c2, c3 = _taps(weight, bias, c + 2 * channels, inside, BIAS)
    first = tl.program_id(1).to(tl.int64) * SEQUENCES
    for b in range(first, tl.minimum(first + SEQUENCES, batch)):
        place = state + b * channels * (2 * MODES) + at
        xr, xi = _pairs(tl.load(place, there, 0.0), CHANNELS, PADDED)
        gate, moved_x = _short(projected, history, b, c, width, inside, a0, a1, a2, a3, BITS)
        key, moved_y = _short(projected, history, b, c + channels, width, inside, b0, b1, b2, b3, BITS)
        value, moved_z = _short(projected, history, b, c + 2 * channels, width, inside, c0, c1, c2, c3, BITS)
        w = key * value
        out = gate * (through * w + tl.sum(rr * xr - ri * xi, axis=1))
        tl.store(y + b * channels + c, out.to(y.dtype.element_ty), inside)
        tl.debug_barrier()
        tl.store(history + b * width + c, moved_x, inside)
        tl.store(history + b * width + c + channels, moved_y, inside)
        tl.store(history + b * width + c + 2 * channels, moved_z, inside)
        tl.store(place, _interleaved(pr * xr - pi * xi + w[:, None], pr * xi + pi * xr, CHANNELS, PADDED), there)


@jit
def _multihyena(
    q, k, v, state, poles, residues, feedthrough, y, sequence, heads, MODES: tl.constexpr, PADDED: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
    N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, HEADS: tl.constexpr,  # pyright: ignore[reportInvalidTypeForm]
):  # fmt: skip
    entries: tl.constexpr = HEADS * ROWS * COLUMNS  # pyright: ignore[reportInvalidTypeForm]
    entry = tl.arange(0, entries)
    h = tl.program_id(0) * HEADS + entry // (ROWS * COLUMNS)
    column = entry % COLUMNS
    lane = tl.arange(0, 2 * PADDED)[None, :]
    inside = (h < heads) & (column < N)
    used = inside[:, None] & (lane < 2 * MODES)
    at = h[:, None] * (2 * MODES) + lane
    pr, pi = _pairs(tl.load(poles + at, used, 0.0), entries, PADDED)
    rr, ri = _pairs(tl.load(residues + at, used, 0.0), entries, PADDED)
    through = tl.load(feedthrough + h, inside, 0.0)
    b = tl.program_id(1).to(tl.int64)
    head, own = b * heads + h, b * sequence + h * N
    value = tl.load(v + own + column, inside, 0.0).to(tl.float32)
    total = tl.zeros((HEADS, COLUMNS), dtype=tl.float32)
    for start in range(0, N, ROWS):
        row = start + entry // COLUMNS % ROWS
        full = inside & (row < N)
        there = full[:, None] & (lane < 2 * MODES)
        z = value * tl.load(k + own + row, full, 0.0).to(tl.float32)
        query = tl.load(q + own + row, full, 0.0).to(tl.float32)
        place = state + ((head * N + row) * N + column)[:, None] * (2 * MODES) + lane
        xr, xi = _pairs(tl.load(place, there, 0.0), entries, PADDED)
        weighted = query * (through * z + tl.sum(rr * xr - ri * xi, axis=1))
        total += tl.sum(tl.reshape(weighted, (HEADS, ROWS, COLUMNS)), axis=1)
        tl.debug_barrier()
        tl.store(place, _interleaved(pr * xr - pi * xi + z[:, None], pr * xi + pi * xr, entries, PADDED), there)
    h = tl.program_id(0) * HEADS + tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    tl.store(y + (b * heads + h) * N + column, total.to(y.dtype.element_ty), (h < heads) & (column < N))
