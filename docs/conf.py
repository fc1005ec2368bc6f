"""Sphinx: pages in Markdown (MyST), the API from the docstrings. Build with ``sphinx-build -W docs docs/_build/html``."""

import re

import ssmid

project = "ssmid"
author = "the ssmid developers"
copyright = author
version = release = ssmid.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "bench"]
templates_path = ["_templates"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "map"}
autodoc_typehints = "signature"
autodoc_type_aliases = {"Array": "Array"}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"ssmid {release}"
pygments_style = "friendly"

_PARAMETER = r'"?\w+"?(?:, "?\w+"?)* : '


def list_parameters(app, what, name, obj, options, lines):
    """Docstrings give parameters as plain lines ``name : shape, meaning``; here each becomes an item of a list."""
    listed, out = False, []
    for line in lines:
        if re.match(_PARAMETER, line):
            if not listed:
                out.append("")
            for parameter in re.split(rf"\s{{2,}}(?={_PARAMETER})", line):
                names, meaning = parameter.split(" : ", 1)
                out.append(f"- ``{names}`` : {meaning}")
            listed = True
        elif listed and line.startswith(" "):
            out.append("  " + line.strip())
        else:
            if listed and line:
                out.append("")
            listed = False
            out.append(line)
    lines[:] = out


def on_a_page_of_its_own(app, what, name, obj, skip, options):
    """What ``ssmid`` and ``ssmid.nn`` offer is left out of the page of the module that it comes from."""
    here = any(name in package.__all__ and getattr(package, name) is obj for package in (ssmid, ssmid.nn))
    return True if what == "module" and here else None


def setup(app):
    app.connect("autodoc-process-docstring", list_parameters)
    app.connect("autodoc-skip-member", on_a_page_of_its_own)
