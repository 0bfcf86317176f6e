"""One site of the book, the demos and the reference: ``sphinx-build -W docs docs/_build``.

The chapters and the demos are the scripts of ``demos/``, executed by MyST-NB. They are copied beside this file, as Sphinx
reads pages of its own folder alone.
"""

import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import npflow

HERE = Path(__file__).parent
ROOT = HERE.parent
for folder, scripts in (("book", "demos/book"), ("gallery", "demos")):
    (HERE / folder).mkdir(exist_ok=True)
    for script in (ROOT / scripts).glob("*.py"):
        page = HERE / folder / script.name
        if not page.exists() or page.read_bytes() != script.read_bytes():  # else its execution is kept
            shutil.copy(script, page)

project = "npflow"
author = "the npflow developers"
release = npflow.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.linkcode",
    "numpydoc",
]
html_theme = "pydata_sphinx_theme"
html_title = "npflow"
exclude_patterns = ["_build", "jupyter_execute"]

# ---------------------------------------------------------------- pages that run

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
if os.environ.get("NPFLOW_QUICK"):
    exclude_patterns.append("gallery/[a-z]*.py")

# ---------------------------------------------------------------- the reference

autosummary_generate = True
autosummary_imported_members = True
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
templates_path = ["_templates"]


def formulas_as_they_stand(app, what, name, thing, options, lines):
    """Show the formulas of a docstring as they stand: paragraphs of lines with an equation and columns."""
    paragraph = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
            continue
        formula = all(re.search(r" (=|<=|>=|->) ", one) for one in paragraph) and any("  " in one.strip() for one in paragraph)
        start = len(done)
        done.extend([*(["::", ""] if formula else []), *(f"    {one}" if formula else one for one in paragraph), line])
        paragraph = []
    lines[:] = done


def linkcode_resolve(domain, info):
    """The place of an object in the repository."""
    thing = sys.modules.get(info["module"])
    for name in info["fullname"].split("."):
        thing = getattr(thing, name, None)
    try:
        file, (source, line) = inspect.getsourcefile(thing), inspect.getsourcelines(thing)
    except (TypeError, OSError):
        return None
    path = Path(file).resolve().relative_to(ROOT)
    return f"https://github.com/npflow/npflow/blob/main/{path}#L{line}-L{line + len(source) - 1}"


def setup(app):
    app.connect("autodoc-process-docstring", formulas_as_they_stand)
