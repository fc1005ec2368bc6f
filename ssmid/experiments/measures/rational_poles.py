"""What rational filters became in training: their poles, and how much of a filter is the one tap that copying asks for.

Nothing keeps the published denominators stable, and nothing needs to while the filter is a convolution: on the trained length the wrapped
response of an unstable pole is finite. As a recurrence such a filter grows without bound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssmid.analysis.polynomial import polynomial_roots
from ssmid.experiments.models import model_of
from ssmid.experiments.tasks.copying import Copying
from ssmid.experiments.training.checkpoint import load_weights
from ssmid.experiments.training.loop import WEIGHTS
from ssmid.nn import RTFFilter
from ssmid.report.progress import Stage


@torch.no_grad()
def rational_poles(
    folder: Path, *, task: Copying, model: dict[str, Any], lag: int | None = None, device: str, stage: Stage
) -> dict[str, Any]:
    """The rational filters, block by block, of the ``model`` trained on ``task`` whose weights are in ``folder``; in float64, on the host.

    lag : the tap that is looked at; None is the delay that the task asks for   device : not used, as no time is taken

    Of each block, poles over all denominators: ``poles``, ``outside`` the unit circle and ``largest_modulus``. Of the taps but tap 0, over
    ``channels``: ``share``, the median share of their energy at ``lag``, ``there``, in how many the largest is that one, and ``mostly_at``
    and ``mostly``, where it is in most, and in how many. ``bound`` is :func:`largest_share` of a recurrence of that order.
    Raises ValueError for a lag that is no tap after tap 0, and for a model without rational filters.
    """
    lag = task.length - task.memorize if lag is None else lag
    if not 0 < lag < task.length:
        raise ValueError(f"lag: expected 1 to {task.length - 1}, got {lag}")
    trained = model_of(task, model)  # pyright: ignore[reportArgumentType]
    load_weights(folder / WEIGHTS, trained)
    filters = [module for module in trained.double().modules() if isinstance(module, RTFFilter)]
    if not filters:
        raise ValueError("model: expected one with rational filters, got one without")
    order, rows = filters[0].order, []
    for block, filter in enumerate(filters):
        stage(f"poles of order {order}", block, len(filters))
        rows.append({"block": block, **_poles(filter), **_taps(filter(task.length).numpy(), lag)})
    return {"lag": lag, "order": order, "bound": largest_share(order, lag, task.length), "blocks": rows}


def largest_share(order: int, lag: int, length: int) -> float:
    """The most of the energy of taps ``1 ... length - 1`` of a recurrence that its tap at ``lag`` can have, whatever the poles.

    The taps within ``m = min(lag, length - lag)`` of it make an m x m Hankel matrix of rank ``order`` at most; the one tap p alone makes
    p times an exchange of rank m with all singular values p. So the others make one of squared norm ``p^2 (m - order)`` at least (Eckart
    and Young), in which none occurs more than m times: ``1 / (2 - order / m)``, and 1 from order m on.

    >>> largest_share(4, 8, 16), largest_share(9, 8, 16)
    (0.6666666666666666, 1.0)
    """
    size = min(lag, length - lag)
    return 1 / (2 - min(order / size, 1))


def _poles(filter: RTFFilter) -> dict[str, Any]:
    a = filter.coefficients()[1].numpy()
    modulus = np.abs(polynomial_roots(np.pad(a, ((0, 0), (1, 0)), constant_values=1.0)))
    return {"poles": modulus.size, "outside": int((modulus > 1).sum()), "largest_modulus": float(modulus.max())}


def _taps(taps: np.ndarray, lag: int) -> dict[str, Any]:
    """Of ``(channels, length)``."""
    energy = taps[:, 1:] ** 2
    share = energy[:, lag - 1] / np.maximum(energy.sum(-1), np.finfo(float).tiny)
    counts = np.bincount(1 + np.argmax(energy, axis=-1), minlength=taps.shape[-1])
    mostly = {"mostly_at": int(np.argmax(counts)), "mostly": int(counts.max())}
    return {"channels": len(taps), "share": float(np.median(share)), "there": int(counts[lag]), **mostly}
