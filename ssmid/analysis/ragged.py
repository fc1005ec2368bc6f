"""State spaces made element by element on the host, where each element of a batch may have its own number of states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, in_threads, to_numpy, width
from ssmid.analysis.polynomial import Host

Result = tuple[Host, Host, Host, Host]
"""A ``(r, r)``, B ``(r, m)``, C ``(p, r)`` and the transform T ``(n, r)`` of one element."""


def padded_states(
    function: Callable[..., Result], arrays: Sequence[Array], core_ndims: Sequence[int], sizes: tuple[int, int, int]
) -> tuple[Array, Array, Array, Array]:
    """``A, B, C, T`` of all elements, the smaller ones padded with zero states that nothing enters or leaves.

    ``function`` takes the core of each array as NumPy; results return to the kind, device and width of the first array.
    ``sizes``: inputs m, outputs p, and the rows n of T. Elements that hold a NaN, or that LAPACK fails on, give NaN.
    """
    hosts = [(to_numpy(a), k) for a, k in zip(arrays, core_ndims, strict=True)]
    batch = np.broadcast_shapes(*(h.shape[: h.ndim - k] for h, k in hosts))
    elements = [[np.broadcast_to(h, batch + h.shape[h.ndim - k :])[i] for h, k in hosts] for i in np.ndindex(*batch)]

    def element(inputs: list[Host]) -> Result | None:
        try:
            return function(*inputs) if all(np.isfinite(x).all() for x in inputs) else None
        except np.linalg.LinAlgError:
            return None

    results = in_threads(element, elements)
    order = max((len(r[0]) for r in results if r is not None), default=0)
    inputs, outputs, rows = sizes
    like = arrays[0]
    stacked = []
    for i, shape in enumerate([(order, order), (order, inputs), (outputs, order), (rows, order)]):
        dtype = np.result_type(float, *(r[i] for r in results if r is not None))
        out = np.zeros((len(results), *shape), dtype)
        for k, result in enumerate(results):
            if result is None:
                out[k] = np.nan
            else:
                out[k, : result[i].shape[0], : result[i].shape[1]] = result[i]
        stacked.append(astype_width(from_numpy(out.reshape(*batch, *shape), like), width(like)))
    return tuple(stacked)  # pyright: ignore[reportReturnType]
