"""Models made ready to generate: every long convolution of a module tree in the place of a recurrence."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ssmid._array import double
from ssmid.nn.filter import Filter, Recurrence
from ssmid.nn.layer import FilterLayer
from ssmid.nn.recurrence import Form, recurrence
from ssmid.systems import ImpulseResponse, System

How: TypeAlias = "Callable[..., Any] | Mapping[str, Any] | Literal['exact']"

_LENGTH = 1024
"""Taps that are compared where neither the caller nor the filter says how many."""


@dataclasses.dataclass(frozen=True, eq=False)
class Conversion:
    """What became of one filter.

    order : real states of a channel, None where all inputs are kept   length : taps compared
    error : ``(channels,)`` relative l2 error of the taps 1 .. length - 1, tap by tap beside those of the filter
    """

    order: int | None
    length: int
    error: Tensor


def convert(
    model: nn.Module, how: How, *, form: Form = "modal", length: int | None = None, inplace: bool = False, **options: Any
) -> nn.Module:
    """``model`` with a recurrence in the place of every :class:`ssmid.nn.Filter` that is none; a filter alone becomes its recurrence.

    how : one of

    - a function such as :func:`ssmid.distill`, called as ``how(system, **options)`` with the system of each filter, or, with ``length``,
      with that many of its taps as an :class:`ssmid.ImpulseResponse`; it returns a system or a result that has one
    - a mapping from names to such, as :func:`ssmid.load` gives it for a folder that ``ssmid distill`` filled; names are the paths of
      the filters in ``model``, or of the mixers around them where these have one, or of explicit taps: as ``ssmid distill`` names layers
    - "exact", for filters that are systems with a few states (RTF, S4, S4D)
    - a class of recurrences made of filters, ``how(filter, **options)``: :class:`ssmid.nn.CachedConvolution`, :class:`ssmid.nn.FutureFill`

    form : "modal" or "companion", as of :func:`ssmid.nn.recurrence`   length : also how many taps :func:`conversions` compares
    inplace : whether ``model`` itself is changed; else a copy is

    Tap 0 stays that of the filter, with any bypass. Layers that run both ways are left as they are, and so is everything that is not a
    filter; a warning says so where there is none. Raises ValueError with the path of the layer: where weights are not finite, where
    ``how`` cannot take the filter, where channels differ; and for names of a mapping that are missing or left over. Recurrences of
    systems hold buffers: training goes on around them and leaves them as they are, while :class:`ssmid.nn.CachedConvolution` and
    :class:`ssmid.nn.FutureFill` train their filter.

    >>> import ssmid
    >>> layer = ssmid.nn.FilterLayer(ssmid.nn.ExplicitFilter(0.9 ** torch.arange(64.0).repeat(2, 1)))
    >>> running = convert(layer, ssmid.distill, order=1)
    >>> running.filter
    ModalRecurrence(channels=2, modes=1)
    >>> bool(conversions(running)["filter"].error.max() < 0.01)
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch module, got {type(model).__name__}")
    if not (how == "exact" or callable(how) or isinstance(how, Mapping)):
        raise TypeError(f"how: expected a function such as ssmid.distill, a mapping from names, or 'exact', got {how!r}")
    if length is not None and length < 2:
        raise ValueError(f"length: expected at least 2 taps to compare, got {length}")
    if options and not callable(how):
        raise TypeError(f"expected options of a function alone, which 'exact' and mappings are not, got {', '.join(options)}")
    if isinstance(model, Filter):
        return model if isinstance(model, Recurrence) else _converted("", model, how, form, length, options)
    found = dict(_filters(model))
    if not any(isinstance(module, Filter) for module in model.modules()):
        warnings.warn(f"expected filters of ssmid.nn, found none in {type(model).__name__}: nothing is converted", stacklevel=2)
    if isinstance(how, Mapping):
        how = _by_path(found, how)
    made: dict[int, Recurrence] = {}
    for name, filter in found.items():
        if id(filter) not in made:
            made[id(filter)] = _converted(name, filter, how, form, length, options)
    # filters and their parameters are not copied first, unless a layer that stays as it is has them too
    stay = {id(module) for path, module in model.named_modules(remove_duplicate=False) if id(module) in made and path not in found}
    placed = {at: _Placed(recurrence) for at, recurrence in made.items() if at not in stay}
    result = model if inplace else copy.deepcopy(model, placed)  # pyright: ignore[reportArgumentType]
    for name, filter in found.items():
        owner, _, attribute = name.rpartition(".")
        setattr(result.get_submodule(owner), attribute, made[id(filter)])
    return result


def conversions(model: nn.Module) -> dict[str, Conversion]:
    """What :func:`convert` did, by the paths of the recurrences in ``model``."""
    noted = {name: getattr(module, "conversion", None) for name, module in model.named_modules()}
    return {name: note for name, note in noted.items() if isinstance(note, Conversion)}


