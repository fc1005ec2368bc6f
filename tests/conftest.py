"""One fixture: the array library that a test runs over."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@dataclasses.dataclass(frozen=True)
class Backend:
    """An array library: ``xp.asarray(numpy_array)`` puts data there, ``xp.numpy(array)`` brings it back, ``xp.name`` says which."""

    name: str

    def asarray(self, value: Any, dtype: str | None = None) -> Any:
        value = np.asarray(value) if dtype is None else np.asarray(value).astype(dtype)
        if self.name == "numpy":
            return value
        if self.name == "strict":
            import array_api_strict

            return array_api_strict.asarray(value)
        import torch

        return torch.asarray(value.copy(), device="cuda" if self.name == "cuda" else "cpu")

    def numpy(self, array: Any) -> np.ndarray:
        from ssmid._array import to_numpy

        return to_numpy(array)

    def owns(self, array: Any) -> bool:
        """Whether ``array`` is of this library (and on its device)."""
        kind = type(array).__module__.split(".")[0]
        return kind == {"numpy": "numpy", "strict": "array_api_strict"}.get(self.name, "torch") and (
            kind != "torch" or array.is_cuda == (self.name == "cuda")
        )


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(
    params=["numpy", "torch", "strict", pytest.param("cuda", marks=pytest.mark.skipif(not _has_cuda(), reason="needs a CUDA device"))]
)
def xp(request: pytest.FixtureRequest) -> Backend:
    return Backend(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data")
    return SHARED_DATA


@pytest.fixture
def style_left_as_it_was() -> Iterator[None]:
    """Closes the figures of a test, and holds that none of it changed matplotlib's settings."""
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before
