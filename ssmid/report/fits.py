"""What ``ssmid fit`` says of a system identified from data: the error by name, trust, poles; and of a record, how it does on the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ssmid._array import to_numpy
from ssmid.identification.record import Record
from ssmid.identification.result import Fit
from ssmid.identification.validation import residual_test, validate
from ssmid.report.figures import figure
from ssmid.report.tables import Report, Table
from ssmid.systems import FrequencyResponse, ImpulseResponse, System


def fit_report(fit: Fit, title: str, tol: float | None = None, held_out: Record | None = None) -> tuple[Report, bool]:
    """Facts, a table with the worst channel first, and words; and whether all is well: converged, stable, within ``tol``.

    held_out : the part of a record that the model was not fitted to
    """
    batch = tuple(fit.converged.shape)
    flat = {
        name: np.broadcast_to(to_numpy(value) if not isinstance(value, int) else np.asarray(value), batch).reshape(-1)
        for name, value in (("order", fit.order), ("error", fit.error), ("condition", fit.condition), ("stable", fit.stable))
    }
    converged = to_numpy(fit.converged).reshape(-1)
    worst_first = np.argsort(np.where(np.isnan(flat["error"]), np.inf, flat["error"]), kind="stable")[::-1]
    names = [",".join(str(i) for i in index) or "0" for index in np.ndindex(*batch)]
    columns = ["channel", "order", fit.error_kind, "condition", "stable", "converged"]
    rows = [[names[i], *(flat[k][i].item() for k in ("order", "error", "condition", "stable")), bool(converged[i])] for i in worst_first]
    facts: dict[str, Any] = {"method": fit.method, "model": repr(fit.system), "channels": len(rows), "error is": fit.error_kind}
    good = bool(converged.all() and flat["stable"].all())
    words = fit.explain().split("\n")
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
        words += found.explain().split("\n")
    if fit.changes:
        listed = [[c.action, ", ".join(f"{p:.5g}" for p in c.poles[:4]), len(c.poles), c.why] for c in fit.changes]
        tables.append(Table("Poles that were changed", ["action", "poles", "count", "why"], listed))
    return Report(title, facts, tables, words), good


def draw_fit(folder: Path, fit: Fit, data: Any, held_out: Record | None = None) -> list[Path]:
    """PNG figures of a model beside its data; of a record, of the part that it was not fitted to where there is one."""
    from ssmid import plot

    if not np.isfinite(to_numpy(fit.error)).all():
        return []
    first = _single(fit.system)
    made = [figure(folder / "poles.png", lambda ax: plot.pole_zero(first, ax=ax, zeros=False), "", (4.8, 4.8))]
    if fit.sigma is not None and fit.sigma.shape[-1] > 1:
        made.append(figure(folder / "singular_values.png", lambda ax: _singular_values(ax, fit)))
    if isinstance(data, FrequencyResponse):
        omega, system, response = to_numpy(data.omega), fit.system.map(to_numpy), data.map(to_numpy)
        hertz = True if data.dt is not True and data.dt != 1 else None
        scale = "log" if omega.min() > 0 and omega.max() > 100 * omega.min() else "linear"
        spectrum = figure(folder / "spectrum.png", lambda ax: plot.frequency_fit(response, system, ax=ax, fs=hertz, scale=scale))
        return [*made, spectrum]
    if isinstance(data, ImpulseResponse):
        taps, scale = _single(data), "db" if data.length > 1000 else "linear"
        return [*made, figure(folder / "impulse.png", lambda ax: plot.impulse(taps, first, ax=ax, scale=scale))]
    return made + _of_record(folder, fit, held_out if held_out is not None else data)


def _singular_values(ax: Any, fit: Fit) -> None:
    """What the order was chosen by: of the method's own matrix, not of the system."""
    from ssmid import plot

    plot.hankel_spectrum(to_numpy(fit.sigma), fit.order if isinstance(fit.order, int) else None, ax=ax)
    ax.set_ylabel(ax.get_ylabel().replace("Hankel singular", "Singular"))
    for text in ax.get_legend().get_texts():
        text.set_text(text.get_text().replace("Hankel singular", "singular"))


def _of_record(folder: Path, fit: Fit, record: Record) -> list[Path]:
    from ssmid import plot

    count = min(record.outputs.shape[-2], 8)
    names = ["simulation.png"] if count == 1 else [f"simulation_{i}.png" for i in range(count)]
    made = [figure(folder / name, lambda ax, i=i: plot.simulation(record, fit, output=i, ax=ax)) for i, name in enumerate(names)]
    return [*made, figure(folder / "residuals.png", lambda ax: plot.residual_correlation(residual_test(fit, record), ax=ax))]


def _single(system: System) -> System:
    """The first element of a batch, on the host."""
    first = (0,) * len(system.batch_shape)
    return dataclasses.replace(system, **{name: to_numpy(a)[first] for name, a in system.broadcast_arrays().items()})


def split_in_time(record: Record, share: float) -> tuple[Record, Record | None]:
    """The first ``share`` of a record, to be fitted to, and the rest; ValueError where neither part has samples."""
    if not 0 < share <= 1:
        raise ValueError(f"train: expected a share of the record above 0 and up to 1, got {share}")
    count = round(share * record.length)
    if count < 2:
        raise ValueError(f"train: expected a share of at least two samples of {record.length}, got {share}")
    return (record, None) if count >= record.length else (record[:count], record[count:])
