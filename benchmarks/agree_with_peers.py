"""The same numbers as other libraries: layers of npflow beside those of nflows, normflows and zuko.

Parameters are drawn once and copied over; then both directions of both layers have to give the same outputs and
log-dets, for the same rows. What is compared is the layer: where a peer bounds its scale by another function, it is
given a network whose last step turns npflow's scale into that function's argument.

    pip install -e '.[benchmarks]'
    python benchmarks/agree_with_peers.py

A difference is relative to the peer's value, or absolute where that is below 1. The largest one of each column has to
stay within 1e-6 in float32, and in float64 within 1e-12, which says that it is the same formula and not one nearby.
Each peer is optional; what is not installed is left out, with a word.
"""

import argparse
import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np

from npflow.autodiff import tree
from npflow.layers import AffineCoupling, Conv1x1
from npflow.networks import MLP

ROWS, FEATURES = 64, 6
BARS = {"float32": 1e-6, "float64": 1e-12}
COLUMNS = ("z", "log-det", "x", "log-det of inverse")


def moved(layer, rng, x, scale=0.2):
    """Parameters away from where the layer starts, where a coupling is the identity and proves nothing."""
    noise = lambda leaf: scale * rng.standard_normal(leaf.shape)
    move = lambda _, leaf: (leaf + noise(leaf)).astype(leaf.dtype) if tree.is_trained(leaf) else leaf
    return tree.build(move, layer.init(rng, x))


def copied(dense, activation, last=None):
    """A network of PyTorch's with the weights of an npflow MLP, and then the function `last`."""
    import torch

    modules = []
    for layer in dense:
        linear = torch.nn.Linear(*layer["weight"].shape)
        linear.weight.data = torch.tensor(layer["weight"].T.copy())
        linear.bias.data = torch.tensor(layer["bias"])
        modules += [linear, activation()]
    network = torch.nn.Sequential(*modules[:-1])
    return network if last is None else lambda x, context=None: last(network(x))


class Module:
    """A function where a peer wants a `torch.nn.Module`."""

    def __new__(cls, function):
        import torch

        module = torch.nn.Module()
        module.forward = function
        return module


# ---------------------------------------------------------------- affine coupling


