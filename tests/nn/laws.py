"""What must hold for every filter that runs as a recurrence and for every layer of the sequence, written once.

Convolution = steps = prefill, then steps = prefill in chunks. A test makes a module and calls :func:`recurrence_laws`,
:func:`layer_laws`, :func:`taps_are_the_response`, :func:`gradients_are_right`, :func:`compiles`, :func:`state_dict_travels`;
``DEVICES`` and ``DTYPES`` are its parameters::

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_laws(device, dtype):
        recurrence_laws(ModalRecurrence(system), device, dtype)

Modules are copied, never changed.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ssmid
from ssmid.nn.filter import Filter, Recurrence, State
from ssmid.nn.layer import SequenceLayer

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
LENGTHS = (1, 2, 7, 16, 33)
"""One, even, odd; a test adds one longer than its module was trained with."""

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Of the norm of the output. bf16 keeps 8 bits: one rounding of the output is 2e-3 of its norm."""


def close(found: Tensor, expected: Tensor, dtype: torch.dtype, what: str = "") -> None:
    """Within the tolerance of ``dtype``, of the norm of ``expected``."""
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    found, expected = (x.detach().to(torch.complex128 if x.is_complex() else torch.float64) for x in (found, expected))
    error, size = torch.linalg.vector_norm(found - expected), torch.linalg.vector_norm(expected)
    assert bool(error <= TOLERANCES[dtype] * size + 1e-300), f"{what}: error {float(error / size):.2e} of the norm, in {dtype}"


# ---------------------------------------------------------------- the laws


def recurrence_laws(
    filter: Recurrence,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    lengths: Iterable[int] = LENGTHS,
    batch: tuple[int, ...] = (3,),
) -> None:
    """Every law of a :class:`Recurrence`; in bf16 the parameters are float32, as a state is."""
    held = torch.float32 if dtype == torch.bfloat16 else dtype
    _all_laws(_OfFilter(copy.deepcopy(filter).to(device, held), dtype, batch), lengths)


def layer_laws(
    layer: SequenceLayer,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    lengths: Iterable[int] = LENGTHS,
    batch: int = 3,
) -> None:
    """Every law of a :class:`SequenceLayer` with recurrences for filters, and that padding on the left leaves no trace."""
    machine = _OfLayer(copy.deepcopy(layer).to(device, dtype).eval(), dtype, (batch,))
    _all_laws(machine, lengths)
    with torch.no_grad():
        _padding_leaves_no_trace(machine)


def taps_are_the_response(filter: Filter, length: int = 40, tolerance: float = 1e-10) -> None:
    """``filter(n)`` is the causal response of ``filter.system()``, for every n: longer ones begin as shorter ones do."""
    filter = copy.deepcopy(filter).double()
    taps = filter(length).detach()
    assert taps.shape == (filter.channels, length)
    system = filter.system()
    assert isinstance(system, ssmid.System)
    assert system.batch_shape == (filter.channels,)
    if isinstance(system, ssmid.ImpulseResponse):
        expected = torch.nn.functional.pad(torch.as_tensor(system.taps), (0, max(0, length - system.length)))[:, :length]
    else:
        expected = torch.as_tensor(ssmid.impulse_response(system, length).taps)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(taps.cpu(), expected.detach().cpu(), rtol=0, atol=tolerance * scale)
    for shorter in (1, 2, length // 2, length // 2 + 1):
        np.testing.assert_allclose(filter(shorter).detach().cpu(), taps[:, :shorter].cpu(), rtol=0, atol=tolerance * scale)
    u = torch.randn(2, filter.channels, length, dtype=torch.float64, device=taps.device)
    direct = torch.stack([(taps[:, : t + 1] * u[..., : t + 1].flip(-1)).sum(-1) for t in range(length)], -1)
    close(filter.convolve(u), direct, torch.float64, "convolve")


def gradients_are_right(module: nn.Module, *inputs: Tensor, function: Callable[..., Tensor] | None = None, atol: float = 1e-6) -> None:
    """gradcheck in float64 by every parameter that is trained and by the inputs that ask for it.

    ``function(module, *inputs)`` is ``module(*inputs)`` where it is left out; inputs in place of floats are made float64.
    """
    module = copy.deepcopy(module).double()
    values = [x.detach().double().requires_grad_() if x.is_floating_point() else x for x in inputs]
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    parameters = [p.detach().clone().requires_grad_() for p in module.parameters() if p.requires_grad]

    def call(*arguments: Tensor) -> Tensor:
        held = dict(zip(names, arguments[: len(names)], strict=True))
        rest = arguments[len(names) :]
        if function is None:
            return torch.func.functional_call(module, held, rest)
        with _Swapped(module, held):
            return function(module, *rest)

    assert torch.autograd.gradcheck(call, (*parameters, *values), atol=atol)


def compiles(
    function: Callable[..., Any], *inputs: Any, dtype: torch.dtype = torch.float64, fullgraph: bool = True, backend: str = "aot_eager"
) -> None:
    """``torch.compile(function)`` gives what ``function`` gives (tensors, or tensors and a state)."""
    torch._dynamo.reset()
    expected = function(*inputs)
    found = torch.compile(function, fullgraph=fullgraph, backend=backend)(*inputs)
    pairs = list(zip(_tensors(found), _tensors(expected), strict=True))
    assert pairs
    for one, other in pairs:
        close(one, other, dtype, "compiled")


def state_dict_travels(make: Callable[[], nn.Module], folder: Path, call: Callable[[nn.Module], Tensor]) -> None:
    """Two modules of ``make()`` with other numbers in them: through a safetensors file the second becomes the first.

    ``call(module)`` gives an output to compare.
    """
    first, second = make(), make()
    with torch.no_grad():
        for tensor in first.parameters():
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor.real if tensor.is_complex() else tensor))
    assert set(first.state_dict()) == set(second.state_dict())
    save_file({name: tensor.contiguous() for name, tensor in first.state_dict().items()}, folder / "module.safetensors")
    second.load_state_dict(load_file(folder / "module.safetensors"))
    with torch.no_grad():
        assert torch.equal(call(first), call(second))