class _Placed(nn.Module):
    """Stands in a copy for a filter until its recurrence does."""

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.channels = recurrence.channels


def _filters(module: nn.Module, path: str = "") -> Iterator[tuple[str, Filter]]:
    """Filters to be converted by their paths; those of bidirectional layers, and filters inside of filters, are not."""
    if isinstance(module, FilterLayer) and module.backward_filter is not None:
        return
    for name, child in module._modules.items():
        if isinstance(child, Filter):
            if not isinstance(child, Recurrence):
                yield path + name, child
        elif child is not None:
            yield from _filters(child, f"{path}{name}.")


def _by_path(found: Mapping[str, Filter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``given`` by the paths of filters; what holds one filter, or the one tensor of taps, may have lent its name.

    A filter in several places needs one of their names.
    """
    owners = [path.rpartition(".")[0] for path in found]

    def name_of(path: str, owner: str) -> str:
        known = [name for name in (path, f"{path}.taps") if name in given]
        return known[0] if known else path if owners.count(owner) > 1 else owner

    names = {path: name_of(path, owner) for path, owner in zip(found, owners, strict=True)}
    by_filter = {id(found[path]): given[name] for path, name in names.items() if name in given}
    missing, left = sorted(path for path in found if id(found[path]) not in by_filter), sorted(set(given) - set(names.values()))
    if missing or left:
        raise ValueError(
            f"how: expected one entry for the path of each filter ({_few(sorted(found))}); "
            f"missing: {_few(missing)}; left over: {_few(left)}: rename them, {{path: fits[name], ...}}"
        )
    return {path: by_filter[id(filter)] for path, filter in found.items()}


def _few(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 6 else [*names[:5], f"... ({len(names)} in all)"]) or "none"


@torch.no_grad()
def _converted(name: str, filter: Filter, how: How, form: Form, length: int | None, options: dict[str, Any]) -> Recurrence:
    here = f"{name or 'the filter'}, a {type(filter).__name__} of {filter.channels} channels"
    try:
        system = filter.system()
        count = length or (system.length if isinstance(system, ImpulseResponse) else _LENGTH)
        taps = _finite_taps(filter, count)
        if isinstance(how, type) and issubclass(how, Recurrence):
            made: Recurrence = how(filter, **options)  # pyright: ignore[reportAssignmentType]
            order = None
        else:
            if isinstance(how, Mapping):
                result = how[name]
            elif how == "exact":
                result = _with_few_states(system)
            else:
                result = how(ImpulseResponse(taps) if length else system, **options)
            found = _bank(result, filter.channels)
            made, order = recurrence(found, form), getattr(found, "order", None)
            made = made.to(taps.device, torch.float64 if taps.dtype == torch.float64 else torch.float32)
            made.feedthrough.copy_(taps[:, 0])  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    except (ValueError, TypeError) as error:
        raise type(error)(f"{here}: {error}") from error
    off = double(made(count)[:, 1:] - taps[:, 1:])
    size = torch.linalg.vector_norm(double(taps[:, 1:]), dim=-1)
    error = torch.linalg.vector_norm(off, dim=-1) / torch.where(size > 0, size, torch.ones_like(size))
    made.conversion = Conversion(order, count, error)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return made.train(filter.training)


def _finite_taps(filter: Filter, count: int) -> Tensor:
    taps = filter(count).detach()
    taps = taps if taps.dtype == torch.float64 else taps.float()
    wrong = (~torch.isfinite(taps).all(dim=-1)).nonzero().flatten().tolist()
    if wrong:
        parameters = [path for path, p in filter.named_parameters() if not bool(torch.isfinite(p).all())]
        of = f", parameters {_few(parameters)}" if parameters else ""
        raise ValueError(f"expected finite taps, got NaN or infinity in {len(wrong)} channels ({_few([str(i) for i in wrong])}){of}")
    return taps


def _with_few_states(system: System) -> System:
    if isinstance(system, ImpulseResponse):
        raise ValueError(
            f"expected a system with a few states for 'exact', got {system.length} taps: convert(model, ssmid.distill, order=...) finds "
            "one, and convert(model, ssmid.nn.CachedConvolution, max_length=...) decodes the taps as they are"
        )
    return system


def _bank(result: Any, channels: int) -> System:
    """The system of ``result`` with one batch axis."""
    system = result if isinstance(result, System) else getattr(result, "system", None)
    if not isinstance(system, System):
        raise TypeError(f"expected a system, or a result that has one, got {type(result).__name__}")
    if prod(system.batch_shape) != channels or not system.batch_shape:
        raise ValueError(f"expected a bank of {channels} channels, got batch shape {system.batch_shape}")
    whole, batch = system.broadcast_arrays(), len(system.batch_shape)
    return dataclasses.replace(system, **{key: a.reshape(channels, *a.shape[batch:]) for key, a in whole.items()})
