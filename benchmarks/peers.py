"""Every family beside zuko, nflows, normflows and, under jax.jit, flowjax: a training step, densities and samples, as ratios.

All libraries have the same architecture: five transforms, networks of two hidden layers of 64 ReLUs, eight bins or
components, float32, halves in turn for couplings. The numbers of parameters are printed. Where a library has no such
family, or needs more than `--limit` seconds for a call, or cannot make it, its cell says so. Log-dets of residual
layers are estimated by two terms and a random number of further ones, and their gradient is the series of Neumann.

- step: the loss of a batch of 256 rows, its gradient, and Adam.
- log_prob, sample: of 1, 1,000 and 200,000 rows.

All take turns in one process: a call of one library, then of the next, so that other load affects all alike. A cell
is the median over rounds of a library's seconds, divided by npflow's. Above 1 npflow is faster.

    pip install -e '.[benchmarks]'
    python benchmarks/peers.py                  # the table of the documents: about an hour
    python benchmarks/peers.py --quick          # a few minutes, up to 1,000 rows
    python benchmarks/peers.py --families MAF --features 16 --calls step "sample 1000"

Libraries that are not installed are left out.
"""

import argparse
import itertools
import json
import math
import os
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np

TRANSFORMS, HIDDEN, UNITS, BINS, BOUND, BATCH = 5, (64, 64), 64, 8, 5.0, 256
WARM_UP = 2.0  # seconds of calls that are not counted, at most 60: npflow records what comes often
FAMILIES = (
    "RealNVP",
    "Glow",
    "MAF",
    "coupling spline",
    "autoregressive spline",
    "Gaussianization",
    "planar",
    "radial",
    "residual",
)
ROWS = (1, 1_000, 200_000)
CALLS = ("step", *(f"{what} {rows}" for what in ("log_prob", "sample") for rows in ROWS))
MORE_CALLS = tuple(f"{what} {rows}" for what in ("encode", "decode", "sample_and_log_prob") for rows in ROWS)


# ---------------------------------------------------------------- npflow


class Npflow:
    """npflow: what users call, and the step that `fit` makes."""

    name = "npflow"

    def __init__(self, family, features, x):
        import npflow
        from npflow.autodiff import Layout
        from npflow.autodiff.program.slices import ProgramGradient
        from npflow.autodiff.program.threads import available_cores
        from npflow.models import EstimatedLogDet

        self.rng, self.flow = np.random.default_rng(0), self.make(family, features)
        params = self.flow.init(self.rng, x[:2000])
        layout = Layout(params)
        noise = 0.02 * self.rng.standard_normal(layout.size).astype(np.float32)
        self.vector = layout.pack(params) + noise
        self.params, self.parameters = layout.unpack(self.vector, params), layout.size
        self.adam = npflow.training.Adam(1e-6)
        self.state, self.made = self.adam.init(self.vector), 0
        self.gradient = np.empty_like(self.vector)
        self.trained = EstimatedLogDet(self.flow, exact=2) if family == "residual" else self.flow
        self.loss = ProgramGradient(self.trained.loss, self.params, available_cores())
        self.x = x

    @staticmethod
    def make(family, features):
        from npflow import Flow
        from npflow.layers import (
            ActNorm,
            AffineCoupling,
            Chain,
            Conv1x1,
            Gaussianize,
            MaskedAutoregressive,
            Planar,
            Radial,
            Residual,
            Reverse,
            Rotation,
            Spline,
            SplineCoupling,
        )
        from npflow.networks import MADE, MLP
        from npflow.priors import Normal

        network, made, spline = MLP(HIDDEN, "relu"), MADE(HIDDEN, "relu"), Spline(BINS, BOUND)
        halves = ("second", "first")
        step = {
            "RealNVP": lambda number: [AffineCoupling(network, halves[number % 2])],
            "Glow": lambda number: [ActNorm(), AffineCoupling(network), Conv1x1()],
            "MAF": lambda number: [MaskedAutoregressive(made), Reverse()],
            "coupling spline": lambda number: [SplineCoupling(network, halves[number % 2], spline)],
            "autoregressive spline": lambda number: [MaskedAutoregressive(made, spline), Reverse()],
            "Gaussianization": lambda number: [Gaussianize(BINS), Rotation()],
            "planar": lambda number: [Planar()],
            "radial": lambda number: [Radial()],
            "residual": lambda number: [Residual(HIDDEN, 0.97)],
        }[family]
        layers = [layer for number in range(TRANSFORMS) for layer in step(number)]
        if family == "Gaussianization":
            layers.pop()  # the peers have no rotation at the end
        return Flow(Chain(layers), Normal(features))

    def step(self):
        start = self.made * BATCH % 10_240
        self.made += 1
        noise = self.trained.noise(self.rng, BATCH, np.float32)
        self.loss((self.x[start : start + BATCH], *noise), self.gradient)
        self.adam.update(self.state, self.vector, self.gradient, self.made)

    def log_prob(self, x):
        return self.flow.log_prob(self.params, x)

    def sample(self, n):
        return self.flow.sample(self.params, self.rng, n)

    def sample_and_log_prob(self, n):
        return self.flow.sample_and_log_prob(self.params, self.rng, n)

    def encode(self, x):
        return self.flow.encode(self.params, x)

    def decode(self, z):
        return self.flow.decode(self.params, z)


