"""A fit as a folder: the model for programs and for people, the report, the figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssmid import __version__
from ssmid.io import save
from ssmid.io.files import about, write_bytes
from ssmid.reduction.result import Reduction
from ssmid.report.certificate import Certificate, certificate_report, certify
from ssmid.report.figures import draw
from ssmid.report.progress import Stage
from ssmid.report.tables import Report, plain
from ssmid.systems import ImpulseResponse, System

METHODS = ("balanced", "era")


def fit_into(
    folder: Path,
    system: System,
    title: str,
    *,
    order: int | None = None,
    tol: float | None = None,
    method: str = "balanced",
    mimo: bool = False,
    figures: bool = True,
    stage: Stage | None = None,
) -> tuple[Report, bool]:
    """The job of ``ssmid fit``: reduces ``system``, measures the errors, fills ``folder``; the report, and whether all is well.

    Writes ``model.safetensors``, ``model.json``, ``report.json`` and PNG figures; files of the same names are replaced.
    Raises ValueError for wrong input and folders that cannot be written, before anything is computed where that can be known.
    """
    stage = stage or (lambda description, done=None, total=None: None)
    steps = 4 if figures else 3
    stage(f"{title}: {method} fit", 0, steps)
    with _made(folder):
        reduction = _reduce(system, method, order, tol, mimo)
    stage(f"{title}: errors", 1, steps)
    certificate = certify(reduction, tol, lambda description, done=None, total=None: stage(f"{title}: {description}", 1, steps))
    report = certificate_report(reduction, certificate, title)
    stage(f"{title}: writing the model", 2, steps)
    paths = _write_models(folder, reduction, certificate, title)
    if figures:
        stage(f"{title}: figures", 3, steps)
        paths += draw(folder, reduction, certificate.error)
    paths.append(folder / "report.json")
    report.facts["written"] = [str(path) for path in paths]
    write_bytes(folder / "report.json", report.to_json().encode())
    return report, certificate.good


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


def _reduce(system: System, method: str, order: int | None, tol: float | None, mimo: bool) -> Reduction:
    from ssmid.identification.era import era
    from ssmid.reduction.balanced import balanced_truncation

    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if method == "era":
        if not isinstance(system, ImpulseResponse):
            raise ValueError(f"method era: expected an impulse response, got a {type(system).__name__}")
        return era(system, order, tol=tol, mimo=mimo)
    options: dict[str, Any] = {"mimo": mimo} if isinstance(system, ImpulseResponse) else {}
    if tol is not None:
        options["tol_norm"] = "h2"
    return balanced_truncation(system, order, tol=tol, **options)


def _write_models(folder: Path, reduction: Reduction, certificate: Certificate, title: str) -> list[Path]:
    paths = [folder / "model.safetensors", folder / "model.json"]
    metadata = {
        "source": title, "method": reduction.method, "order": plain(certificate.order), "relative_l2_error": plain(certificate.error),
        "made_by": f"ssmid {__version__}",
    }  # fmt: skip
    for path in paths:
        save(reduction.system, path, metadata)
    return paths
