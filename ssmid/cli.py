"""The command line: parse, call, print. What is printed stands in ``ssmid.report``; numbers come from the library.

Exit status: 0 done; 1 a model was made but is unstable, has not converged, misses a tolerance or lacks a layer that is damaged; 2 wrong
input, said in one line on the standard error; 130 interrupted. Heavy imports stand in the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ssmid.report import Report
    from ssmid.systems import System

DONE, NOT_MET, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Long impulse responses to small state-space models, and any form of a linear system into any other.",
)

Source = Annotated[Path, typer.Argument(metavar="FILE", help="wav, csv, npy, npz, mat, safetensors, Touchstone, or a model of ssmid")]
Key = Annotated[str | None, typer.Option("--key", help="name of the array, or of the csv columns, where a file holds several")]
Channel = Annotated[str | None, typer.Option("--channel", help="take one channel: 3, or 0,2 where there are two channel axes")]
Rate = Annotated[float | None, typer.Option("--fs", help="sampling frequency in Hz, where the file does not say")]
Axis = Annotated[int | None, typer.Option("--axis", help="the time axis of an array, where it is not the usual one")]
Mimo = Annotated[bool, typer.Option("--mimo", help="couple the channels (outputs, inputs) into one system, not a bank of single ones")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")]
_FORMS = (
    "modal, block-modal, companion, observable, transfer-function, zpk, sos, state-space, balanced, minimal, impulse-response, "
    "or frequency-response"
)
_METHODS = (
    "for taps and models: balanced, hankel, h2; for models: irka, modal, stochastic, coprime; for taps: era, prony, matrix-pencil, "
    "esprit; for frequency responses: aaa, vector-fitting, loewner, rkfit, rational, frequency-subspace; for records: identify, "
    "n4sid, moesp, cva, arx, armax, oe, pem"
)
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status. Errors of input are one line on the standard error."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status = app(args=None if arguments is None else list(arguments), prog_name="ssmid", standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort) as error:
            return _interrupted(str(error))
        except MemoryError as error:
            return _fail(f"expected to fit into memory: {error}", WRONG_INPUT)
        except (ValueError, OSError) as error:
            return _fail(str(error), WRONG_INPUT)
        except TypeError as error:
            # a system of the wrong kind for the verb; any other TypeError is a fault of ours
            if not str(error).startswith("expected"):
                raise
            return _fail(str(error), WRONG_INPUT)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
            return _fail(message, WRONG_INPUT) if message else WRONG_INPUT  # without arguments the help has been printed
    # typer makes this status of a KeyboardInterrupt, without a word
    return _interrupted() if status == INTERRUPTED else int(status or DONE)


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        from ssmid import __version__

        typer.echo(__version__)


@app.command()
def inspect(
    file: Source,
    key: Key = None,
    channel: Channel = None,
    fs: Rate = None,
    axis: Axis = None,
    mimo: Mimo = False,
    count: Annotated[int, typer.Option("--count", help="how many Hankel singular values")] = 64,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Spectrum, Hankel singular values, poles, and the order to choose."""
    from ssmid.report import inspection, progress

    with progress(quiet=quiet) as stage:
        stage(f"reading {file.name}")
        system = _read(file, key, channel, fs, axis, mimo)
        report = inspection(system, file.name, count=count, mimo=mimo, stage=stage)
    _print(report, as_json, quiet)
    return DONE


@app.command()
def fit(
    file: Source,
    order: Annotated[int | None, typer.Option("--order", help="number of states of the model")] = None,
    tol: Annotated[float | None, typer.Option("--tol", help="or: the smallest model with this relative l2 error")] = None,
    method: Annotated[str | None, typer.Option("--method", help=_METHODS)] = None,
    key: Key = None,
    channel: Channel = None,
    fs: Rate = None,
    axis: Axis = None,
    mimo: Mimo = False,
    inputs: Annotated[str | None, typer.Option("--inputs", help="of a record: columns by name, or channels from 0, that went in")] = None,
    outputs: Annotated[str | None, typer.Option("--outputs", help="of a record: columns or channels that came out")] = None,
    train: Annotated[float, typer.Option("--train", help="of a record: the first share to fit to; the rest tests the model")] = 0.5,
    center: Annotated[str | None, typer.Option("--center", help="of a record: take off its mean or trend first, or none")] = None,
    stable: Annotated[bool, typer.Option("--stable", help="only stable models, where a method might give another")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="folder to fill (FILE-model where left out)")] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="draw PNG figures")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """A small model of measured data or of a large model, with a certificate of how good it is."""
    from ssmid.io import read_record
    from ssmid.report import fit_into, progress

    if inputs is not None and outputs is None:
        raise ValueError(f"--outputs: expected the channels that came out beside --inputs {inputs}, got none")
    with progress(quiet=quiet) as stage:
        stage(f"reading {file.name}")
        if outputs is None:
            data = _read(file, key, channel, fs, axis, mimo)
        else:
            data = read_record(file, inputs=inputs, outputs=outputs, key=key, fs=fs, axis=axis)
        folder = Path(f"{file.stem}-model") if output is None else output
        options = {"order": order, "tol": tol, "method": method, "mimo": mimo, "train": train, "center": center, "stable": stable}
        report, good = fit_into(folder, data, file.name, stage=stage, figures=figures, **options)
    _print(report, as_json, quiet)
    return DONE if good else NOT_MET


