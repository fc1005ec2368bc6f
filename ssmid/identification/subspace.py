"""N4SID, MOESP and CVA: a state-space model from records of inputs and outputs, without iteration.

Van Overschee and De Moor, Subspace Identification for Linear Systems (Kluwer, 1996). One LQ factor, one singular value
decomposition, the shift equation for A, and one linear least-squares problem in simulation for B, D and the initial states.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from ssmid._array import Array, astype_width, from_numpy, in_threads, one_blas_thread, width
from ssmid.identification.centering import Centering
from ssmid.identification.prediction_error_result import ERROR_OF_SIMULATION
from ssmid.identification.record import Record, experiments, host_elements
from ssmid.identification.result import Fit
from ssmid.identification.subspace_element import DEGREES, SELECTIONS, Element, Options, identify
from ssmid.systems import StateSpace
from ssmid.systems.base import computed


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SubspaceFit(Fit):
    """A system in innovations form, ``x' = A x + B u + K e``, ``y = C x + D u + e``. Not made by users.

    kalman_gain : ``(*batch, n, p)`` K   noise_covariance : ``(*batch, p, p)`` of the innovation e
    initial_state : ``(*batch, n)``, or ``(*batch, experiments, n)`` of a list of records
    centering : the levels that were taken off the records, which :func:`ssmid.predict` puts back
    levels : ``(*batch, experiments, p, 2)`` the level of each output at the first sample and its slope per sample, beside the simulation
    sigma : the singular values that the order was chosen by   rows : block rows of the future
    condition : of the future inputs, infinite where they do not excite all orders
    error : of the free simulation from ``initial_state``, of the outputs about their mean, each output in units of its deviation
    """

    kalman_gain: Array
    noise_covariance: Array
    initial_state: Array
    centering: Centering
    levels: Array
    rows: int


def n4sid(data: Record | list[Record], order: int | None = None, **options: Any) -> SubspaceFit:
    """A state-space model by N4SID, the singular value decomposition of the oblique projection. Not differentiable.

    data : a :class:`ssmid.Record`, or a list of them: several experiments on one system. Batch axes are separate systems. Records
        without inputs are time series: what is simulated then is the free motion, and the order of one that noise drives is for "gap"
    order : the number of states, those of ``delay`` not counted; chosen among 1 to ``max_order`` when left out
    max_order : 12, or fewer where there are few data
    selection : how the order is chosen. "criterion": by the error of the free simulation and the number of parameters (Rissanen's
        description length); "fit": by that error alone; "validation": by the free simulation of the last third of the samples,
        its initial state fitted, by models of the rest; "gap": the largest ratio of neighbouring singular values
    rows : block rows of the future; three times the order (or ``max_order``) over the outputs when left out, and at least 10, as far as
        the data go. Few have the least scatter; slow systems and coloured noise want more
    past : block rows of the past, as many when left out
    delay : samples by which each input acts late, one number or one for each input; the system has them as states
    feedthrough : False fixes D = 0
    center : "mean" takes a level off each channel, "trend" a level and a straight line off the outputs of each record, None nothing.
        They are estimated together with the model: exact for records that start anywhere, not only for those about their mean
    stable : poles outside the unit circle are mirrored at it, which ``changes`` says; B and D are fitted after that

    Results do not depend on the units of channels or time. A comes from the shift equation, B, D and initial states from linear
    least squares of the simulated outputs (McKelvey and Helmersson 1997), the Kalman gain from the residuals of the state
    equations. An order that the data do not show (singular values at rounding) is met by the smaller one, ``changes`` has the rest.
    An element with NaN gives NaN. Unstable models are warned of.

    Raises TypeError for anything but records, ValueError for records too short for the order and options out of range.

    >>> import numpy as np, scipy.signal
    >>> rng = np.random.default_rng(0)
    >>> u = rng.standard_normal(400)
    >>> y = scipy.signal.lfilter([0.0, 1.0], [1.0, -1.6, 0.8], u)
    >>> fit = n4sid(Record(u, y), 2)
    >>> np.abs(np.linalg.eigvals(fit.system.A)).round(9) ** 2, float(fit.error.round(9))
    (array([0.8, 0.8]), 0.0)
    """
    return _subspace(data, order, "N4SID", options)


def moesp(data: Record | list[Record], order: int | None = None, **options: Any) -> SubspaceFit:
    """A state-space model by PO-MOESP (Verhaegen, Automatica 30, 1994), the projection on past inputs and outputs.

    Arguments and results are those of :func:`n4sid`; only the weights of the singular value decomposition differ. Of the three this
    is the nearest to the data: no inverse is in it.

    >>> import numpy as np, scipy.signal
    >>> u = np.random.default_rng(0).standard_normal(400)
    >>> moesp(Record(u, scipy.signal.lfilter([0.0, 1.0], [1.0, -1.6, 0.8], u))).order
    2
    """
    return _subspace(data, order, "MOESP", options)


def cva(data: Record | list[Record], order: int | None = None, **options: Any) -> SubspaceFit:
    """A state-space model by canonical variate analysis (Larimore, 1990); ``sigma`` are canonical correlations, between 0 and 1.

    Arguments and results are those of :func:`n4sid`. The weights take the noise as it is, which makes it the most precise of the
    three for long records, and leave singular values that do not depend on the units of the outputs or on their mixing.

    >>> import numpy as np, scipy.signal
    >>> u = np.random.default_rng(0).standard_normal(400)
    >>> cva(Record(u, scipy.signal.lfilter([0.0, 1.0], [1.0, -1.6, 0.8], u)), 2).sigma[:2].round(6)
    array([1., 1.])
    """
    return _subspace(data, order, "CVA", options)


def _subspace(data: Any, order: int | None, method: str, options: dict[str, Any]) -> SubspaceFit:
    records = experiments(data)
    settings = _checked(records, order, method, **options)
    batch = records[0].batch_shape
    hosts = [host_elements(record) for record in records]
    elements = in_threads(
        one_blas_thread(lambda index: identify([(u[index], y[index]) for u, y in hosts], settings)), list(range(len(hosts[0][0])))
    )
    return _assembled(elements, records, batch, settings, listed=not isinstance(data, Record))


def _checked(
    records: list[Record],
    order: int | None,
    method: str,
    *,
    max_order: int | None = None,
    selection: str = "criterion",
    rows: int | None = None,
    past: int | None = None,
    delay: Any = 0,
    feedthrough: bool = True,
    center: str | None = None,
    stable: bool = False,
) -> Options:
    """The options of one run; ValueError where they do not fit each other or the data."""
    m, p = records[0].inputs.shape[-2], records[0].outputs.shape[-2]
    if center not in DEGREES:
        raise ValueError(f'center: expected "mean", "trend" or None, got {center!r}')
    if selection not in SELECTIONS:
        raise ValueError(f"selection: expected one of {', '.join(SELECTIONS)}, got {selection!r}")
    delays = np.atleast_1d(np.asarray(delay))
    if delays.dtype.kind not in "iu" or delays.shape not in ((1,), (m,)) or (delays < 0).any():
        raise ValueError(f"delay: expected a whole number of samples, or one for each of the {m} inputs, got {delay!r}")
    delays = np.broadcast_to(delays, (m,))
    lengths = [record.length - int(delays.max(initial=0)) for record in records]
    # as many columns of data as the factor has rows, from all records together
    most = (sum(lengths) + len(lengths)) // (2 * (m + p + len(lengths)))
    most = min(most, (min(lengths) - DEGREES[center] - 1) // 2)
    for name, value in (("order", order), ("max_order", max_order)):
        if value is not None and (value != int(value) or not 1 <= value <= max(0, (most - 1) * p)):
            raise ValueError(f"{name}: expected 1 to {max(0, (most - 1) * p)} for {sum(lengths)} samples, got {value}")
    if most < 2:
        raise ValueError(f"expected more samples of {m} inputs and {p} outputs, got {[record.length for record in records]}")
    largest = order or max_order or max(1, min(12, (most - 1) * p // 2))
    least = -(-largest // p) + 1
    if rows is not None and not least <= rows <= most:
        raise ValueError(f"rows: expected {least} to {most} for order {largest} and {sum(lengths)} samples, got {rows}")
    height = max(least, min(most, max(10, -(-3 * largest // p)))) if rows is None else rows
    # with a past of its own length the sum of both counts
    longest = min(2 * most - height, min(lengths) - DEGREES[center] - 1 - height)
    if past is not None and not -(-largest // (m + p)) <= past <= longest:
        raise ValueError(f"past: expected {-(-largest // (m + p))} to {longest} for order {largest} and {height} rows, got {past}")
    before, late = height if past is None else past, tuple(map(int, delays))
    return Options(method, order, largest, height, before, DEGREES[center], selection, late, feedthrough, stable)


def _assembled(elements: list[Element], records: list[Record], batch: tuple[int, ...], options: Options, *, listed: bool) -> SubspaceFit:
    like = records[0].outputs
    n = max(element.A.shape[0] for element in elements)

    def pack(values: list[Any]) -> Array:
        host = np.stack([np.asarray(value) for value in values])
        moved = from_numpy(host.reshape((*batch, *host.shape[1:])), like)
        return astype_width(moved, width(like)) if host.dtype.kind == "f" else moved

    def padded(name: str, axes: tuple[int, ...]) -> Array:
        arrays = [getattr(element, name) for element in elements]
        return pack([np.pad(a, [(0, n - k) if axis in axes else (0, 0) for axis, k in enumerate(a.shape)]) for a in arrays])

    orders = np.array([len(element.A) for element in elements])
    A, B, C, D = padded("A", (0, 1)), padded("B", (0,)), padded("C", (1,)), pack([e.D for e in elements])
    system = computed(StateSpace, A=A, B=B, C=C, D=D, dt=records[0].dt)
    states = padded("states", (1,))
    most = max(len(element.sigma) for element in elements)
    of_inputs, of_outputs = (pack([getattr(e, name) for e in elements]) for name in ("input_line", "output_line"))
    centering = Centering(of_inputs, of_outputs, _center(options.degree), level_inputs=True)
    _warn(elements, options.method)
    index = list(np.ndindex(*batch))
    return SubspaceFit(
        system=system,
        method=options.method,
        order=int(orders[0]) if (orders == orders[0]).all() else pack(list(orders)),
        converged=pack([e.converged for e in elements]),
        condition=pack([e.condition for e in elements]),
        changes=tuple(dataclasses.replace(c, element=where) for where, e in zip(index, elements, strict=True) for c in e.changes),
        data=records if listed else records[0],
        error=pack([e.error for e in elements]),
        error_kind=ERROR_OF_SIMULATION,
        sigma=pack([np.pad(e.sigma, (0, most - len(e.sigma))) for e in elements]),
        kalman_gain=padded("K", (0,)),
        noise_covariance=pack([e.covariance for e in elements]),
        initial_state=states if listed else states[..., 0, :],
        centering=centering,
        levels=pack([e.levels for e in elements]),
        rows=options.rows,
    )


def _center(degree: int) -> str | None:
    return next(name for name, value in DEGREES.items() if value == degree)


def _warn(elements: list[Element], method: str) -> None:
    radii = np.array([element.radius for element in elements])
    unstable = int(np.sum(radii > 1))
    if unstable:
        some = "the model is" if len(radii) == 1 else f"{unstable} of {len(radii)} models are"
        worst = f"largest pole modulus {np.nanmax(radii):.6g}"
        warnings.warn(f"{method.lower()}: {some} unstable ({worst}); stable=True mirrors such poles at the circle", stacklevel=4)
