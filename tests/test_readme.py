"""What README and the guide show runs as it stands, and the numbers that they state are those of the library.

Numbers of a clock or of a training run are made by the command beside them; `benchmarks/readme.py` runs it.
"""

import argparse
import configparser
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import TOLERANCES

from npflow import autodiff, cli, datasets, models
from npflow.autodiff import record
from npflow.autodiff.gpu import devices
from npflow.autodiff.program import slices
from npflow.cli import progress, train
from npflow.cli.catalogue import MODELS
from npflow.cli.job import Job
from npflow.cli.settings import Settings
from npflow.datasets.cifar10 import ARCHIVES, BINARY
from npflow.training import on_device

pytestmark = pytest.mark.usefixtures("uncovered")

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
GUIDE = [DOCS / "guide.md", *sorted(DOCS.glob("guide/*.md"))]
PAGES = [README, *GUIDE]
TEXT = "\n\n".join(page.read_text() for page in PAGES)
BENCHMARKS = README.parent / "benchmarks"
WORDS = {3: "three", 5: "five", 7: "seven", 8: "eight", 9: "nine", 16: "sixteen"}


def blocks(name, language="python"):
    """The blocks of code of README or of a page of the guide."""
    (page,) = (page for page in PAGES if page.stem == name)
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def run(lines, **options):
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, **options)


@pytest.fixture
def quick(monkeypatch):
    """Fewer training steps, and fewer points on a page: the point is the code, not the figures."""
    import npflow

    fit, step_page = npflow.fit, npflow.plots.step_page

    def short(*args, steps, **kwargs):
        return fit(*args, steps=10, **kwargs)

    def small(flow, params, x, path):
        return step_page(flow, params, x[:2], path, marked=[0])

    monkeypatch.setattr(npflow, "fit", short)
    monkeypatch.setattr(npflow.plots, "step_page", small)


def test_the_readme_is_read_in_five_minutes():
    assert len(README.read_text().split()) <= 900  # as `wc -w` counts, code included


