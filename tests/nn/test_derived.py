"""Values made of parameters are made again when these change, and only then."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ssmid.nn.derived import Derived  # noqa: E402


def first_weight(module):
    return float(module.weight.detach()[0, 0])


def test_parameters_in_the_place_of_freed_ones_are_seen():
    module, derived = torch.nn.Linear(64, 64), Derived()
    for value in range(50):
        module.weight = None  # its memory is free for the next
        module.weight = torch.nn.Parameter(torch.full((64, 64), float(value)))
        assert derived.of(module, lambda: first_weight(module)) == value


def test_what_did_not_change_is_not_made_again():
    module, derived, made = torch.nn.Linear(2, 2), Derived(), []
    for _ in range(3):
        derived.of(module, lambda: made.append(1))
    assert made == [1]
    module.double()
    derived.of(module, lambda: made.append(2))
    assert made == [1, 2]
