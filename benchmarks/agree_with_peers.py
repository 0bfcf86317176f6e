"""The same numbers as other libraries: layers of npflow beside those of nflows, normflows and zuko.

Parameters are drawn once and copied. Both directions of both layers must then give the same outputs and
log-dets for the same rows. Where a peer turns a network's output into a scale or a slope by another function,
an extra last step of its network inverts that function. Everything else is compared: the order of components,
masks, splines, determinants.

    pip install -e '.[benchmarks]'
    python benchmarks/agree_with_peers.py

A difference is relative to the peer's value, or absolute if that is below 1. The largest one of each column
must be at most 1e-12 in float64, which shows that the formulas are the same and not only similar, and 1e-6 in
float32. For splines it is 1e-5 in float32. Their knots in [-5, 5] have rounding errors up to 2.4e-7, which
the shares of bins and the slopes multiply several times. nflows and zuko differ as much from each other, and
from their own float64. Each peer is optional and left out if it is not installed.
"""

import argparse
import importlib.util
import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from npflow.autodiff import tree
from npflow.layers import (
    AffineCoupling,
    Conv1x1,
    MaskedAutoregressive,
    ScaleShift,
    Spline,
    SplineCoupling,
)
from npflow.layers.spline import LEAST, ONE, STEEPEST
from npflow.networks import MADE, MLP

ROWS, FEATURES = 64, 6
HIDDEN = 6 * (FEATURES - 1)  # as many units of each degree in all libraries
KEPT = np.arange(FEATURES) < FEATURES // 2
SPLINE = Spline(bins=8, bound=5.0)
BARS, SPLINE_BARS = {"float32": 1e-6, "float64": 1e-12}, {"float32": 1e-5, "float64": 1e-12}
COLUMNS = ("z", "log-det", "x", "log-det of inverse")

# ---------------------------------------------------------------- cases: a layer, its parameters and rows


def case(layer, rng, dtype):
    """Rows, and parameters away from the start, where the layer is the identity."""
    x = rng.standard_normal((ROWS, FEATURES)).astype(dtype)
    move = lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape)
    params = tree.build(
        lambda _, leaf: move(leaf).astype(dtype) if tree.is_trained(leaf) else leaf, layer.init(rng, x)
    )
    return params, x


