"""Transforms of the PyTorch libraries that verify_peers.py checks: how each is built, and called for the truth."""

import importlib.util

import numpy as np
import torch
import torch.distributions as td
from torch import nn
from torch.distributions import transforms as tt

D, DTYPE = 4, "float32"
INSTALLED = {
    name: importlib.util.find_spec(name) is not None
    for name in ("pyro", "zuko", "nflows", "normflows", "FrEIA")
}


def mlp(inputs, outputs, hidden=16):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def cases():
    """Yield the library, a name, a function that builds the transform, the kind of its rows, and whether it has a context."""
    yield from distributions()
    for name, of in (
        ("pyro", pyro),
        ("zuko", zuko),
        ("nflows", nflows),
        ("normflows", normflows),
        ("FrEIA", freia),
    ):
        if INSTALLED[name]:
            yield from ((name, *case) for case in of())


def distributions():
    vector = lambda *values: torch.tensor(values)
    plain = {
        "Affine": (lambda: tt.AffineTransform(1.0, 2.0), "real"),
        "Affine negative": (
            lambda: tt.AffineTransform(vector(1.0, 2, 3, 4), vector(-1.0, 2, -3, 0.5)),
            "real",
        ),
        "Affine event": (
            lambda: tt.AffineTransform(vector(1.0, 2, 3, 4), vector(-1.0, 2, -3, 0.5), event_dim=1),
            "real",
        ),
        "Exp": (lambda: tt.ExpTransform(), "real"),
        "Exp of scalars": (lambda: tt.ExpTransform(), "scalar"),
        "Exp cached": (lambda: tt.ExpTransform(cache_size=1), "real"),
        "Exp of images": (lambda: tt.ExpTransform(), "image"),
        "Power 2": (lambda: tt.PowerTransform(torch.tensor(2.0)), "positive"),
        "Power -1": (lambda: tt.PowerTransform(torch.tensor(-1.0)), "positive"),
        "Power 0.3": (lambda: tt.PowerTransform(torch.tensor(0.3)), "positive"),
        "Sigmoid": (lambda: tt.SigmoidTransform(), "real"),
        "Tanh": (lambda: tt.TanhTransform(), "real"),
        "Softplus": (lambda: tt.SoftplusTransform(), "real"),
        "CDF of normal": (lambda: tt.CumulativeDistributionTransform(td.Normal(0.0, 1.0)), "real"),
        "CDF of Laplace": (lambda: tt.CumulativeDistributionTransform(td.Laplace(0.0, 1.0)), "real"),
        "CDF of Gumbel": (lambda: tt.CumulativeDistributionTransform(td.Gumbel(0.0, 1.0)), "real"),
        "CDF of Cauchy": (lambda: tt.CumulativeDistributionTransform(td.Cauchy(0.0, 1.0)), "real"),
        "CorrCholesky": (lambda: tt.CorrCholeskyTransform(), "three"),
        "CorrCholesky of 4": (lambda: tt.CorrCholeskyTransform(), "six"),
        "StickBreaking": (lambda: tt.StickBreakingTransform(), "real"),
        "Reshape": (lambda: tt.ReshapeTransform((D,), (2, 2)), "real"),
        "Independent": (lambda: tt.IndependentTransform(tt.SigmoidTransform(), 1), "real"),
        "Compose": (lambda: tt.ComposeTransform([tt.AffineTransform(0.5, -2.0), tt.TanhTransform()]), "real"),
        "Compose of events": (
            lambda: tt.ComposeTransform(
                [tt.AffineTransform(0.5, 0.7), tt.IndependentTransform(tt.ExpTransform(), 1)]
            ),
            "real",
        ),
        "Cat": (
            lambda: tt.CatTransform([tt.ExpTransform(), tt.AffineTransform(1.0, 3.0)], dim=1, lengths=[2, 2]),
            "real",
        ),
        "Stack": (
            lambda: tt.StackTransform(
                [tt.ExpTransform(), tt.TanhTransform(), tt.AffineTransform(0.0, 2.0), tt.SigmoidTransform()],
                dim=1,
            ),
            "real",
        ),
        "Logit": (lambda: tt.SigmoidTransform().inv, "unit"),
        "Log": (lambda: tt.ExpTransform().inv, "positive"),
        "Atanh": (lambda: tt.TanhTransform().inv, "signed unit"),
        "Softplus inverted": (lambda: tt.SoftplusTransform().inv, "positive"),
        "Affine inverted": (lambda: tt.AffineTransform(1.0, -2.0).inv, "real"),
        "Quantile of normal": (lambda: tt.CumulativeDistributionTransform(td.Normal(0.0, 1.0)).inv, "unit"),
        "Compose inverted": (
            lambda: tt.ComposeTransform([tt.AffineTransform(0.5, -2.0), tt.SigmoidTransform()]).inv,
            "unit",
        ),
        "biject_to interval": (lambda: td.biject_to(td.constraints.interval(-1.0, 3.0)), "real"),
        "biject_to greater than": (lambda: td.biject_to(td.constraints.greater_than(1.0)), "real"),
        "biject_to less than": (lambda: td.biject_to(td.constraints.less_than(1.0)), "real"),
    }
    for name, (make, kind) in plain.items():
        yield "torch.distributions", name, make, kind, 0


