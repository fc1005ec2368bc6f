"""What installing and importing the package costs, and that its parts are all there."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ssmid

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "sympy", "control", "matplotlib")


def python(code: str) -> str:
    """What a fresh interpreter prints; a fresh one, because this one has imported everything long ago."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_import_is_light():
    assert python(f"import sys, ssmid; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_numpy_users_never_load_torch_or_the_figures():
    """Not at import, and not in use either: taps in, a smaller model, its poles and its spectrum out."""
    code = f"""
import sys, numpy as np, ssmid
h = ssmid.ImpulseResponse(0.9 ** np.arange(32.0))
fit = ssmid.balanced_truncation(h, order=1)
ssmid.frequency_response(ssmid.to_modal(fit.system), points=16)
ssmid.hankel_singular_values(h, 4)
print([m for m in {HEAVY} if m in sys.modules])
"""
    assert python(code) == "[]"


def test_import_takes_under_three_tenths_of_a_second_more_than_numpy_and_scipy():
    """The smallest of five runs: what else the machine does can only add."""
    code = "import numpy, scipy, time; t = time.perf_counter(); import ssmid; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(5)) < 0.3


def test_the_front_door_in_use_is_light_too():
    """Lazy names must not only move the cost: the first container and its analysis modules take under a second of work beside scipy's."""
    code = """
import numpy, scipy.fft, scipy.linalg, scipy.signal, time
t = time.process_time()
import ssmid
ssmid.ImpulseResponse([1.0, 0.5]); ssmid.hankel_singular_values; ssmid.to_modal; ssmid.frequency_response
print(time.process_time() - t)
"""
    assert min(float(python(code)) for _ in range(3)) < 1.0


def test_every_public_name_is_listed_once_and_found():
    assert len(set(ssmid.__all__)) == len(ssmid.__all__)
    assert set(ssmid.__all__) <= set(dir(ssmid))
    for name in ssmid.__all__:
        assert getattr(ssmid, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        ssmid.no_such_name  # noqa: B018


def test_versions_agree():
    assert ssmid.__version__ == importlib.metadata.version("ssmid")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{ssmid.__version__}]" in changelog


def test_data_and_type_marker_are_installed():
    package = importlib.resources.files("ssmid")
    for name in ("py.typed", "__init__.pyi", "data/hyena_filters_64.npz", "data/hyena.safetensors", "data/sample_text.txt"):
        assert package.joinpath(name).is_file(), name


def constraints() -> dict[str, str]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {_normal(name): version for name, version in pins.items()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_the_package_needs_is_pinned():
    """Directly, by every extra; an unpinned requirement would let CI drift away from what users get."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    needed = {_normal(m.group()) for r in requirements if (m := re.match(r"[A-Za-z0-9._-]+", r))}
    assert len(needed) == len(requirements)
    assert needed <= set(constraints())


def test_pins_name_no_build():
    """One constraints file for CPU and CUDA: torch's local version ("+cpu") must not be in it."""
    assert constraints()["torch"] == "2.13.0"
    assert not [version for version in constraints().values() if "+" in version]