def conditioned(layer, rng, dtype):
    """A coupling or an autoregressive layer."""
    params, x = case(layer, rng, dtype)
    last = params[-1]
    last["weight"] *= np.asarray(0.1, dtype)
    if isinstance(layer.transformer, ScaleShift):
        # Scales below 1, as a sigmoid's in nflows and normflows are.
        last["bias"][: len(last["bias"]) // 2] -= 1
    return params, x


def positive(layer, rng, dtype):
    """A 1x1 convolution with a positive diagonal, as in nflows: some columns of W change their sign."""
    params, x = case(layer, rng, dtype)
    params["upper"] *= params["sign"]
    params["sign"] **= 2
    return params, x


# ---------------------------------------------------------------- outputs of the peers' networks
#
# `numbers` is the output of npflow's network, one array (rows, components) for each number of a component.


def log_scale_and_shift(numbers):
    """The log-scale and shift of `ScaleShift`."""
    raw, shift = numbers
    return 2 * (raw / 2).tanh(), shift


def softplus_scale(numbers):
    """nflows' autoregressive layer: scale = softplus(u) + 0.001, and the shift, component by component."""
    log_scale, shift = log_scale_and_shift(numbers)
    return component_by_component([(log_scale.exp() - 1e-3).expm1().log(), shift])


def sigmoid_scale(numbers):
    """normflows' autoregressive layer: scale = sigmoid(u + 2) + 0.001 and shift, component by component."""
    log_scale, shift = log_scale_and_shift(numbers)
    return component_by_component([sigmoid_argument(log_scale), shift])


def shifts_and_sigmoid_scales(numbers):
    """nflows' coupling: all shifts, then u of all scales = sigmoid(u + 2) + 0.001."""
    import torch

    log_scale, shift = log_scale_and_shift(numbers)
    return torch.cat([shift, sigmoid_argument(log_scale)], dim=1)


def sigmoid_argument(log_scale):
    """u of scale = sigmoid(u + 2) + 0.001."""
    return (log_scale.exp() - 1e-3).logit() - 2


def shift_and_log_scale(numbers):
    """normflows' coupling: shift and log-scale, component by component."""
    log_scale, shift = log_scale_and_shift(numbers)
    return component_by_component([shift, log_scale])


def spline_numbers(numbers):
    """nflows and normflows: widths, heights and unbounded slopes, component by component."""
    bins = SPLINE.bins
    slopes = [STEEPEST * (raw / STEEPEST).tanh() + ONE for raw in numbers[2 * bins :]]
    return component_by_component([*numbers[: 2 * bins], *slopes])


def component_by_component(numbers):
    """All numbers of the first component, then of the second."""
    import torch

    return torch.stack(numbers, dim=2).flatten(1)


def zuko_affine(numbers):
    """zuko: log_scale = u / (1 + |u / log 0.001|)."""
    from zuko.transforms import DependentTransform, MonotonicAffineTransform

    log_scale, shift = log_scale_and_shift(numbers)
    return DependentTransform(MonotonicAffineTransform(shift, unclipped(log_scale)), 1)


def zuko_spline(numbers):
    """zuko: bins by softmax(u / (1 + |2 u / log 0.001|)), log-slopes as its log-scales."""
    import torch
    from zuko.transforms import DependentTransform, MonotonicRQSTransform

    bins = SPLINE.bins

    def shares(raw):
        logs = (LEAST + (1 - bins * LEAST) * torch.stack(raw, dim=2).softmax(dim=2)).log()
        return unclipped(2 * (logs - logs.mean(dim=2, keepdim=True))) / 2

    raw = torch.stack(numbers[2 * bins :], dim=2)
    slopes = LEAST + torch.nn.functional.softplus(STEEPEST * (raw / STEEPEST).tanh() + ONE)
    widths, heights = shares(numbers[:bins]), shares(numbers[bins : 2 * bins])
    return DependentTransform(
        MonotonicRQSTransform(widths, heights, unclipped(slopes.log()), bound=SPLINE.bound), 1
    )


def unclipped(value):
    """u of value = u / (1 + |u / log 0.001|)."""
    return value / (1 + abs(value) / np.log(1e-3))


# ---------------------------------------------------------------- networks of PyTorch's with npflow's weights


def as_module(function):
    """A function as a `torch.nn.Module`."""
    import torch

    module = torch.nn.Module()
    module.forward = function
    return module


def set_weights(linear, layer, inputs=slice(None), outputs=slice(None)):
    """Copy the weights of a dense layer to the units `inputs` and `outputs` of a Linear."""
    import torch

    weight, bias = np.empty_like(layer["weight"].T), np.empty_like(layer["bias"])
    weight[np.ix_(np.arange(len(bias))[outputs], np.arange(weight.shape[1])[inputs])] = layer["weight"].T
    bias[outputs] = layer["bias"]
    linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)


def mlp(params, numbers_of_each, last):
    """An `MLP`, followed by `last` on its numbers."""
    import torch

    modules = []
    for layer in params:
        linear = torch.nn.Linear(*layer["weight"].shape)
        set_weights(linear, layer)
        modules += [linear, torch.nn.LeakyReLU()]
    network = torch.nn.Sequential(*modules[:-1])
    return lambda x, context=None: last(network(x).unflatten(1, (numbers_of_each, -1)).unbind(1))


def made(network, linears, params, numbers_of_each, last):
    """A peer's MADE, followed by `last` on its numbers.

    The peers give the hidden units the degrees 1, 2, ..., D - 1, 1, 2, ... in turn; npflow sorts them. The
    peers put the outputs of a component side by side; npflow puts the first output of all components first.
    """
    in_turns = np.argsort(np.arange(HIDDEN) % (FEATURES - 1), kind="stable")
    side_by_side = np.arange(numbers_of_each * FEATURES).reshape(FEATURES, numbers_of_each).T.ravel()
    places = [slice(None), in_turns, in_turns, side_by_side]
    for linear, layer, inputs, outputs in zip(linears, params, places, places[1:], strict=False):
        set_weights(linear, layer, inputs, outputs)
    return lambda x, context=None: last(network(x).unflatten(1, (-1, numbers_of_each)).unbind(2))


# ---------------------------------------------------------------- the peers' layers: forward and inverse


def coupling_nflows(layer, params):
    import nflows.transforms as nf
    import torch

    spline = isinstance(layer.transformer, Spline)
    network = mlp(params, layer.transformer.numbers, spline_numbers if spline else shifts_and_sigmoid_scales)
    create, mask = lambda inputs, outputs: as_module(network), torch.tensor(~KEPT)
    if spline:
        options = {"num_bins": SPLINE.bins, "tails": "linear", "tail_bound": SPLINE.bound}
        transform = nf.PiecewiseRationalQuadraticCouplingTransform(mask, create, **options)
    else:
        transform = nf.AffineCouplingTransform(mask, create)
    return transform.forward, transform.inverse