def pyro():
    import pyro.distributions.transforms as pt
    from pyro.nn import AutoRegressiveNN, DenseNN

    made = lambda params=(1, 1), hidden=16: AutoRegressiveNN(D, [hidden], param_dims=list(params))
    plain = {
        "AffineAutoregressive": (lambda: pt.AffineAutoregressive(made()), "real"),
        "AffineAutoregressive stable": (lambda: pt.AffineAutoregressive(made(), stable=True), "real"),
        "affine_autoregressive": (lambda: pt.affine_autoregressive(D, hidden_dims=[16]), "real"),
        "AffineCoupling": (lambda: pt.AffineCoupling(2, DenseNN(2, [16], param_dims=[2, 2])), "real"),
        "AffineCoupling 1": (lambda: pt.AffineCoupling(1, DenseNN(1, [16], [3, 3])), "real"),
        "BatchNorm": (lambda: pt.BatchNorm(D), "real"),
        "BlockAutoregressive": (lambda: pt.BlockAutoregressive(D), "real"),
        "BlockAutoregressive residual": (lambda: pt.BlockAutoregressive(D, residual="normal"), "real"),
        "BlockAutoregressive gated": (lambda: pt.BlockAutoregressive(D, residual="gated"), "real"),
        "BlockAutoregressive sigmoid": (lambda: pt.BlockAutoregressive(D, activation="sigmoid"), "real"),
        "BlockAutoregressive ELU": (lambda: pt.BlockAutoregressive(D, activation="ELU"), "real"),
        "DiscreteCosine": (lambda: pt.DiscreteCosineTransform(), "real"),
        "DiscreteCosine smooth": (lambda: pt.DiscreteCosineTransform(smooth=1.0), "real"),
        "ELU": (lambda: pt.ELUTransform(), "real"),
        "LeakyReLU": (lambda: pt.LeakyReLUTransform(), "real"),
        "GeneralizedChannelPermute": (lambda: pt.GeneralizedChannelPermute(channels=2), "image"),
        "Haar": (lambda: pt.HaarTransform(), "real"),
        "Haar flipped": (lambda: pt.HaarTransform(flip=True), "real"),
        "Householder": (lambda: pt.Householder(D), "real"),
        "Householder 3": (lambda: pt.Householder(D, 3), "real"),
        "LowerCholeskyAffine": (
            lambda: pt.LowerCholeskyAffine(
                torch.ones(D), torch.eye(D) + 0.3 * torch.tril(torch.ones(D, D), -1)
            ),
            "real",
        ),
        "MatrixExponential": (lambda: pt.MatrixExponential(D), "real"),
        "NeuralAutoregressive": (lambda: pt.NeuralAutoregressive(made((8, 8, 8)), hidden_units=8), "real"),
        "NeuralAutoregressive ELU": (
            lambda: pt.NeuralAutoregressive(made((8, 8, 8)), hidden_units=8, activation="ELU"),
            "real",
        ),
        "Ordered": (lambda: pt.OrderedTransform(), "real"),
        "Permute": (lambda: pt.Permute(torch.tensor([2, 0, 3, 1])), "real"),
        "Planar": (lambda: pt.Planar(D), "real"),
        "Polynomial": (lambda: pt.polynomial(D, hidden_dims=[16]), "real"),
        "PositivePower": (lambda: pt.PositivePowerTransform(torch.tensor(2.0)), "positive"),
        "Radial": (lambda: pt.Radial(D), "real"),
        "SimplexToOrdered": (lambda: pt.SimplexToOrderedTransform(torch.tensor(0.5)), "simplex"),
        "Softplus": (lambda: pt.SoftplusTransform(), "real"),
        "Spline linear": (lambda: pt.Spline(D), "real"),
        "Spline quadratic": (lambda: pt.Spline(D, order="quadratic"), "real"),
        "SplineAutoregressive": (lambda: pt.spline_autoregressive(D, [16]), "real"),
        "SplineCoupling": (lambda: pt.spline_coupling(D, 2, [16]), "real"),
        "SplineCoupling quadratic": (
            lambda: pt.SplineCoupling(D, 2, DenseNN(2, [16], [16, 16, 14]), order="quadratic"),
            "real",
        ),
        "SplineCoupling identity": (
            lambda: pt.SplineCoupling(D, 2, DenseNN(2, [16], [16, 16, 14, 16]), identity=True),
            "real",
        ),
        "Sylvester": (lambda: pt.Sylvester(D, 2), "real"),
        "AffineAutoregressive inverted": (lambda: pt.AffineAutoregressive(made()).inv, "real"),
        "Compose": (
            lambda: pt.ComposeTransformModule(
                [pt.affine_coupling(D, hidden_dims=[16]), pt.affine_autoregressive(D, hidden_dims=[16])]
            ),
            "real",
        ),
    }
    for name, (make, kind) in plain.items():
        yield name, make, kind, 0
    conditional = {
        "conditional planar": lambda: pt.conditional_planar(D, 3, [16]),
        "conditional radial": lambda: pt.conditional_radial(D, 3, [16]),
        "conditional householder": lambda: pt.conditional_householder(
            D, 3, hidden_dims=[16], count_transforms=2
        ),
        "conditional affine coupling": lambda: pt.conditional_affine_coupling(D, 3, hidden_dims=[16]),
        "conditional affine autoregressive": lambda: pt.conditional_affine_autoregressive(D, 3, [16]),
        "conditional spline": lambda: pt.conditional_spline(D, 3, [16]),
        "conditional spline autoregressive": lambda: pt.conditional_spline_autoregressive(D, 3, [16]),
        "conditional matrix exponential": lambda: pt.conditional_matrix_exponential(D, 3, [16]),
        "conditional neural autoregressive": lambda: pt.conditional_neural_autoregressive(D, 3, [16]),
    }
    for name, make in conditional.items():
        yield name, make, "real", 3


