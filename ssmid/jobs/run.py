"""The job of ``ssmid distill``: a file or a checkpoint into a folder, chunk by chunk, taken up again wherever it was stopped."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ssmid import __version__
from ssmid._array import double, namespace, one_blas_thread
from ssmid.analysis.impulse import impulse_response
from ssmid.distillation.models import distill_system
from ssmid.distillation.options import Options
from ssmid.distillation.order_budget import shared_out
from ssmid.distillation.pipeline import distill
from ssmid.distillation.result import Distillation
from ssmid.io.distilled import DESCRIPTION, FORMAT, TENSORS, VERSION, arrays_of, layers_in, read_distilled
from ssmid.io.files import write_bytes
from ssmid.jobs.budget import common_group, curves_of, passes
from ssmid.jobs.manifest import Chunk, Digest, Manifest, settled
from ssmid.jobs.pieces import Pieces
from ssmid.jobs.request import Request
from ssmid.jobs.sources import Source, open_source
from ssmid.jobs.store import Store, expect_room, only_here
from ssmid.jobs.summary import facts_of, of_chunks, report_of, table_of
from ssmid.jobs.workers import Alone, device_of, workers
from ssmid.report.distillation_page import write_page
from ssmid.report.progress import Stage
from ssmid.report.tables import Report
from ssmid.systems import ImpulseResponse, StateSpace, System

CHUNK = {"cpu": 256, "cuda": 65_536}
"""Filters in a chunk where nothing is said: some seconds of work. It must not depend on the number of processes, as results would."""
LOG, TABLE, PAGE = "job.log", "layers.csv", "report.html"
Results: TypeAlias = "tuple[dict[str, np.ndarray], dict[str, Any]]"
"""Arrays of a chunk, and what is known of its layer."""
Taken: TypeAlias = "tuple[System, dict[str, Any]]"
"""The filters or models of a chunk, and the arguments that go with them."""


def distill_into(
    folder: Path,
    path: Path,
    options: Mapping[str, Any],
    *,
    device: str = "cpu",
    chunk: int | None = None,
    layout: str | None = None,
    length: int | None = None,
    key: str | None = None,
    settings: Mapping[str, Any] | None = None,
    page: bool = False,
    stage: Stage | None = None,
) -> tuple[Report, bool] | None:
    """Distills what is at ``path`` into ``folder``; what there is to say, and whether no layer was left out and all
    filters converged and met the tolerance.

    options : those of :class:`ssmid.jobs.request.Request`   device : "cpu" or "cuda"
    chunk : filters whose results are written at once; what is lost at most when the job is stopped
    layout, length, key, settings : of the source (:func:`ssmid.jobs.sources.open_source`)   page : whether to write ``report.html`` too

    Writes ``model.safetensors``, ``model.json``, ``layers.csv`` and a log. Given again after it was stopped, it goes on where it was and
    gives the same bytes, with however many processes: results depend on the chunk alone. Under torchrun the processes share the
    chunks; None is returned in all but the first.
    Raises ValueError for wrong input, a folder of another job, a folder that cannot be written and a disk without room, before any work.
    """
    stage = stage or (lambda description, done=None, total=None: None)
    stage(f"reading {path.name}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least 1, got {chunk}")
    request = Request.of(options)
    mine = device_of(device)
    source = open_source(path, key=key, layout=layout, length=length, settings=settings)
    request.expect_fit(source)
    sizes = [request.chunk_size(layer, chunk or CHUNK[device]) for layer in source.layers]
    asked = {**request.described(), "device": device, "key": key, "layout": layout, "length": length, "settings": settings or None}
    job = _Job(folder, source, request, Manifest.of(source, asked, sizes), mine, page, stage)
    with workers(mine) as team:
        return job.run(team)


class _Job:
    """What all processes of a job know."""

    def __init__(self, folder: Path, source: Source, request: Request, manifest: Manifest, device: str, page: bool, stage: Stage) -> None:
        self.folder, self.source, self.request, self.manifest = folder, source, request, manifest
        self.device, self.page, self.stage = device, page, stage
        self.stamps = source.stamps()
        self.options = request.checked
        self.total = sum(layer.count for layer in source.layers)

    def run(self, team: Alone) -> tuple[Report, bool] | None:
        if team.rank:
            if team.agree(None):
                self._work(team)
            return None
        try:
            with only_here(self.folder):
                digest = self._begun()
                if team.agree(not (self.folder / DESCRIPTION).exists()):
                    self._work(team)
                return self._finished(digest)
        finally:
            team.dismiss()

    def _begun(self) -> Digest | str:
        """The sha256 of the source, perhaps still on the way."""
        if Manifest.read(self.folder) is None:
            for name in (TENSORS, DESCRIPTION):
                if (self.folder / name).exists():
                    raise ValueError(f"{self.folder}: expected a new folder or one of this job, got one with another {name}")
            order = self.request.options.get("order")
            expect_room(self.folder, self.total, order if isinstance(order, int) else 0)
        self.manifest, digest = settled(self.folder, self.manifest, self.source)
        if not (self.folder / TENSORS).exists():  # without these no job is finished
            (self.folder / DESCRIPTION).unlink(missing_ok=True)
        return digest

    def _work(self, team: Alone) -> None:
        """All chunks. A budget is shared out first, in the first process, from what every order would leave of every filter."""
        orders: list[np.ndarray] | None = None
        if self.options.budget is not None:
            for step in passes(self.options):
                store = Store(self.folder, self.manifest, f"{step}-")
                self._share(team, store, step, partial(self._curves, orders))
                with going_on(self.folder):
                    orders = team.agree(self._shared_out(store) if team.rank == 0 else None)
        self._share(team, Store(self.folder, self.manifest), "distilling", partial(self._distilled, orders))

    def _share(self, team: Alone, store: Store, step: str, work: Callable[[Chunk, Taken, Pieces], Results]) -> None:
        """This process's share of the chunks that are left to do: the next that nobody has taken, until there are none."""
        todo = team.agree(store.missing() if team.rank == 0 else None)
        pieces = Pieces(max((chunk.count for chunk in todo), default=1))
        left, began = sum(chunk.count for chunk in todo), time.monotonic()
        log(self.folder, f"process {team.rank} of {team.count} on {self.device}: {step}, {len(todo)} chunks of {left} filters to share")
        with ThreadPoolExecutor(1) as reader, going_on(self.folder):

            def claim() -> tuple[int, Any] | None:
                place = team.add(f"{step} claimed", 1) - 1
                return (place, reader.submit(self._taken, todo[place])) if place < len(todo) else None

            claimed = claim()
            while claimed:
                place, taps = claimed
                chunk = todo[place]
                # the next is read while this one is worked on, but for the last: they go to who is free first
                following = claim() if place < len(todo) - 2 * team.count else None
                store.write(chunk, *work(chunk, taps.result(), pieces))
                done = team.add(f"{step} done", chunk.count)
                rate = done / (time.monotonic() - began)
                log(self.folder, f"process {team.rank}: {step}, chunk {chunk.index} done, {done} of {left} filters, {rate:.1f}/s")
                self._say(step, chunk, done, left, rate)
                claimed = following or claim()
        team.wait()

    def _say(self, step: str, chunk: Chunk, done: int, left: int, rate: float) -> None:
        name = self.source.layers[chunk.layer].name
        remaining = _duration((left - done) / rate)
        before = self.total - left
        doing = name if step == "distilling" else f"{name} ({step} errors)"
        self.stage(f"{doing}: {before + done} of {self.total} filters, {rate:.3g}/s, {remaining} left", before + done, self.total)

    def _taken(self, chunk: Chunk) -> Taken:
        layer = self.source.layers[chunk.layer]
        system, arguments = layer.take(chunk.first, chunk.count), self.request.arguments(layer, chunk)
        if not isinstance(system, ImpulseResponse):
            arguments["length"] = self.manifest.options.get("length") or layer.natural_length()
        return system, arguments

    def _distilled(self, orders: list[np.ndarray] | None, chunk: Chunk, taken: Taken, pieces: Pieces) -> Results:
        """A chunk, in smaller pieces where memory runs out."""
        system, arguments = taken
        layer = self.source.layers[chunk.layer]
        group = self.request.group(layer)
        if orders is not None:
            arguments = {**arguments, "budget": None, "order": orders[chunk.layer][chunk.first : chunk.first + chunk.count]}

        def work(size: int) -> Results:
            found = distilled_on(self.device, system, arguments, size, group)
            facts = {"method": found.method, "length": found.length, "dt": found.system.dt, "shared": self.request.shared_axes(layer)}
            if found.cost is not None:
                facts["single_precision"] = dataclasses.asdict(found.cost)
            return arrays_of(found), facts

        return pieces.run(work, chunk.count, group)

    def _curves(self, guess: list[np.ndarray] | None, chunk: Chunk, taken: Taken, pieces: Pieces) -> Results:
        """What each order would leave of the filters of a chunk."""
        system, arguments = taken
        group = self.request.group(self.source.layers[chunk.layer])
        own = None if guess is None else guess[chunk.layer][chunk.first : chunk.first + chunk.count]

        def work(size: int) -> Results:
            return {"curves": curves_on(self.device, system, arguments, size, group, own)}, {}

        return pieces.run(work, chunk.count, group)

    def _shared_out(self, store: Store) -> list[np.ndarray]:
        curves: list[list[np.ndarray]] = [[] for _ in self.source.layers]
        for chunk in self.manifest.chunks():
            curves[chunk.layer].append(store.read(chunk)["curves"])
        group = common_group([self.request.group(layer) for layer in self.source.layers])
        return shared_out([np.concatenate(parts) for parts in curves], group, self.options)

    def _finished(self, digest: Digest | str) -> tuple[Report, bool]:
        """Joins the chunks and describes them; of a job that is finished already, says it again."""
        store, path = Store(self.folder, self.manifest), self.folder / DESCRIPTION
        options = self.options
        if not path.exists():
            self.stage("joining the chunks")
            with going_on(self.folder):
                if self.source.stamps() != self.stamps:
                    raise ValueError(f"{self.source.title}: expected the source to stay as it was, got one that changed during the work")
                store.merge(self.folder / TENSORS)
                known = {name: of_chunks(facts) for name, facts in store.facts().items()}
                layers = layers_in(self.folder / TENSORS, known, copy=False)
                facts = {name: {**known[name], **facts_of(layer, options.norm, options.tol)} for name, layer in layers.items()}
                write_bytes(self.folder / TABLE, table_of(facts))
                source = {"name": self.source.title, "sha256": digest if isinstance(digest, str) else digest.result()}
                source |= {"left_out": list(self.source.skipped)} if self.source.skipped else {}
                described = {
                    "format": FORMAT, "version": VERSION, "made_by": f"ssmid {__version__}",
                    "source": source, "options": self.manifest.options, "layers": facts,
                }  # fmt: skip
                write_bytes(path, json.dumps(described, indent=2, allow_nan=False).encode() + b"\n")
            log(self.folder, "finished")
        store.remove()
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [TENSORS, DESCRIPTION, TABLE]
        trouble = self._draw(content) if self.page else ""
        names += [PAGE] if self.page and not trouble else []
        written = {"written": [str(self.folder / name) for name in names]}
        report, good = report_of(f"{self.source.title}: distilled", content["layers"], written, options.norm, options.tol)
        lacking = [f"LEFT OUT: {what}." for what in content["source"].get("left_out", ())]
        return dataclasses.replace(report, words=[*lacking, *report.words, *filter(None, [trouble])]), good and not (trouble or lacking)

    def _draw(self, content: Mapping[str, Any]) -> str:
        """Writes the page; where that fails, what to say: the model is on the disk by then, and hours of work may be in it."""
        self.stage("drawing the report")
        layers = read_distilled(self.folder)
        try:
            write_page(self.folder / PAGE, layers, title=self.source.title, metadata=content, filters=self._filter, stage=self.stage)
        except Exception as error:
            kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
            reason = f"{kind}{error}".removesuffix(": ")
            log(self.folder, f"{PAGE} was not written: {reason}")
            return f"{PAGE} WAS NOT WRITTEN ({reason}). The results stand."
        return ""

    def _filter(self, name: str, index: tuple[int, ...]) -> np.ndarray:
        """The taps of one filter as it was, of a model as many as its certificate counts. Of coupled channels one pair."""
        layer = next(layer for layer in self.source.layers if layer.name == name)
        place, pair = index[: len(layer.batch)], index[len(layer.batch) :]
        system = layer.take(int(np.ravel_multi_index(place, layer.batch)) if place else 0, 1)
        if isinstance(system, ImpulseResponse):
            return system.taps[0]
        if pair and isinstance(system, StateSpace):
            output, inlet = pair
            B, C = system.B[..., inlet : inlet + 1], system.C[..., output : output + 1, :]
            system = StateSpace(system.A, B, C, system.D[..., output : output + 1, inlet : inlet + 1], system.dt)
        length = self.manifest.options.get("length") or layer.natural_length()
        return np.ravel(impulse_response(system, length).taps)