# ---------------------------------------------------------------- the libraries on PyTorch


class OnTorch:
    """A flow of a library on PyTorch; ``make(family, features)`` gives a module, or None where there is none."""

    def __init__(self, family, features, x):
        import torch

        self.torch = torch
        torch.manual_seed(0)
        self.model = self.make(family, features)
        if self.model is None:
            raise LookupError(family)
        self.x = torch.tensor(x)
        with torch.no_grad():
            self.log_prob_of(self.x[:2000])  # an ActNorm starts on its first batch
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-6)
        self.parameters, self.made = sum(parameter.numel() for parameter in self.model.parameters()), 0

    def step(self):
        start = self.made * BATCH % 10_240
        self.made += 1
        self.model.train()
        self.optimizer.zero_grad()
        loss = -self.log_prob_of(self.x[start : start + BATCH]).mean()
        loss.backward()
        self.optimizer.step()
        self.model.eval()

    def without_gradient(self, call, *arguments):
        with self.torch.no_grad():
            return call(*arguments)

    def log_prob(self, x):
        return self.without_gradient(self.log_prob_of, self.torch.from_numpy(x))

    def sample(self, n):
        return self.without_gradient(self.sample_of, n)

    def sample_and_log_prob(self, n):
        return self.without_gradient(self.sample_and_log_prob_of, n)

    def encode(self, x):
        return self.without_gradient(self.encode_of, self.torch.from_numpy(x))

    def decode(self, z):
        return self.without_gradient(self.decode_of, self.torch.from_numpy(z))


