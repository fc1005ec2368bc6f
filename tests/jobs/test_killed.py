"""kill -9 at any moment, of one process or of one of several: the same command goes on and gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from ssmid.jobs import run
from ssmid.jobs.run import distill_into
from ssmid.jobs.workers import Together, device_of

COUNT, CHUNK = 24, 2
ARGUMENTS = ("distill", "h.npy", "-o", "out", "--order", "6", "--chunk", str(CHUNK), "--quiet")
DEADLINE = 60

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")


OPTIONS = {"order": 6, "norm": "l2"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    folder = tmp_path_factory.mktemp("whole")
    save_filters(folder)
    distill_into(folder / "out", folder / "h.npy", OPTIONS, chunk=CHUNK)
    return results(folder / "out")


@pytest.fixture
def here(tmp_path) -> Path:
    save_filters(tmp_path)
    return tmp_path


def save_filters(folder: Path) -> None:
    np.save(folder / "h.npy", np.random.default_rng(0).standard_normal((COUNT, 200)) * 0.98 ** np.arange(200))


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "model.json", "layers.csv")}


def start(folder: Path, *command: str, **variables: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def chunks(folder: Path) -> set[str]:
    return {p.name for p in folder.glob("out/chunks/0*.safetensors")}


def until_more_chunks(folder: Path, process: subprocess.Popen, more: int) -> None:
    """Returns when ``more`` chunks than now are there, or the process has ended."""
    before, deadline = len(chunks(folder)), time.monotonic() + DEADLINE
    while len(chunks(folder)) < before + more and process.poll() is None:
        assert time.monotonic() < deadline, "no chunk in time"
        time.sleep(0.002)


def until_both_have_done_something(folder: Path, process: subprocess.Popen) -> None:
    log, deadline = folder / "out" / "job.log", time.monotonic() + DEADLINE
    while process.poll() is None:
        text = log.read_text() if log.exists() else ""
        if all(f"process {rank}: distilling, chunk" in text for rank in range(2)):
            return
        assert time.monotonic() < deadline, text
        time.sleep(0.002)


def test_killed_at_random_moments_it_goes_on_where_it_was(here, whole):
    chance = random.Random(0)
    kept: set[str] = set()
    for _ in range(2):
        process = start(here, "ssmid", *ARGUMENTS)
        until_more_chunks(here, process, chance.randint(1, 3))
        time.sleep(chance.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert kept < chunks(here), "what was done is done"
        kept = chunks(here)
    log_before = (here / "out" / "job.log").read_text().count(" done, ")
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=CHUNK)
    assert results(here / "out") == whole
    assert (here / "out" / "job.log").read_text().count(" done, ") - log_before == COUNT // CHUNK - len(kept)


def children(process: subprocess.Popen) -> list[int]:
    """The processes that torchrun started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # gone meanwhile
                continue
            if int(fields[1]) == process.pid and "ssmid" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_one_of_two_processes_is_killed_and_one_alone_goes_on(here, whole):
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_gloo_available():
        pytest.skip("needs gloo")
    process = start(here, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ssmid", *ARGUMENTS)
    until_both_have_done_something(here, process)
    victims = children(process)
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode != 0, output
    assert not (here / "out" / "model.json").exists()
    assert len(chunks(here)) >= 2
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=CHUNK)
    assert results(here / "out") == whole


def test_two_processes_give_what_one_gives_and_one_speaks(here, whole):
    """Started by hand, as torchrun would."""
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_gloo_available():
        pytest.skip("needs gloo")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    processes = [start(here, "ssmid", *ARGUMENTS[:-1], RANK=str(rank), LOCAL_RANK=str(rank), **together) for rank in range(2)]
    outputs = [process.communicate(timeout=DEADLINE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "h.npy: distilled" in outputs[0]
    assert "distilled" not in outputs[1]
    assert results(here / "out") == whole


class FakeDistributed:
    """One of two processes as torch.distributed shows it; what is broadcast is kept."""

    def __init__(self, rank: int, said: list) -> None:
        self.rank, self.said = rank, said

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    def broadcast_object_list(self, held: list, src: int, device: object) -> None:
        if self.rank == src:
            self.said.append(held[0])
        held[0] = self.said[-1]


def test_where_the_first_process_refuses_the_others_go_home(here, monkeypatch):
    said: list = []
    monkeypatch.setattr(run, "workers", lambda _: nullcontext(Together(FakeDistributed(0, said), None, None)))
    (here / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder, got a file"):
        distill_into(here / "file", here / "h.npy", OPTIONS)
    assert said == [None]
    monkeypatch.setattr(run, "workers", lambda _: nullcontext(Together(FakeDistributed(1, said), None, None)))
    assert distill_into(here / "file", here / "h.npy", OPTIONS) is None


def test_a_gpu_for_each_process_or_an_error(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of("cuda") == "cuda:1"
    assert device_of("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="device: expected a GPU for each process of this host, got process 3 and 2 GPUs"):
        device_of("cuda")