@app.command()
def distill(
    source: Annotated[Path, typer.Argument(metavar="FILTERS-OR-CHECKPOINT", help="npy, npz, safetensors, or the checkpoint of a model")],
    order: Annotated[str | None, typer.Option("--order", help="states of each filter, or noise: where the noise floor begins")] = None,
    tol: Annotated[float | None, typer.Option("--tol", help="or: the smallest order with this relative error, filter by filter")] = None,
    norm: Annotated[str, typer.Option("--norm", help="of the tolerance: l2, hankel, hinf, l1")] = "l2",
    budget: Annotated[int | None, typer.Option("--budget", help="or: this many states in all, spent where they help most")] = None,
    max_order: Annotated[int | None, typer.Option("--max-order", help="the largest order that may be chosen")] = None,
    multiple: Annotated[int | None, typer.Option("--multiple", help="orders are rounded up to a multiple of this")] = None,
    method: Annotated[str | None, typer.Option("--method", help="l2, balanced, and others: a wrong name lists them")] = None,
    max_modulus: Annotated[float | None, typer.Option("--max-modulus", help="no pole is larger")] = None,
    real_poles: Annotated[bool, typer.Option("--real-poles", help="real poles only")] = False,
    shared: Annotated[str | None, typer.Option("--shared", help="one set of poles for a layer, a head, or this many in a row")] = None,
    beyond: Annotated[str | None, typer.Option("--beyond", help="after the last tap: zero, or free")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="how much each tap matters")] = None,
    frequency_weights: Annotated[Path | None, typer.Option("--frequency-weights", metavar="FILE", help="and each frequency")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="float64 or float32")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda")] = "cpu",
    chunk: Annotated[int | None, typer.Option("--chunk", help="filters that are lost at most when the job is stopped")] = None,
    layout: Annotated[str | None, typer.Option("--layout", help="of a checkpoint, where it is not recognized")] = None,
    length: Annotated[int | None, typer.Option("--length", help="taps of implicit filters; others are cut short")] = None,
    key: Annotated[str | None, typer.Option("--key", help="names of the arrays, where a file holds several: h1,h2")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="what no tensor says of a layout")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="folder to fill (or NAME-distilled)")] = None,
    page: Annotated[bool, typer.Option("--report", help="write report.html too: the whole model at a glance")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Filters of a model, thousands at once, to small recurrences with certificates. Given again, a stopped job goes on."""
    from ssmid.jobs.run import distill_into
    from ssmid.jobs.workers import are_several, is_first
    from ssmid.report import progress

    options = {
        "order": int(order) if order is not None and order.isdecimal() else order, "tol": tol, "norm": norm, "budget": budget,
        "max_order": max_order, "multiple": multiple, "method": method, "max_modulus": max_modulus, "real_poles": real_poles or None,
        "shared": shared, "beyond": beyond, "weights": weights, "frequency_weights": frequency_weights, "precision": precision,
    }  # fmt: skip
    folder = Path(f"{source.stem}-distilled") if output is None else output
    with progress(quiet=quiet or not is_first()) as stage:
        where = {"device": device, "chunk": chunk, "layout": layout, "length": length, "key": key, "settings": _settings(settings)}
        try:
            found = distill_into(folder, source, options, **where, page=page, stage=stage)
        except KeyboardInterrupt as error:
            raise typer.Abort(str(error)) from error
    if found is None:  # another process speaks
        return DONE
    report, good = found
    _print(report, as_json, quiet)
    # torchrun takes any status but 0 for a process that failed, and prints a traceback of its own
    return DONE if good or are_several() else NOT_MET


@app.command()
def convert(
    file: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="model file to write: .safetensors, or .json for people")],
    to: Annotated[str, typer.Option("--to", help=_FORMS)],
    length: Annotated[int | None, typer.Option("--length", help="taps of an impulse response, points of the FFT grid")] = None,
    key: Key = None,
    channel: Channel = None,
    fs: Rate = None,
    axis: Axis = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Another form of the same system, and what the conversion cost."""
    from ssmid.io import save
    from ssmid.report import conversion, progress

    with progress(quiet=quiet) as stage:
        stage(f"reading {file.name}")
        system = _read(file, key, channel, fs, axis)
        stage(f"converting to {to}")
        converted, report = conversion(system, to, length, f"{file.name} to {out.name}")
        save(converted, out, {"source": file.name, "converted to": to})
    _print(report, as_json, quiet)
    return DONE


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="folder to fill")] = Path("ssmid-demo"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """The main job on bundled data: a room response, 64 filters and a language model become small models."""
    from ssmid.demo import run
    from ssmid.report import progress

    with progress(quiet=quiet) as stage:
        report, good = run(output, stage)
    _print(report, as_json, quiet)
    return DONE if good else NOT_MET


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="core, fit, distill, layers or decode")],
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="small sizes: shows that it runs")] = False,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="folder of measured responses and published systems")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda for the limits of a GPU")] = "cpu",
    peers: Annotated[Path | None, typer.Option("--peers", metavar="DIR", help="layers: folder with checkouts s4 and RTF")] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="PART", help="decode: generate, contexts, prefill or huggingface")] = None,
) -> int:
    """Measured beside other tools, where they are installed: a table, and JSON."""
    from ssmid.bench import run

    run(name, json_path=out, quick=quick, data=data, device=device, peers=peers, only=only)
    return DONE


