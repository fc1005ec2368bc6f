"""kill -9 at any moment, of one process or of one of several: the same command goes on and gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssmid.jobs.run import distill_into

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


def test_interrupted_it_says_so_in_one_line_and_goes_on(here, whole):
    process = start(here, "ssmid", *ARGUMENTS)
    until_more_chunks(here, process, 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (130, "ssmid: interrupted; what is done is kept: the same command goes on from there\n")
    distill_into(here / "out", here / "h.npy", OPTIONS, chunk=CHUNK)
    assert results(here / "out") == whole


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
    until_more_chunks(here, process, 3)
    victims = children(process)
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode != 0, output
    assert not (here / "out" / "model.json").exists()
    log = (here / "out" / "job.log").read_text()
    assert {"process 0 of 2", "process 1 of 2"} <= {line[30:44] for line in log.splitlines()}
    assert "process 0: chunk" in log
    assert "process 1: chunk" in log
    kept = chunks(here)
    assert 3 <= len(kept) < COUNT // CHUNK
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
