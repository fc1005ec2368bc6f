"""``ssmid bench layers``: one layer forward and backward, ours beside the three-line FFT convolution and the authors' own layers.

A layer is its filters and the convolution with them, as it is trained: from an input and the parameters to the gradients of both,
float32. Each takes the layout that it was written for (``(batch, width, length)``; the authors' RTF ``(batch, length, width)``).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssmid.bench.device import accelerator, ceilings_of, clock_of
from ssmid.bench.peer_layers import AUTHORS_RTF, AUTHORS_S4, AUTHORS_S4D, PeerLayers, peer_layers
from ssmid.bench.records import OURS, Bar, Case, Progress, Row, result
from ssmid.bench.replay import emptied, peak_bytes, replayed, unless_out_of_memory
from ssmid.bench.timing import limits, machine, measure

ALONE, LAYERS = "long convolution alone", "layers, forward and backward"
THREE_LINES = "torch, three lines"
STABLE, S4, S4D = "ssmid RTF, stable sections", "ssmid S4", "ssmid S4D"
CONVOLUTION_TIMES, MEMORY_TIMES = 1.15, 1.1
"""What RTF may take of the time and of the memory of our long convolution alone."""
TIMES = {AUTHORS_S4: 1.35, AUTHORS_RTF: 2.0, AUTHORS_S4D: 1.0}
"""How many times as long as our RTF the authors' layers take at least."""
THREE_LINES_TIMES = 1.3
"""How many times as long as ours the three-line convolution takes."""
MEMORY, TIMED = "memory, MiB", "timed by"
_ERROR = "relative l2 of the output of one sequence, against the same filter or convolution in float64"
_FLOOR = "the input and the gradient of the output read, output and gradient of the input written, the input read again: once each"


@dataclasses.dataclass(frozen=True)
class Point:
    """The size of a layer and of its input."""

    batch: int
    width: int
    length: int

    def counts(self, state: int) -> bool:
        """Whether a layer of that state is held against the bars: the state is small beside the length."""
        return 4 * state <= self.length

    def __str__(self) -> str:
        return f"batch {self.batch}, width {self.width}, length {self.length}"


GRID = (Point(32, 256, 2048), Point(16, 256, 4096), Point(16, 256, 16384), Point(50, 512, 1024), Point(4, 256, 65536))
STATES = (4, 64, 256, 1024)
_SMALL = (Point(2, 16, 256), Point(1, 16, 1024))
_ALONE = PeerLayers({}, {}, frozenset(), frozenset())


