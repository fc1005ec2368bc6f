"""What every representation of a linear system has in common: sample time, batch shape, and arrays that can be mapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any, ClassVar, Self, TypeVar

from ssmid._array import Array, broadcast_batch, check_finite, device, dtype_name, finite_elements, is_complex, namespace

AnySystem = TypeVar("AnySystem", bound="System")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class System:
    """Base of the containers. Not made by users.

    ``dt`` follows python-control: 0 is continuous time, a positive number the sample time in seconds, True discrete time of
    unspecified step. Axes are ``(*batch, core)``; ``batch_shape`` is the broadcast batch of all arrays.
    """

    core_ndim: ClassVar[Mapping[str, int]] = {}
    """The arrays of a representation, and how many axes of each are not batch."""

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays of the system by field name."""
        return {name: getattr(self, name) for name in self.core_ndim}

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return broadcast_batch(**{name: a.shape[: a.ndim - self.core_ndim[name]] for name, a in self.arrays.items()})

    def broadcast_arrays(self) -> dict[str, Array]:
        """The arrays by field name, each with all batch axes in full."""
        batch = self.batch_shape
        return {
            name: namespace(a).broadcast_to(a, (*batch, *a.shape[a.ndim - self.core_ndim[name] :])) for name, a in self.arrays.items()
        }

    def is_finite(self) -> Array:
        """``(*batch,)`` whether all numbers of the element are finite."""
        found = [finite_elements(a, self.core_ndim[name]) for name, a in self.arrays.items()]
        xp = namespace(*found)
        total = xp.ones(self.batch_shape, dtype=xp.bool, device=device(found[0]))
        for one in found:
            total = total & one
        return total

    @property
    def dt(self) -> float | bool:
        return self.__dict__["dt"]

    @property
    def is_discrete(self) -> bool:
        return self.dt is True or self.dt != 0

    @property
    def is_complex(self) -> bool:
        """Whether the impulse response is complex, so that the spectrum has no symmetry."""
        return any(is_complex(a) for a in self.arrays.values())

    @property
    def dtype(self) -> Any:
        """The dtype of the first array."""
        return next(iter(self.arrays.values())).dtype

    @property
    def device(self) -> Any:
        return device(next(iter(self.arrays.values())))

    def map(self, function: Callable[[Array], Array]) -> Self:
        """The same representation with ``function`` applied to every array (a move to a device, a change of dtype)."""
        return dataclasses.replace(self, **{name: function(a) for name, a in self.arrays.items()})

    def _settle(self, **arrays: Array) -> None:
        """Takes checked ``arrays`` and ``dt``. ValueError for batch axes that do not broadcast, and for NaN in a single system."""
        for name, array in arrays.items():
            check_finite(array, name, self.core_ndim[name])
            object.__setattr__(self, name, array)
        object.__setattr__(self, "dt", checked_dt(self.dt))
        _ = self.batch_shape

    def _describe(self) -> Iterator[str]:
        """What the repr says beside batch, time and dtype."""
        return iter(())

    def __repr__(self) -> str:
        facts = [*self._describe(), f"batch={self.batch_shape}", f"dt={self.dt}", dtype_name(next(iter(self.arrays.values())))]
        return f"{type(self).__name__}({', '.join(facts)})"


def not_a_system(given: Any, wanted: str = "StateSpace, Modal, ...", verb: str = "take") -> TypeError:
    """The error for what is no system here, with the way to one: from another library, out of a result, or around taps."""
    library = type(given).__module__.partition(".")[0]
    if library in ("control", "scipy"):
        way = f" of {library}: ssmid.from_{library} makes one"
    elif isinstance(getattr(given, "system", None), System):
        way = f": {verb} its .system"
    else:
        way = "" if isinstance(given, System) else ": wrap taps in ssmid.ImpulseResponse(taps)"
    return TypeError(f"expected a System ({wanted}), got {type(given).__name__}{way}")


def checked_dt(dt: Any) -> float | bool:
    """``dt`` as 0, a positive float or True; ValueError otherwise."""
    if dt is True:
        return True
    value = float(dt) if hasattr(dt, "__float__") and not isinstance(dt, bool) else -1.0
    if not isfinite(value) or value < 0:
        raise ValueError(f"dt: expected 0 (continuous), a positive sample time, or True (unspecified), got {dt!r}")
    return int(value) if value == int(value) else value


def sample_time(system: System) -> float:
    """The step in seconds: ``dt``, or 1 where it is unspecified; ValueError for continuous time."""
    if not system.is_discrete:
        raise ValueError("expected a discrete-time system, got dt=0: discretize it first with ssmid.c2d(system, dt)")
    return 1.0 if system.dt is True else float(system.dt)


def same_time(*systems: System) -> float | bool:
    """The common ``dt``; True (unspecified) gives way to a number. ValueError where they differ."""
    steps = {s.dt for s in systems if s.dt is not True}
    if len(steps) > 1 or (0 in steps and any(s.dt is True for s in systems)):
        raise ValueError(f"expected systems of one sample time, got dt {[s.dt for s in systems]}")
    return steps.pop() if steps else True


def expect_shape(name: str, array: Array, core_ndim: int, axes: str) -> None:
    """ValueError unless ``array`` has at least ``core_ndim`` axes."""
    if array.ndim < core_ndim:
        raise ValueError(f"{name}: expected shape {axes}, got {tuple(array.shape)}")


class ConversionWarning(UserWarning):
    """A conversion that lost accuracy: the message says how much, why, and which form would keep it."""


def computed(kind: type[AnySystem], **fields: Any) -> AnySystem:
    """A ``kind`` from fields that this package computed and need no checks.

    What is computed may be infinite where data may not: a spectrum on a pole, the taps of an unstable system.
    """
    system = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(system, name, value)
    return system
