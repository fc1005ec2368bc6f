"""The models that experiments train: a stack of filter layers around tasks of any kind, and the language model of ``ssmid.nn``.

The stack is that of S4 (Gu, Goel & Re, ICLR 2022), which RTF's experiments take over: an encoder, residual blocks of one filter a
channel and a mixing of channels, the mean over the sequence where one answer is asked for, and a linear head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssmid.experiments.options import called
from ssmid.experiments.tasks.task import Task
from ssmid.nn import LanguageModel, RTFFilter, S4DFilter, S4Filter
from ssmid.nn.filter import Filter
from ssmid.nn.layer import FilterLayer

_FEW = 64
"""Tokens up to which a product costs no more than the rows that it writes."""

Mixing = Literal["glu", "gelu", "none"]
Norm = Literal["layer", "batch", "none"]


def model_of(task: Task, options: Mapping[str, Any]) -> nn.Module:
    """The model that ``options`` describe, with the ends that ``task`` needs; called with inputs, and a mask or None.

    ``layer`` ("rtf", "s4", "s4d") makes a :func:`sequence_model`, ``mixer`` ("hyena", ...) a :func:`language_model`; the others are their
    arguments. Raises ValueError for an option that is none of them.
    """
    build = language_model if "mixer" in options else sequence_model
    return called(build, options, "model.", "an option of the model", task)


def sequence_model(
    task: Task,
    *,
    layer: str = "rtf",
    order: int = 64,
    width: int = 64,
    depth: int = 4,
    mixing: Mixing = "glu",
    norm: Norm = "layer",
    pre_norm: bool = True,
    residual: bool = True,
    dropout: float = 0.0,
    bidirectional: bool = False,
    filter: Mapping[str, Any] | None = None,
) -> SequenceModel:
    """A stack of blocks, see :class:`FilterBlock`, between an encoder and a head.

    layer : "rtf", "s4" or "s4d"   order : real states of a channel   filter : further options of the layer's filter
    dropout : of whole channels, before and after the mixing
    """
    _expect("norm", norm, ("layer", "batch", "none"))
    _expect("mixing", mixing, ("glu", "gelu", "none"))
    if depth < 1:
        raise ValueError(f"model.depth: expected at least 1, got {depth}")

    def block() -> FilterBlock:
        made = [filter_of(layer, width, order, task.length, filter or {}) for _ in range(2 if bidirectional else 1)]
        return FilterBlock(FilterLayer(*made), mixing, norm, pre_norm, residual, dropout)

    return SequenceModel(task, width, [block() for _ in range(depth)], _norm(norm if pre_norm else "none", width))


def language_model(
    task: Task,
    *,
    mixer: str,
    width: int,
    depth: int,
    hidden: int | None = None,
    filter: str = "implicit",
    order: int = 16,
    heads: int | None = None,
    denominator: str = "sections",
    recompute: bool = False,
) -> LanguageModel:
    """:class:`ssmid.nn.LanguageModel` over the task's tokens and length; ValueError for a task of another kind.

    filter, order, heads, denominator : as of :func:`ssmid.nn.mixers.mixer_named`
    """
    if task.inputs != "tokens" or task.kind not in ("language", "token") or task.outputs != task.vocabulary:
        raise ValueError(f"model.mixer: expected for a task that asks for its own tokens, got it for {task.name!r}")
    options = {"filter": filter, "order": order, "length": task.length, "heads": heads, "denominator": denominator}
    return LanguageModel(task.vocabulary, width, depth, mixer, hidden, recompute=recompute, **options)


def filter_of(layer: str, width: int, order: int, length: int, options: Mapping[str, Any]) -> Filter:
    """The bank of ``width`` filters of one layer; ValueError for an option that its class does not take.

    RTF's are trained for the length of the task, unless ``options`` name another ``length``.
    """
    made = {
        "rtf": lambda: called(RTFFilter, {"length": length, **options}, "model.filter.", "an option of RTF", width, order),
        "s4": lambda: called(S4Filter, options, "model.filter.", "an option of S4", width, order, length),
        "s4d": lambda: called(S4DFilter, options, "model.filter.", "an option of S4D", width, order),
    }
    _expect("layer", layer, tuple(made))
    return made[layer]()


class SequenceModel(nn.Module):
    """Encoder, blocks, norm, and head: ``(batch, outputs)`` of tasks that classify, else ``(batch, length, outputs)``.

    Pairs ``(batch, 2, length)`` are encoded one by one, and the head sees both means, their product and their difference.
    """

    def __init__(self, task: Task, width: int, blocks: list[FilterBlock], norm: nn.Module) -> None:
        super().__init__()
        self.pooled, self.sequences = task.kind == "classify", task.sequences
        tokens = task.inputs == "tokens"
        self.encoder = _Tokens(task.vocabulary, width) if tokens else nn.Linear(task.channels, width)
        self.blocks, self.norm = nn.ModuleList(blocks), norm
        self.head = nn.Linear(width, task.outputs) if task.sequences == 1 else _Comparison(width, task.outputs)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` is True at what is input; what is none leaves no trace in filters and means, but in the statistics of batch norms."""
        if self.sequences > 1:
            inputs, mask = inputs.flatten(0, 1), None if mask is None else mask.flatten(0, 1)
        u = self.encoder(inputs)
        for block in self.blocks:
            u = block(u, mask)
        u = self.norm(u)
        if self.pooled:
            u = u.mean(1) if mask is None else (u * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(u if self.sequences == 1 else u.unflatten(0, (-1, self.sequences)))


class FilterBlock(nn.Module):
    """``u + mix(gelu(filter(norm(u))))``, with the norm behind the sum where ``pre_norm`` is False.

    mixing : "glu", a gated linear map of the channels; "gelu", a linear map; "none", neither that nor the gelu: the block is linear
    """

    def __init__(self, layer: FilterLayer, mixing: Mixing, norm: Norm, pre_norm: bool, residual: bool, dropout: float) -> None:
        super().__init__()
        width = layer.width
        self.layer, self.norm, self.pre_norm, self.residual = layer, _norm(norm, width), pre_norm, residual
        parts: dict[Mixing, list[nn.Module]] = {
            "glu": [nn.GELU(), _ChannelDropout(dropout), nn.Linear(width, 2 * width), nn.GLU(), _ChannelDropout(dropout)],
            "gelu": [nn.GELU(), _ChannelDropout(dropout), nn.Linear(width, width), _ChannelDropout(dropout)],
            "none": [_ChannelDropout(dropout)],
        }
        self.mix = nn.Sequential(*parts[mixing])

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.mix(self.layer(self.norm(u) if self.pre_norm else u, mask))
        y = u + y if self.residual else y
        return y if self.pre_norm else self.norm(y)


class _ChannelDropout(nn.Dropout):
    """Of each sequence ``(batch, length, width)`` whole channels, as S4's blocks and RTF's do (their ``tie_dropout``)."""

    def forward(self, input: Tensor) -> Tensor:
        return input * super().forward(torch.ones_like(input[:, :1]))


class _Comparison(nn.Module):
    """Logits of a pair ``(batch, 2, width)``."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4 * width, width), nn.GELU(), nn.Linear(width, outputs))

    def forward(self, pair: Tensor) -> Tensor:
        a, b = pair.unbind(1)
        return self.layers(torch.cat([a, b, a * b, a - b], dim=-1))


class _Tokens(nn.Embedding):
    """An embedding of few tokens, with products there and back: on a GPU torch adds gradients up position by position, and those of the
    same few rows wait for each other, in no fixed order."""

    def forward(self, input: Tensor) -> Tensor:
        if self.num_embeddings > _FEW:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):  # a row is chosen, not rounded
            chosen = input[..., None] == torch.arange(self.num_embeddings, device=input.device)
            return chosen.to(self.weight.dtype) @ self.weight


class _ChannelsLast(nn.Module):
    """A norm of ``(batch, channels, length)`` for ``(batch, length, channels)``."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, u: Tensor) -> Tensor:
        return self.norm(u.transpose(1, 2)).transpose(1, 2)


def _norm(kind: Norm, width: int) -> nn.Module:
    made = {"layer": lambda: nn.LayerNorm(width), "batch": lambda: _ChannelsLast(nn.BatchNorm1d(width)), "none": nn.Identity}
    return made[kind]()


def _expect(name: str, given: Any, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"model.{name}: expected one of {', '.join(known)}, got {given!r}")
