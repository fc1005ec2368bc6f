"""Models beside the data they were fitted to: spectra, records, and what is left over."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ssmid._array import to_numpy
from ssmid.analysis.evaluation import evaluate
from ssmid.identification.record import Record
from ssmid.identification.samples import samples
from ssmid.identification.validation import ResidualTest, fit_percent, predict
from ssmid.plot.style import BLACK, BLUE, GREY, RED, SKY, decibel, drawing, frequency_axis, legend, limit_span, time_unit
from ssmid.systems import FrequencyResponse, StateSpace, System


def frequency_fit(
    response: FrequencyResponse, model: Any, *, channel: tuple[int, ...] | None = None, ax: Axes | None = None,
    fs: float | bool | None = None, scale: str = "linear", span: float = 160.0,
) -> Axes:
    """Measured values, the model, and the modulus of their difference, in dB.

    model : a system or a fit of the whole response   channel : which one of several; the one of the largest error when left out
    fs : axis in Hz at this sample rate (True: that of dt; continuous time too)   span : dB shown below the highest point
    """
    system: System = model if isinstance(model, System) else model.system
    given = samples(response)
    values, fitted = to_numpy(given.values), to_numpy(_evaluated(system, given, len(response.values.shape)))
    if channel is None:
        errors = np.nan_to_num(np.abs(values - fitted).max(-1), nan=-1.0)
        channel = tuple(int(i) for i in np.unravel_index(int(errors.argmax()), errors.shape)) if errors.ndim else ()
    measured, modelled = values[channel], np.broadcast_to(fitted, values.shape)[channel]
    size = float(np.linalg.norm(measured))
    share = f" ({100 * float(np.linalg.norm(measured - modelled)) / size:.2g} % in l2)" if size else ""
    with drawing(ax) as ax:
        x = frequency_axis(ax, np.broadcast_to(to_numpy(response.omega), values.shape)[channel], response, fs, scale)
        ax.plot(x, decibel(np.abs(measured)), color=SKY, linestyle="-", linewidth=3.0, label="data")
        ax.plot(x, decibel(np.abs(modelled)), color=RED, linestyle="-", linewidth=1.0, label=f"model, order {_order(system)}")
        ax.plot(x, decibel(np.abs(measured - modelled)), color=BLACK, linestyle="-", linewidth=0.7, label=f"difference{share}")
        limit_span(ax, span)
        if decibel(np.abs(measured - modelled)).max() < ax.get_ylim()[0]:  # rounding: the curves get the room
            lines = ax.get_lines()[:2]
            ends = np.concatenate([line.get_ydata() for line in lines])
            ends = np.clip(ends[np.isfinite(ends)], ends.max() - span, None)
            ax.set_ylim(ends.min() - 0.05 * max(np.ptp(ends), 6.0), ends.max() + 0.05 * max(np.ptp(ends), 6.0))
        ax.set_ylabel("Magnitude (dB)")
        legend(ax)
    return ax


def _evaluated(system: System, given: Any, axes: int) -> Any:
    """``(*batch, k)`` of one input and output, ``(*batch, p, m, k)`` of several."""
    values = evaluate(system, given.points)
    return values[..., 0, 0, :] if isinstance(system, StateSpace) and values.ndim > axes else values


def _order(system: System) -> int:
    return getattr(system, "order", 0)


def simulation(
    record: Record, model: Any, *, steps: int | None = None, output: int = 0, ax: Axes | None = None, seconds: bool = True
) -> Axes:
    """A measured output and what the model makes of the inputs, from the initial state that suits it best.

    steps : prediction so many samples ahead; free simulation when left out   seconds : time in seconds where dt is not 1, else in samples

    What a diverging model does beyond three times the range of the measured output is not shown. Raises ValueError for a batch of
    records and an output that is not there, TypeError for what is no record.
    """
    if not isinstance(record, Record):
        raise TypeError(f"record: expected a Record, and after it the model, got {type(record).__name__}")
    _single(record.outputs, output)
    measured = to_numpy(record.outputs)[output]
    modelled = to_numpy(predict(model, record, steps))[output]
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging model may overflow
        percent, difference = float(fit_percent(measured, modelled)), measured - modelled
    name = "simulation" if steps is None else f"{steps}-step prediction"
    in_seconds = seconds and record.dt is not True and record.dt != 1  # as in all figures: a step of 1 is one that nobody gave
    step = float(record.dt) if in_seconds else 1.0
    unit, factor = time_unit(record.length * step) if in_seconds else ("samples", 1.0)
    t = np.arange(record.length) * step * factor
    with drawing(ax) as ax:
        ax.plot(t, measured, color=SKY, linestyle="-", linewidth=2.4, label="measured")
        ax.plot(t, modelled, color=RED, linestyle="-", linewidth=0.9, label=f"{name} (fit {percent:.1f} %)")
        ax.plot(t, difference, color=BLACK, linestyle="-", linewidth=0.6, label="difference", zorder=3)
        ax.set_ylim(*_limits(measured, modelled, difference))
        ax.set_xlabel(f"Time ({unit})")
        ax.set_ylabel(f"Output {output}")
        ax.margins(x=0.01)
        legend(ax)
    return ax


def _single(array: Any, output: int) -> None:
    """ValueError unless ``array`` ``(p, T)`` is of one record with this output."""
    if array.ndim > 2:
        raise ValueError(f"expected one record, got a batch of {tuple(array.shape[:-2])}: a loop draws each")
    if not -array.shape[0] <= output < array.shape[0]:
        raise ValueError(f"output: expected 0 to {array.shape[0] - 1}, got {output}")


def _limits(measured: np.ndarray, modelled: np.ndarray, difference: np.ndarray) -> tuple[float, float]:
    """Of the axis: the measured signal, the model up to three times its range, and the difference where that is no farther away."""
    middle, size = (measured.max() + measured.min()) / 2, float(np.ptp(measured))
    size = size if size > 0 else abs(middle) or 1.0
    low, high = middle - 1.5 * size, middle + 1.5 * size
    near = difference[(difference >= low) & (difference <= high)]
    shown = np.concatenate([measured, np.clip(modelled[~np.isnan(modelled)], low, high), near])
    margin = 0.05 * max(float(np.ptp(shown)), 0.1 * size)
    return float(shown.min()) - margin, float(shown.max()) + margin


def residual_correlation(test: ResidualTest, *, output: int = 0, ax: Axes | None = None) -> Axes:
    """The autocorrelation of one output's residuals, with the band that white ones stay in, lag by lag.

    Raises ValueError for a batch of tests and an output that is not there, TypeError for what is no test.
    """
    if not isinstance(test, ResidualTest):
        raise TypeError(f"test: expected what ssmid.residual_test(model, record) returns, got {type(test).__name__}")
    _single(test.autocorrelation, output)
    correlation = to_numpy(test.autocorrelation)[output, 1:]
    lags = np.arange(1, len(correlation) + 1)
    with drawing(ax) as ax:
        ax.axhspan(-test.bound, test.bound, color=GREY, alpha=0.2, linewidth=0, label=f"{100 * test.level:.3g} % of white residuals")
        ax.vlines(lags, 0, correlation, color=BLUE, linewidth=1.2)
        ax.plot(lags, correlation, color=BLUE, linestyle="", marker=".", label=f"residuals of output {output}")
        ax.axhline(0, color=BLACK, linewidth=0.5, zorder=1)
        ax.set_xlabel("Lag (samples)")
        ax.set_ylabel("Autocorrelation")
        legend(ax)
    return ax