def zuko():
    import zuko.flows as zf
    import zuko.transforms as zt

    normal = torch.randn
    plain = {
        "Identity": (lambda: zt.IdentityTransform(), "real"),
        "Cos": (lambda: zt.CosTransform(), "angle"),
        "Sin": (lambda: zt.SinTransform(), "signed unit"),
        "Softclip": (lambda: zt.SoftclipTransform(3.0), "real"),
        "SignedPower": (lambda: zt.SignedPowerTransform(normal(D)), "real"),
        "Additive": (lambda: zt.AdditiveTransform(normal(D)), "real"),
        "MonotonicAffine": (lambda: zt.MonotonicAffineTransform(normal(D), normal(D)), "real"),
        "MonotonicRQS": (lambda: zt.MonotonicRQSTransform(normal(D, 8), normal(D, 8), normal(D, 7)), "real"),
        "Bernstein": (lambda: zt.BernsteinTransform(normal(D, 9)), "real"),
        "BoundedBernstein": (lambda: zt.BoundedBernsteinTransform(normal(D, 9)), "real"),
        "Gaussianization": (lambda: zt.GaussianizationTransform(normal(D, 6), normal(D, 6)), "real"),
        "Monotonic": (lambda: zt.MonotonicTransform(lambda x: x + 0.5 * torch.tanh(2 * x)), "real"),
        "UnconstrainedMonotonic": (
            lambda: zt.UnconstrainedMonotonicTransform(lambda x: 0.5 + torch.sigmoid(x)),
            "real",
        ),
        "SOSPolynomial": (lambda: zt.SOSPolynomialTransform(normal(D, 3, 4)), "real"),
        "Permutation": (lambda: zt.PermutationTransform(torch.tensor([2, 0, 3, 1])), "real"),
        "Rotation": (lambda: zt.RotationTransform(normal(D, D)), "real"),
        "LULinear": (lambda: zt.LULinearTransform(normal(D, D)), "real"),
        "Dependent": (lambda: zt.DependentTransform(zt.SoftclipTransform(3.0), 1), "real"),
        "Composed": (
            lambda: zt.ComposedTransform(zt.RotationTransform(normal(D, D)), zt.SoftclipTransform(2.0)),
            "real",
        ),
        "Coupling": (
            lambda: zt.CouplingTransform(
                lambda x: zt.MonotonicAffineTransform(x[..., :2].sin(), x[..., :2].cos()),
                torch.tensor([True, False, True, False]),
            ),
            "real",
        ),
        "FreeFormJacobian": (
            lambda: zt.FreeFormJacobianTransform(
                lambda t, x: torch.tanh(x @ (torch.arange(16.0, dtype=x.dtype).reshape(4, 4) / 10).sin())
            ),
            "real",
        ),
        "Softclip inverted": (lambda: zt.SoftclipTransform(3.0).inv, "signed unit"),
        "MonotonicRQS inverted": (
            lambda: zt.MonotonicRQSTransform(normal(D, 8), normal(D, 8), normal(D, 7)).inv,
            "real",
        ),
    }
    for name, (make, kind) in plain.items():
        yield name, make, kind, 0
    small = {"hidden_features": [16]}
    for context in (0, 3):
        flows = {
            "NICE": lambda context=context: zf.NICE(D, context, transforms=2, **small),
            "MAF": lambda context=context: zf.MAF(D, context, transforms=2, **small),
            "RealNVP": lambda context=context: zf.RealNVP(D, context, transforms=2, **small),
            "NSF": lambda context=context: zf.NSF(D, context, transforms=1, **small),
            "SOSPF": lambda context=context: zf.SOSPF(D, context, transforms=1, **small),
            "BPF": lambda context=context: zf.BPF(D, context, transforms=1, **small),
            "GF": lambda context=context: zf.GF(D, context, transforms=1, **small),
        }
        for name, make in flows.items():
            yield name + (" with context" if context else ""), make, "real", context
    yield "NAF", lambda: zf.NAF(D, transforms=1, network={"hidden_features": [8]}, **small), "real", 0
    yield "UNAF", lambda: zf.UNAF(D, transforms=1, network={"hidden_features": [8]}, **small), "real", 0
    yield "NCSF", lambda: zf.NCSF(D, transforms=1, **small), "angle", 0
    yield "CNF", lambda: zf.CNF(D, **small), "real", 0


