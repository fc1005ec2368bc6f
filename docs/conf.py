"""Sphinx: pages in Markdown (MyST), the API from the docstrings. Build with ``sphinx-build -W docs docs/_build/html``."""

import ssmid

project = "ssmid"
author = "the ssmid developers"
copyright = author
version = release = ssmid.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "bench"]
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
