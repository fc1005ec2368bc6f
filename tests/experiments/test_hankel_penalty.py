"""The penalty on the tail of the Hankel spectrum: against dense singular values, and what training makes of it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from ssmid.experiments.training import Configuration, train
from ssmid.experiments.training.hankel_penalty import HankelPenalty
from ssmid.nn import ExplicitFilter, HyenaFilter
from tests.experiments.toy_tasks import MODEL, Toy

LENGTH = 24


def dense(taps: np.ndarray, order: int) -> float:
    """The mean share of squared singular values beyond ``order``, of Hankel matrices written out."""
    shares = []
    for h in taps[:, 1:].astype(np.float64):
        matrix = np.array([[h[i + j] if i + j < len(h) else 0.0 for j in range(len(h))] for i in range(len(h))])
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        shares.append(squares[order:].sum() / squares.sum() if squares.sum() else 0.0)
    return float(np.mean(shares))


def taps_of(seed: int, *, scale: float = 1.0) -> torch.Tensor:
    decay = 0.8 ** torch.arange(LENGTH, dtype=torch.float64)
    return scale * torch.randn(5, LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * decay


def converged(filter: torch.nn.Module, order: int) -> HankelPenalty:
    penalty = HankelPenalty(filter, order, LENGTH)
    with torch.no_grad():
        for _ in range(400):
            penalty()
    return penalty


@pytest.mark.parametrize("order", [1, 4, LENGTH - 1])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_tail_and_gradient_are_those_of_dense_singular_values(order, scale):
    taps = taps_of(6, scale=scale)  # whose singular values have gaps, so that subspaces converge
    filter = ExplicitFilter(taps).double()
    penalty = converged(filter, order)
    tail = penalty()
    assert tail.item() == pytest.approx(dense(taps.numpy(), order), abs=1e-9)
    tail.backward()
    [found] = [p.grad for p in filter.parameters()]
    direction = torch.randn(taps.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    step = 1e-6 * scale
    slope = (dense((taps + step * direction).numpy(), order) - dense((taps - step * direction).numpy(), order)) / (2 * step)
    assert float((found.reshape(taps.shape) * direction).sum()) * scale == pytest.approx(slope * scale, abs=2e-7)


def test_tail_is_never_below_that_of_the_best_subspace():
    taps = taps_of(7)
    penalty = HankelPenalty(ExplicitFilter(taps).double(), 3, LENGTH)
    found = [penalty().item() for _ in range(30)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(found)), "each iteration improves the subspace"
    assert found[-1] >= dense(taps.numpy(), 3) - 1e-12


def test_a_zero_filter_has_no_tail():
    taps = taps_of(3)
    taps[2] = 0.0
    assert converged(ExplicitFilter(taps).double(), 4)().item() == pytest.approx(dense(taps.numpy(), 4), abs=1e-9)


def test_all_filters_of_a_model_together():
    torch.manual_seed(0)
    both = torch.nn.ModuleList([HyenaFilter(3, LENGTH), HyenaFilter(2, LENGTH)]).double()
    taps = torch.cat([filter(LENGTH).detach() for filter in both]).numpy()
    assert converged(both, 4)().item() == pytest.approx(dense(taps, 4), abs=1e-9)


@pytest.mark.parametrize("order", [0, LENGTH])
def test_wrong_input(order):
    with pytest.raises(ValueError, match=f"hankel_order: expected 1 to {LENGTH - 1}, .*, got {order}"):
        HankelPenalty(HyenaFilter(2, LENGTH), order, LENGTH)
    with pytest.raises(ValueError, match="hankel_order: expected for a model with long filters"):
        HankelPenalty(torch.nn.Linear(2, 2), 1, LENGTH)


def test_training_lowers_the_tail_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Killed behind a checkpoint, the subspaces go on too: starting them anew gives other weights."""
    from ssmid.experiments.training import loop

    def configuration(**more):
        return Configuration(model={**MODEL, "order": 8}, steps=40, batch=8, rate=1e-2, checkpoint_every=10, log_every=5, **more)

    def tails(folder):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [line["hankel_tail"] for line in lines if line["split"] == "train"]

    penalized = configuration(hankel_order=2, hankel_weight=10.0)
    said = []
    train(Toy(), penalized, tmp_path / "whole", stage=lambda description, done=None, total=None: said.append(description))
    assert f", Hankel tail {tails(tmp_path / 'whole')[-1]:.2g}, rate" in said[-1]
    train(Toy(), configuration(hankel_order=2, hankel_weight=0.0), tmp_path / "free")
    assert tails(tmp_path / "whole")[-1] < 0.5 * tails(tmp_path / "free")[-1]
    update = loop._Trainer._update

    def dying(self, batch):
        if self.step == 25:
            raise KeyboardInterrupt
        return update(self, batch)

    monkeypatch.setattr(loop._Trainer, "_update", dying)
    with pytest.raises(KeyboardInterrupt):
        train(Toy(), penalized, tmp_path / "cut")
    monkeypatch.setattr(loop._Trainer, "_update", update)
    train(Toy(), penalized, tmp_path / "cut")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