def coupling(rng, dtype):
    """The layer, its parameters and the rows."""
    layer = AffineCoupling(MLP((32, 32)))
    x = rng.standard_normal((ROWS, FEATURES)).astype(dtype)
    params = moved(layer, rng, x)
    # A scale of nflows' lies in (0.001, 1.001): with raw around -1, so does npflow's. The others can do any.
    params[-1]["weight"] *= np.asarray(0.3, dtype)
    params[-1]["bias"][: FEATURES // 2] -= 1
    return layer, params, x


def scale_and_shift(last):
    """npflow's log_scale and shift from a network's output, to be handed on by `last`."""
    import torch

    def hand_on(output):
        raw, shift = output.chunk(2, dim=1)
        return last(2 * torch.tanh(raw / 2), shift)

    return hand_on


def coupling_normflows(params):
    """normflows takes the log-scale itself; shifts and log-scales of the features alternate."""
    import normflows
    import torch

    alternate = lambda log_scale, shift: torch.stack([shift, log_scale], dim=2).flatten(1)
    network = copied(params, torch.nn.LeakyReLU, scale_and_shift(alternate))
    block = normflows.flows.AffineCouplingBlock(Module(network), scale_map="exp")
    return block.forward, block.inverse


def coupling_nflows(params):
    """nflows has scale = sigmoid(u + 2) + 0.001, shifts first."""
    import torch
    from nflows.transforms import AffineCouplingTransform

    shifts_first = lambda log_scale, shift: torch.cat([shift, torch.logit(log_scale.exp() - 1e-3) - 2], dim=1)
    network = copied(params, torch.nn.LeakyReLU, scale_and_shift(shifts_first))
    mask = [0] * (FEATURES // 2) + [1] * (FEATURES // 2)
    transform = AffineCouplingTransform(mask, lambda inputs, outputs: Module(network))
    return transform.forward, transform.inverse


def coupling_zuko(params):
    """zuko has log_scale = u / (1 + |u / log 0.001|)."""
    import torch
    from zuko.transforms import CouplingTransform, DependentTransform, MonotonicAffineTransform

    limit = -np.log(1e-3)
    transform_of = lambda log_scale, shift: DependentTransform(
        MonotonicAffineTransform(shift, log_scale / (1 - abs(log_scale) / limit)), 1
    )
    network = copied(params, torch.nn.LeakyReLU, scale_and_shift(transform_of))
    mask = torch.arange(FEATURES) < FEATURES // 2
    return both_ways(CouplingTransform(network, mask))


def both_ways(transform):
    """Forward and inverse of a transform of zuko's, each with its log-det."""
    return transform.call_and_ladj, transform.inv.call_and_ladj


# ---------------------------------------------------------------- linear maps, W = P L U


def linear(rng, dtype):
    """The layer, its parameters and the rows."""
    layer = Conv1x1()
    x = rng.standard_normal((ROWS, FEATURES)).astype(dtype)
    params = moved(layer, rng, x)
    params["sign"] = np.ones_like(params["sign"])  # the diagonal of nflows' is positive; P still mixes
    return layer, params, x


def linear_normflows(params):
    """normflows has the same parametrization; its `inverse` is the normalizing direction."""
    import normflows
    import torch

    layer = normflows.flows.InvertibleAffine(FEATURES)
    layer.P = torch.tensor(np.eye(FEATURES, dtype=params["lower"].dtype)[params["permutation"]])
    layer.L.data, layer.U.data = torch.tensor(params["lower"]), torch.tensor(params["upper"])
    layer.log_S.data, layer.sign_S = torch.tensor(params["log_scale"]), torch.tensor(params["sign"])
    layer.eye = torch.eye(FEATURES, dtype=layer.log_S.dtype)
    return layer.inverse, layer.forward


def linear_nflows(params):
    r"""nflows has columns, so L and U change places: x U^T L^T, the diagonal with U.

    L U = (L diag(s)) (diag(1/s) U): the first factor is nflows' U^T, the second its L^T.
    """
    import torch
    from nflows.transforms import CompositeTransform, LULinear, Permutation

    lower, upper = Conv1x1().triangles(params)
    s = np.exp(params["log_scale"])
    layer = LULinear(FEATURES)
    below, above = np.tril_indices(FEATURES, -1), np.triu_indices(FEATURES, 1)
    layer.lower_entries.data = torch.tensor((upper / s[:, None]).T[below])
    layer.upper_entries.data = torch.tensor((lower * s).T[above])
    layer.unconstrained_upper_diag.data = torch.tensor(np.log(np.expm1(s - layer.eps)).astype(s.dtype))
    layer.bias.data = layer.bias.data.to(layer.lower_entries.dtype)
    # x P: entry i goes to place permutation[i].
    transform = CompositeTransform([Permutation(torch.tensor(np.argsort(params["permutation"]))), layer])
    return transform.forward, transform.inverse


# ---------------------------------------------------------------- the comparison

COMPARISONS = {
    "AffineCoupling": (
        coupling,
        {"normflows": coupling_normflows, "nflows": coupling_nflows, "zuko": coupling_zuko},
    ),
    "Conv1x1": (linear, {"normflows": linear_normflows, "nflows": linear_nflows}),
}


def difference(ours, theirs):
    """The largest difference: relative to theirs, absolute below 1."""
    theirs = np.broadcast_to(theirs.detach().numpy(), ours.shape)
    if ours.dtype != theirs.dtype:
        raise SystemExit(f"expected arrays of one dtype to compare, got {ours.dtype} and {theirs.dtype}")
    return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)))


def compare(case, peer, dtype):
    """The differences of a layer and a peer's, one for each of `COLUMNS`."""
    import torch

    layer, params, x = case(np.random.default_rng(0), dtype)
    z, log_det = layer.forward(params, x)
    back, log_det_back = layer.inverse(params, x)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers call functions that PyTorch has newer names for
        forward, inverse = peer(params)
        theirs = [*forward(torch.tensor(x)), *inverse(torch.tensor(x))]
    return dict(zip(COLUMNS, map(difference, (z, log_det, back, log_det_back), theirs)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/agree_with_peers.json"))
    options = parser.parse_args()

    peers = sorted({peer for _, constructors in COMPARISONS.values() for peer in constructors})
    missing = [name for name in ("torch", *peers) if importlib.util.find_spec(name) is None]
    if missing:
        print(f"left out, as not installed: {', '.join(missing)} (pip install -e '.[benchmarks]')")
    if "torch" in missing or len(missing) == len(peers):
        raise SystemExit("there is nothing to compare with")

    results = []
    print(f"\n{'layer':16}{'peer':11}{'dtype':9}" + "".join(f"{column:>20}" for column in COLUMNS))
    for name, (case, constructors) in COMPARISONS.items():
        for peer, constructor in constructors.items():
            if peer in missing:
                continue
            for dtype, bar in BARS.items():
                differences = compare(case, constructor, dtype)
                agrees = max(differences.values()) <= bar
                results.append({"layer": name, "peer": peer, "dtype": dtype, "agrees": agrees, **differences})
                figures = "".join(f"{differences[column]:20.1e}" for column in COLUMNS)
                print(f"{name:16}{peer:11}{dtype:9}{figures}{'' if agrees else '  FAILED'}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))
    print(f"\nwritten to {options.out}")
    if not all(result["agrees"] for result in results):
        raise SystemExit(f"some differ by more than they may: {BARS}")


if __name__ == "__main__":
    main()
