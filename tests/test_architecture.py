"""The house: imports go down the floors only, and one file alone knows NumPy from torch."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ssmid

PACKAGE = Path(ssmid.__file__).parent
FLOORS = [
    {"_array", "linalg", "kernels"},
    {"systems"},
    {"analysis"},
    {"reduction", "identification", "parametrizations"},
    {"distillation", "nn"},
    {"plot", "symbolic", "interop", "io", "report", "datasets", "checkpoints", "jobs"},
    {"cli", "bench", "experiments", "demo", "__main__"},
]
HEAVY = {"torch", "matplotlib", "sympy", "control"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The first part of a module's name below ``ssmid``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


def imported_rooms(path: Path) -> set[str]:
    """The rooms of ``ssmid`` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.split(".")[0] == "ssmid" and name.count(".")}
    return found


def top_level_imports(path: Path) -> set[str]:
    """Packages imported when the file is imported (not inside functions, not for type checkers)."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", [p for p in FILES if room(p) != "__init__"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = room(path)
    for other in imported_rooms(path) & {name for names in FLOORS for name in names}:
        assert floor(other) <= floor(here), f"{path.name} (floor {floor(here)}) imports ssmid.{other} (floor {floor(other)})"


def test_rooms_do_not_import_each_other():
    """Within a floor rooms may lean on their neighbours, but never in a circle."""
    graph = {}
    for path in FILES:
        graph.setdefault(room(path), set()).update(imported_rooms(path) - {room(path)})
    TopologicalSorter(graph).prepare()


def test_modules_do_not_import_each_other():
    """Nor in a longer circle, and not inside functions either, where a circle would work and hide."""
    modules = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}
    graph = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                # a name of a package is its submodule or comes from its own file
                found = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                graph[name] |= found or ({node.module} & modules.keys())
    del graph["ssmid"]  # loads its names on first use
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in {"_array", "__init__"} and floor(room(p)) < 4], ids=lambda p: p.stem)
def test_one_file_knows_numpy_from_torch(path):
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert "torch" not in names or path == PACKAGE / "kernels" / "cuda.py"  # torch has the compiler
    assert not top_level_imports(path) & (HEAVY | {"array_api_compat"})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_subject_a_file(path):
    assert len(path.read_text().splitlines()) <= 450


def test_top_level_of_the_project():
    root = PACKAGE.parent
    if not (root / "pyproject.toml").exists():
        pytest.skip("needs a checkout")
    visible = {p.name for p in root.iterdir() if not p.name.startswith(".") and p.suffix != ".egg-info"}
    made = {"build", "dist", "ssmid-demo", "__pycache__"}
    assert visible - made <= {"pyproject.toml", "ssmid", "tests", "notebooks", "docs", "README.md", "LICENSE", "CHANGELOG.md"}


def test_every_public_name_exists_and_is_documented():
    for name in ssmid.__all__:
        thing = getattr(ssmid, name)
        assert thing.__doc__, f"ssmid.{name} has no docstring"
