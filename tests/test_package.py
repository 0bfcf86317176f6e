"""The package as a whole: what importing it loads, which way imports run, and docstrings."""

import ast
import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import npflow

ROOT = Path(npflow.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
LEVELS = [
    {"errors", "typing"},
    {"validation", "files", "tables"},
    {"autodiff"},
    {"description", "docstrings"},
    {"networks", "priors", "rations"},
    {"layers"},
    {"model"},
    {"summary"},
    {"flow"},
    {"dequantization", "latent"},
    {"completion"},
    {"models", "datasets"},
    {"training", "verify"},
    {"plots", "exercises", "estimators"},
    {""},
    {"cli"},
    {"__main__"},
]
METHODS = {("npflow.training.history", "npflow.plots")}  # `History.plot` imports plots when it is called
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
every_module = pytest.mark.parametrize("module", MODULES)


@functools.cache
def parse(module):
    return ast.parse(MODULES[module].read_text("utf-8"))


def part(module):
    """The part of the package that a module belongs to: '' is the package's own `__init__`."""
    return module.partition(".")[2].partition(".")[0]


def imported(module):
    """The npflow modules that a module imports, anywhere in it, with their lines."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "npflow")


def public_definitions(tree):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def loaded_by(code):
    """The modules that a fresh interpreter has loaded after `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")])}
    return set(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split())


def test_importing_npflow_or_its_command_loads_no_library_that_only_some_of_it_needs():
    loaded = loaded_by("import npflow.cli")
    assert "npflow.flow" in loaded
    assert not loaded & {"matplotlib", "sklearn", "cupy", "tqdm", "PIL", "pandas", "http.client"}
    assert not loaded & {"scipy.integrate", "scipy.interpolate", "scipy.optimize", "scipy.sparse"}


@every_module
def test_a_module_imports_only_from_its_own_part_or_lower_levels(module):
    """So that there is no circle between parts."""
    assert part(module) in LEVEL_OF, "a new part of the package: give it a place in LEVELS"
    others = [
        (line, name)
        for name, line in imported(module)
        if part(name) != part(module) and (module, name) not in METHODS
    ]
    level = LEVEL_OF[part(module)]
    assert [(line, name) for line, name in others if LEVEL_OF.get(part(name), LEVEL_OF[""]) >= level] == []


def test_imports_are_found_wherever_they_stand():
    assert "npflow.errors.InputError" in [name for name, _ in imported("npflow.autodiff.tree")]
    assert "npflow.autodiff.tree" in [name for name, _ in imported("npflow.autodiff.gradient")]
    assert {part(name) for name, _ in imported("npflow.flow")} >= {"autodiff", "layers", "priors", "errors"}


@every_module
def test_a_module_and_its_public_functions_and_classes_have_docstrings(module):
    tree = parse(module)
    assert ast.get_docstring(tree), "the module has none"
    assert [node.name for node in public_definitions(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("package", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_every_name_a_package_lists_is_there(package):
    namespace = importlib.import_module(package)
    assert [name for name in getattr(namespace, "__all__", []) if not hasattr(namespace, name)] == []


def test_the_version_is_the_installed_ones_and_looked_up_when_asked_for():
    from importlib.metadata import version

    assert npflow.__version__ == version("npflow")
    with pytest.raises(AttributeError, match="module 'npflow' has no attribute 'nothing'"):
        npflow.nothing  # noqa: B018
