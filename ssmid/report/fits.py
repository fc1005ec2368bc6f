"""What ``ssmid fit`` says of a system identified from data: the error by name, trust, poles; and of a record, how it does on the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.analysis.spectrum import frequency_response
from ssmid.identification.record import Record
from ssmid.identification.result import Fit
from ssmid.identification.validation import residual_test, validate
from ssmid.reduction.result import Change
from ssmid.report.figures import LONG, element, figure, one_channel, titles, worst_of
from ssmid.report.tables import Report, Table, shown
from ssmid.systems import FrequencyResponse, ImpulseResponse, System


def fit_report(
    fit: Fit, title: str, tol: float | None = None, held_out: Record | None = None, used: Record | None = None
) -> tuple[Report, bool]:
    """Facts, a table with the worst channel first, and words; and whether all is well: converged, stable, within ``tol``.

    used, held_out : the part of a record that the model was fitted to, and the part that it was not
    """
    batch = tuple(fit.converged.shape)
    flat = {
        name: np.broadcast_to(to_numpy(value) if not isinstance(value, int) else np.asarray(value), batch).reshape(-1)
        for name, value in (("order", fit.order), ("error", fit.error), ("condition", fit.condition), ("stable", fit.stable))
    }
    converged = to_numpy(fit.converged).reshape(-1)
    worst_first = np.argsort(np.where(np.isnan(flat["error"]), np.inf, flat["error"]), kind="stable")[::-1]
    names = [",".join(str(i) for i in index) or "0" for index in np.ndindex(*batch)]
    columns = ["channel", "order", "error", "condition", "stable", "converged"]
    rows = [[names[i], *(flat[k][i].item() for k in ("order", "error", "condition", "stable")), bool(converged[i])] for i in worst_first]
    facts: dict[str, Any] = {"method": fit.method, "model": repr(fit.system), "channels": len(rows), "error is": fit.error_kind.rstrip(",")}
    facts |= _shares(used, held_out)
    if used is not None:
        facts["taken off"] = getattr(getattr(fit, "centering", None), "center", None) or "nothing"
    good = bool(converged.all() and flat["stable"].all())
    words = fit.explain().split("\n") + _alarms(flat["stable"], converged, np.isfinite(flat["error"]))
    if tol is not None:
        met = bool((flat["error"] <= tol).all())
        facts["tolerance"], facts["tolerance met"], good = tol, met, good and met
        words += [] if met else [f"The tolerance {tol:g} is not met: ask for a larger one, or for a larger order."]
    tables = [Table("Errors, worst first" if len(rows) > 1 else "Errors", columns, rows)]
    if held_out is not None and np.isfinite(flat["error"]).all():
        found = validate(fit, held_out)
        percent = {"free simulation": to_numpy(found.simulation), "one step ahead": to_numpy(found.prediction)}
        per_output = [[i, *(float(p[i]) for p in percent.values())] for i in range(held_out.outputs.shape[-2])]
        tables.append(Table("Fit on data not trained on, in percent", ["output", *percent], per_output))
        said = found.explain()
        words += (said if len(per_output) == 1 else f"Of the worst output: {said[:1].lower()}{said[1:]}").split("\n")
    if fit.changes:
        unit = "poles" if fit.system.is_discrete else "poles (rad/s)"
        tables.append(Table("Poles that were changed", ["action", "count", "why", unit], _changed(fit.changes)))
    return Report(title, facts, tables, words), good


def _shares(used: Record | None, held_out: Record | None) -> dict[str, Any]:
    """Which samples of a record were fitted to, which were kept to test the model, and what a sample is."""
    if used is None:
        return {}
    last = used.length - 1 + (held_out.length if held_out is not None else 0)
    rest = "nothing" if held_out is None else f"samples {used.length} to {last}"
    step = {} if used.dt is True else {"sample time (s)": used.dt}
    return {"inputs": used.inputs.shape[-2], "fitted to": f"samples 0 to {used.length - 1}", "held out": rest, **step}


def _alarms(stable: np.ndarray, converged: np.ndarray, sound: np.ndarray) -> list[str]:
    """What must not be overlooked, and what to do about it."""
    unstable, unsettled = int(np.sum(~stable & sound)), int(np.sum(~converged & sound))
    count = len(stable)
    words = []
    if unstable:
        which = "The model is" if count == 1 else f"{unstable} of {count} models are"
        words.append(f"UNSTABLE: {which} unstable, and what it answers grows without end. A stable one: --stable, or a smaller --order.")
    if unsettled:
        which = "The search" if count == 1 else f"The search for {unsettled} of {count} models"
        words.append(f"NOT CONVERGED: {which} ended before it settled. The error is that of the model as it is; try another --order.")
    if not sound.all():
        which = "No model was found" if count == 1 else f"{int(np.sum(~sound))} of {count} channels have no model"
        words.append(f"{which}: the numbers are not finite.")
    return words


def _changed(changes: tuple[Change, ...]) -> list[list[Any]]:
    """One row for each kind of change and its reason, over all channels; of a conjugate pair the upper pole."""
    grouped: dict[tuple[str, str], list[complex]] = {}
    for change in changes:
        grouped.setdefault((change.action, change.why), []).extend(complex(p) for p in change.poles)
    return [[action, len(poles), why, _listed(poles)] for (action, why), poles in grouped.items()]


def _listed(poles: list[complex]) -> str:
    """The first poles as people read them, one of each pair."""
    pairs = {p for p in poles if p.imag and p.conjugate() in poles}
    upper = [p for p in poles if p not in pairs or p.imag > 0]
    named = [f"{p.real:.4g} ± {p.imag:.4g}i" if p in pairs else f"{p.real:.4g}" if p.imag == 0 else shown(p) for p in upper[:3]]
    return ", ".join(named) + (", ..." if len(upper) > 3 else "")


def draw_fit(folder: Path, fit: Fit, data: Any, held_out: Record | None = None) -> list[Path]:
    """PNG figures of a model beside its data; of a record, of the part that it was not fitted to where there is one."""
    from ssmid import plot

    if not np.isfinite(to_numpy(fit.error)).all():
        return []
    index = worst_of(to_numpy(fit.error), tuple(fit.converged.shape))
    worst, pair = titles(fit.system, index)
    shown_poles = element(fit.system, index)
    made = [figure(folder / "poles.png", lambda ax: plot.pole_zero(shown_poles, ax=ax, zeros=False), worst, (4.8, 4.8))]
    if fit.sigma is not None and fit.sigma.shape[-1] > 1:
        made.append(figure(folder / "singular_values.png", lambda ax: _singular_values(ax, fit)))
    if isinstance(data, FrequencyResponse):
        omega, system, response = to_numpy(data.omega), fit.system.map(to_numpy), data.map(to_numpy)
        hertz = True if data.dt is not True and data.dt != 1 else None
        scale = "log" if omega.min() > 0 and omega.max() > 100 * omega.min() else "linear"
        channel = _worst_channel(response, system)
        name = f"channel {','.join(str(i) for i in channel)}, the worst" if channel else ""
        options: dict[str, Any] = {"channel": channel, "fs": hertz, "scale": scale}
        return [*made, figure(folder / "spectrum.png", lambda ax: plot.frequency_fit(response, system, ax=ax, **options), name)]
    if isinstance(data, ImpulseResponse):
        taps, model = one_channel(data, fit.system, index)
        look: dict[str, Any] = {"scale": "db" if data.length > LONG else "linear", "labels": ("data", "model")}
        look["fs"] = None if data.dt is True or data.dt == 1 else 1 / data.dt
        return [*made, figure(folder / "impulse.png", lambda ax: plot.impulse(taps, model, ax=ax, **look), pair)]
    return made + _of_record(folder, fit, *((data, "fitted to") if held_out is None else (held_out, "held out")))


def _worst_channel(response: FrequencyResponse, system: System) -> tuple[int, ...]:
    """The batch index of the largest difference between data and model."""
    fitted = to_numpy(frequency_response(system, response.omega).values)
    error = np.abs(to_numpy(response.values) - fitted.reshape(response.values.shape)).max(-1)
    return tuple(int(i) for i in np.unravel_index(int(np.nan_to_num(error, nan=-1.0).argmax()), error.shape)) if error.ndim else ()


def _singular_values(ax: Any, fit: Fit) -> None:
    """What the order was chosen by: of the method's own matrix, not of the system."""
    from ssmid import plot

    plot.hankel_spectrum(to_numpy(fit.sigma), fit.order if isinstance(fit.order, int) else None, ax=ax)
    ax.set_ylabel(ax.get_ylabel().replace("Hankel singular", "Singular"))
    for text in ax.get_legend().get_texts():
        text.set_text(text.get_text().replace("Hankel singular", "singular"))


