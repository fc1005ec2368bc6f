"""Hyena's implicit filter as a module: a small network of sines over positions, under exponential windows (Poli et al. 2023, section 3.3).

The mathematics stands in :mod:`ssmid.parametrizations.hyena`. Names and shapes of the parameters are those of the public code
(HazyResearch/safari, ``HyenaFilter``), so that :func:`ssmid.read_checkpoint` reads what is saved here and public checkpoints load.
"""

from __future__ import annotations

from collections import OrderedDict
from math import log
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssmid.nn.filter import Filter
from ssmid.parametrizations.hyena import hyena_positions, hyena_taps
from ssmid.systems import ImpulseResponse


class HyenaFilter(Filter):
    """``h_c[n] = (W_c @ network(z_n)) (exp(-t_n |delta_c|) + shift)``, and the bypass of each channel in tap 0.

    trained_length : the length that positions are relative to; beyond it, where the network was never asked for taps, the filter is zero
    embedding : numbers that a position is given as: its time, cosines and sines   hidden, inner_layers : of the network
    frequency : w of ``sin(w x)`` at the start, one for each unit, shared by all layers   shift : of the window
    modulate : whether there is a window   normalized : whether each tap is divided by the sum of its moduli over the channels
    trained_positions : whether the embedding is trained from where it starts, as in the public code

    The windows decay to 1 % within 0.3 to 1.5 times the trained length, and are not trained. Parameters stay float32 in a bf16 model:
    positions and windows need more than 8 bits, and the network is small. Takes O(length hidden channels).

    >>> HyenaFilter(4, trained_length=128)(100).shape
    torch.Size([4, 100])
    """

    def __init__(
        self,
        channels: int,
        trained_length: int = 2048,
        *,
        embedding: int = 33,
        hidden: int = 64,
        inner_layers: int = 2,
        frequency: float = 14.0,
        shift: float = 0.0,
        modulate: bool = True,
        normalized: bool = False,
        trained_positions: bool = True,
    ) -> None:
        super().__init__()
        for name, number, least in (("channels", channels, 1), ("hidden", hidden, 1), ("inner_layers", inner_layers, 0)):
            if number < least:
                raise ValueError(f"{name}: expected at least {least}, got {number}")
        self.channels, self.shift, self.modulate, self.normalized = channels, shift, modulate, normalized
        self.pos_emb = _Positions(trained_length, embedding, trained_positions)
        layers: list[tuple[str, nn.Module]] = [("0", nn.Linear(embedding, hidden)), ("1", _Frequency(hidden, frequency))]
        layers += [(str(2 * i + 2), nn.Linear(hidden, hidden)) for i in range(inner_layers)]
        layers += [(str(2 * inner_layers + 2), nn.Linear(hidden, channels, bias=False))]
        self.implicit_filter = nn.Sequential(OrderedDict(layers))
        self.modulation = _Window(channels)
        self.bias = nn.Parameter(torch.randn(channels))
        self.register_load_state_dict_pre_hook(_without_copies_of_the_frequency)

    @property
    def trained_length(self) -> int:
        return self.pos_emb.z.shape[1]

    def forward(self, length: int) -> Tensor:
        known = min(length, self.trained_length)
        layers = [layer for layer in self.implicit_filter if isinstance(layer, nn.Linear)]
        taps = hyena_taps(
            self.pos_emb.z[0, :known],
            self.pos_emb.t[0, :known, 0],
            [layer.weight for layer in layers],
            [layer.bias for layer in layers[:-1]],
            [cast(_Frequency, self.implicit_filter.get_submodule("1")).freq[0]],
            self.modulation.deltas[0, 0],
            self.bias,
            shift=self.shift,
            modulate=self.modulate,
            normalized=self.normalized,
        )
        return nn.functional.pad(taps, (0, length - known))

    def system(self) -> ImpulseResponse:
        with torch.no_grad():
            return ImpulseResponse(self(self.trained_length))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, trained_length={self.trained_length}"


class _Positions(nn.Module):
    z: Tensor
    t: Tensor

    def __init__(self, length: int, size: int, trained: bool) -> None:
        super().__init__()
        z, t = (torch.as_tensor(x, dtype=torch.get_default_dtype()) for x in hyena_positions(length, size))
        if trained:
            self.z = nn.Parameter(z[None])
        else:
            self.register_buffer("z", z[None])
        self.register_buffer("t", t[None, :, None])


class _Frequency(nn.Module):
    def __init__(self, size: int, frequency: float) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, size), float(frequency)))


class _Window(nn.Module):
    deltas: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("deltas", torch.linspace(log(0.01) / 1.5, log(0.01) / 0.3, channels)[None, None])


def _without_copies_of_the_frequency(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """The public code stores its one activation under the number of every layer that it follows."""
    start, end = f"{prefix}implicit_filter.", ".freq"
    for name in [name for name in state_dict if name.startswith(start) and name.endswith(end) and name != f"{start}1{end}"]:
        del state_dict[name]
