"""One site of the book, the demos and the reference: ``python -m sphinx -W docs docs/_build``.

The pages of the book and of the gallery are the scripts of ``demos/``, turned into notebooks beside this file, as Sphinx
reads pages of its own folder alone, and executed. A demo that takes minutes is executed with few steps. So is everything
with NPFLOW_QUICK=1 in the environment.
"""

import importlib
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import jupytext

import npflow

sys.path.insert(0, str(Path(__file__).parent))
from formulas import formulas_in_tex

HERE = Path(__file__).parent
QUICK = os.environ.get("NPFLOW_QUICK")

project = "npflow"
author = "the npflow developers"
release = npflow.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "numpydoc"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "pydata_sphinx_theme"
html_title = "npflow"
html_theme_options = {  # none for the book and the gallery: room for code
    "secondary_sidebar_items": {
        page: ["page-toc"] for page in ("lab*", "glossary", "guide/*", "reference/**")
    },
}
html_sourcelink_suffix = ""
html_sidebars = {
    page: [] for page in ("lab", "lab_zh", "glossary")
}  # no pages below them: more room for code
html_static_path = ["_static"]
html_css_files = ["wide.css"]

# ---------------------------------------------------------------- pages that run


# A page shows what is printed and drawn, not the value of a cell's last line, such as a legend. And tqdm prefers
# ipywidgets, which no page needs.
QUIETLY = """%config InteractiveShell.ast_node_interactivity = 'none'
import warnings
warnings.filterwarnings("ignore", message="IProgress not found")"""

IN_FULL = {
    "affine",
    "gaussianization",
    "moons",
    "museum",
    "read_the_gradient",
    "verify_jacobians",
}  # a minute at most
FEW_STEPS = """import os
os.environ["NPFLOW_QUICK"] = "1"
"""
NOTE = """*This page was made with few steps, to show what the script does. For its results run*
`python demos/{}.py`."""


def notebooks(scripts, folder, in_full=None):
    """Turn scripts of `# %%` cells into notebooks; one that is newer than its script is left, and so is its run.

    Scripts that are not among `in_full` take few steps, and say so.
    """
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
        few = in_full is not None and script.stem not in in_full
        hidden = notebook.cells[0].copy()
        hidden.update(cell_type="code", source=FEW_STEPS * few + QUIETLY)
        hidden.update(metadata={"tags": ["remove-cell"]}, outputs=[], execution_count=None, id="quiet")
        notebook.cells.insert(1, hidden)
        if in_full is not None:  # demos show progress bars on stderr
            notebook.metadata["mystnb"] = {"output_stderr": "remove"}
        if few:
            notebook.cells[0].source += "\n\n" + NOTE.format(script.stem)
        jupytext.write(notebook, page)


notebooks((HERE.parent / "demos" / "book").glob("*.py"), HERE / "book")
notebooks((HERE.parent / "demos").glob("*.py"), HERE / "gallery", IN_FULL)

nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ("executed_quick" if QUICK else "executed"))
nb_execution_timeout = 600
nb_execution_excludepatterns = ["gallery/*"] if QUICK else []  # the tests run the demos in their quick form
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # a demo writes its pictures and summary to a folder out/
nb_merge_streams = True
nb_output_stderr = "warn"  # so a warning of NumPy or npflow fails the build
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3  # as on GitHub

# ---------------------------------------------------------------- the reference

MODULES = ["npflow"] + [
    f"npflow.{name}"
    for name in (
        *("layers", "networks", "models", "priors", "training", "estimators"),
        *(
            "verify",
            "datasets",
            "plots",
            "latent",
            "exercises",
            "autodiff",
            "autodiff.primitives",
            "autodiff.gpu",
        ),
    )
]
autosummary_generate = True
autodoc_mock_imports = ["torch", "jax"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the sections of a docstring say what each argument is
numpydoc_show_class_members = False
templates_path = ["_templates"]


def public(module):
    """The names of a module's public functions and classes, in its own order."""
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    listed = hasattr(module, "__all__")
    for name in names:
        thing = getattr(module, name)
        is_documented = inspect.isclass(thing) or inspect.isfunction(thing)
        if is_documented and (listed or thing.__module__ == module.__name__):
            yield name
    if module is npflow.verify:  # not in `__all__`, as each imports its library
        yield from ("check_torch", "check_jax")


def write_reference():
    """A page for each public module: its docstring, and a table of what it offers."""
    folder = HERE / "reference"
    shutil.rmtree(folder / "generated", ignore_errors=True)  # pages of names that are gone fail the build
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


def plain_text(app, what, name, thing, options, lines):
    """Escape what reStructuredText would read as markup: (n, *event), |x|, and a name that ends with an underscore.

    Literal blocks and examples stay as they are.
    """
    literal = False
    for i, line in enumerate(lines):
        if line.strip() and not line.startswith(" "):
            literal = line.startswith(("::", ".. math::", ">>>"))
        if not literal and not line.lstrip().startswith((">>>", "...")):
            line = re.sub(r"(?<=[(\s,])\*(?=\w+[,)])", r"\\*", line)
            line = re.sub(r"(?<![`\w\\])\|(?=\w+\|)", r"\\|", line)
            lines[i] = re.sub(r"(?<![`\w])([A-Za-z]\w*)_(?=[\s.,:;)]|$)", r"\1\\_", line)


def skip(app, what, name, thing, skipped, options):
    """Leave out what scikit-learn adds to every estimator for metadata routing."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def setup(app):
    # numpydoc, which reads the sections of a docstring, has priority 500.
    app.connect("autodoc-process-docstring", formulas_in_tex, priority=400)
    app.connect("autodoc-process-docstring", plain_text, priority=600)
    app.connect("autodoc-skip-member", skip)
