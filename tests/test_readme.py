"""What the README and the documentation say is what happens: their code runs, their commands are the ones CI runs."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import ssmid

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "layers").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """Line number and text of the fenced blocks of a page in one of ``languages``."""
    text = page.read_text()
    return [(text.count("\n", 0, m.start()) + 1, m[2]) for m in FENCE.finditer(text) if m[1] in languages]


def ci_command(name: str) -> str:
    (command,) = re.findall(rf"^<!-- ci: {name} -->\n```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return command


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    """Pages write their files where they run; figures need no screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield tmp_path
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python_of_the_page_runs(page, in_empty_folder):
    """Blocks marked ``python`` run one after the other, as a reader would paste them; ``pycon`` sessions print what they say."""
    names: dict = {"__name__": page.stem}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for line, text in sorted(blocks(page, "python", "pycon")):
        if ">>> " in text:
            session = doctest.DocTestParser().get_doctest(text, {}, f"{page.name}:{line}", str(page), line)
            session.globs = names
            runner.run(session, clear_globs=False)
        else:
            exec(compile("\n" * line + text, str(page), "exec"), names)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_ci_runs_the_commands_of_the_readme(name):
    script = ["bash", str(ROOT / ".ci" / "run"), "commands"]
    printed = subprocess.run(script, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    command = ci_command(name)
    assert command in printed
    assert command.count("\n") == 1, "one command line"
    assert "-c .ci/constraints.txt" in command


def test_commands_that_pages_show_exist():
    """Every ``ssmid ...`` line of a shell block names a command and options that the program has."""
    from typer.main import get_command

    from ssmid.cli import app

    program = get_command(app)
    shown = [line for page in PAGES for _, text in blocks(page, "sh") for line in text.splitlines() if line.startswith("ssmid ")]
    assert len(shown) > 3
    for line in shown:
        words = shlex.split(line, comments=True)[1:]
        command = program.commands.get(words[0]) if words and not words[0].startswith("-") else program
        assert command is not None, line
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known, line


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_picture_of_the_house_names_every_file():
    """docs/architecture.md is drawn from the code: no file of the package is missing from it, and none is invented."""
    picture = blocks(ROOT / "docs" / "architecture.md", "text")[0][1]
    named = set(re.findall(r"[\w/]+\.py\b", picture))
    package = Path(ssmid.__file__).parent
    there = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if p.name != "__init__.py"} | {"__init__.py"}
    assert named == there


def test_the_reference_lists_every_public_name():
    """Modules aside, of which those that are for users are listed."""
    listed = set(re.findall(r"^   (\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
    public = {name for name in ssmid.__all__ if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(ssmid, name))}
    assert public - modules <= listed
    assert listed <= public, "what is listed exists"


def test_the_reference_lists_every_public_name_of_the_layers():
    names = re.findall(r"^   nn\.(?:filter\.)?(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(ssmid.nn.__all__)


def test_every_function_that_the_chapter_on_fitting_names_exists():
    """In the decision table a call is code, its options are those of the function, and each way to fit is in it."""
    text = (ROOT / "docs" / "fitting.md").read_text()
    table = text[text.index("| data |") : text.index("From the command line the same")]
    calls = re.findall(r"`(\w+)(?:\(([^`]*)\))?`", table)
    for name, arguments in calls:
        options = set(re.findall(r"(\w+)=", arguments))
        assert hasattr(ssmid, name), name
        function = getattr(ssmid, name)
        parameters = inspect.signature(function).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        inner = set(re.findall(r"(\w+)=", " ".join(re.findall(r"\((.*)\)", arguments))))  # of a call within the call
        assert anything or options - inner <= set(parameters), f"{name}: {options}"
    api = (ROOT / "docs" / "api.md").read_text()
    for title in ("Fits to impulse responses", "Fits to frequency responses", "Fits to records"):
        part = api[api.index(title) :]
        names = re.findall(r"^   ([a-z]\w+)$", part[: part.index("\n\n", part.index("nosignatures") + 20)], re.MULTILINE)
        assert len(names) > 3
        assert set(names) <= {name for name, _ in calls}, title


def test_the_chapter_on_distilling_names_all_that_there_is():
    """Methods, verdicts, fields of the certificate and arguments; in the chapter on checkpoints, the layouts and their settings."""
    from ssmid.checkpoints import LAYOUTS
    from ssmid.distillation.certificate import VERDICTS
    from ssmid.distillation.methods import METHODS
    from ssmid.distillation.options import Options

    text = (ROOT / "docs" / "distilling.md").read_text()
    first_cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    assert [cell for cell in first_cells if cell in VERDICTS] == list(VERDICTS)
    assert {cell.strip('`"') for cell in first_cells if cell.startswith('`"')} == set(METHODS)
    fields = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert fields >= {field.name for field in dataclasses.fields(ssmid.Certificate)}
    docstring = inspect.getdoc(ssmid.distill) or ""
    for field in dataclasses.fields(Options):
        assert re.search(rf"\b{field.name}\b", docstring), field.name

    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (.*) \|$", (ROOT / "docs" / "checkpoints.md").read_text(), re.MULTILINE))
    assert set(rows) == {*LAYOUTS, "plain"}
    for name, layout in LAYOUTS.items():
        assert re.findall(r"`(\w+)`", rows[name]) == list(layout.settings), name
