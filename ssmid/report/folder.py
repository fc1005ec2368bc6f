"""A fit as a folder: the model for programs and for people, the report, the figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ssmid import __version__
from ssmid._array import to_numpy
from ssmid.identification.centering import CENTERS
from ssmid.identification.record import Record
from ssmid.identification.result import Fit
from ssmid.io import save
from ssmid.io.files import about, write_bytes
from ssmid.reduction.result import Reduction, Result
from ssmid.report.certificate import Certificate, certificate_report, certify
from ssmid.report.figures import draw
from ssmid.report.fits import draw_fit, fit_report, split_in_time
from ssmid.report.methods import checked_method, fitted, kind_of
from ssmid.report.progress import Stage
from ssmid.report.tables import Report, plain
from ssmid.systems import System


def fit_into(
    folder: Path,
    data: System | Record,
    title: str,
    *,
    order: int | None = None,
    tol: float | None = None,
    method: str | None = None,
    mimo: bool = False,
    train: float = 1.0,
    center: str | None = None,
    stable: bool = False,
    figures: bool = True,
    stage: Stage | None = None,
) -> tuple[Report, bool]:
    """The job of ``ssmid fit``: fits ``data``, measures the errors, fills ``folder``; the report, and whether all is well.

    method : one of :data:`ssmid.report.methods.METHODS`; the usual one for the data where left out
    train : the share of a record that is fitted to; the rest tells how good the model is   center : "none", "mean" or "trend"
        is taken off a record first; what the method does by itself where left out
    stable : only stable models, where the method leaves the choice

    Writes ``model.safetensors``, ``model.json``, ``report.json`` and PNG figures; files of the same names are replaced.
    Raises ValueError for wrong input and folders that cannot be written, before anything is computed where that can be known.
    """
    stage = stage or (lambda description, done=None, total=None: None)
    name, chosen = checked_method(method, data, order, tol, mimo)
    if center is not None and not isinstance(data, Record):
        raise ValueError(f"--center: expected a record (--inputs, --outputs), got {kind_of(data)}")
    if center not in (None, "none", *CENTERS):
        raise ValueError(f"--center: expected none, {' or '.join(CENTERS)}, got {center!r}")
    used, held_out = split_in_time(data, train) if isinstance(data, Record) else (data, None)
    steps = 4 if figures else 3
    trials = " (several methods and orders)" if name == "identify" else ""
    stage(f"{title}: {name}{trials}", 0, steps)
    with _made(folder):
        result = fitted(used, chosen, order, tol, mimo, center, stable)
    stage(f"{title}: errors", 1, steps)
    certificate = None
    if isinstance(result, Reduction):
        certificate = certify(result, tol, lambda description, done=None, total=None: stage(f"{title}: {description}", 1, steps))
        report, good = certificate_report(result, certificate, title), certificate.good
    else:
        assert isinstance(result, Fit)
        report, good = fit_report(result, title, tol, held_out, used if isinstance(used, Record) else None)
    stage(f"{title}: writing the model", 2, steps)
    paths = _write_models(folder, result, certificate, title)
    if figures:
        stage(f"{title}: figures", 3, steps)
        if isinstance(result, Reduction):
            assert certificate is not None
            paths += draw(folder, result, np.where(np.isfinite(certificate.error), certificate.error, certificate.hankel))
        elif isinstance(result, Fit):
            paths += draw_fit(folder, result, used, held_out)
    paths.append(folder / "report.json")
    report.facts["written"] = [str(path) for path in paths]
    write_bytes(folder / "report.json", report.to_json().encode())
    return report, good


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there before the work is done, so that a wrong name costs no minutes; where the work fails it goes again."""
    with about(folder):
        if folder.exists() and not folder.is_dir():
            raise ValueError("expected a folder, got a file")
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if new:
            folder.rmdir()
        raise


def _write_models(folder: Path, result: Result, certificate: Certificate | None, title: str) -> list[Path]:
    paths = [folder / "model.safetensors", folder / "model.json"]
    order, error = (certificate.order, certificate.error) if certificate else (result.order, to_numpy(result.error))
    metadata = {"source": title, "method": result.method, "order": plain(order), "error": plain(error)}
    if certificate:
        metadata["relative_l2_error"] = metadata.pop("error")
    else:
        metadata["error_kind"] = result.error_kind.rstrip(",")
    for path in paths:
        save(result.system, path, {**metadata, "made_by": f"ssmid {__version__}"})
    return paths