def distilled_on(device: str, system: System, arguments: Mapping[str, Any], size: int, group: int) -> Distillation:
    """:func:`ssmid.distill` in double precision on a device, ``size`` elements at once; ``group`` in a row that share poles."""
    system, arguments = _moved(device, system, arguments)
    if isinstance(system, ImpulseResponse):
        if group > 1:
            system = ImpulseResponse(namespace(system.taps).reshape(system.taps, (-1, group, system.length)), system.dt)
            if isinstance(arguments.get("order"), np.ndarray):
                arguments["order"] = arguments["order"].reshape(-1, group)
        return _alone(device, distill)(system, chunk=size, **arguments)
    length = arguments.pop("length")
    return _alone(device, distill_system)(system, Options(**arguments), chunk=size, length=length)


def curves_on(
    device: str, system: System, arguments: Mapping[str, Any], size: int, group: int, guess: np.ndarray | None
) -> np.ndarray:
    """:func:`ssmid.jobs.budget.curves_of` in double precision on a device."""
    system, arguments = _moved(device, system, arguments)
    return _alone(device, curves_of)(system, arguments, group, size, guess)


def _alone(device: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """On a CPU with one thread of BLAS, so that sums are of the same order under torchrun, which gives each process one."""
    return one_blas_thread(function) if device == "cpu" else function


def _moved(device: str, system: System, arguments: Mapping[str, Any]) -> tuple[System, dict[str, Any]]:
    """A system and its weights in double precision on a device; orders stay on the host."""
    if device == "cpu":
        return system.map(double), dict(arguments)
    import torch

    def moved(array: np.ndarray) -> Any:
        return double(torch.from_numpy(array if array.flags.writeable else array.copy()).to(device))

    there = {name: moved(a) if isinstance(a, np.ndarray) and name != "order" else a for name, a in arguments.items()}
    return system.map(moved), there


@contextmanager
def going_on(folder: Path) -> Iterator[None]:
    """What stops the work says that it can go on."""
    again = "what is done is kept: the same command goes on from there"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {again}") from None
    except MemoryError as error:
        raise MemoryError(f"{error}; {again}, also on a larger machine") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise ValueError(f"{error.filename or folder}: expected files that can be read and written, got: {reason}; {again}") from error


def log(folder: Path, words: str) -> None:
    """A line with the time. Appended at once, so that several processes do not write into each other's."""
    line = f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {words}\n".encode()
    handle = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
