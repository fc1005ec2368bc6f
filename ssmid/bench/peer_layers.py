"""The layers that the authors of S4, S4D and RTF published, from checkouts beside this project: nothing of them is in it.

A folder (``--peers``, or the environment variable ``SSMID_PEERS``) holds ``s4``, a checkout of state-spaces/s4 whose CUDA kernels have
been built (``extensions/kernels/setup.py``, into that folder or into the environment), and ``RTF``, one of ruke1ire/RTF.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

AUTHORS_S4, AUTHORS_S4D, AUTHORS_RTF = "S4, authors", "S4D, authors", "RTF, authors"
VARIABLE = "SSMID_PEERS"


@dataclasses.dataclass(frozen=True)
class PeerLayers:
    """build : name -> function of (width, state, length, device) that makes the layer   missing : name -> why it is not there

    channels_last : the layers that take ``(batch, length, width)``; the others take ``(batch, width, length)``
    launched : those that no CUDA graph can record; after a recording that failed, torch gives back the memory of no other
    """

    build: dict[str, Callable[[int, int, int, str], Any]]
    missing: dict[str, str]
    channels_last: frozenset[str] = frozenset({AUTHORS_RTF})
    launched: frozenset[str] = frozenset({AUTHORS_RTF})


def peer_layers(folder: Path | None, device: str) -> PeerLayers:
    """What ``folder`` holds (that of the environment variable when None); on a GPU, S4 and S4D only with their compiled kernels.

    Raises ValueError for a folder that is not there.
    """
    if folder is None and os.environ.get(VARIABLE):
        folder = Path(os.environ[VARIABLE])
    if folder is None:
        why = f"no folder of checkouts given (--peers or {VARIABLE})"
        return PeerLayers({}, dict.fromkeys((AUTHORS_S4, AUTHORS_S4D, AUTHORS_RTF), why))
    if not folder.is_dir():
        raise ValueError(f"peers: expected a folder, got {str(folder)!r}")
    found = PeerLayers({}, {})
    _add(found, (AUTHORS_S4, AUTHORS_S4D), folder / "s4", "models.s4.s4", lambda module: _s4(module, device))
    _add(found, (AUTHORS_RTF,), folder / "RTF", "rtf", lambda module: {AUTHORS_RTF: _rtf(module)})
    return found


def _add(found: PeerLayers, names: tuple[str, ...], checkout: Path, name: str, layers: Callable[[ModuleType], dict[str, Any]]) -> None:
    if not checkout.is_dir():
        found.missing.update(dict.fromkeys(names, f"no checkout {checkout.name!r} in the folder"))
        return
    try:
        with _on_path(checkout, checkout / "extensions" / "kernels"):
            found.build.update(layers(importlib.import_module(name)))
    except ImportError as error:
        found.missing.update(dict.fromkeys(names, str(error)))


def _s4(module: ModuleType, device: str) -> dict[str, Callable[[int, int, int, str], Any]]:
    if device.startswith("cuda") and not module.has_cuda_extension:
        raise ImportError("its CUDA kernels have not been built (extensions/kernels/setup.py)")

    def layer(mode: str, width: int, state: int, length: int, device: str) -> Any:
        options = {"init": "diag-lin"} if mode == "s4d" else {"init": "legs"}
        conv = module.FFTConv(width, mode=mode, d_state=state, l_max=length, activation=None, verbose=False, **options).to(device)
        if mode == "s4":
            # its length is asked for in each pass: on the host that stops neither the device nor a recording, and a length that is set
            # leaves out the correction of C, which happens once in training and does not change how long a pass takes
            conv.kernel.l_kernel = module.torch.tensor(length)
        return lambda u: conv(u)[0], list(conv.parameters())

    return {
        AUTHORS_S4: lambda *sizes: layer("s4", *sizes),
        AUTHORS_S4D: lambda *sizes: layer("s4d", *sizes),
    }


def _rtf(module: ModuleType) -> Callable[[int, int, int, str], Any]:
    def layer(width: int, state: int, length: int, device: str) -> Any:
        rtf = module.RTF(width, state, length, init="montel").to(device)
        return rtf, list(rtf.parameters())

    return layer


@contextlib.contextmanager
def _on_path(*folders: Path) -> Iterator[None]:
    """Their modules import each other by the names that they have in their own checkout; what they print and warn of is not kept."""
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
        for folder in added:
            sys.path.remove(folder)
