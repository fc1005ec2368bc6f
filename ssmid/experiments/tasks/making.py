"""Examples that take long to make: by several processes, in order, and kept in a folder for the next time."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ssmid.io.files import write_whole

Arrays = dict[str, np.ndarray]
Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(make: Callable[[Item], Made], items: Iterable[Item], workers: int = 1) -> Iterator[Made]:
    """``make`` of every item, in the order of the items and no further than asked for; by ``workers`` processes where more than one."""
    if workers <= 1:
        yield from map(make, items)
        return
    # processes that start afresh: a forked one would inherit the threads and the GPU of a training run
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        rest = iter(items)
        waiting = deque(pool.submit(make, item) for item in islice(rest, 2 * workers))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(make, item) for item in islice(rest, 1))
                yield made
        finally:
            for future in waiting:
                future.cancel()


def kept(folder: str | Path | None, facts: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """The arrays that ``make`` gives, read from ``folder`` where they are there, else made and written there; made, without a folder.

    facts : what the arrays depend on; they stand beside them as JSON, and files of other facts have other names

    Arrays read are mapped into memory, so that many processes share one copy. The JSON is written last: what has it is complete.
    Raises ValueError for a folder that cannot be made or written to.
    """
    if folder is None:
        return make()
    folder = Path(folder).expanduser()
    stem = f"{facts['task']}-{hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()}"
    seal = folder / f"{stem}.json"
    if not seal.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            arrays = make()
            for name, array in arrays.items():
                write_whole(folder / f"{stem}-{name}.npy", lambda path, array=array: np.save(path, array))
            record = {**facts, "arrays": sorted(arrays)}
            write_whole(seal, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
        except OSError as error:
            raise ValueError(f"folder: expected one that can be written to, got {str(folder)!r}: {error.strerror}") from error
    names = json.loads(seal.read_text())["arrays"]
    return {name: np.load(folder / f"{stem}-{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