def nflows():
    import nflows.transforms as nt
    from nflows.nn.nets import ResidualNet
    from nflows.transforms.splines import rational_quadratic  # noqa: F401

    net = lambda inputs, outputs: ResidualNet(inputs, outputs, hidden_features=16, context_features=None)
    mask = torch.tensor([1.0, -1.0, 1.0, -1.0])
    spline = {"tails": "linear", "tail_bound": 3.0, "num_bins": 5}
    plain = {
        "MaskedAffineAutoregressive": (lambda: nt.MaskedAffineAutoregressiveTransform(D, 16), "real"),
        "MaskedPiecewiseLinearAutoregressive": (
            lambda: nt.MaskedPiecewiseLinearAutoregressiveTransform(5, D, 16),
            "unit",
        ),
        "MaskedPiecewiseQuadraticAutoregressive": (
            lambda: nt.MaskedPiecewiseQuadraticAutoregressiveTransform(D, 16, **spline),
            "real",
        ),
        "MaskedPiecewiseCubicAutoregressive": (
            lambda: nt.MaskedPiecewiseCubicAutoregressiveTransform(5, D, 16),
            "unit",
        ),
        "MaskedPiecewiseRationalQuadraticAutoregressive": (
            lambda: nt.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(D, 16, **spline),
            "real",
        ),
        "AdditiveCoupling": (lambda: nt.AdditiveCouplingTransform(mask, net), "real"),
        "AffineCoupling": (lambda: nt.AffineCouplingTransform(mask, net), "real"),
        "PiecewiseLinearCoupling": (lambda: nt.PiecewiseLinearCouplingTransform(mask, net, **spline), "real"),
        "PiecewiseQuadraticCoupling": (
            lambda: nt.PiecewiseQuadraticCouplingTransform(mask, net, **spline),
            "real",
        ),
        "PiecewiseCubicCoupling": (lambda: nt.PiecewiseCubicCouplingTransform(mask, net, **spline), "real"),
        "PiecewiseRationalQuadraticCoupling": (
            lambda: nt.PiecewiseRationalQuadraticCouplingTransform(mask, net, **spline),
            "real",
        ),
        "PiecewiseRationalQuadraticCoupling unconditional": (
            lambda: nt.PiecewiseRationalQuadraticCouplingTransform(
                mask, net, apply_unconditional_transform=True, **spline
            ),
            "real",
        ),
        "NaiveLinear": (lambda: nt.NaiveLinear(D), "real"),
        "NaiveLinear cached": (lambda: nt.NaiveLinear(D, using_cache=True), "real"),
        "LULinear": (lambda: nt.LULinear(D, identity_init=False), "real"),
        "LULinear cached": (lambda: nt.LULinear(D, using_cache=True), "real"),
        "QRLinear": (lambda: nt.QRLinear(D, 3), "real"),
        "SVDLinear": (lambda: nt.SVDLinear(D, 4), "real"),
        "Householder": (lambda: nt.HouseholderSequence(D, 3), "real"),
        "OneByOneConvolution": (lambda: nt.OneByOneConvolution(2), "image"),
        "LeakyReLU": (lambda: nt.LeakyReLU(), "real"),
        "LogTanh": (lambda: nt.LogTanh(), "real"),
        "Sigmoid": (lambda: nt.Sigmoid(), "real"),
        "Sigmoid learned": (lambda: nt.Sigmoid(temperature=2.0, learn_temperature=True), "real"),
        "Tanh": (lambda: nt.Tanh(), "real"),
        "Logit": (lambda: nt.Logit(), "unit"),
        "CauchyCDF": (lambda: nt.nonlinearities.CauchyCDF(), "real"),
        "CauchyCDFInverse": (lambda: nt.nonlinearities.CauchyCDFInverse(), "unit"),
        "CompositeCDF": (
            lambda: nt.CompositeCDFTransform(nt.Sigmoid(), nt.PiecewiseRationalQuadraticCDF([D], num_bins=5)),
            "real",
        ),
        "PiecewiseLinearCDF": (lambda: nt.PiecewiseLinearCDF([D]), "unit"),
        "PiecewiseLinearCDF tails": (lambda: nt.PiecewiseLinearCDF([D], **spline), "real"),
        "PiecewiseQuadraticCDF": (lambda: nt.PiecewiseQuadraticCDF([D]), "unit"),
        "PiecewiseQuadraticCDF tails": (lambda: nt.PiecewiseQuadraticCDF([D], **spline), "real"),
        "PiecewiseCubicCDF": (lambda: nt.PiecewiseCubicCDF([D]), "unit"),
        "PiecewiseCubicCDF tails": (lambda: nt.PiecewiseCubicCDF([D], **spline), "real"),
        "PiecewiseRationalQuadraticCDF": (lambda: nt.PiecewiseRationalQuadraticCDF([D]), "unit"),
        "PiecewiseRationalQuadraticCDF tails": (
            lambda: nt.PiecewiseRationalQuadraticCDF([D], **spline),
            "real",
        ),
        "BatchNorm": (lambda: nt.BatchNorm(D), "real"),
        "ActNorm": (lambda: nt.ActNorm(D), "real"),
        "ActNorm of images": (lambda: nt.ActNorm(2), "image"),
        "Permutation": (lambda: nt.RandomPermutation(D), "real"),
        "ReversePermutation": (lambda: nt.ReversePermutation(D), "real"),
        "Squeeze": (lambda: nt.SqueezeTransform(), "image"),
        "PointwiseAffine": (
            lambda: nt.PointwiseAffineTransform(torch.randn(D), torch.tensor([1.0, 2, 3, 0.5])),
            "real",
        ),
        "AffineScalar": (lambda: nt.AffineScalarTransform(1.0, 2.0), "real"),
        "Identity": (lambda: nt.IdentityTransform(), "real"),
        "Inverse": (lambda: nt.InverseTransform(nt.AffineCouplingTransform(mask, net)), "real"),
        "Composite": (
            lambda: nt.CompositeTransform(
                [
                    nt.ActNorm(D),
                    nt.LULinear(D),
                    nt.AffineCouplingTransform(mask, net),
                    nt.ReversePermutation(D),
                ]
            ),
            "real",
        ),
    }
    for name, (make, kind) in plain.items():
        yield name, make, kind, 0
    yield (
        "MaskedAffineAutoregressive with context",
        lambda: nt.MaskedAffineAutoregressiveTransform(D, 16, context_features=3),
        "real",
        3,
    )
    yield (
        "MaskedPiecewiseRationalQuadraticAutoregressive with context",
        lambda: nt.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            D, 16, context_features=3, **spline
        ),
        "real",
        3,
    )
    yield "GatedLinearUnit", lambda: nt.GatedLinearUnit(), "real", D


