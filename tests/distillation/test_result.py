"""What a distilled bank says of itself."""

from __future__ import annotations

import numpy as np
import pytest

import ssmid


def test_a_bank_is_shown_in_one_line():
    """Not as the arrays of its certificate, which are a screen of numbers for 64 filters."""
    taps = np.asarray(ssmid.datasets.hyena_filters().taps[:3, :256], float)
    fit = ssmid.distill(taps, 4)
    errors = f"{np.median(fit.error):.3g} in the median, {fit.error.max():.3g} at worst"
    assert repr(fit) == f"Distillation(l2-optimal approximation, order 4: relative l2 error {errors}; {fit.system!r})"


ODD = {"zero": np.zeros((2, 8)), "nan": np.full((2, 8), np.nan), "empty": np.ones((0, 8)), "single": 0.5 ** np.arange(8.0)}


@pytest.mark.parametrize("taps", ODD.values(), ids=ODD)
def test_it_is_one_line_for_any_bank(taps):
    shown = repr(ssmid.distill(taps, 2))
    assert shown.startswith("Distillation(l2-optimal approximation, ")
    assert "\n" not in shown
    assert len(shown) < 200