# ---------------------------------------------------------------- filters and layers, seen alike


class _OfFilter:
    """A recurrence: time is the last axis."""

    def __init__(self, module: Any, dtype: torch.dtype, batch: tuple[int, ...]) -> None:
        self.module, self.dtype, self.batch = module, dtype, batch
        tensors = [*module.parameters(), *module.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.generator = torch.Generator().manual_seed(5)

    axis = -1

    def signal(self, length: int) -> Tensor:
        return self._normal(*self.batch, self.module.channels, length)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.device, self.dtype)

    def whole(self, u: Tensor) -> Tensor:
        return self.module.convolve(u)

    def at_rest(self) -> State:
        return self.module.initial_state(*self.batch)


class _OfLayer(_OfFilter):
    """A layer of the sequence: time is the axis before the last."""

    axis = -2

    def signal(self, length: int) -> Tensor:
        return self._normal(*self.batch, length, self.module.width)

    def whole(self, u: Tensor) -> Tensor:
        return self.module(u)


def _all_laws(machine: _OfFilter, lengths: Iterable[int]) -> None:
    with torch.no_grad():
        for length in lengths:
            _convolution_equals_steps(machine, length)
            _convolution_equals_prefill_then_steps(machine, length)
            _convolution_equals_prefill_in_chunks(machine, length)
        _nothing_asked_nothing_changed(machine)
        _a_state_is_a_value(machine)
        _a_step_leaves_the_state(machine)


def _convolution_equals_steps(machine: _OfFilter, length: int) -> None:
    u = machine.signal(length)
    y, _ = _stepped(machine, u, machine.at_rest())
    close(y, machine.whole(u), machine.dtype, f"steps over {length} tokens")
    assert y.dtype == u.dtype
    inside = _clone(machine.at_rest())
    tokens = [machine.module.step_(u.select(machine.axis, t), inside).clone() for t in range(length)]
    close(torch.stack(tokens, machine.axis), machine.whole(u), machine.dtype, f"steps in place over {length} tokens")


