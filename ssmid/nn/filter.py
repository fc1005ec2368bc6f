"""What every filter of a convolution layer can do, and what one that runs as a recurrence can do besides.

A filter is a bank of causal scalar systems, one for each channel. In training it is taps: ``filter(length)``. At inference it may be a
:class:`Recurrence`, which carries a state from token to token. Mixers hold a filter and ask nothing else of it, so that every
parametrization and every way to decode goes into every mixer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from ssmid.nn.convolution import long_convolution
from ssmid.nn.single_precision import KeepsSingle
from ssmid.systems import System

State: TypeAlias = "Tensor | dict[str, Tensor]"
"""What a recurrence remembers: a tensor, or tensors by name where there are several; the batch is the first axis of each."""

Expected: TypeAlias = tuple[tuple[int, ...], tuple[torch.dtype, ...]]
"""The shape and the possible dtypes of a tensor of a state."""

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
"""The dtypes of real and of complex states."""


class Filter(KeepsSingle, ABC):
    """A bank of ``channels`` causal filters with one input and one output each.

    The tensors of a filter stay in float32, or complex64, in a model that is cast to less (:class:`KeepsSingle`): poles near the circle and
    positions along a sequence need more than 8 bits, and a filter is small beside the projections around it.
    """

    channels: int

    @abstractmethod
    def forward(self, length: int) -> Tensor:
        """Taps ``(channels, length)``, tap 0 (the feedthrough, with any bypass in it) first. Differentiable in the parameters."""

    @abstractmethod
    def system(self) -> System:
        """The linear system ``(channels,)`` whose response is these taps, detached: what :func:`ssmid.distill` takes."""

    def convolve(self, u: Tensor) -> Tensor:
        """The causal convolution of ``u`` ``(*batch, channels, length)`` with the taps; shape, kind and device of ``u`` are kept."""
        return long_convolution(u, self(u.shape[-1]))


class Recurrence(Filter):
    """A filter that runs token by token: convolution = prefill, then steps, to rounding."""

    capturable: ClassVar[bool] = True
    """Whether every step does the same work on the same places, so that a CUDA graph of one stands for all."""

    @abstractmethod
    def initial_state(self, *batch: int) -> State:
        """The state at rest, of sequences ``(*batch, channels)``."""

    @abstractmethod
    def prefill(self, u: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What :meth:`convolve` gives for ``u`` ``(*batch, channels, length)`` after ``state``, and the state behind it.

        ``state`` is left as it is; None is a state at rest. A length of 0 gives the state back.
        """

    @abstractmethod
    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """The output ``(*batch, channels)`` for one token ``u`` of that shape, and the state behind it; ``state`` is left as it is."""

    def step_(self, u: Tensor, state: State) -> Tensor:
        """As :meth:`step`, with the new state in the place of the old one: nothing is allocated that stays."""
        y, new = self.step(u, state)
        overwrite(state, new)
        return y


def overwrite(state: State, new: State) -> None:
    """Puts the values of ``new`` into the tensors of ``state``."""
    if isinstance(state, Tensor):
        assert isinstance(new, Tensor)
        state.copy_(new)
        return
    assert isinstance(new, dict)
    for name, tensor in state.items():
        tensor.copy_(new[name])


def checked_input(u: Tensor, channels: int, *, token: bool = False) -> Tensor:
    """``u`` if its shape is ``(*batch, channels, length)``, or ``(*batch, channels)`` of one token; else ValueError."""
    axis = -1 if token else -2
    if u.ndim < -axis or u.shape[axis] != channels or not u.is_floating_point():
        wanted = f"(*batch, {channels})" if token else f"(*batch, {channels}, length)"
        raise ValueError(f"u: expected real numbers of shape {wanted}, got {u.dtype} of shape {tuple(u.shape)}")
    return u


def checked_state(state: State, expected: Expected | Mapping[str, Expected]) -> Any:
    """``state`` if its tensors have the shapes and one of the dtypes that are expected of each; else a ValueError that names the tensor.

    expected : ``(shape, dtypes)`` of a state that is one tensor, or by name of each of several
    """
    if isinstance(expected, Mapping):
        if not isinstance(state, Mapping) or set(state) != set(expected):
            got = f"tensors named {', '.join(sorted(state))}" if isinstance(state, Mapping) else f"one {type(state).__name__}"
            raise ValueError(f"state: expected tensors named {', '.join(sorted(expected))}, got {got}")
        for name, wanted in expected.items():
            _checked_tensor(state[name], f"state[{name!r}]", wanted)
    else:
        _checked_tensor(state, "state", expected)
    return state


def _checked_tensor(tensor: Any, name: str, expected: Expected) -> None:
    shape, dtypes = expected
    if isinstance(tensor, Tensor) and tensor.shape == torch.Size(shape) and tensor.dtype in dtypes:
        return
    got = f"{_short(tensor.dtype)} of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
    raise ValueError(f"{name}: expected {' or '.join(map(_short, dtypes))} of shape {tuple(shape)}, got {got}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def at_least_single(u: Tensor) -> Tensor:
    """bf16 and float16 as float32; the others as they are."""
    return u if u.dtype == torch.float64 else u.float()
