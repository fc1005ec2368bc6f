"""Layers that store what those of HazyResearch/safari store, under the same names and in the same shapes, written for these tests."""

from __future__ import annotations

import math

import torch
from torch import nn


class Sine(nn.Module):
    def __init__(self, width, frequency):
        super().__init__()
        self.freq = nn.Parameter(frequency * (1 + 0.1 * torch.rand(1, width)))

    def forward(self, x):
        return torch.sin(x * self.freq)


class Positions(nn.Module):
    def __init__(self, size, length):
        super().__init__()
        n = torch.arange(length)
        t = n / (length - 1)
        phases = torch.outer(2 * math.pi * n / length, torch.linspace(1e-4, (size - 1) // 2 - 1, (size - 1) // 2))
        waves = torch.exp(-1j * phases)
        self.z = nn.Parameter(torch.cat([t[:, None], waves.real, waves.imag], 1)[None])
        self.register_buffer("t", t[None, :, None])


class Window(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("deltas", torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, channels)[None, None])


class ImplicitFilter(nn.Module):
    """``filter_fn`` of a Hyena layer; one sine serves all layers, as there."""

    def __init__(self, channels, length, size=5, width=8, inner=2, shift=0.0, modulate=True, normalized=False):
        super().__init__()
        sine = Sine(width, 10.0)
        layers = [nn.Linear(size, width), sine]
        for _ in range(inner):
            layers += [nn.Linear(width, width), sine]
        self.implicit_filter = nn.Sequential(*layers, nn.Linear(width, channels, bias=False))
        self.pos_emb, self.modulation = Positions(size, length), Window(channels)
        self.bias = nn.Parameter(torch.randn(channels))
        self.shift, self.modulate, self.normalized = shift, modulate, normalized

    def filter(self, length):
        """``(length, channels)``, without the bias."""
        z, t = self.pos_emb.z[0, :length], self.pos_emb.t[0, :length]
        h = self.implicit_filter(z)
        if self.modulate:
            h = h * (torch.exp(-t * self.modulation.deltas[0].abs()) + self.shift)
        return h / h.abs().sum(-1, keepdim=True) if self.normalized else h

    def taps(self, length):
        """``(channels, length)``, the response of convolution and bias."""
        impulse = torch.zeros(length, dtype=self.bias.dtype)
        impulse[0] = 1
        return (self.filter(length).T + self.bias[:, None] * impulse).detach().numpy()


class Mixer(nn.Module):
    """A Hyena operator of any order; ``heads`` filters only where that is given, for MultiHyena."""

    def __init__(self, width, length, order=2, heads=None, **options):
        super().__init__()
        self.width, self.order = width, order
        self.in_proj = nn.Linear(width, (order + 1) * width)
        self.out_proj = nn.Linear(width, width)
        self.short_filter = nn.Conv1d((order + 1) * width, (order + 1) * width, 3, padding=2, groups=(order + 1) * width)
        self.filter_fn = ImplicitFilter(heads or width * (order - 1), length, **options)

    def gated(self, u):
        """``(width, length)``, the recurrence over gates and long convolutions, before the output projection; channel by channel."""
        length = u.shape[0]
        *gates, v = self.short_filter(self.in_proj(u).T[None])[0, :, :length].split(self.width)
        k, steps = self.filter_fn.filter(length), self.order - 1
        for step in range(steps):
            v = v * gates[self.order - 1 - step]
            # the column of a channel and step is channel * steps + step: "(v o)" in the public code
            columns = [channel * steps + step for channel in range(self.width)]
            rows = [convolved(k[:, c], row) + self.filter_fn.bias[c] * row for c, row in zip(columns, v, strict=True)]
            v = torch.stack(rows)
        return v * gates[0]


class Model(nn.Module):
    def __init__(self, mixers):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layers = nn.ModuleList()
        for mixer in mixers:
            block = nn.Module()
            block.mixer, block.norm1 = mixer, nn.LayerNorm(4)
            self.backbone.layers.append(block)
        self.lm_head = nn.Linear(4, 7)


class LongKernel(nn.Module):
    def __init__(self, heads, channels, length):
        super().__init__()
        self.kernel = nn.Parameter(0.1 * torch.randn(heads, channels, length))


class LongConvolution(nn.Module):
    def __init__(self, heads, channels, length, both_ways=False):
        super().__init__()
        self.D = nn.Parameter(torch.randn(heads, channels))
        self.kernel = LongKernel(heads * (1 + both_ways), channels, length)


def convolved(h, u):
    """Causal, tap by tap."""
    out = torch.zeros_like(u)
    for lag in range(len(u)):
        out[lag:] += h[lag] * u[: len(u) - lag]
    return out
