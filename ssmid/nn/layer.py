"""What every layer that mixes along the sequence has in common, and the layer that is one filter a channel."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ssmid.nn.convolution import long_convolution
from ssmid.nn.filter import Filter, Recurrence, State, overwrite
from ssmid.nn.inference import added_norm
from ssmid.nn.projection import at_tokens


class SequenceLayer(nn.Module, ABC):
    """A layer from ``(batch, length, width)`` to the same shape.

    ``forward`` runs whole sequences and is what is trained. The other methods run at inference and need recurrences for filters
    (:func:`ssmid.nn.convert` puts them in); a layer whose filters are none says so in a ValueError.

    ``mask`` ``(batch, length)``, True at tokens: padding of batched prompts, on the left. Layers take what is not a token as zero
    behind their projections, so that it leaves no trace in outputs or states.
    """

    width: int

    @abstractmethod
    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, length, width)`` from the same."""

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of ``batch`` sequences at rest."""

    @abstractmethod
    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """What :meth:`forward` gives for the tokens ``u`` after ``state``, and the state behind them."""

    @abstractmethod
    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        """The output ``(batch, width)`` for one token ``u`` of that shape, and the state behind it; ``state`` is left as it is."""

    def step_(self, u: Tensor, state: State) -> Tensor:
        """As :meth:`step`, with the new state in the place of the old one."""
        y, new = self.step(u, state)
        overwrite(state, new)
        return y

    def step_of_sum_(self, norm: nn.LayerNorm, u: Tensor, y: Tensor | None, state: State) -> tuple[Tensor, Tensor]:
        """``u + y`` (u, where y is None), and :meth:`step_` of its norm: layers that begin with a projection take all as one."""
        total, normed = added_norm(norm, u, y)
        return total, self.step_(normed, state)


class FilterLayer(SequenceLayer):
    """One filter for each channel: ``y_c = h_c * u_c``.

    filter : :class:`ssmid.nn.Filter` of ``width`` channels   backward : another of as many, which runs against time and meets the next
    sample first, as in S4 and RTF: adds ``sum_s g_s u_{t+1+s}``. Such a layer sees the future and has no recurrence
    """

    def __init__(self, filter: Filter, backward: Filter | None = None) -> None:
        super().__init__()
        if backward is not None and backward.channels != filter.channels:
            raise ValueError(f"backward: expected {filter.channels} channels as the filter has, got {backward.channels}")
        self.width, self.filter, self.backward_filter = filter.channels, filter, backward

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        signals, length = _channels_first(u, mask), u.shape[-2]
        if self.backward_filter is None:
            y = self.filter.convolve(signals)
        else:
            future = nn.functional.pad(self.backward_filter(length), (1, -1))
            y = long_convolution(signals, self.filter(length), future)
        return y.transpose(-1, -2)

    def initial_state(self, batch: int) -> State:
        return self._recurrence().initial_state(batch)

    def prefill(self, u: Tensor, state: State | None = None, mask: Tensor | None = None) -> tuple[Tensor, State]:
        y, state = self._recurrence().prefill(_channels_first(u, mask), state)
        return y.transpose(-1, -2), state

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        return self._recurrence().step(u, state)

    def step_(self, u: Tensor, state: State) -> Tensor:
        return self._recurrence().step_(u, state)

    def _recurrence(self) -> Recurrence:
        if self.backward_filter is not None:
            raise ValueError("expected a causal layer, got a bidirectional one: it needs the whole sequence, and has no recurrence")
        return recurrence_of(self.filter, self)


def recurrence_of(filter: Filter, layer: nn.Module) -> Recurrence:
    """``filter`` if it runs as a recurrence, else ValueError."""
    if not isinstance(filter, Recurrence):
        raise ValueError(
            f"expected a {type(layer).__name__} whose filter is a recurrence, got {type(filter).__name__}: "
            "ssmid.nn.convert(model, ...) makes recurrences of the filters of a model"
        )
    return filter


def masked(u: Tensor, mask: Tensor | None) -> Tensor:
    """``u`` ``(batch, length, width)`` with zeros where ``mask`` is False, whatever stood there."""
    return at_tokens(u.mT, mask).mT


def _channels_first(u: Tensor, mask: Tensor | None) -> Tensor:
    return at_tokens(u.transpose(-1, -2), mask)
