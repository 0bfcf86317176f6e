"""What the README shows runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npflow.autodiff.gpu import devices

pytestmark = pytest.mark.usefixtures("uncovered")

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()


def blocks():
    return re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture
def fast_fit(monkeypatch):
    """`fit` with fewer steps: the README's point is the code, not the figures."""
    import npflow

    fit = npflow.fit

    def short(*args, steps, **kwargs):
        return fit(*args, steps=10, **kwargs)

    monkeypatch.setattr(npflow, "fit", short)


def test_the_ten_lines_the_program_and_the_checkpoint_run(fast_fit, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ten_lines, _, _, program, train, on_a_gpu, _ = blocks()
    scope = {}
    exec(compile(ten_lines, "README", "exec"), scope)
    assert scope["new"].shape == (1000, 2)
    assert scope["nats"].shape == (20_000,)
    assert (tmp_path / "moons.png").exists()
    exec(compile(program, "README", "exec"), scope)
    shown = re.search(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)[1].splitlines()
    assert len(shown) == 4
    assert set(shown) <= set(capsys.readouterr().out.splitlines())
    exec(compile(train, "README", "exec"), scope)
    assert scope["history"].steps == 10
    assert (tmp_path / "moons.npz").exists()
    exec(compile(on_a_gpu.replace('"cuda"', '"strict"'), "README", "exec"), scope)
    assert isinstance(scope["new"], np.ndarray)
    assert devices.device_of(scope["there"]).name == "strict"


def test_the_lines_that_use_autograd_alone_run(device):
    *_, alone = blocks()
    lines = alone.replace("import autograd, cupy", "import autograd")
    assert lines != alone
    scope = {"cupy": device.module}
    *before, last = lines.strip().splitlines()
    exec("\n".join(before), scope)
    gradient = device.fetch(eval(last, scope))
    np.testing.assert_allclose(gradient, 2 * np.tanh(1) / np.cosh(1) ** 2 * np.ones(3), rtol=1e-12)


def test_the_lines_to_step_through_step_through():
    _, stepping, *_ = blocks()
    commands = "b AffineCoupling.forward\nc\nn\nn\nn\nprint(log_scale)\np log_scale._value.shape\nc\n"
    result = subprocess.run(
        [sys.executable, "-c", stepping], input=commands, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    assert "Autograd ArrayBox with value [[" in result.stdout
    assert "(8, 1)" in result.stdout


def test_the_layer_of_your_own_takes_twenty_lines_and_is_verified():
    _, _, own_layer, *_ = blocks()
    program = own_layer.split("@dataclass")[1]
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    result = subprocess.run([sys.executable, "-c", own_layer], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("SinhArcsinh: passed")


def test_every_path_that_it_names_exists():
    paths = re.findall(r"`((?:npflow|demos)/[\w/.]+)`", TEXT) + re.findall(r"\]\((demos/[\w.]+)\)", TEXT)
    assert len(paths) > 8
    assert [path for path in paths if not (README.parent / path).exists()] == []


def test_every_layer_it_lists_and_no_other_is_there():
    from npflow import layers

    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| · "))
    listed = set(re.findall(r"`(\w+)`", rows))
    assert listed == set(layers.__all__) - {"Layer", "Elementwise"}