def coupling_normflows(layer, params):
    import normflows
    import torch
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    spline = isinstance(layer.transformer, Spline)
    network = mlp(params, layer.transformer.numbers, spline_numbers if spline else shift_and_log_scale)
    if spline:
        create, mask = lambda inputs, outputs: as_module(network), torch.tensor(~KEPT)
        options = {"num_bins": SPLINE.bins, "tails": "linear", "tail_bound": SPLINE.bound}
        flow = PiecewiseRationalQuadraticCoupling(mask, create, **options)
    else:
        flow = normflows.flows.AffineCouplingBlock(as_module(network), scale_map="exp")
    return flow.forward, flow.inverse


def coupling_zuko(layer, params):
    import torch
    from zuko.transforms import CouplingTransform

    last = zuko_spline if isinstance(layer.transformer, Spline) else zuko_affine
    network = mlp(params, layer.transformer.numbers, last)
    transform = CouplingTransform(network, torch.tensor(KEPT))
    return transform.call_and_ladj, transform.inv.call_and_ladj


def autoregressive_nflows(layer, params):
    import nflows.transforms as nf

    return with_made(
        nf.MaskedAffineAutoregressiveTransform,
        nf.MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        softplus_scale,
        layer,
        params,
    )


def autoregressive_normflows(layer, params):
    import normflows.flows as nf
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive

    return with_made(
        nf.MaskedAffineAutoregressive,
        MaskedPiecewiseRationalQuadraticAutoregressive,
        sigmoid_scale,
        layer,
        params,
        first_activation=True,
    )


def with_made(affine, spline, affine_numbers, layer, params, first_activation=False):
    """The autoregressive layers of nflows and of normflows; the latter's lacks the first activation."""
    import torch
    from torch.nn.functional import leaky_relu

    options = {"num_blocks": 1, "use_residual_blocks": False, "activation": leaky_relu}
    if isinstance(layer.transformer, Spline):
        options |= {"num_bins": SPLINE.bins, "tails": "linear", "tail_bound": SPLINE.bound}
        transform, last = spline(FEATURES, HIDDEN, **options), spline_numbers
    else:
        transform, last = affine(FEATURES, HIDDEN, **options), affine_numbers
    net = transform.autoregressive_net
    linears = [net.initial_layer, net.blocks[0].linear, net.final_layer]
    if first_activation:
        net.initial_layer = torch.nn.Sequential(net.initial_layer, torch.nn.LeakyReLU())
    transform.autoregressive_net = as_module(made(net, linears, params, layer.transformer.numbers, last))
    return transform.forward, transform.inverse


def autoregressive_zuko(layer, params):
    import torch
    from zuko.nn import MaskedMLP
    from zuko.transforms import AutoregressiveTransform

    last = zuko_spline if isinstance(layer.transformer, Spline) else zuko_affine
    numbers = layer.transformer.numbers
    before = torch.ones(FEATURES, FEATURES).tril(-1).bool()
    net = MaskedMLP(before.repeat_interleave(numbers, dim=0), (HIDDEN, HIDDEN), torch.nn.LeakyReLU)
    transform = AutoregressiveTransform(made(net, list(net)[::2], params, numbers, last), passes=FEATURES)
    return transform.call_and_ladj, transform.inv.call_and_ladj


def linear_normflows(layer, params):
    """The same parametrization; its `inverse` is the normalizing direction."""
    import normflows
    import torch

    flow = normflows.flows.InvertibleAffine(FEATURES)
    flow.P = torch.tensor(np.eye(FEATURES, dtype=params["lower"].dtype)[params["permutation"]])
    flow.L.data, flow.U.data = torch.tensor(params["lower"]), torch.tensor(params["upper"])
    flow.log_S.data, flow.sign_S = torch.tensor(params["log_scale"]), torch.tensor(params["sign"])
    flow.eye = torch.eye(FEATURES, dtype=flow.log_S.dtype)
    return flow.inverse, flow.forward


