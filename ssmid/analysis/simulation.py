"""The response to any input: by convolution for whole signals, by a recurrence with the state in and out for streams."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from math import isqrt, prod
from typing import Any, Literal

import numpy as np
import scipy.signal

from ssmid._array import (
    Array,
    as_array,
    as_complex,
    astype_width,
    batched_on_host,
    double,
    fft_of,
    is_complex,
    namespace,
    next_fast_length,
    same_field,
    width,
)
from ssmid.analysis.cascade import cascade, cascade_filter
from ssmid.analysis.impulse import assemble, has_tame_powers, impulse_response, in_delays, markov_parameters, power_rows
from ssmid.linalg import powers, transpose
from ssmid.systems import (
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
)
from ssmid.systems.base import not_a_system

_LONGEST_BLOCK = 128
_TABLE_BYTES = 2**27


def simulate(
    system: System,
    inputs: Any,
    state: Any = None,
    *,
    return_state: bool = False,
    method: Literal["recurrence", "convolution"] | None = None,
) -> Any:
    """The output of a discrete-time system for ``inputs``; with ``return_state=True`` the pair (output, state after the last sample).

    inputs : ``(*batch, T)`` for a bank of scalar systems, a state space with one input and one output among them;
    ``(*batch, m, T)`` for a state space of several inputs or outputs, which gives ``(*batch, p, T)``. Batch axes broadcast.

    ``"convolution"``: the whole signal at once by FFT, O(T log T), from a state of zero. ``"recurrence"``: sample after sample
    (in blocks) from ``state``, zero when left out; a signal in pieces, each started from the state of the last, gives what one run
    gives. Left out: the recurrence where a state goes in or out, the convolution otherwise. The two agree to rounding.

    The state is ``(*batch, n)``: x of the state space; one complex number a mode; the delays of the transposed direct form II of a
    transfer function (``scipy.signal.lfilter``'s ``zi``, O(n) a sample); the last L-1 inputs of taps. Of cascades, and zeros, poles
    and gain, it is ``(*batch, sections, 2)``. Differentiable, but for the recurrences of transfer functions and cascades, on the host.

    Raises ValueError for continuous time, sampled spectra, shapes that do not fit, and a state with a convolution.

    >>> import numpy as np
    >>> system = TransferFunction([1.0], [1.0, -0.5])
    >>> simulate(system, np.ones(4))
    array([0.  , 1.  , 1.5 , 1.75])
    >>> head, state = simulate(system, np.ones(2), return_state=True)
    >>> simulate(system, np.ones(2), state)
    array([1.5 , 1.75])
    """
    inputs = _checked_inputs(system, inputs)
    if method not in (None, "recurrence", "convolution"):
        raise ValueError(f'method: expected "recurrence" or "convolution", got {method!r}')
    stateful = state is not None or return_state
    if method == "convolution" and stateful:
        raise ValueError('expected method="recurrence" where a state goes in or out, got "convolution"')
    if method == "convolution" or (method is None and not stateful):
        return _convolve(system, inputs)
    if state is not None:
        state = astype_width(as_array(state, "state", inputs), width(inputs))
    outputs, state = _recur(system, inputs, state)
    return (outputs, state) if return_state else outputs


def _checked_inputs(system: System, inputs: Any) -> Array:
    if not isinstance(system, System):
        raise not_a_system(system)
    if not system.is_discrete:
        raise ValueError("expected a discrete-time system, got dt=0: discretize it first with ssmid.c2d(system, dt)")
    if isinstance(system, FrequencyResponse):
        raise ValueError("a FrequencyResponse cannot be run: take its taps with ssmid.impulse_response, or fit a model to it")
    first = next(iter(system.arrays.values()))
    inputs = astype_width(as_array(inputs, "inputs", first), width(first))
    channels = system.inputs if isinstance(system, StateSpace) and (system.inputs, system.outputs) != (1, 1) else None
    if inputs.ndim < 1 + (channels is not None) or inputs.shape[-1] == 0 or channels not in (None, inputs.shape[-2:][0]):
        axes = "(*batch, samples)" if channels is None else f"(*batch, {channels}, samples)"
        raise ValueError(f"inputs: expected shape {axes} with at least one sample, got {tuple(inputs.shape)}")
    return inputs


# ---------------------------------------------------------------- whole signals


def _convolve(system: System, inputs: Array) -> Array:
    samples = inputs.shape[-1]
    taps = impulse_response(system, min(samples, system.length) if isinstance(system, ImpulseResponse) else samples).taps
    if isinstance(system, StateSpace) and (system.inputs, system.outputs) != (1, 1):
        return namespace(taps).sum(causal_product(taps, inputs[..., None, :, :]), axis=-2)
    return causal_product(taps, inputs)


def causal_product(taps: Array, inputs: Array) -> Array:
    """The first samples of the linear convolution, as many as ``inputs`` has: ``(*batch, T)``."""
    samples = inputs.shape[-1]
    size = next_fast_length(samples + min(samples, taps.shape[-1]) - 1)
    transform = fft_of(inputs, taps)
    taps = taps[..., : min(samples, taps.shape[-1])]
    if is_complex(taps) or is_complex(inputs):
        taps, inputs = as_complex(taps), as_complex(inputs)
        forward, inverse = transform.fft, transform.ifft
    else:
        forward, inverse = transform.rfft, transform.irfft
    return inverse(forward(taps, n=size, axis=-1) * forward(inputs, n=size, axis=-1), n=size, axis=-1)[..., :samples]


# ---------------------------------------------------------------- streams


@singledispatch
def _recur(system: System, inputs: Array, state: Array) -> tuple[Array, Array]:
    raise not_a_system(system)


@_recur.register
def _(system: StateSpace, inputs: Array, state: Array) -> tuple[Array, Array]:
    scalar = system.outputs == system.inputs == 1
    if scalar:
        inputs = inputs[..., None, :]
    A, B, C, D = same_field(*(double(M) for M in (system.A, system.B, system.C, system.D)))
    p, m, n = system.outputs, system.inputs, system.order
    batch = np.broadcast_shapes(system.batch_shape, inputs.shape[:-2])
    state = _initial(state, (*batch, n), inputs, like=_richest(inputs, *system.arrays.values()))

    def tables(size: int) -> tuple[Array, Array, Array, Callable[[Array], Array]]:
        xp = namespace(A)
        rows, power = power_rows(A, C, size, then=True)
        columns = power_rows(transpose(A), transpose(B), size)[0]
        columns = xp.reshape(xp.flip(xp.reshape(columns, (*columns.shape[:-2], size, m, n)), axis=-3), columns.shape)
        h = assemble(D, markov_parameters(A, B, C, size))
        step = _same(transpose(power), inputs, state)
        return _toeplitz_table(h), transpose(rows), columns, lambda x: (x[..., None, :] @ step)[..., 0, :]

    # a block costs its powers of A: worth it where the signal is longer than the state, and these are small
    longest = _LONGEST_BLOCK if inputs.shape[-1] >= max(16, n) and has_tame_powers(A, _LONGEST_BLOCK) else 1
    outputs, state = _in_blocks(transpose(inputs), state, tables, longest, p, prod(batch))
    outputs = transpose(outputs)
    return (outputs[..., 0, :] if scalar else outputs), state


@_recur.register
def _(system: Modal, inputs: Array, state: Array) -> tuple[Array, Array]:
    """``x' = poles x + u``, ``y = Re sum residues x + D u``, which gives the taps of :class:`Modal`."""
    if system.real and is_complex(inputs):
        raise ValueError('expected real inputs for the recurrence of a real modal bank, got complex ones: take method="convolution"')
    batch = np.broadcast_shapes(system.batch_shape, inputs.shape[:-1])
    poles, residues = double(system.poles), double(system.residues)
    state = _initial(state, (*batch, system.order), inputs, like=poles)

    def tables(size: int) -> tuple[Array, Array, Array, Callable[[Array], Array]]:
        table = powers(poles, size)
        h = impulse_response(system.map(double), size).taps
        step = _same(table[..., -1] * poles, inputs, state)
        rows = table * residues[..., None]
        return _toeplitz_table(h[..., None, None, :]), rows, transpose(namespace(table).flip(table, axis=-1)), lambda x: x * step

    outputs, state = _in_blocks(inputs[..., None], state, tables, _LONGEST_BLOCK, 1, prod(batch), real=system.real)
    return outputs[..., 0], state


def _in_blocks(
    inputs: Array,
    state: Array,
    tables: Callable[[int], tuple[Array, Array, Array, Callable[[Array], Array]]],
    longest: int,
    outputs: int,
    batch: int,
    *,
    real: bool = False,
) -> tuple[Array, Array]:
    """``x' = A x + B u``, ``y = C x + D u`` for ``inputs`` ``(*batch, T, m)``, a power of two of samples at a time.

    Within a block outputs are one product with the Toeplitz table of the taps and one with ``[C; C A; ...]``; the state jumps by a
    power of A. About sqrt(T) samples a block balance the two. What remains at the end is done in smaller blocks.
    """
    xp = namespace(inputs)
    samples, m = inputs.shape[-2:]
    table_limit = isqrt(max(1, _TABLE_BYTES // (8 * max(1, batch * m * outputs))))
    block = max(1, min(longest, table_limit, isqrt(samples)))
    pieces, start = [], 0
    while start < samples:
        size = 1 << (min(block, samples - start).bit_length() - 1)
        count = (samples - start) // size
        toeplitz, rows, columns, jump = tables(size)
        chunk = xp.reshape(inputs[..., start : start + count * size, :], (*inputs.shape[:-2], count, size * m))
        driven = _product(chunk, columns, state)
        states = []
        for q in range(count):
            states.append(state)
            state = jump(state) + driven[..., q, :]
        free = _product(xp.stack(states, axis=-2), rows, state)
        forced = _product(chunk, toeplitz, inputs)
        free = xp.real(free) if real else free
        if is_complex(free) != is_complex(forced):
            free, forced = as_complex(free), as_complex(forced)
        piece = free + forced
        pieces.append(xp.reshape(piece, (*piece.shape[:-2], count * size, outputs)))
        start += count * size
    return xp.concat(pieces, axis=-2), state


def _toeplitz_table(taps: Array) -> Array:
    """Taps ``(*batch, p, m, K)`` as ``(*batch, K m, K p)``: from input m at sample j to output p at sample i, ``taps[p, m, i - j]``."""
    xp = namespace(taps)
    p, m, size = taps.shape[-3:]
    padded = xp.concat([xp.zeros_like(taps), taps], axis=-1)
    index = size + np.arange(size)[None, :] - np.arange(size)[:, None]
    index = np.maximum(index, 0)
    table = xp.take(padded, xp.asarray(index.ravel(), device=taps.device), axis=-1)
    table = xp.reshape(table, (*taps.shape[:-3], p, m, size, size))
    axes = table.ndim - 4
    return xp.reshape(xp.permute_dims(table, (*range(axes), axes + 2, axes + 1, axes + 3, axes)), (*taps.shape[:-3], size * m, size * p))


def _richest(*arrays: Array) -> Array:
    """A complex array among ``arrays``, or the first."""
    return next((a for a in arrays if is_complex(a)), arrays[0])


def _initial(state: Array, shape: tuple[int, ...], inputs: Array, like: Array) -> Array:
    """``state`` broadcast to ``shape``, zero when left out, in the width of ``inputs`` and complex where ``like`` is."""
    xp = namespace(inputs)
    if state is None:
        dtype = astype_width(xp.zeros((), dtype=like.dtype, device=inputs.device), width(inputs)).dtype
        return xp.zeros(shape, dtype=dtype, device=inputs.device)
    if state.ndim == 0 or state.shape[-1] != shape[-1]:
        raise ValueError(f"state: expected shape {shape}, got {tuple(state.shape)}")
    try:
        shape = np.broadcast_shapes(state.shape, shape)
    except ValueError:
        raise ValueError(f"state: expected shape {shape}, got {tuple(state.shape)}") from None
    return xp.broadcast_to(as_complex(state) if is_complex(like) else state, shape)


def _same(table: Array, inputs: Array, other: Array) -> Array:
    """``table`` in the width of ``inputs``, complex where ``other`` is."""
    return astype_width(as_complex(table) if is_complex(other) else table, width(inputs))


def _product(left: Array, right: Array, like: Array) -> Array:
    """The matrix product, complex where either factor or ``like`` is, in the width of ``left``."""
    right = astype_width(right, width(left))
    if is_complex(left) or is_complex(right) or is_complex(like):
        left, right = as_complex(left), as_complex(right)
    return left @ right


@_recur.register
def _(system: TransferFunction, inputs: Array, state: Array) -> tuple[Array, Array]:
    num, den = in_delays(system)
    batch = np.broadcast_shapes(system.batch_shape, inputs.shape[:-1])
    state = _initial(state, (*batch, system.order), inputs, like=_richest(inputs, num, den))

    def run(u: np.ndarray, b: np.ndarray, a: np.ndarray, zi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            y, zf = scipy.signal.lfilter(b / a[0], a / a[0], u, zi=zi)
        return y, np.asarray(zf, np.result_type(y, zi))

    return batched_on_host(run, inputs, num, den, state, core_ndim=1)


@_recur.register(SecondOrderSections)
@_recur.register(ZerosPolesGain)
def _(system: SecondOrderSections | ZerosPolesGain, inputs: Array, state: Array) -> tuple[Array, Array]:
    sections = astype_width(cascade(system), width(inputs))
    batch = np.broadcast_shapes(sections.shape[:-2], inputs.shape[:-1])
    expected = (*batch, sections.shape[-2], 2)
    if state is None:
        xp = namespace(inputs)
        state = xp.zeros(expected, dtype=inputs.dtype, device=inputs.device)
    if state.ndim < 2 or tuple(state.shape[-2:]) != expected[-2:]:
        raise ValueError(f"state: expected shape {expected}, got {tuple(state.shape)}")

    def run(u: np.ndarray, sos: np.ndarray, zi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return cascade_filter(sos, u[0], zi)

    return batched_on_host(run, inputs[..., None, :], sections, state)


@_recur.register
def _(system: ImpulseResponse, inputs: Array, state: Array) -> tuple[Array, Array]:
    """Overlap-save; a few samples are plain inner products with the last inputs."""
    xp = namespace(inputs)
    taps, past = astype_width(system.taps, width(inputs)), system.length - 1
    batch = np.broadcast_shapes(taps.shape[:-1], inputs.shape[:-1])
    state = _initial(state, (*batch, past), inputs, like=inputs)
    if is_complex(state):
        inputs = as_complex(inputs)
    window = xp.concat([state, xp.broadcast_to(inputs, (*state.shape[:-1], inputs.shape[-1]))], axis=-1)
    samples = inputs.shape[-1]
    if samples <= 16:
        backward = xp.flip(taps, axis=-1)
        outputs = xp.stack([xp.sum(window[..., t : t + past + 1] * backward, axis=-1) for t in range(samples)], axis=-1)
    else:
        outputs = causal_product(taps, window)[..., past:]
    return outputs, window[..., window.shape[-1] - past :]