def _convolution_equals_prefill_then_steps(machine: _OfFilter, length: int) -> None:
    u, axis = machine.signal(length), machine.axis
    for prompt in sorted({1, length // 2, length - 1, length}):
        if not 0 < prompt <= length:
            continue
        y, state = machine.module.prefill(u.narrow(axis, 0, prompt))
        assert y.dtype == u.dtype
        rest, _ = _stepped(machine, u.narrow(axis, prompt, length - prompt), state)
        close(torch.cat([y, rest], axis), machine.whole(u), machine.dtype, f"prefill of {prompt}, then steps to {length}")


def _convolution_equals_prefill_in_chunks(machine: _OfFilter, length: int) -> None:
    u, axis = machine.signal(length), machine.axis
    for sizes in ([0, length, 0], [1] * min(length, 3) + [max(0, length - 3)], [length // 3, length - length // 3]):
        pieces, state, start = [], None, 0
        for size in sizes:
            kept = _clone(state)
            y, following = machine.module.prefill(u.narrow(axis, start, size), state)
            if state is not None:
                _same(state, kept, "prefill changed the state it was given")
            pieces.append(y)
            state, start = following, start + size
        close(torch.cat(pieces, axis), machine.whole(u), machine.dtype, f"prefill in chunks {sizes}")


def _nothing_asked_nothing_changed(machine: _OfFilter) -> None:
    """A prefill of no tokens gives no output and the state as it was; a batch of no sequences goes through."""
    _, state = machine.module.prefill(machine.signal(5))
    y, after = machine.module.prefill(machine.signal(0), state)
    assert y.shape == machine.signal(0).shape
    _same(after, state, "a prefill of no tokens changed the state")
    following = machine.signal(1).select(machine.axis, 0)
    _, rested = machine.module.prefill(machine.signal(0))
    close(machine.module.step(following, rested)[0], machine.module.step(following, machine.at_rest())[0], machine.dtype, "rest")
    nobody = type(machine)(machine.module, machine.dtype, (0, *machine.batch[1:]))
    u = nobody.signal(4)
    y, state = machine.module.prefill(u)
    assert y.shape == u.shape
    assert machine.module.step(u.select(machine.axis, 0), state)[0].shape == u.select(machine.axis, 0).shape


def _a_state_is_a_value(machine: _OfFilter) -> None:
    """A copy, a file, a slice, a concatenation along the batch, another device: each goes on as the original does."""
    u, axis = machine.signal(12), machine.axis
    following = machine.signal(3)
    _, state = machine.module.prefill(u)
    expected, _ = _stepped(machine, following, state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    ways: dict[str, State] = {
        "copied": copy.deepcopy(state),
        "saved and loaded": torch.load(file, weights_only=True),
        "moved": _map(lambda x: x.cpu().to(machine.device), state),
        "concatenated": _map2(lambda a, b: torch.cat([a, b]), _map(lambda x: x[:1], state), _map(lambda x: x[1:], state)),
    }
    for what, other in ways.items():
        close(_stepped(machine, following, other)[0], expected, machine.dtype, what)
    one = _stepped(machine, following[1:2], _map(lambda x: x[1:2].clone(), state))[0]
    close(one, expected[1:2], machine.dtype, "one of a batch")
    again, _ = machine.module.prefill(following, state)
    close(again, expected, machine.dtype, "prefill after a state")
    twice, _ = machine.module.prefill(torch.cat([u, following], axis))
    close(twice.narrow(axis, u.shape[axis], following.shape[axis]), expected, machine.dtype, "all at once")


def _a_step_leaves_the_state(machine: _OfFilter) -> None:
    """``step`` leaves its state as it is; ``step_`` puts the same one in its place."""
    _, state = machine.module.prefill(machine.signal(6))
    token, kept = machine.signal(1).select(machine.axis, 0), _clone(state)
    y, after = machine.module.step(token, state)
    _same(state, kept, "step changed the state it was given")
    inside = _clone(state)
    places = [x.data_ptr() for x in _tensors(inside)]
    found = machine.module.step_(token, inside)
    assert places == [x.data_ptr() for x in _tensors(inside)]
    close(found, y, machine.dtype, "step_")
    further = machine.signal(4)
    close(_stepped(machine, further, inside)[0], _stepped(machine, further, after)[0], machine.dtype, "after step_")


def _padding_leaves_no_trace(machine: _OfFilter) -> None:
    """Prompts of several lengths, padded on the left, with anything under the padding, do as each does alone."""
    u = machine.signal(9)
    lengths = [9, 4, 1][: u.shape[0]] + [6] * max(0, u.shape[0] - 3)
    mask = torch.stack([torch.arange(9) >= 9 - n for n in lengths]).to(machine.device)
    u[~mask] = torch.tensor([1e4, torch.nan, torch.inf]).to(u).repeat(u.shape[-1])[: u.shape[-1]]
    y, state = machine.module.prefill(u, mask=mask)
    whole = machine.module(u, mask=mask)
    for i, n in enumerate(lengths):
        alone, own = machine.module.prefill(u[i : i + 1, 9 - n :])
        close(y[i : i + 1, 9 - n :], alone, machine.dtype, "prefill behind padding")
        close(whole[i : i + 1, 9 - n :], alone, machine.dtype, "forward behind padding")
        further = machine.signal(2)[:1]
        padded = _stepped(machine, further, _map(lambda x, i=i: x[i : i + 1].clone(), state))[0]
        close(padded, _stepped(machine, further, own)[0], machine.dtype, "the state behind padding")


# ---------------------------------------------------------------- states


def _stepped(machine: _OfFilter, u: Tensor, state: State) -> tuple[Tensor, State]:
    outputs = []
    for t in range(u.shape[machine.axis]):
        y, state = machine.module.step(u.select(machine.axis, t), state)
        outputs.append(y)
    return (torch.stack(outputs, machine.axis) if outputs else u), state


def _map(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    return function(state) if isinstance(state, Tensor) else {name: _map(function, x) for name, x in state.items()}


def _map2(function: Callable[[Tensor, Tensor], Tensor], state: Any, other: Any) -> Any:
    if isinstance(state, Tensor):
        return function(state, other)
    return {name: _map2(function, state[name], other[name]) for name in state}


def _clone(state: Any) -> Any:
    return None if state is None else _map(Tensor.clone, state)


def _same(state: Any, other: Any, what: str) -> None:
    assert all(torch.equal(a, b) for a, b in zip(_tensors(state), _tensors(other), strict=True)), what


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    return [tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in _tensors(part)]


class _Swapped:
    """The parameters of a module replaced by others, for calls of methods other than ``forward``."""

    def __init__(self, module: nn.Module, held: dict[str, Tensor]) -> None:
        self.places = [(module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], x) for name, x in held.items()]
        self.before: list[Any] = []

    def __enter__(self) -> None:
        for owner, name, tensor in self.places:
            self.before.append(owner._parameters.pop(name))
            setattr(owner, name, tensor)

    def __exit__(self, *_: object) -> None:
        for (owner, name, _tensor), before in zip(self.places, self.before, strict=True):
            delattr(owner, name)
            owner._parameters[name] = before