def mlp(inputs, outputs):
    """The network of the couplings."""
    from torch import nn

    widths, layers = (inputs, *HIDDEN, outputs), []
    for number, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.ReLU()] * (number > 0) + [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def without_context(inputs, outputs):
    """The same, called with a context, as nflows and normflows do."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(inputs, outputs)

        def forward(self, x, context=None):
            return self.net(x)

    return Network()


def half(features, number):
    """Which features coupling `number` transforms: the second half, or the first."""
    import torch

    return (torch.arange(features) >= features - features // 2) == (number % 2 == 0)


class Zuko(OnTorch):
    name = "zuko"

    @staticmethod
    def make(family, features):
        import torch
        import zuko
        from zuko.flows import GF, MAF, NSF, Flow, UnconditionalDistribution
        from zuko.flows.coupling import GeneralCouplingTransform
        from zuko.transforms import MonotonicRQSTransform

        if family == "MAF":
            return MAF(features, transforms=TRANSFORMS, hidden_features=HIDDEN)
        if family == "autoregressive spline":
            return NSF(features, bins=BINS, transforms=TRANSFORMS, hidden_features=HIDDEN)
        if family == "Gaussianization":
            return GF(features, transforms=TRANSFORMS, components=BINS)
        if family not in ("RealNVP", "coupling spline"):
            return None
        spline = {"univariate": MonotonicRQSTransform, "shapes": [(BINS,), (BINS,), (BINS - 1,)]}
        couplings = [
            GeneralCouplingTransform(
                features,
                mask=~half(features, number),
                hidden_features=HIDDEN,
                **(spline if family == "coupling spline" else {}),
            )
            for number in range(TRANSFORMS)
        ]
        start = torch.zeros(features), torch.ones(features)
        return Flow(couplings, UnconditionalDistribution(zuko.distributions.DiagNormal, *start, buffer=True))

    def log_prob_of(self, x):
        return self.model().log_prob(x)

    def sample_of(self, n):
        return self.model().sample((n,))

    def sample_and_log_prob_of(self, n):
        return self.model().rsample_and_log_prob((n,))

    def encode_of(self, x):
        return self.model().transform(x)

    def decode_of(self, z):
        return self.model().transform.inv(z)


class Nflows(OnTorch):
    name = "nflows"

    @staticmethod
    def make(family, features):
        import nflows.transforms as nf
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow

        made = {"features": features, "hidden_features": UNITS, "num_blocks": 1, "use_residual_blocks": False}
        spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        step = {
            "RealNVP": lambda number: [nf.AffineCouplingTransform(half(features, number), without_context)],
            "Glow": lambda number: [
                nf.ActNorm(features),
                nf.AffineCouplingTransform(half(features, 0), without_context),
                nf.LULinear(features),
            ],
            "MAF": lambda number: [
                nf.MaskedAffineAutoregressiveTransform(**made),
                nf.ReversePermutation(features),
            ],
            "coupling spline": lambda number: [
                nf.PiecewiseRationalQuadraticCouplingTransform(
                    half(features, number), without_context, **spline
                )
            ],
            "autoregressive spline": lambda number: [
                nf.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**made, **spline),
                nf.ReversePermutation(features),
            ],
        }.get(family)
        if step is None:
            return None
        layers = [layer for number in range(TRANSFORMS) for layer in step(number)]
        return Flow(nf.CompositeTransform(layers), StandardNormal([features]))

    def log_prob_of(self, x):
        return self.model.log_prob(x)

    def sample_of(self, n):
        return self.model.sample(n)

    def sample_and_log_prob_of(self, n):
        return self.model.sample_and_log_prob(n)

    def encode_of(self, x):
        return self.model.transform_to_noise(x)

    def decode_of(self, z):
        return self.model._transform.inverse(z)[0]


class Normflows(OnTorch):
    name = "normflows"

    @staticmethod
    def make(family, features):
        import normflows as nf
        from normflows.flows.neural_spline.autoregressive import (
            MaskedPiecewiseRationalQuadraticAutoregressive,
        )
        from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

        made = {"features": features, "hidden_features": UNITS, "num_blocks": 1, "use_residual_blocks": False}
        spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        affine = lambda: nf.flows.AffineCouplingBlock(mlp(features - features // 2, 2 * (features // 2)))
        reverse = nf.flows.Reverse  # makes `forward` the normalizing direction
        step = {
            "RealNVP": lambda number: [affine(), nf.flows.Permute(features, mode="swap")],
            "Glow": lambda number: [
                nf.flows.InvertibleAffine(features),
                affine(),
                nf.flows.ActNorm((features,)),
            ],
            "MAF": lambda number: [
                reverse(nf.flows.MaskedAffineAutoregressive(**made)),
                nf.flows.Permute(features, mode="swap"),
            ],
            "coupling spline": lambda number: [
                reverse(PiecewiseRationalQuadraticCoupling(half(features, number), without_context, **spline))
            ],
            "autoregressive spline": lambda number: [
                reverse(MaskedPiecewiseRationalQuadraticAutoregressive(**made, **spline)),
                nf.flows.Permute(features, mode="swap"),
            ],
            "planar": lambda number: [reverse(nf.flows.Planar((features,)))],
            "radial": lambda number: [reverse(nf.flows.Radial((features,)))],
            "residual": lambda number: [
                nf.flows.Residual(nf.nets.LipschitzMLP([features, *HIDDEN, features]))
            ],
        }.get(family)
        if step is None:
            return None
        layers = [layer for number in range(TRANSFORMS) for layer in step(number)]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), layers)

    def log_prob_of(self, x):
        return self.model.log_prob(x)

    def sample_of(self, n):
        return self.model.sample(n)[0]

    def sample_and_log_prob_of(self, n):
        return self.model.sample(n)

    def encode_of(self, x):
        return self.model.inverse(x)

    def decode_of(self, z):
        return self.model.forward(z)


# ---------------------------------------------------------------- flowjax, compiled by jax.jit


class Flowjax:
    """flowjax; each call is compiled for its number of rows, before it is timed."""

    name = "flowjax"

    def __init__(self, family, features, x):
        import equinox
        import jax
        import optax
        import paramax

        self.jax = jax
        flow = self.make(family, features)
        is_fixed = lambda leaf: isinstance(leaf, paramax.NonTrainable)
        self.params, static = equinox.partition(flow, equinox.is_inexact_array, is_leaf=is_fixed)
        self.x, self.made = jax.numpy.asarray(x), 0
        whole = lambda params: paramax.unwrap(equinox.combine(params, static, is_leaf=is_fixed))
        adam = optax.adam(1e-6)

        def step(params, state, x):
            gradient = jax.grad(lambda params: -whole(params).log_prob(x).mean())(params)
            updates, state = adam.update(gradient, state)
            return optax.apply_updates(params, updates), state

        self.one_step, self.state = jax.jit(step, donate_argnums=(0, 1)), adam.init(self.params)
        self.log_prob_of = jax.jit(lambda params, x: whole(params).log_prob(x))
        self.sample_of = jax.jit(lambda params, key, n: whole(params).sample(key, (n,)), static_argnums=2)
        both = lambda params, key, n: whole(params).sample_and_log_prob(key, (n,))
        self.both_of = jax.jit(both, static_argnums=2)
        self.encode_of = jax.jit(lambda params, x: jax.vmap(whole(params).bijection.inverse)(x))
        self.decode_of = jax.jit(lambda params, z: jax.vmap(whole(params).bijection.transform)(z))
        self.key = jax.random.key(0)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def make(self, family, features):
        from flowjax import flows
        from flowjax.bijections import RationalQuadraticSpline
        from flowjax.distributions import Normal

        spline = {"transformer": RationalQuadraticSpline(knots=BINS, interval=BOUND)}
        make, more = {
            "RealNVP": (flows.coupling_flow, {}),
            "MAF": (flows.masked_autoregressive_flow, {}),
            "coupling spline": (flows.coupling_flow, spline),
            "autoregressive spline": (flows.masked_autoregressive_flow, spline),
            "planar": (flows.planar_flow, {}),
        }[family]
        network = {"nn_width": HIDDEN[0], "nn_depth": len(HIDDEN), "nn_activation": self.jax.nn.relu}
        base = Normal(self.jax.numpy.zeros(features))
        return make(self.jax.random.key(0), base_dist=base, flow_layers=TRANSFORMS, **network, **more)

    def done(self, result):
        """A result, when it has been computed."""
        return self.jax.block_until_ready(result)

    def new_key(self):
        self.key, key = self.jax.random.split(self.key)
        return key

    def step(self):
        start = self.made * BATCH % 10_240
        self.made += 1
        batch = self.x[start : start + BATCH]
        self.params, self.state = self.done(self.one_step(self.params, self.state, batch))

    def log_prob(self, x):
        return self.done(self.log_prob_of(self.params, x))

    def sample(self, n):
        return self.done(self.sample_of(self.params, self.new_key(), n))

    def sample_and_log_prob(self, n):
        return self.done(self.both_of(self.params, self.new_key(), n))

    def encode(self, x):
        return self.done(self.encode_of(self.params, x))

    def decode(self, z):
        return self.done(self.decode_of(self.params, z))


PEERS = (Zuko, Nflows, Normflows, Flowjax)

# ---------------------------------------------------------------- the measurement


def call_of(library, call, x):
    """A function that makes one call, such as "sample 1000"."""
    if call == "step":
        return library.step
    what, rows = call.split()
    argument = int(rows) if what.startswith("sample") else x[: int(rows)]
    method = getattr(library, what)
    return lambda: method(argument)


def seconds(function, repeats):
    clock = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - clock) / repeats


def measure(libraries, call, x, rounds, limit, pace):
    """The seconds of each library in each round; None for a peer that would take more than `limit`, or cannot.

    The first calls, which record or warm up, are not counted. A sample is as many calls as take `pace` seconds.
    """
    functions, repeats = {}, {}
    what, _, rows = call.partition(" ")
    for library in libraries:
        if rows and int(rows) > 1000 and library.name != "npflow":  # a forecast, as some would take hours
            few = call_of(library, f"{what} 1000", x)
            try:
                few()
            except NotImplementedError:
                continue
            if seconds(few, 1) * int(rows) / 1000 > limit:
                continue
        function = call_of(library, call, x)
        clock, calls = time.perf_counter(), 0
        try:
            while calls < 2 or (calls < 60 and time.perf_counter() - clock < WARM_UP):
                once, calls = seconds(function, 1), calls + 1
        except NotImplementedError:  # a planar or radial flow of normflows has one direction
            continue
        functions[library], repeats[library] = function, max(1, math.ceil(pace / max(once, 1e-7)))
        repeats[library] = min(repeats[library], 2000)
    times = {library: [] for library in functions}
    for _ in range(rounds):
        for library, function in functions.items():
            times[library].append(seconds(function, repeats[library]))
    return {library: times.get(library) for library in libraries}


def table(family, features, calls, peers, options):
    """The lines of one family: npflow's milliseconds, and for each peer the ratio."""
    from npflow.autodiff.program.threads import one_blas_thread

    rng = np.random.default_rng(0)
    x = rng.standard_normal((max(ROWS), features)).astype(np.float32)
    ours, others, results = Npflow(family, features, x), {}, []
    for peer in peers:
        try:
            others[peer.name] = peer(family, features, x)
        except ImportError:
            print(f"left out: {peer.name}, which is not installed")
        except LookupError:
            others[peer.name] = None
    parameters = {name: library and library.parameters for name, library in others.items()}
    print(f"\n{family}, D = {features}: parameters {ours.parameters:,}, {parameters}")
    libraries = [ours, *(library for library in others.values() if library)]
    for call in calls:
        with (
            one_blas_thread() if call == "step" else nullcontext()
        ):  # as in `fit`; no peer computes with this BLAS
            times = measure(libraries, call, x, options.rounds, options.limit, options.pace)
        mine = np.array(times[ours])
        ratios = {}
        for name, library in others.items():
            if library is None:
                ratios[name] = None
            else:
                series = times[library]
                ratios[name] = math.inf if series is None else float(np.median(np.array(series) / mine))
        row = {
            "family": family,
            "features": features,
            "call": call,
            "ms": 1e3 * float(np.median(mine)),
            "ratios": ratios,
        }
        results.append(row)
        print(f"  {call:22} {row['ms']:10.3f} ms  {[cell(ratio) for ratio in ratios.values()]}", flush=True)
    return results


def cell(ratio):
    """A ratio as text: a dash where a library has no such family, "none" where its call takes too long or is not there."""
    if ratio is None:
        return "-"
    return "none" if math.isinf(ratio) else f"{ratio:.2g}" if ratio < 9.95 else f"{ratio:.0f}"


def markdown(results):
    """The results as a Markdown table, a line for each flow: npflow's milliseconds, and the ratio of the fastest peer."""
    calls = list(dict.fromkeys(row["call"] for row in results))
    lines = [f"| family | D | {' | '.join(map(title, calls))} |", "| --- " * (2 + len(calls)) + "|"]
    for family, features in dict.fromkeys((row["family"], row["features"]) for row in results):
        rows = {row["call"]: row for row in results if (row["family"], row["features"]) == (family, features)}
        cells = [
            f"{rows[call]['ms']:.3g} ms, {cell(least(rows[call]))}" if call in rows else "" for call in calls
        ]
        lines.append(f"| {family} | {features} | {' | '.join(cells)} |")
    return "\n".join(lines)


def title(call):
    """A call as the head of a column: "log_prob 1,000"."""
    what, _, rows = call.partition(" ")
    return f"{what} {int(rows):,}" if rows else what


def least(row):
    """The ratio of the fastest peer; None where there is none."""
    ratios = [ratio for ratio in row["ratios"].values() if ratio is not None and math.isfinite(ratio)]
    return min(ratios, default=None)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, and at most 1,000 rows")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--features", nargs="+", type=int, default=(8, 64), help="D")
    parser.add_argument("--calls", nargs="+", choices=(*CALLS, *MORE_CALLS), default=CALLS)
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS])
    parser.add_argument("--threads", type=int, help="the threads of every library; by default all cores")
    parser.add_argument("--rounds", type=int, default=7, help="number of interleaved rounds")
    parser.add_argument("--pace", type=float, default=0.1, help="seconds of a sample, at least")
    parser.add_argument(
        "--limit", type=float, default=20.0, help="a call that takes more seconds is left out"
    )
    parser.add_argument("--out", type=Path, default=Path("out/peers.json"), help="JSON file of the results")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.pace = 3, 0.02
        options.calls = [call for call in options.calls if not call.endswith(" 200000")]
    warnings.simplefilter("ignore")  # peers call deprecated functions of PyTorch
    if options.threads:
        hold_to(options.threads)
    peers = [peer for peer in PEERS if not options.peers or peer.name in options.peers]
    results = []
    for features in options.features:
        for family in options.families:
            results += table(family, features, options.calls, peers, options)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=2))
    ahead = [ratio for ratio in map(least, results) if ratio is not None]
    print(f"\n{markdown(results)}")
    if ahead:
        print(
            f"\nBeside the fastest peer: median {np.median(ahead):.2g}, least {min(ahead):.2g}, "
            f"ahead in {sum(ratio >= 1 for ratio in ahead)} of {len(ahead)}"
        )
    print(f"written to {options.out}")


def hold_to(threads):
    """Let all libraries use this many threads: npflow goes by the cores that the process may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
