"""check_torch on modules of PyTorch, where it is installed."""

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn  # noqa: E402
from torch.distributions import transforms as td  # noqa: E402

from npflow.verify import check_torch  # noqa: E402


class Affine(nn.Module):
    def __init__(self, start=0.0):
        super().__init__()
        self.log_scale, self.shift = nn.Parameter(torch.full((3,), start)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(x))

    def inverse(self, y):
        return (y - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(y))


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32))


def test_module_passes_and_is_left_as_it_is(x):
    module = Affine()
    module.train()
    before = [p.detach().clone() for p in module.parameters()]
    report = check_torch(module, x)
    assert report.passed, report
    assert report["where parameters start"].passed
    assert module.training
    assert torch.get_default_dtype() == torch.float32
    for parameter, old in zip(module.parameters(), before):
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, old)


@pytest.mark.parametrize(
    "transform",
    [
        td.AffineTransform(1.0, torch.tensor([1.0, -2.0, 3.0])),
        td.ExpTransform(cache_size=1),
        td.SigmoidTransform(),
        td.TanhTransform(),
        td.StickBreakingTransform(),
        td.CorrCholeskyTransform(),
        td.ComposeTransform([td.AffineTransform(0.5, -2.0), td.SigmoidTransform()]),
        td.IndependentTransform(td.ExpTransform(), 1),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_distributions(transform, x):
    assert check_torch(transform, x).passed


@pytest.mark.parametrize("transform", [td.SigmoidTransform().inv, td.TanhTransform().inv])
def test_domains_are_known(transform):
    x = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 0.9, (32, 3)))
    assert check_torch(transform, x).passed


def test_wrong_log_det(x):
    class Wrong(Affine):
        def inverse(self, y):
            return super().inverse(y)[0], self.log_scale.sum().expand(len(y))

    report = check_torch(Wrong(), x)
    assert report.verdict == "failed"
    assert "moved" in report.cause  # nothing shows where the layer is the identity
    assert check_torch(Wrong(), x, move=False).passed


def test_cache_is_defeated(x):
    class Cached(td.Transform):
        bijective, domain, codomain = (
            True,
            torch.distributions.constraints.real,
            torch.distributions.constraints.real,
        )

        def _call(self, x):
            return 2 * x

        def _inverse(self, y):
            return 0.4 * y

        def log_abs_det_jacobian(self, x, y):
            return torch.full_like(x, np.log(2.0))

    cached = Cached(cache_size=1)
    y = cached(x)
    assert torch.equal(cached.inv(y), x)  # its own test passes
    assert "x -> z -> x" in check_torch(cached, x).cause


def test_data_dependent_start(x):
    class ActNorm(Affine):
        def __init__(self):
            super().__init__()
            self.register_buffer("started", torch.tensor(False))

        def forward(self, x):
            if not self.started:
                self.log_scale.data = -x.std(0).log().detach()
                self.started.fill_(True)
            return super().forward(x)

    report = check_torch(ActNorm(), x)
    assert report.passed, report
    assert any("changed" in note and "log_scale" in note and "started" in note for note in report.notes)


def test_log_det_by_a_derivative(x):
    class Sine(nn.Module):
        def forward(self, x):
            x = x if x.requires_grad else x.requires_grad_()
            y = x + 0.5 * x.sin()
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            return y, slope.log().sum(1)

    report = check_torch(Sine(), x)
    assert report.verdict == "passed", report


def test_gradient_not_finite_at_the_start(x):
    class Norm(Affine):
        def forward(self, x):
            y, log_det = super().forward(x)
            return y, log_det + 0 * torch.sqrt(self.shift.abs()).sum()

    assert "the gradient in shift" in check_torch(Norm(), x)["where parameters start"].sentence


def test_change_in_place(x):
    class InPlace(Affine):
        def inverse(self, y):
            y -= self.shift
            return y * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(y))

    assert "in place" in check_torch(InPlace(), x).cause


def test_two_functions(x):
    report = check_torch(lambda x: (2 * x, x.new_full((len(x),), 3 * np.log(2))), x, inverse=lambda y: (y / 2, y.new_full((len(y),), -3 * np.log(2))))  # fmt: skip
    assert report.passed, report


def test_gradients_stay_off():
    code = (
        "import torch\nfrom npflow.verify import check_torch\n"
        "assert check_torch(torch.distributions.ExpTransform(), torch.randn(8, 2)).passed\n"
        "print(torch.is_grad_enabled(), torch.get_default_dtype())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "True torch.float32\n"
