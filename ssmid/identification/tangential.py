"""Residues of rank one by least squares: of a system with simple poles every residue matrix is an output times an input direction.

Given one of the two directions of every pole, the other is a linear least-squares problem; taken in turn they fit both. Of one
input and one output the first solution is final. The functions of time or frequency that belong to the poles come as a table:
exponentials for taps, partial fractions for a frequency response.
"""

from __future__ import annotations

import dataclasses

from ssmid._array import Array, as_complex, is_complex, namespace, same_field
from ssmid.identification.conjugate_pairs import complex_coefficients, real_columns, real_rows
from ssmid.linalg import scaled_least_squares, transpose

_SWEEPS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """``H = sum_i left_i right_i table_i + feedthrough``.

    left : ``(batch, p, n)``   right : ``(batch, n, m)``   feedthrough : ``(batch, p, m)``   fitted : ``(batch, p, m, k)``
    condition : ``(batch,)`` of the last least-squares problem, its columns scaled to length one
    """

    left: Array
    right: Array
    feedthrough: Array
    fitted: Array
    condition: Array


def fit_directions(table: Array, poles: Array, values: Array, left: Array, *, real: bool, feedthrough: bool) -> Directions:
    """The directions nearest to ``values`` ``(batch, p, m, k)``, beginning with those of the outputs. Differentiable.

    table : ``(batch, k, n)`` complex   poles : ``(batch, n)``; where ``real``, conjugates are neighbours, the upper one first, and
    the columns of the table and of ``left`` ``(batch, p, n)`` are conjugates likewise. Real values are fitted by the real part.
    """
    swapped = values.shape[-3:-1] != (1, 1)
    found = _one_side(table, poles, values, left, real, feedthrough)
    for _ in range(_SWEEPS if swapped else 0):
        turned = _one_side(table, poles, _turned(values), transpose(found.right), real, feedthrough)
        left, right = transpose(turned.right), transpose(turned.left)
        found = Directions(left, right, transpose(turned.feedthrough), _turned(turned.fitted), turned.condition)
        found = _one_side(table, poles, values, found.left, real, feedthrough)
    return found


def _turned(values: Array) -> Array:
    return namespace(values).moveaxis(values, -3, -2)


def _one_side(table: Array, poles: Array, values: Array, left: Array, real: bool, feedthrough: bool) -> Directions:
    xp = namespace(values)
    batch, p, m, count = values.shape
    n = poles.shape[-1]
    columns = as_complex(left)[:, :, None, :] * table[:, None, :, :]
    columns = real_columns(columns, poles[:, None, None, :]) if real else columns
    if feedthrough:
        eye = xp.eye(p, dtype=columns.dtype, device=columns.device)[None, :, None, :]
        columns = xp.concat([columns, xp.broadcast_to(eye, (batch, p, count, p))], axis=-1)
    columns = xp.reshape(columns, (batch, p * count, columns.shape[-1]))
    right = xp.reshape(xp.moveaxis(values, -2, -1), (batch, p * count, m))
    if real and is_complex(right):
        columns, right = real_rows(columns), real_rows(right)
    elif real:
        columns = xp.real(columns)
    columns, right = same_field(columns, right)
    if columns.shape[-1] == 0:
        none = xp.zeros((batch, 0, m), dtype=table.dtype, device=table.device)
        zero = xp.zeros((batch, p, m), dtype=values.dtype, device=values.device)
        return Directions(left, none, zero, xp.zeros_like(values), xp.ones(batch, dtype=xp.float64, device=values.device))
    x, condition = scaled_least_squares(columns, right)
    fitted = columns @ x
    if real and is_complex(values):
        fitted = as_complex(fitted[:, : p * count, :]) + 1j * as_complex(fitted[:, p * count :, :])
    fitted = xp.moveaxis(xp.reshape(fitted, (batch, p, count, m)), -1, -2)
    D = x[:, n:, :] if feedthrough else xp.zeros((batch, p, m), dtype=x.dtype, device=x.device)
    found = transpose(complex_coefficients(transpose(x[:, :n, :]), poles[:, None, :])) if real else x[:, :n, :]
    return Directions(as_complex(left), found, D, fitted, condition)
