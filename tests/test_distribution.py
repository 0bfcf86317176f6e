"""A wheel by way of an sdist, built from the sources, installed into an environment of its own, and used there."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import npflow

ROOT = Path(npflow.__file__).parent.parent

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.cfg").is_file(), reason="needs the sources of npflow"),
    pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="needs build"),
]


def run(*command, cwd):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(part) for part in command]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distribution")
    sources = folder / "sources"
    for name in ("npflow", "tests"):  # setuptools packs tests too, unless it is told not to
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):  # such as .coverage, which is being written
            shutil.copy(path, sources)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", sources, cwd=folder)
    (sdist,), (wheel,) = ((folder / "dist").glob(kind) for kind in ("*.tar.gz", "*.whl"))
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """The folder of programs of an environment with the wheel, which borrows the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    own = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip())
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    run(*pip, "--disable-pip-version-check", archives[1], cwd=folder)
    return folder / "bin"


def test_both_archives_hold_all_files_of_the_package_and_no_tests(archives):
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "npflow").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    sdist, wheel = archives
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    beside = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "setup.cfg", "pyproject.toml"}
    assert expected | beside <= packed
    assert not any(name.startswith("tests") for name in packed)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert re.search(r"^License-File: LICENSE$", metadata, re.M) and "Requires-Dist: autograd" in metadata


def test_the_installed_package_is_imported_and_its_command_runs(installed, tmp_path):
    where = run(installed / "python", "-c", "import npflow; print(npflow.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "2 of 2 passed" in run(installed / "npflow", "verify", "Reverse", cwd=tmp_path)
    run(installed / "npflow", "exercise", "coupling", cwd=tmp_path)
    assert "def inverse" in (tmp_path / "coupling.py").read_text()


def test_the_installed_package_writes_a_page(installed, tmp_path):
    program = (
        "import npflow, numpy as np; rng = np.random.default_rng(0); x = rng.normal(size=(9, 2));"
        "flow = npflow.models.nice(2, couplings=2, network=npflow.networks.MLP((4,))); params = flow.init(rng, x);"
        "npflow.plots.step_page(flow, params, x, 'page.html')"
    )
    run(installed / "python", "-c", program, cwd=tmp_path)
    assert (tmp_path / "page.html").stat().st_size > 10_000
