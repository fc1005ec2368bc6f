"""Triton's interpreter, which runs kernels without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run_interpreted(code: str) -> None:
    """Runs ``code`` in a process of its own, as the interpreter is chosen before Triton is imported; fails where its assertions do."""
    pytest.importorskip("triton")
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, check=True, timeout=120)