def test_the_ten_lines_the_page_the_program_and_the_checkpoint_run(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ten_lines, page, *_, program = blocks("README")
    assert len(ten_lines.splitlines()) - ten_lines.count("\n\n") - ten_lines.count("import") <= 10
    scope = {}
    for lines in (ten_lines, page, *blocks("training")):
        exec(compile(lines, "README", "exec"), scope)
    assert scope["new"].shape == (1000, 2)
    assert scope["nats"].shape == (20_000,)
    assert scope["history"].steps == 10
    assert {"moons.png", "step.html", "moons.npz"} <= {path.name for path in tmp_path.iterdir()}
    on_a_gpu, _ = blocks("gpu")
    exec(compile(on_a_gpu.replace('"cuda"', '"strict"'), "README", "exec"), scope)
    assert isinstance(scope["new"], np.ndarray)
    assert devices.device_of(scope["there"]).name == "strict"
    capsys.readouterr()
    exec(compile(program, "README", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    for page, lines in (("README", 4), ("programs", 2)):
        (shown,) = blocks(page, "text")
        assert len(shown.splitlines()) == lines
        assert set(shown.splitlines()) <= set(printed)


def test_the_families_that_need_lines_of_their_own_are_trained(quick, capsys):
    with_estimates, autoencoder, by_divergence, by_matching = blocks("families")
    scope = {}
    for lines in (with_estimates, autoencoder):
        exec(lines, scope)
        assert scope["history"].steps == 10
    exec(by_divergence, scope)
    assert scope["history"].steps == 10
    assert 0 < scope["sample"].effective_sample_size <= 1
    exec(by_matching, scope)
    assert scope["history"].steps == 10


def test_answers_to_a_small_image_shrink_to_it(quick):
    (lines,) = blocks("images")
    scope = {}
    exec(lines, scope)
    shrunk = scope["answers"].reshape(8, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(shrunk, scope["small"], atol=1e-6)


def test_the_gradient_as_a_tree_is_like_the_parameters():
    (lines,) = blocks("programs")
    scope = {}
    exec(lines, scope)
    shapes = [
        {path: np.shape(leaf) for path, leaf in autodiff.tree.items(scope[name])}
        for name in ("tree", "params")
    ]
    assert shapes[0] == shapes[1]


def test_the_lines_for_scikit_learn_run():
    (lines,) = blocks("estimators")
    scope = {}
    exec(lines, scope)
    np.testing.assert_allclose(scope["same"], scope["x"], rtol=1e-6, atol=1e-6)
    assert scope["new"].shape == (10, 13)
    assert np.isfinite([*scope["log_p"], *scope["mixture"]]).all()
    np.testing.assert_allclose(scope["p"].sum(axis=1), 1)


def test_the_lines_that_use_autograd_alone_run(device):
    _, alone = blocks("gpu")
    lines = alone.replace("import autograd, cupy", "import autograd")
    assert lines != alone
    scope = {"cupy": device.module}
    *before, last = lines.strip().splitlines()
    exec("\n".join(before), scope)
    gradient = device.fetch(eval(last, scope))
    np.testing.assert_allclose(gradient, 2 * np.tanh(1) / np.cosh(1) ** 2 * np.ones(3), rtol=1e-12)


def test_the_lines_to_step_through_step_through():
    (stepping,) = blocks("step_through")
    commands = "b AffineCoupling.forward\nc\nw\nn\nn\nn\nprint(log_scale)\np log_scale._value.shape\nc\n"
    result = run(stepping, input=commands, timeout=100)
    assert result.returncode == 0, result.stderr
    assert "Autograd ArrayBox with value [[" in result.stdout
    assert "(8, 1)" in result.stdout
    frames = re.findall(r"^  \S*npflow/\S+\(\)$", result.stdout, flags=re.MULTILINE)  # each calls the next
    calls = WORDS[len(frames) + 1]  # the last is that of the coupling
    assert f"{calls} calls lead from `fit`\nto the network of a coupling" in TEXT


def test_the_layer_of_your_own_takes_twenty_lines_and_is_verified():
    _, _, own_layer, one_line, *_ = blocks("README")
    program = own_layer.split("@dataclass")[1]
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    wrong = own_layer.replace("-self.log_det", "self.log_det")  # as README proposes
    assert wrong != own_layer
    # The same layer in a test suite, and without its minus.
    result = run(f"{own_layer}\n{one_line}\n{wrong}")
    assert result.returncode == 0, result.stderr
    right, wrong = result.stdout.split("SinhArcsinh: ")[1:]
    assert right.startswith("passed")
    assert wrong.startswith("FAILED.")
    assert "log_det of inverse has the opposite sign" in wrong.splitlines()[0]


def test_the_pages_on_verify_show_what_is_said_of_a_mistake_and_check_functions(capsys):
    mistake, functions = blocks("verify")
    exec(mistake, {})
    assert blocks("verify", "text") == [capsys.readouterr().out]
    exec(functions, {})


@pytest.mark.parametrize(("check", "library"), [("check_torch", "torch"), ("check_jax", "flowjax")])
def test_the_line_for_another_library_runs_where_it_is_installed(check, library):
    pytest.importorskip(library)
    (lines,) = (block for block in blocks("README") if f"import {check}" in block)
    result = run(lines)
    assert result.returncode == 0, result.stderr


def test_the_command_that_verifies_a_layer_of_your_own_runs(tmp_path):
    own_layer = blocks("README")[2].partition("\n\nx = ")[0]
    (tmp_path / "my_layers.py").write_text(own_layer)
    command = re.search(r"^npflow (verify my_layers.*?)  #", TEXT, flags=re.MULTILINE)[1]
    arguments = [sys.executable, "-m", "npflow", *command.split()]
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 of 1 passed" in result.stdout
    assert len(list((tmp_path / "jacobians").glob("*.png"))) == 1


def test_every_page_whose_code_runs_here_is_known():
    # Each test above takes all blocks of its page; a new block, or a page with blocks, asks for a new line in one.
    counted = {page.stem: len(blocks(page.stem)) for page in PAGES}
    known = {
        "README": 7,
        "families": 4,
        "images": 1,
        "training": 1,
        "estimators": 1,
        "gpu": 2,
        "programs": 1,
        "step_through": 1,
        "verify": 2,
        "many_machines": 4,  # in tests/training/test_together.py, on ranks and in other processes
    }
    assert {page: count for page, count in counted.items() if count} == known


def test_every_command_that_a_page_names_can_be_called(monkeypatch):
    lines = "\n".join(block for page in PAGES for block in blocks(page.stem, "sh"))
    shown = re.findall(r"^npflow (.*?)(?:  #.*)?$", lines, flags=re.MULTILINE)
    shown += [line for line in re.findall(r"`npflow ([^`]*)`", TEXT) if "MODEL" not in line]
    assert {line.split()[0] for line in shown} == {
        command.__name__.split(".")[-1] for command in cli.COMMANDS
    }
    for line in shown:
        called = []
        for command in cli.COMMANDS:
            monkeypatch.setattr(command, "run", called.append)
        assert cli.main(shlex.split(line)) is None, line
        assert len(called) == 1


def targets(page):
    """What the links and pictures of a page point to, apart from addresses."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [target for target in found if not target.startswith("http")]


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md")), *GUIDE[1:]], ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_somewhere(page):
    missing = [target for target in targets(page) if not (page.parent / target.partition("#")[0]).exists()]
    assert missing == []


def test_every_page_of_the_guide_is_linked_twice():
    pages = [f"guide/{page.stem}" for page in GUIDE if page.stem != "guide"]
    text = (DOCS / "guide.md").read_text()
    assert sorted(re.findall(r"\]\((guide/\w+)\.md\)", text)) == pages
    assert sorted(re.findall(r"^(guide/\w+)$", text, flags=re.MULTILINE)) == pages  # what Sphinx lists


def test_every_path_that_it_names_exists():
    paths = re.findall(r"`((?:npflow|demos|benchmarks)/[\w/.]+)`", TEXT)
    assert len(paths) > 20
    assert [path for path in paths if not (README.parent / path).exists()] == []


def test_every_module_has_a_place_in_the_page_that_says_where_things_are():
    package = README.parent / "npflow"
    modules = [
        path for path in package.iterdir() if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    ]
    text = (DOCS / "guide" / "where.md").read_text()
    assert [path.name for path in modules if f"`npflow/{path.name}`" not in text] == []


def row(first):
    """The names in a row of the page that says where things are."""
    (line,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{first}` |"))
    return set(re.findall(r"`([\w.]+)`", line.split("|")[2]))


def test_every_layer_it_lists_and_no_other_is_there():
    from npflow import layers

    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| · "))
    listed = set(re.findall(r"`(\w+)`", rows))
    assert listed == set(layers.__all__) - {"Layer", "Elementwise"}


def test_every_demo_and_command_it_lists_and_no_other_is_there():
    assert row("demos") == {path.name for path in README.parent.glob("demos/*.py")}
    assert row("npflow/cli") == {command.__name__.split(".")[-1] for command in cli.COMMANDS}


# ---------------------------------------------------------------- what it states


def job(model, data, conditional=False, **sizes):
    """A run of `npflow train`, ready to begin."""
    sizes = {name: size.default for name, size in MODELS[model].sizes.items()} | sizes
    return Job.of(
        None, Settings(model=model, sizes=sizes, rate=1.0, conditional=conditional, batch_size=2), data
    )


def python():
    setup = configparser.ConfigParser()
    setup.read(README.parent / "setup.cfg")
    yield f"with Python {setup['options']['python_requires'].removeprefix('>=')} or later"


def entropy():
    exact = datasets.Moons(0.05).entropy()
    yield f"The entropy of the data is {exact:.3f} nats"
    yield f"no model is below {exact:.2f} on average"


def densities():
    yield f"two moons and {WORDS[len(datasets.DENSITIES) - 1]} other toy densities"
    yield f"families on {WORDS[len(datasets.DENSITIES)]} densities in the plane"


def tables():
    rng, names = np.random.default_rng(0), ("digits", "breast_cancer", "wine")
    columns = [(name, datasets.tabular(name, rng=rng).train.shape[1]) for name in names]
    yield f"| | {' | '.join(f'{name} ({count})' for name, count in columns)} |".replace("_", " ")
    parts = datasets.split(np.zeros((100, 1)), rng=np.random.default_rng(0))
    yield "{} % to train, {} % to choose, {} % to test".format(*map(len, parts))


def digits():
    data = datasets.image_data("digits")
    yield f'`datasets.image_data("digits")` has 8 x {data.train.shape[1]} pixels of {data.levels} levels'
    yield str(job("glow", data, conditional=True))  # the first line that the command prints


def glow_of_cifar10():
    defaults = inspect.signature(models.image_glow).parameters
    levels, steps = (WORDS[defaults[name].default] for name in ("levels", "steps"))
    width = re.search(r"ConvNet\(hidden=\((\d+), ", repr(models.image_glow((8, 8, 3))))[1]
    yield f"{levels} levels of {steps} steps and networks of {width} channels"


def models_of_images():
    """The rows of the table, as `benchmarks/images.py` trains and prints them."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    data = datasets.ImageData("cifar10", 256, pixels, None, pixels, None)
    for name, row in runpy.run_path(str(BENCHMARKS / "images.py"))["ROWS"].items():
        names, values = row.sizes[::2], row.sizes[1::2]
        sizes = {key[2:].replace("-", "_"): int(value) for key, value in zip(names, values)}
        yield f"| {row.title} | {job(name, data, **sizes).size:,} | ... | {row.published:.2f} |"


def slices_of_a_batch():
    flow = models.glow(features=2, steps=2)  # the rows are about the same for ten steps
    x = datasets.moons(2, rng=np.random.default_rng(0)).astype(np.float32)
    params = flow.init(np.random.default_rng(0), x)
    first, second = record(flow.loss, params, x[:1]), record(flow.loss, params, x)
    worth = lambda rows: slices.slices_worth(second, slices.forecast(first, second, rows)[0])
    yield f"{next(rows for rows in range(500, 9000, 500) if worth(rows + 250) > 1):,} rows on"


def settings():
    yield f"losses are read every {on_device.EVERY} steps"
    yield f"Samples are drawn at a temperature of {progress.TEMPERATURE}"
    parser = argparse.ArgumentParser()
    train.add_to(parser.add_subparsers())
    minutes = parser.parse_args(["train", "glow", "--out", "run"]).checkpoint_minutes
    yield f"every {WORDS[minutes]} minutes (`--checkpoint-minutes`)"
    yield "({:.0e} in float32, {:.0e} in float64)".format(*TOLERANCES.values()).replace("e-0", "e-")
    yield f"downloads {ARCHIVES[BINARY].size / 2**20:.0f} MiB"


STATED = (
    python,
    entropy,
    densities,
    tables,
    digits,
    glow_of_cifar10,
    models_of_images,
    slices_of_a_batch,
    settings,
)


@pytest.mark.parametrize("sentences", STATED)
def test_a_number_that_can_be_computed_is_what_the_pages_state(sentences):
    text = " ".join(TEXT.split())
    for sentence in sentences():
        pattern = ".*?".join(map(re.escape, sentence.split("...")))
        assert re.search(pattern, text), sentence


def test_every_picture_and_table_of_figures_names_the_command_that_makes_it():
    shown = list(runpy.run_path(str(BENCHMARKS / "readme.py"))["shown_by_commands"]())
    pictures = [picture for _, picture, _ in shown if picture]
    expected = [
        (page.parent / path).resolve()
        for page in PAGES
        for path in re.findall(r"!\[.*\]\((.*)\)", page.read_text())
    ]
    assert sorted(pictures) == sorted(expected)
    tables = [lines[0] for _, picture, lines in shown if not picture and lines[0].startswith("|")]
    tables += ["| place | what is there |", "| term | on one machine | on each of eight |"]  # and on paper
    assert sorted(tables) == sorted(re.findall(r"(\|.*\|)\n\| ---", TEXT))
    for command, *_ in shown:
        program, script = command.split()[:2]
        assert program == "npflow" or (README.parent / script).exists()