def normflows():
    import normflows as nf

    b = torch.tensor([1.0, 0, 1, 0])
    small = nf.nets.MLP
    plain = {
        "AffineConst": (lambda: nf.flows.AffineConstFlow((D,)), "real"),
        "AffineCouplingBlock": (lambda: nf.flows.AffineCouplingBlock(small([2, 16, 4])), "real"),
        "AffineCouplingBlock sigmoid": (
            lambda: nf.flows.AffineCouplingBlock(small([2, 16, 4]), scale_map="sigmoid"),
            "real",
        ),
        "AffineCouplingBlock sigmoid_inv": (
            lambda: nf.flows.AffineCouplingBlock(small([2, 16, 4]), scale_map="sigmoid_inv"),
            "real",
        ),
        "AffineCouplingBlock additive": (
            lambda: nf.flows.AffineCouplingBlock(small([2, 16, 2]), scale=False),
            "real",
        ),
        "MaskedAffine": (lambda: nf.flows.MaskedAffineFlow(b, small([D, 16, D]), small([D, 16, D])), "real"),
        "GlowBlock": (lambda: nf.flows.GlowBlock(2, 8), "image"),
        "GlowBlock exp": (lambda: nf.flows.GlowBlock(2, 8, scale_map="exp"), "image"),
        "GlowBlock without LU": (lambda: nf.flows.GlowBlock(2, 8, use_lu=False), "image"),
        "Permute shuffle": (lambda: nf.flows.Permute(D), "real"),
        "Permute swap": (lambda: nf.flows.Permute(D, mode="swap"), "real"),
        "Invertible1x1Conv": (lambda: nf.flows.Invertible1x1Conv(2), "image"),
        "Invertible1x1Conv LU": (lambda: nf.flows.Invertible1x1Conv(2, use_lu=True), "image"),
        "InvertibleAffine": (lambda: nf.flows.InvertibleAffine(D), "real"),
        "InvertibleAffine without LU": (lambda: nf.flows.InvertibleAffine(D, use_lu=False), "real"),
        "LULinearPermute": (lambda: nf.flows.LULinearPermute(D), "real"),
        "ActNorm": (lambda: nf.flows.ActNorm((D,)), "real"),
        "ActNorm of images": (lambda: nf.flows.ActNorm((2, 1, 1)), "image"),
        "BatchNorm": (lambda: nf.flows.BatchNorm(), "real"),
        "PeriodicShift": (lambda: nf.flows.PeriodicShift([0, 2], bound=3.0, shift=0.3), "signed unit"),
        "Planar": (lambda: nf.flows.Planar((D,)), "real"),
        "Planar leaky": (lambda: nf.flows.Planar((D,), act="leaky_relu"), "real"),
        "Radial": (lambda: nf.flows.Radial((D,)), "real"),
        "Squeeze": (lambda: nf.flows.Squeeze(), "image 8"),
        "MaskedAffineAutoregressive": (lambda: nf.flows.MaskedAffineAutoregressive(D, 16), "real"),
        "CoupledRationalQuadraticSpline": (lambda: nf.flows.CoupledRationalQuadraticSpline(D, 1, 16), "real"),
        "CircularCoupledRationalQuadraticSpline": (
            lambda: nf.flows.CircularCoupledRationalQuadraticSpline(D, 1, 16, [0, 1], tail_bound=3.0),
            "real",
        ),
        "AutoregressiveRationalQuadraticSpline": (
            lambda: nf.flows.AutoregressiveRationalQuadraticSpline(D, 1, 16),
            "real",
        ),
        "CircularAutoregressiveRationalQuadraticSpline": (
            lambda: nf.flows.CircularAutoregressiveRationalQuadraticSpline(D, 1, 16, [0, 1], tail_bound=3.0),
            "real",
        ),
        "CircularCoupledRationalQuadraticSpline within bounds": (
            lambda: nf.flows.CircularCoupledRationalQuadraticSpline(D, 1, 16, [0, 1], tail_bound=3.0),
            "signed unit",
        ),
        "CircularAutoregressiveRationalQuadraticSpline within bounds": (
            lambda: nf.flows.CircularAutoregressiveRationalQuadraticSpline(D, 1, 16, [0, 1], tail_bound=3.0),
            "signed unit",
        ),
        "Reverse": (lambda: nf.flows.Reverse(nf.flows.AffineConstFlow((D,))), "real"),
        "Composite": (
            lambda: nf.flows.Composite([nf.flows.AffineConstFlow((D,)), nf.flows.LULinearPermute(D)]),
            "real",
        ),
        "NormalizingFlow": (
            lambda: nf.NormalizingFlow(
                nf.distributions.DiagGaussian(D),
                [nf.flows.AffineConstFlow((D,)), nf.flows.AffineCouplingBlock(small([2, 16, 4]))],
            ),
            "real",
        ),
        "Residual": (
            lambda: nf.flows.Residual(
                nf.nets.LipschitzMLP([D, 16, D], init_zeros=False, lipschitz_const=0.7),
                reduce_memory=False,
                brute_force=True,
            ),
            "real",
        ),
    }
    for name, (make, kind) in plain.items():
        yield name, make, kind, 0


