"""The step of a trust region from an eigendecomposition of the Hessian: the bisection for the shift, one matrix a program.

The plain function is ``shifted_step`` of :mod:`ssmid.reduction.h2_newton`. An elimination in registers for each trial of the shift, in
place of the eigenvalues, took 18 ms for 49,152 matrices of 16 x 16 on one H200; the eigenvalues take 13.
"""

from __future__ import annotations

from ssmid._array import Array
from ssmid.kernels.compiler import ceil_power_of_two, jit, tl


def shifted_step(values: Array, vectors: Array, gradient: Array, radius: Array) -> tuple[Array, Array]:
    """``step (batch, d)`` and ``predicted (batch,)``. Arguments as of the plain function."""
    batch, d = values.shape
    step, predicted = values.new_empty((batch, d)), values.new_empty((batch,))
    width = ceil_power_of_two(d)
    if batch:
        inputs = [x.contiguous() for x in (values, vectors, gradient, radius)]
        _step[(batch,)](*inputs, step, predicted, d, WIDTH=width, num_warps=1 if width <= 32 else 4)
    return step, predicted


@jit
def _step(values, vectors, gradient, radius, step, predicted, d, WIDTH: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
    element = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, WIDTH)
    on = lane < d
    value = tl.load(values + element * d + lane, on, 0.0)
    i, j = lane[:, None], lane[None, :]
    V = tl.load(vectors + element * d * d + i * d + j, (i < d) & (j < d), 0.0)
    g = tl.load(gradient + element * d + lane, on, 0.0)
    reach = tl.load(radius + element)
    along = tl.sum(V * g[:, None], axis=0)
    size = tl.max(tl.abs(value), axis=0)
    floor = 1e-14 * size + 2.2250738585072014e-308
    length = tl.sqrt(tl.sum(along * along, axis=0))
    least = tl.maximum(-tl.min(tl.where(on, value, 1.7e308), axis=0), 0.0) + floor
    ratio = along / tl.where(on, value + least, 1.0)
    tight = tl.sqrt(tl.sum(ratio * ratio, axis=0)) > reach
    lower, upper = least, least + length / reach + floor
    for _ in range(40):
        middle = tl.sqrt(lower * upper)
        ratio = along / tl.where(on, value + middle, 1.0)
        long = tl.sqrt(tl.sum(ratio * ratio, axis=0)) > reach
        lower, upper = tl.where(long, middle, lower), tl.where(long, upper, middle)
    shift = tl.where(tight, upper, least)
    coordinates = -along / tl.where(on, value + shift, 1.0)
    tl.store(predicted + element, -tl.sum(coordinates * (along + value * coordinates / 2), axis=0))
    tl.store(step + element * d + lane, tl.sum(V * coordinates[None, :], axis=1), on)
