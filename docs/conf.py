"""One site of the book, the demos and the reference: ``python -m sphinx -W docs docs/_build``.

The pages of the book and of the gallery are the scripts of ``demos/``, turned into notebooks beside this file, as Sphinx
reads pages of its own folder alone. Chapters are executed; a demo takes minutes, and its page shows the script. With
NPFLOW_QUICK=1 in the environment there is no gallery, and the chapters take few steps.
"""

import importlib
import inspect
import os
import re
from pathlib import Path

import jupytext

import npflow

HERE = Path(__file__).parent
QUICK = os.environ.get("NPFLOW_QUICK")

project = "npflow"
author = "the npflow developers"
release = npflow.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "numpydoc"]
exclude_patterns = ["_build", "jupyter_execute", *(["gallery.md", "gallery/*"] if QUICK else [])]
suppress_warnings = ["toc.excluded", "toc.not_readable"] if QUICK else []  # the entry of the gallery
html_theme = "pydata_sphinx_theme"
html_title = "npflow"
html_sourcelink_suffix = ""
html_sidebars = {
    page: [] for page in ("lab", "lab_zh", "glossary")
}  # no pages below them: more room for code

# ---------------------------------------------------------------- pages that run


# A page shows what is printed and drawn, not the value of a cell's last line, such as a legend. And tqdm prefers
# ipywidgets, which no page needs.
QUIETLY = """%config InteractiveShell.ast_node_interactivity = 'none'
import warnings
warnings.filterwarnings("ignore", message="IProgress not found")"""


def notebooks(scripts, folder):
    """Turn scripts of `# %%` cells into notebooks; one that is newer than its script is left, and so is its run."""
    folder.mkdir(exist_ok=True)
    scripts = {folder / f"{script.stem}.ipynb": script for script in scripts}
    for stale in set(folder.glob("*.ipynb")) - set(scripts):
        stale.unlink()
    for page, script in scripts.items():
        if page.exists() and page.stat().st_mtime > script.stat().st_mtime:
            continue
        notebook = jupytext.read(script, fmt="py:percent")
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
        hidden = notebook.cells[0].copy()
        hidden.update(cell_type="code", source=QUIETLY)
        hidden.update(metadata={"tags": ["remove-cell"]}, outputs=[], execution_count=None, id="quiet")
        notebook.cells.insert(1, hidden)
        jupytext.write(notebook, page)


notebooks((HERE.parent / "demos" / "book").glob("*.py"), HERE / "book")
if not QUICK:
    notebooks((HERE.parent / "demos").glob("*.py"), HERE / "gallery")

nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ("executed_quick" if QUICK else "executed"))
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_excludepatterns = ["gallery/*"]
nb_merge_streams = True
nb_output_stderr = "warn"  # so a warning of NumPy or npflow fails the build
myst_enable_extensions = ["dollarmath", "amsmath"]

# ---------------------------------------------------------------- the reference

MODULES = ["npflow"] + [
    f"npflow.{name}"
    for name in (
        *("layers", "networks", "models", "priors", "training", "estimators"),
        *("verify", "datasets", "plots", "latent", "autodiff"),
    )
]
autosummary_generate = True
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
templates_path = ["_templates"]


def public(module):
    """The names of a module's public functions and classes, in its own order."""
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    listed = hasattr(module, "__all__")
    for name in names:
        try:
            thing = getattr(module, name)
        except (
            ImportError
        ):  # `check_torch` and `check_jax` come with their library; the module's docstring has them
            continue
        is_documented = inspect.isclass(thing) or inspect.isfunction(thing)
        if is_documented and (listed or thing.__module__ == module.__name__):
            yield name


def write_reference():
    """A page for each public module: its docstring, and a table of what it offers."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    for name in MODULES:
        module = importlib.import_module(name)
        lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
        lines += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :toctree: generated", ""]
        text = "\n".join([*lines, *(f"   {one}" for one in public(module)), ""])
        page = folder / f"{name}.rst"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


write_reference()


def formulas_as_they_stand(app, what, name, thing, options, lines):
    """Make a paragraph of formulas a literal block, so that its columns and its line breaks are kept.

    Formulas stand above the first section of a docstring. A paragraph is one if every line is set in columns, is
    indented, or is an equation that does not end like a sentence.
    """
    heading = next(
        (i for i, line in enumerate(lines) if re.fullmatch(r"-{3,}", line.strip())), len(lines) + 1
    )
    body, rest = lines[: heading - 1], lines[heading - 1 :]
    done = []
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", "\n".join(body)):
        rows = paragraph.split("\n")
        equation = re.compile(r"^[^.`]*\s(=|<=|>=|->|~)\s.*[^.:;]$")
        formula = bool(done) and all(re.search(r"\S {2,}\S|^ ", row) or equation.match(row) for row in rows)
        formula = (
            formula and any(equation.match(row) for row in rows) and not rows[0].startswith((" ", ">>>", "="))
        )
        if formula:
            done += ["::", "", *(f"    {row}" for row in rows), ""]
        else:
            done += [*rows, ""]
    lines[:] = [*done, *rest]


def plain_text(app, what, name, thing, options, lines):
    """Escape what reStructuredText would read as markup: (n, *event), |x|, and a name that ends with an underscore.

    Literal blocks and examples stay as they are.
    """
    literal = False
    for i, line in enumerate(lines):
        if line.strip() and not line.startswith(" "):
            literal = line.strip() == "::" or line.startswith(">>>")
        if not literal and not line.lstrip().startswith((">>>", "...")):
            line = re.sub(r"(?<=[(\s,])\*(?=\w+[,)])", r"\\*", line)
            line = re.sub(r"(?<![`\w\\])\|(?=\w+\|)", r"\\|", line)
            lines[i] = re.sub(r"(?<![`\w])([A-Za-z]\w*)_(?=[\s.,:;)]|$)", r"\1\\_", line)


def skip(app, what, name, thing, skipped, options):
    """Leave out what scikit-learn adds to every estimator for metadata routing."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def setup(app):
    app.connect(
        "autodoc-process-docstring", formulas_as_they_stand, priority=400
    )  # numpydoc, at 500, reads sections
    app.connect("autodoc-process-docstring", plain_text, priority=600)
    app.connect("autodoc-skip-member", skip)