def freia():
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    net = lambda inputs, outputs: mlp(inputs, outputs)
    conv = lambda inputs, outputs: nn.Sequential(
        nn.Conv2d(inputs, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, outputs, 1)
    )
    event, image = [(D,)], [(2, 4, 4)]

    def sequence():
        made = ff.SequenceINN(D)
        for _ in range(2):
            made.append(fm.AllInOneBlock, subnet_constructor=net, permute_soft=True)
        return made

    def graph():
        nodes = [ff.InputNode(D)]
        nodes.append(ff.Node(nodes[-1], fm.RNVPCouplingBlock, {"subnet_constructor": net}))
        nodes.append(ff.Node(nodes[-1], fm.PermuteRandom, {"seed": 0}))
        nodes.append(ff.OutputNode(nodes[-1]))
        return ff.GraphINN(nodes)

    matrix = lambda: torch.eye(D) + 0.3 * torch.randn(D, D)
    plain = {
        "AllInOneBlock": (lambda: fm.AllInOneBlock(event, subnet_constructor=net), "real"),
        "AllInOneBlock soft": (
            lambda: fm.AllInOneBlock(event, subnet_constructor=net, permute_soft=True),
            "real",
        ),
        "AllInOneBlock GIN": (
            lambda: fm.AllInOneBlock(event, subnet_constructor=net, gin_block=True),
            "real",
        ),
        "AllInOneBlock exp": (
            lambda: fm.AllInOneBlock(event, subnet_constructor=net, global_affine_type="EXP"),
            "real",
        ),
        "AllInOneBlock learned": (
            lambda: fm.AllInOneBlock(event, subnet_constructor=net, learned_householder_permutation=2),
            "real",
        ),
        "AllInOneBlock reversed": (
            lambda: fm.AllInOneBlock(event, subnet_constructor=net, reverse_permutation=True),
            "real",
        ),
        "AllInOneBlock of images": (lambda: fm.AllInOneBlock(image, subnet_constructor=conv), "image"),
        "NICECouplingBlock": (lambda: fm.NICECouplingBlock(event, subnet_constructor=net), "real"),
        "RNVPCouplingBlock": (lambda: fm.RNVPCouplingBlock(event, subnet_constructor=net), "real"),
        "RNVPCouplingBlock tanh": (
            lambda: fm.RNVPCouplingBlock(event, subnet_constructor=net, clamp_activation="TANH"),
            "real",
        ),
        "GLOWCouplingBlock": (lambda: fm.GLOWCouplingBlock(event, subnet_constructor=net), "real"),
        "GLOWCouplingBlock of images": (
            lambda: fm.GLOWCouplingBlock(image, subnet_constructor=conv),
            "image",
        ),
        "GINCouplingBlock": (lambda: fm.GINCouplingBlock(event, subnet_constructor=net), "real"),
        "AffineCouplingOneSided": (lambda: fm.AffineCouplingOneSided(event, subnet_constructor=net), "real"),
        "PermuteRandom": (lambda: fm.PermuteRandom(event, seed=0), "real"),
        "FixedLinearTransform": (lambda: fm.FixedLinearTransform(event, M=matrix(), b=torch.ones(D)), "real"),
        "Fixed1x1Conv": (lambda: fm.Fixed1x1Conv([(4, 2, 2)], M=matrix()), "image 4"),
        "InvertibleSigmoid": (lambda: fm.InvertibleSigmoid(event), "real"),
        "InvAutoActTwoSided": (lambda: fm.InvAutoActTwoSided(event), "real"),
        "InvAutoAct": (lambda: fm.InvAutoAct(event), "real"),
        "InvAutoActFixed": (lambda: fm.InvAutoActFixed(event), "real"),
        "LearnedElementwiseScaling": (lambda: fm.LearnedElementwiseScaling(event), "real"),
        "InvAutoFC": (lambda: fm.InvAutoFC(event), "real"),
        "ActNorm": (lambda: fm.ActNorm(event), "real"),
        "ActNorm of images": (lambda: fm.ActNorm(image), "image"),
        "OrthogonalTransform": (lambda: fm.OrthogonalTransform(event), "real"),
        "HouseholderPerm": (lambda: fm.HouseholderPerm(event, n_reflections=2), "real"),
        "HouseholderPerm fixed": (lambda: fm.HouseholderPerm(event, n_reflections=2, fixed=True), "real"),
        "IRevNetDownsampling": (lambda: fm.IRevNetDownsampling(image), "image"),
        "IRevNetUpsampling": (lambda: fm.IRevNetUpsampling([(8, 2, 2)]), "image 8"),
        "HaarDownsampling": (lambda: fm.HaarDownsampling(image), "image"),
        "HaarDownsampling rebalanced": (lambda: fm.HaarDownsampling(image, rebalance=2.0), "image"),
        "HaarDownsampling by wavelet": (lambda: fm.HaarDownsampling(image, order_by_wavelet=True), "image"),
        "HaarUpsampling": (lambda: fm.HaarUpsampling([(8, 2, 2)]), "image 8"),
        "Flatten": (lambda: fm.Flatten(image), "image"),
        "Reshape": (lambda: fm.Reshape(image, output_dims=(4, 8)), "image"),
        "SequenceINN": (sequence, "real"),
        "GraphINN": (graph, "real"),
    }
    for name, (make, kind) in plain.items():
        yield name, make, kind, 0
    with_context = [(3,)]
    for block in (
        "RNVPCouplingBlock",
        "GLOWCouplingBlock",
        "AffineCouplingOneSided",
        "ConditionalAffineTransform",
    ):
        make = lambda block=block: getattr(fm, block)(event, with_context, subnet_constructor=net)
        yield f"{block} with context", make, "real", 3