def _of_record(folder: Path, fit: Fit, record: Record, part: str) -> list[Path]:
    """Each output beside its free simulation, and what one-step predictions leave over, on the named ``part`` of the record."""
    from ssmid import plot

    count = min(record.outputs.shape[-2], 8)
    suffixes = [""] if count == 1 else [f"_{i}" for i in range(count)]
    test, title = residual_test(fit, record), f"samples {part}"
    made = []
    for i, suffix in enumerate(suffixes):
        made.append(figure(folder / f"simulation{suffix}.png", lambda ax, i=i: plot.simulation(record, fit, output=i, ax=ax), title))
        made.append(figure(folder / f"residuals{suffix}.png", lambda ax, i=i: plot.residual_correlation(test, output=i, ax=ax), title))
    return made


def split_in_time(record: Record, share: float) -> tuple[Record, Record | None]:
    """The first ``share`` of a record, to be fitted to, and the rest; ValueError where neither part has samples."""
    if not 0 < share <= 1:
        raise ValueError(f"train: expected a share of the record above 0 and up to 1, got {share}")
    count = round(share * record.length)
    if count < 2:
        raise ValueError(f"train: expected a share of at least two samples of {record.length}, got {share}")
    return (record, None) if count >= record.length else (record[:count], record[count:])