def layers(
    *,
    quick: bool = False,
    progress: Progress = print,
    device: str = "cpu",
    peers: Path | None = None,
    grid: tuple[Point, ...] | None = None,
    states: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """The grid on ``device``: that of the published figures on a GPU, a small one elsewhere; ``peers``: :mod:`ssmid.bench.peer_layers`."""
    facts = machine() | accelerator(device)
    gpu = device.startswith("cuda")
    others = peer_layers(peers, device)
    facts["peers missing"] = others.missing
    grid = grid or (_SMALL if not gpu else (GRID[0], GRID[3]) if quick else GRID)
    states = states or ((4, 64) if quick or not gpu else STATES)
    progress("limits of the device")
    ceilings = ceilings_of(device, quick) if gpu else limits(True)
    cases, checked = [], []
    for point in grid:
        progress(f"{point}: the convolution alone")
        alone = _convolution(point, device, ceilings["copy_bytes_per_second"])
        cases.append(alone)
        checked += convolution_bars(alone)
        for state in states:
            progress(f"{point}, state {state}")
            cases.append(_layers(point, state, device, ceilings["copy_bytes_per_second"], others))
            checked += layer_bars(alone, cases[-1]) if point.counts(state) else []
    cases.sort(key=lambda case: case.section == LAYERS)
    return result("layers" if not gpu else f"layers on {device.split(':')[0]}", quick, facts, ceilings, cases, checked if gpu else [])


# ---------------------------------------------------------------- bars


def convolution_bars(alone: Case) -> list[Bar]:
    """Of our long convolution beside the three-line one."""
    reached = alone.ratio(THREE_LINES)
    return [] if reached is None else [Bar(f"convolution: {alone.name}", THREE_LINES, THREE_LINES_TIMES, reached, None)]


def layer_bars(alone: Case, layers: Case) -> list[Bar]:
    """Of our RTF beside the convolution alone, in time and memory, and beside the authors' layers."""
    ours, convolution = layers.row(OURS), alone.row(OURS)
    assert ours is not None
    assert convolution is not None
    time = CONVOLUTION_TIMES * convolution.timing.seconds / ours.timing.seconds
    found = [Bar(layers.name, f"{CONVOLUTION_TIMES} times the convolution alone", 1.0, time, None)]
    if MEMORY in ours.columns:
        memory = MEMORY_TIMES * float(convolution.columns[MEMORY]) / float(ours.columns[MEMORY])
        found.append(Bar(layers.name, f"{MEMORY_TIMES} times the memory of the convolution alone", 1.0, memory, None))
    for tool, required in TIMES.items():
        reached = layers.ratio(tool)
        if reached is not None:
            found.append(Bar(layers.name, tool, required, reached, None))
    return found


# ---------------------------------------------------------------- jobs

Layer = tuple[Callable[[Any], Any], list[Any]]
"""A function of the input, and the parameters that gradients are taken to besides."""


def _convolution(point: Point, device: str, bandwidth: float) -> Case:
    import torch

    from ssmid.nn import long_convolution

    def three_lines(u: Any, taps: Any) -> Any:
        points = 2 * u.shape[-1]
        spectrum = torch.fft.rfft(u, n=points) * torch.fft.rfft(taps, n=points)
        return torch.fft.irfft(spectrum, n=points)[..., : u.shape[-1]]

    taps = _random(point.width, point.length, device=device, seed=1).mul_(point.length**-0.5).requires_grad_()
    tools: dict[str, Layer] = {
        OURS: (lambda u: long_convolution(u, taps), [taps]),
        THREE_LINES: (lambda u: three_lines(u, taps), [taps]),
    }
    exact = lambda u: three_lines(u.double(), taps.double())  # noqa: E731
    floor = _floor(point, bandwidth) + 3 * 4 * point.width * point.length / bandwidth
    rows, too_large = _rows(tools, point, device, {OURS: exact, THREE_LINES: exact})
    return Case(ALONE, f"{point}{_out_of_memory(too_large)}", rows, _ERROR, None, point.batch, floor=floor, floor_kind=_FLOOR)


def _layers(point: Point, state: int, device: str, bandwidth: float, peers: PeerLayers) -> Case:
    """Ours are made first: where an authors' layer does not go (a state as long as the input), it is left out and said to be."""
    filters = _ours(point, state, device)
    tools: dict[str, Layer] = {name: (filter.convolve, list(filter.parameters())) for name, filter in filters.items()}
    exact = {name: _in_float64(filter) for name, filter in filters.items()}
    left_out = []
    for name, make in peers.build.items():
        if name == AUTHORS_RTF and state >= point.length:
            left_out.append(name)
        else:
            tools[name] = make(point.width, state, point.length, device)
    rows, too_large = _rows(tools, point, device, exact, peers)
    notes = f", more than a quarter of the length: sets no bar{''.join(f'; {name} does not go' for name in left_out)}"
    name = f"{point}, state {state}{'' if point.counts(state) else notes}{_out_of_memory(too_large)}"
    return Case(LAYERS, name, rows, _ERROR, None, point.batch, floor=_floor(point, bandwidth), floor_kind=_FLOOR)


def _out_of_memory(tools: list[str]) -> str:
    return "".join(f"; no memory for {name}" for name in tools)


def _ours(point: Point, state: int, device: str) -> dict[str, Any]:
    """Filters by name."""
    import torch

    from ssmid import nn

    size = point.width, state
    with torch.device(device):  # S4 begins with dense matrices, which take a host minutes
        return {
            OURS: nn.RTFFilter(*size, length=point.length, init="montel"),
            STABLE: nn.RTFFilter(*size, length=point.length, init="montel", denominator="sections"),
            S4: nn.S4Filter(*size, point.length),
            S4D: nn.S4DFilter(*size),
        }


def _in_float64(filter: Any) -> Callable[[Any], Any]:
    return lambda u: copy.deepcopy(filter).double().convolve(u.double())


# ---------------------------------------------------------------- measuring


def _rows(
    tools: dict[str, Layer],
    point: Point,
    device: str,
    exact: dict[str, Callable[[Any], Any]],
    peers: PeerLayers = _ALONE,
) -> tuple[tuple[Row, ...], list[str]]:
    """One tool after the other, as the graphs of all of them together would not fit into the memory; and those that alone do not."""
    import torch

    gpu = device.startswith("cuda")
    signal = _random(point.batch, point.width, point.length, device=device, seed=2)
    inputs = {False: signal.requires_grad_()}
    if peers.channels_last:
        inputs[True] = signal.detach().transpose(1, 2).contiguous().requires_grad_()

    def job(name: str) -> Callable[[], Any]:
        layer, parameters = tools[name]
        u = inputs[name in peers.channels_last]
        pull = torch.ones_like(u)

        def forward_and_backward() -> Any:
            return torch.autograd.grad(layer(u), [u, *parameters], pull, allow_unused=True)

        return forward_and_backward

    def measured(name: str) -> Row:
        run = job(name)
        run()
        memory = peak_bytes(run, device)
        error = _error(tools[name][0], exact.get(name), signal.detach()[:1], device)
        emptied(device)  # while a graph is recorded nothing that was held can be given back
        replay, how = replayed(run, device, graph=name not in peers.launched)
        # what replays return lies in the memory of their graph, all of which stays taken as long as that is held
        timing = measure({name: replay}, 20 if gpu else 3, 0.2 if gpu else 0.5, clock_of(device))[name][0]
        return Row(name, timing, error, columns=({} if memory is None else {MEMORY: memory / 2**20}) | {TIMED: how})

    found = {name: unless_out_of_memory(lambda name=name: measured(name), device) for name in tools}
    return tuple(row for row in found.values() if row is not None), [name for name, row in found.items() if row is None]


def _error(layer: Callable[[Any], Any], exact: Callable[[Any], Any] | None, u: Any, device: str) -> float | None:
    """None where there is nothing to compare with, or no memory for it."""
    import torch

    def compared() -> float:
        assert exact is not None
        wanted = exact(u)
        return float(torch.linalg.vector_norm(layer(u) - wanted) / torch.linalg.vector_norm(wanted))

    with torch.no_grad():
        return None if exact is None else unless_out_of_memory(compared, device)


def _random(*shape: int, device: str, seed: int) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def _floor(point: Point, bandwidth: float) -> float:
    return 5 * 4 * point.batch * point.width * point.length / bandwidth