# ---------------------------------------------------------------- the truth


def evaluated(library, transform, x, context, direction):
    """The array and the log-det of a direction, as each library's documentation says to call it."""
    given = () if context is None else (context,)
    if library == "FrEIA":
        plain = not hasattr(transform, "module_list")
        y, log_det = transform((x,) if plain else x, *([given] if given else []), rev=direction == "inverse")
        return (y[0] if plain else y), log_det
    if library == "nflows" or (library == "normflows" and not hasattr(transform, "forward_and_log_det")):
        return getattr(transform, direction)(x, *given)
    if library == "normflows":
        return getattr(transform, f"{direction}_and_log_det")(x, *given)
    if hasattr(transform, "condition"):
        transform = transform.condition(context)
    elif isinstance(transform, nn.Module) and not hasattr(transform, "log_abs_det_jacobian"):
        transform = transform(*given).transform
    if direction == "forward":
        y = transform(x)
        return y, transform.log_abs_det_jacobian(x.clone(), y.clone())
    y = transform.inv(x)
    return y, -transform.log_abs_det_jacobian(y.clone(), x.clone())


class Truth:
    """A transform in float64 or float32, called with arrays of NumPy, its parameters as they are or moved."""

    def __init__(self, library, make, move, rng, dtype):
        self.library, self.dtype = library, getattr(torch, dtype)
        torch.set_default_dtype(self.dtype)
        self.transform = transform = make()
        if isinstance(transform, nn.Module):
            self.transform = transform.to(self.dtype).eval()
            if move:
                for parameter in transform.parameters():
                    if parameter.requires_grad:
                        noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape))).to(self.dtype)
                        parameter.data += (
                            0.3 * noise / max(1, parameter[0].numel() if parameter.ndim > 1 else 1) ** 0.5
                        )

    swapped, fits = False, True

    def call(self, direction, x, context):
        if self.swapped:
            direction = {"forward": "inverse", "inverse": "forward"}[direction]
        torch.set_default_dtype(self.dtype)
        try:
            return self._call(direction, x, context)
        finally:
            torch.set_default_dtype(torch.float32)

    def _call(self, direction, x, context):
        x, context = torch.from_numpy(x), None if context is None else torch.from_numpy(context)
        y, log_det = evaluated(self.library, self.transform, x, context, direction)
        n = len(x)
        log_det = torch.as_tensor(log_det, dtype=None if isinstance(log_det, torch.Tensor) else x.dtype)
        kind = str(log_det.dtype).split(".")[1]
        if log_det.shape == x.shape[1:] and log_det.shape != (n,):
            log_det = log_det.expand(x.shape)
        self.fits &= log_det.numel() == 1 or log_det.shape[:1] == (n,)
        log_det = log_det.expand(n) if log_det.numel() == 1 else log_det.reshape(n, -1).sum(1)
        return y.detach().numpy(), log_det.detach().numpy(), kind

    def jacobian(self, x, context):
        """PyTorch's own Jacobian, one row at a time."""
        torch.set_default_dtype(self.dtype)
        found, way = [], "inverse" if self.swapped else "forward"
        for row in range(len(x)):
            one = None if context is None else torch.from_numpy(context[row : row + 1])
            forward = lambda x, one=one: evaluated(self.library, self.transform, x.clone(), one, way)[0]
            rows = torch.from_numpy(x[row : row + 1])
            matrix = torch.autograd.functional.jacobian(forward, rows)
            found.append(matrix.reshape(-1, rows.numel()).numpy())
        torch.set_default_dtype(torch.float32)
        return np.stack(found)


def moves(library):
    """Whether transforms of a library have parameters that are trained."""
    return library != "torch.distributions"


def check(transform, x, context, dtype, name):
    from npflow.verify.torch import check_torch

    return check_torch(
        transform, x.astype(dtype), context=None if context is None else context.astype(dtype), name=name
    )


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 (permutations of FrEIA are drawn by it)