def linear_nflows(layer, params):
    r"""nflows has columns, so L and U change places: x U^T L^T, the diagonal with U.

    L U = (L diag(s)) (diag(1/s) U): the first factor is nflows' U^T, the second its L^T.
    """
    import torch
    from nflows.transforms import CompositeTransform, LULinear, Permutation

    lower, upper = layer.triangles(params)
    s = np.exp(params["log_scale"])
    peer = LULinear(FEATURES)
    below, above = np.tril_indices(FEATURES, -1), np.triu_indices(FEATURES, 1)
    peer.lower_entries.data = torch.tensor((upper / s[:, None]).T[below])
    peer.upper_entries.data = torch.tensor((lower * s).T[above])
    peer.unconstrained_upper_diag.data = torch.tensor(np.log(np.expm1(s - peer.eps)).astype(s.dtype))
    peer.bias.data = peer.bias.data.to(peer.lower_entries.dtype)
    # x P: entry i goes to place permutation[i].
    transform = CompositeTransform([Permutation(torch.tensor(np.argsort(params["permutation"]))), peer])
    return transform.forward, transform.inverse


# ---------------------------------------------------------------- the comparison

COUPLINGS = {"nflows": coupling_nflows, "normflows": coupling_normflows, "zuko": coupling_zuko}
AUTOREGRESSIVE = {
    "nflows": autoregressive_nflows,
    "normflows": autoregressive_normflows,
    "zuko": autoregressive_zuko,
}
MASKED = MADE((HIDDEN, HIDDEN))
COMPARISONS = [
    (AffineCoupling(MLP((32, 32))), conditioned, COUPLINGS),
    (SplineCoupling(MLP((32, 32)), transformer=SPLINE), conditioned, COUPLINGS),
    (MaskedAutoregressive(MASKED), conditioned, AUTOREGRESSIVE),
    (MaskedAutoregressive(MASKED, SPLINE), conditioned, AUTOREGRESSIVE),
    (Conv1x1(), positive, {"nflows": linear_nflows, "normflows": linear_normflows}),
]


def difference(ours, theirs):
    """The largest difference: relative to theirs, absolute below 1."""
    return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)))


def both_ways(forward, inverse, x, z):
    """z and log-det of x, and x and log-det of z."""
    return [*forward(x), *inverse(z)]


def compare(layer, make, peer, dtype):
    """The differences of a layer and a peer's, one for each of `COLUMNS`, and whether they are small."""
    import torch

    params, x = make(layer, np.random.default_rng(0), dtype)
    z, _ = layer.forward(params, x)
    ours = both_ways(partial(layer.forward, params), partial(layer.inverse, params), x, z)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers call deprecated functions of PyTorch
        theirs = both_ways(*peer(layer, params), torch.tensor(x), torch.tensor(z))
    theirs = [each.numpy() for each in theirs]
    if any(each.dtype != x.dtype for each in theirs):
        raise SystemExit(f"expected the peer's arrays in {x.dtype}, got {[each.dtype for each in theirs]}")
    differences = list(map(difference, ours, theirs))
    bars = SPLINE_BARS if isinstance(getattr(layer, "transformer", None), Spline) else BARS
    return {"agrees": all(found <= bars[dtype] for found in differences), **dict(zip(COLUMNS, differences))}


def name_of(layer):
    """A layer's name, with that of its transformer."""
    transformer = f", {type(layer.transformer).__name__}" if isinstance(layer, MaskedAutoregressive) else ""
    return type(layer).__name__ + transformer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/agree_with_peers.json"))
    options = parser.parse_args()

    peers = sorted({name for _, _, constructors in COMPARISONS for name in constructors})
    missing = [name for name in ("torch", *peers) if importlib.util.find_spec(name) is None]
    if missing:
        print(f"left out, not installed: {', '.join(missing)} (pip install -e '.[benchmarks]')")
    if "torch" in missing or len(missing) == len(peers):
        raise SystemExit("there is nothing to compare with")

    results = []
    print(f"\n{'layer':34}{'peer':11}{'dtype':9}" + "".join(f"{column:>20}" for column in COLUMNS))
    for layer, make, constructors in COMPARISONS:
        for peer in [name for name in constructors if name not in missing]:
            for dtype in BARS:
                result = compare(layer, make, constructors[peer], dtype)
                row = {"layer": name_of(layer), "peer": peer, "dtype": dtype, **result}
                results.append(row)
                figures = "".join(f"{row[column]:20.1e}" for column in COLUMNS)
                verdict = "" if row["agrees"] else "  FAILED"
                print(f"{row['layer']:34}{peer:11}{dtype:9}{figures}{verdict}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))
    print(f"\nwritten to {options.out}")
    if not all(result["agrees"] for result in results):
        raise SystemExit(
            f"some differences are too large: at most {BARS} are allowed, with splines {SPLINE_BARS}"
        )


if __name__ == "__main__":
    main()