@app.command()
def experiment(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="copying-and-delay, distillation, language, long-range, small-models or throughput")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="of every run: steps=1000, task.seed=1")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="folder to fill (NAME where left out)")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="toy sizes: a minute on a CPU, proves nothing")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda")] = "cpu",
    only: Annotated[str | None, typer.Option("--only", metavar="PATTERN", help="jobs by name: 'copying/rtf-*,delay/*'")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """The papers' experiments, from seed to table. Given again, a stopped one goes on."""
    from ssmid.experiments.run import run_experiment
    from ssmid.jobs.workers import is_first
    from ssmid.report import progress

    folder = Path(name) if output is None else output
    with progress(quiet=quiet or not is_first()) as stage:
        report = run_experiment(name, folder, quick=quick, device=device, only=only, overrides=overrides or (), stage=stage)
    if report is not None:  # else another process speaks
        _print(report, as_json, quiet)
    return DONE


def _read(file: Path, key: str | None, channel: str | None, fs: float | None, axis: int | None, mimo: bool = False) -> System:
    """The system in a file; to be coupled, the channels of a response that has one axis of them are outputs of one input."""
    from ssmid.io import read
    from ssmid.systems import ImpulseResponse

    try:
        index = None if channel is None else tuple(int(i) for i in channel.split(","))
    except ValueError:
        raise ValueError(f"--channel: expected whole numbers such as 3 or 0,2, got {channel!r}") from None
    system = read(file, key=key, channel=index, fs=fs, axis=axis)
    if mimo and isinstance(system, ImpulseResponse) and len(system.batch_shape) == 1:
        return ImpulseResponse(system.taps[:, None, :], system.dt)
    return system


def _settings(given: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE by name; values as JSON has them, or texts."""
    settings = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--set: expected NAME=VALUE, got {text!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _print(report: Report, as_json: bool, quiet: bool) -> None:
    if as_json:
        _write(f"{report.to_json()}\n")
    elif not quiet:
        from rich.console import Console

        console = Console(highlight=False)
        with console.capture() as captured:
            report.show(console)
        _write(captured.get())


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader has gone (`ssmid ... | head`), which is no error; keep the interpreter from flushing into the closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(message: str = "") -> int:
    """Of several processes all are interrupted, and one says so."""
    from ssmid.jobs.workers import is_first

    return _fail(message or "interrupted", INTERRUPTED) if is_first() else INTERRUPTED


def _fail(message: str, status: int) -> int:
    print(f"ssmid: {' '.join(message.split())}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """Our own warnings in one line; those of other packages are for developers."""
    if category.__module__.startswith("ssmid"):
        print(f"ssmid: {' '.join(str(message).split())}", file=sys.stderr)
