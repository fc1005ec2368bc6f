"""Near-minimax rational fits: least squares with weights that grow where the error is large.

Lawson's iteration, as in AAA-Lawson (Nakatsukasa & Trefethen, SIAM J. Sci. Comput. 42, 2020), over poles and residues in place of
the barycentric form, so that pairs stay pairs and stable poles stable.
"""

from __future__ import annotations

import dataclasses

from ssmid._array import Array, as_complex, namespace, quiet
from ssmid.identification.partial_fractions import basis
from ssmid.identification.pole_refinement import Problem, project, refine

_STEPS = 100
_ROUNDING = 1e-13
"""Errors of values up to one below which nothing is left to level."""
_LEVEL = 1.01
"""The iteration ends where the largest error is within this factor of the weighted mean, which the best fit cannot get below."""


@quiet
def lawson(problem: Problem, poles: Array, *, stable: bool) -> tuple[Array, Array, Array]:
    """Poles ``(b, d)`` and weights ``(b, k)`` of the fit with the smallest largest error found, and whether it is level, ``(b,)``."""
    xp = namespace(poles)
    own = xp.ones_like(xp.real(problem.points)) if problem.weights is None else problem.weights
    squared = xp.ones_like(own)
    lowest = xp.full_like(own[:, 0], float("inf"))
    best, best_weights, level = poles, own, lowest < 0
    for _ in range(_STEPS):
        weights = own * xp.sqrt(squared)
        weighted = dataclasses.replace(problem, weights=weights)
        poles = refine(weighted, poles, stable=stable, steps=2)[0]
        error = own * _errors(weighted, poles)
        largest = xp.max(error, axis=-1)
        better = largest < lowest
        lowest = xp.where(better, largest, lowest)
        best, best_weights = (xp.where(better[:, None], a, b) for a, b in ((poles, best), (weights, best_weights)))
        mean = xp.sqrt(xp.sum(squared * error**2, axis=-1) / xp.sum(squared, axis=-1))
        level = level | (largest <= _LEVEL * mean)
        if bool(xp.all(level | ~(lowest > _ROUNDING))):
            break
        squared = squared * error
        squared = squared / xp.max(squared, axis=-1, keepdims=True)
    return best, best_weights, level | (lowest <= _ROUNDING)


def _errors(problem: Problem, poles: Array) -> Array:
    """``(b, k)`` unweighted errors, the 2-norm over channels."""
    xp = namespace(poles)
    fit = project(problem, poles)
    columns = xp.concat([basis(problem.points, poles, real=problem.real), xp.ones_like(problem.points)[..., None]], axis=-1)
    fitted = columns @ as_complex(fit.x / xp.astype(xp.matrix_transpose(fit.length), fit.x.dtype))
    return xp.linalg.vector_norm(fitted - xp.matrix_transpose(problem.values), axis=-1)
