"""Whether `npflow.verify` catches injected mistakes: transforms times mistakes, of plain functions and of layers.

Each mistake states words that the sentence of the first cause has to contain. The unmodified transforms are checked
too, and none of them may be accused. The exit status is 1 if a mistake is missed, a right transform is accused, or
fewer than 9 in 10 sentences are right.

    python benchmarks/verify_mistakes.py
    python benchmarks/verify_mistakes.py --only coupling --mistakes tail
"""

import argparse
import re
import sys
import time
from collections import Counter

import autograd.numpy as anp
import numpy as np
from scipy.special import expit

from npflow.layers import Layer
from npflow.verify import check, check_functions
from npflow.verify.cases import CASES

total = lambda a: np.sum(a, axis=1)

# ---------------------------------------------------------------- right transforms of rows of four components

W = np.array([[1.2, 0.3, -0.4, 0.1], [0.2, 0.8, 0.5, -0.3], [-0.6, 0.1, 1.5, 0.2], [0.3, -0.2, 0.4, 0.7]])
V = np.array([[0.5, -0.3, 0.8, 0.4], [0.7, 0.2, -0.6, 0.9]])
S = np.array([0.5, -0.3, 0.8, -1.1])


def like(a, x):
    """Constants in the dtype of x."""
    return np.asarray(a, x.dtype)


def elementwise(value, back, slope):
    """A map of each component: forward, inverse, and the logarithm of the slope at x."""
    forward = lambda x: (value(x), total(slope(x)))
    inverse = lambda z: (back(z), -total(slope(back(z))))
    return forward, inverse


def coupling(slope, halves=(slice(0, 2), slice(2, 4))):
    kept, changed = halves

    def numbers(a):
        t = np.tanh(a @ like(V, a))
        return t[:, :2] if slope else 0 * t[:, :2], t[:, 2:]

    def forward(x):
        s, t = numbers(x[:, kept])
        z = x.copy()
        z[:, changed] = x[:, changed] * np.exp(s) + t
        return z, total(s)

    def inverse(z):
        s, t = numbers(z[:, kept])
        x = z.copy()
        x[:, changed] = (z[:, changed] - t) * np.exp(-s)
        return x, -total(s)

    return forward, inverse


def linear(matrix):
    size = float(np.log(np.abs(np.linalg.det(matrix))))
    forward = lambda x: (x @ like(matrix, x), np.full(len(x), size, x.dtype))
    inverse = lambda z: (np.linalg.solve(like(matrix, z).T, z.T).T, np.full(len(z), -size, z.dtype))
    return forward, inverse


def autoregressive(x):
    """The shift and the log-scale of each component from those before it."""
    weights = like(np.triu(W, 1), x)
    return np.tanh(x @ weights), 0.7 * np.sin(x @ weights)


def maf_forward(x):
    t, s = autoregressive(x)
    return x * np.exp(s) + t, total(s)


def maf_inverse(z):
    x = np.zeros_like(z)
    for _ in range(4):
        t, s = autoregressive(x)
        x = (z - t) * np.exp(-s)
    return x, -total(s)


def chained(*pairs):
    def through(functions, a):
        log_det = 0
        for function in functions:
            a, more = function(a)
            log_det = log_det + more
        return a, log_det

    first, last = [pair[0] for pair in pairs], [pair[1] for pair in pairs[::-1]]
    return (lambda x: through(first, x)), (lambda z: through(last, z))


def bisected(value, slope):
    def back(z):
        low, high = np.full_like(z, -40), np.full_like(z, 40)
        for _ in range(60):
            middle = (low + high) / 2
            below = value(middle) < z
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    return elementwise(value, back, slope)


scale = elementwise(
    lambda x: x * like(np.exp(S), x) + like(S, x),
    lambda z: (z - like(S, z)) * like(np.exp(-S), z),
    lambda x: like(S, x) + 0 * x,
)
arcsinh = elementwise(np.arcsinh, np.sinh, lambda x: -np.log1p(x * x) / 2)
FUNCTIONS = {
    "scale": scale,
    "arcsinh": arcsinh,
    "sinh": elementwise(np.sinh, np.arcsinh, lambda x: np.log(np.cosh(x))),
    "exp": elementwise(np.exp, np.log, lambda x: x),
    "sigmoid": elementwise(expit, lambda z: np.log(z) - np.log1p(-z), lambda x: np.log(expit(x) * expit(-x))),
    "tanh": elementwise(np.tanh, np.arctanh, lambda x: -2 * np.log(np.cosh(x))),
    "softplus": elementwise(
        lambda x: np.log1p(np.exp(x)), lambda z: np.log(np.expm1(z)), lambda x: np.log(expit(x))
    ),
    "arctan": elementwise(np.arctan, np.tan, lambda x: -np.log1p(x * x)),
    "leaky": elementwise(
        lambda x: np.where(x > 0, x, x / 5),
        lambda z: np.where(z > 0, z, 5 * z),
        lambda x: np.where(x > 0, like(0, x), like(-np.log(5), x)),
    ),
    "bisection": bisected(lambda x: x + np.tanh(x), lambda x: np.log(2 - np.tanh(x) ** 2)),
    "cubic": bisected(lambda x: x + x**3, lambda x: np.log(1 + 3 * x * x)),
    "affine coupling": coupling(True),
    "odd coupling": coupling(True, (slice(0, None, 2), slice(1, None, 2))),
    "linear": linear(W),
    "rotated": chained(linear(W), arcsinh),
    "autoregressive": (maf_forward, maf_inverse),
    "flow": chained(scale, coupling(True), linear(W), coupling(True, (slice(2, 4), slice(0, 2)))),
    "squashed flow": chained(
        coupling(True),
        linear(0.5 * W),
        elementwise(expit, lambda z: np.log(z) - np.log1p(-z), lambda x: np.log(expit(x) * expit(-x))),
    ),
}

# ---------------------------------------------------------------- mistakes of functions

DICE = np.random.default_rng(0)
CONSTANT = {"scale", "linear"}  # whose log-det is one number: what mixes rows up is no mistake there
NO_MISTAKES = {"rows reversed", "mean over batch", "cached log-det"}


def logs(of_forward, of_inverse=None):
    """Change the log-dets: ``of_forward(log_det, x, z)``, and that of the inverse as its negative, or left alone."""

    def change(forward, inverse, both):
        def wrong_forward(x):
            z, log_det = forward(x)
            return z, of_forward(log_det, x, z)

        def wrong_inverse(z):
            x, log_det = inverse(z)
            return x, (-of_forward(-log_det, x, z) if both else of_inverse(log_det, x, z))

        return wrong_forward, wrong_inverse if both or of_inverse else inverse

    return change


def forward_alone(change):
    return lambda f, g: logs(change)(f, g, False)


def consistently(change):
    return lambda f, g: logs(change)(f, g, True)


def inverse_alone(change):
    return lambda f, g: logs(lambda log_det, x, z: log_det, change)(f, g, False)


def arrays(change):
    """Change the array of the inverse: ``change(x, z)``."""

    def apply(f, g):
        def wrong(z):
            x, log_det = g(z)
            return change(x, z), log_det

        return f, wrong

    return apply


def cached(f, g):
    kept = {}

    def forward(x):
        z, log_det = f(x)
        kept["log_det"] = log_det
        return z, log_det

    def inverse(z):
        x, log_det = g(z)
        found = kept.get("log_det", log_det)
        return x, -found if len(found) == len(z) else log_det

    return forward, inverse


def in_place(f, g):
    def forward(x):
        z, log_det = f(x)
        x *= 0.5
        return z, log_det

    return forward, g


def centred(f, g):
    return (lambda x: f(x - 0.1 * np.mean(x, axis=0, keepdims=True))), g


def double(array):
    return array.astype(np.float64) if array.dtype == np.float32 else array


def beyond(values, amount):
    """`amount` where a value is among the largest twentieth of what 300 rows have."""
    return np.where(values > 1.9, amount, 0.0).astype(values.dtype)


def promote(which, part):
    def change(f, g):
        def promoted(function):
            def wrong(a):
                pair = list(function(a))
                pair[part] = double(pair[part])
                return tuple(pair)

            return wrong

        return (promoted(f), g) if which == "forward" else (f, promoted(g))

    return change


MISTAKES = {
    "sign": (consistently(lambda l, x, z: -l), "opposite sign"),
    "sign of forward": (forward_alone(lambda l, x, z: -l), "opposite sign"),
    "sign of inverse": (inverse_alone(lambda l, x, z: -l), "opposite sign|must be negated"),
    "zero": (consistently(lambda l, x, z: 0 * l), "is 0 in every row|leaves out"),
    "half": (consistently(lambda l, x, z: l / 2), "half"),
    "twice": (consistently(lambda l, x, z: 2 * l), "twice"),
    "mean": (consistently(lambda l, x, z: l / 4), "mean over the 4"),
    "bits": (consistently(lambda l, x, z: l / like(np.log(2), l)), "in bits"),
    "a factor": (consistently(lambda l, x, z: l * like(1.1, l)), "1.1 times|off by .* in every row"),
    "divided by n": (forward_alone(lambda l, x, z: l / len(l)), "rows influence|number of rows"),
    "summed over batch": (forward_alone(lambda l, x, z: 0 * l + np.sum(l)), "rows influence|over the batch"),
    "mean over batch": (forward_alone(lambda l, x, z: 0 * l + np.mean(l)), "rows influence|over the batch"),
    "constant": (consistently(lambda l, x, z: l + like(0.01, l)), "off by .*0.01 nats in every row"),
    "log 2": (consistently(lambda l, x, z: l + like(4 * np.log(2), l)), "4 log 2"),
    "no logarithm": (consistently(lambda l, x, z: np.exp(l)), "logarithm is missing|off by .* every row"),
    "rows reversed": (forward_alone(lambda l, x, z: l[::-1].copy()), "rows influence|another order"),
    "small drift": (consistently(lambda l, x, z: l + like(1e-3, l) * x[:, 0]), "differently in each row"),
    "tail of x_0": (consistently(lambda l, x, z: l + beyond(x[:, 0], 0.5)), "right in .* above"),
    "tail of -x_2": (consistently(lambda l, x, z: l - beyond(-x[:, 2], 0.5)), "right in .* (above|below)"),
    "tail of the norm": (
        consistently(lambda l, x, z: l + beyond(total(x * x) / 5, 0.5)),
        "right in .* above",
    ),
    "tail of forward": (forward_alone(lambda l, x, z: l + beyond(np.abs(x[:, 3]), 0.3)), "right in .* above"),
    "tail of inverse": (inverse_alone(lambda l, x, z: l + beyond(x[:, 1], 0.5)), "right in .* above"),
    "nan": (forward_alone(lambda l, x, z: np.where(x[:, 0] > 1, l * np.nan, l)), "is nan"),
    "shape (n, 1)": (forward_alone(lambda l, x, z: l[:, None]), r"shape \(300,\)"),
    "one number": (forward_alone(lambda l, x, z: np.sum(l)), r"shape \(300,\)"),
    "no pair": (lambda f, g: ((lambda x: f(x)[0]), g), "a pair"),
    "shift not undone": (
        arrays(lambda x, z: x + like(0.3, x)),
        "same number in every row|not finite|is not x",
    ),
    "approximate": (arrays(lambda x, z: x + like(1e-5, x) * np.sin(z)), "approximate"),
    "slightly off": (arrays(lambda x, z: x * like(1 + 1e-7, x)), "approximate"),
    "components in another order": (arrays(lambda x, z: x[:, ::-1].copy()), "another order"),
    "minus": (arrays(lambda x, z: -x), "minus x"),
    "tail of the inverse's x": (
        arrays(lambda x, z: np.where(x > 1.9, x + like(0.2, x), x)),
        r"in \d+ of \d+ rows|component",
    ),
    "clipped": (arrays(lambda x, z: np.clip(x, -2, 2)), r"in \d+ of \d+ rows|component"),
    "cached log-det": (cached, "kept between calls"),
    "in place": (in_place, "changed its input in place"),
    "batch statistics": (centred, "rows influence"),
    "random": (
        lambda f, g: ((lambda x: (f(x)[0] + 1e-9 * DICE.standard_normal(x.shape), f(x)[1])), g),
        "two outputs for the same input",
    ),
    "float64 log-det": (promote("forward", 1), "float64 for float32"),
    "float64 array": (promote("forward", 0), "float64 for float32"),
    "float64 array of inverse": (promote("inverse", 0), "float64 for float32"),
    "float64 log-det of inverse": (promote("inverse", 1), "float64 for float32"),
}


def batch():
    return np.random.default_rng(1).standard_normal((300, 4))


# ---------------------------------------------------------------- mistakes of layers


def wrapped(layer, change):
    """A layer whose two results are changed: ``change(direction, array, log_det, given)``."""

    class Wrong(Layer):
        domain = getattr(layer, "domain", Layer.domain)

        def init(self, rng, x):
            return layer.init(rng, x)

        def forward(self, params, x):
            return change("forward", *layer.forward(params, x), x)

        def inverse(self, params, z):
            return change("inverse", *layer.inverse(params, z), z)

    return Wrong()


def signed(direction, amount):
    return amount if direction == "forward" else -amount


LAYER_MISTAKES = {
    "sign": (lambda d, y, l, a: (y, -l), "opposite sign"),
    "sign of inverse": (lambda d, y, l, a: (y, l if d == "forward" else -l), "opposite sign"),
    "half": (lambda d, y, l, a: (y, l / 2), "half|the mean over"),
    "twice": (lambda d, y, l, a: (y, l * 2), "twice"),
    "zero": (lambda d, y, l, a: (y, l * 0), "is 0 in every row"),
    "a factor": (lambda d, y, l, a: (y, l * 1.1), "1.1 times|off by .* in every row"),
    "constant": (lambda d, y, l, a: (y, l + signed(d, 0.05)), "off by .*0.05 nats in every row"),
    "summed over batch": (lambda d, y, l, a: (y, l * 0 + anp.sum(l)), "rows influence|over the batch"),
    "shape (n, 1)": (lambda d, y, l, a: (y, anp.reshape(l, (-1, 1))), "to have shape"),
    "approximate": (
        lambda d, y, l, a: (y if d == "forward" else y + 1e-5 * anp.sin(7 * y), l),
        "approximate",
    ),
    "shift not undone": (lambda d, y, l, a: (y if d == "forward" else y + 0.01, l), "is not x"),
    "float64 log-det": (lambda d, y, l, a: (y, l * np.float64(1)), "float64 for float32"),
    "float64 array": (lambda d, y, l, a: (y * np.float64(1), l), "float64 for float32"),
    "batch statistics": (lambda d, y, l, a: (y + 1e-3 * anp.mean(y, axis=0), l), "rows influence"),
    "tail": (
        lambda d, y, l, a: (
            y,
            l
            + signed(d, 0.5)
            * (anp.reshape(a if d == "forward" else y, (len(y), -1))[:, 0] > 2.5).astype(l.dtype),
        ),
        "right in .* above",
    ),
}
LAYERS = (
    "Affine",
    "ActNorm",
    "ActNorm/image",
    "AffineCoupling",
    "AffineCoupling/first",
    "AffineCoupling/image",
    "AffineCoupling/checkerboard",
    "AdditiveCoupling",
    "MaskedAutoregressive",
    "Conv1x1",
    "Conv1x1/image",
    "Units",
    "Spline",
    "ScaleShift",
    "Chain",
    "Given",
    "Inverse",
    "Scaling",
)


def cases(only, mistakes):
    """Yield the name of a transform and a mistake, a function that checks it, and the words; None for right ones."""
    chosen = lambda name, mistake: (
        only in f"{name} (layer)"[: None if name in LAYERS else -8]
        and (mistake is None or mistakes in mistake)
    )
    x = batch()
    for name, (f, g) in FUNCTIONS.items():
        for mistake, (change, words) in {None: (None, None), **MISTAKES}.items():
            if not chosen(name, mistake) or (name in CONSTANT and mistake in NO_MISTAKES):
                continue
            # A log-det that is one number for all rows may be float64, unless x is float32.
            rows = (
                x.astype(np.float32) if name in CONSTANT and mistake and "float64 log-det" in mistake else x
            )
            pair = (f, g) if mistake is None else change(f, g)
            yield name, mistake, lambda pair=pair, rows=rows: check_functions(*pair, rows), words
    for name in LAYERS:
        case = CASES[name]
        rows = case.batch(np.random.default_rng(2), rows=100)
        for mistake, (change, words) in {None: (None, None), **LAYER_MISTAKES}.items():
            volume_kept = name in ("AdditiveCoupling",)
            scales = ("sign", "sign of inverse", "half", "twice", "zero", "a factor", "summed over batch")
            if not chosen(f"{name} (layer)", mistake) or (volume_kept and mistake in scales):
                continue
            layer = case.layer if mistake is None else wrapped(case.layer, change)
            yield f"{name} (layer)", mistake, lambda layer=layer, rows=rows: check(layer, rows), words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="transforms whose name contains this")
    parser.add_argument("--mistakes", default="", help="mistakes whose name contains this")
    arguments = parser.parse_args()
    counts, clock, functions = Counter(), time.perf_counter(), []
    for name, mistake, run, words in cases(arguments.only, arguments.mistakes):
        began = time.perf_counter()
        report = run()
        if mistake is None:
            functions.append(time.perf_counter() - began)
            counts["right"] += 1
            if not report.passed:
                counts["accused"] += 1
                print(f"ACCUSED  {name}: {report.verdict}: {report.cause}", flush=True)
            continue
        counts["mistakes"] += 1
        if not report.failures:
            counts["missed"] += 1
            print(f"MISSED   {name}, {mistake}: {report.verdict} {report.cause}", flush=True)
        elif re.search(words, report.cause):
            counts["right sentence"] += 1
        else:
            print(f"SENTENCE {name}, {mistake}: expected {words!r}, got: {report.cause}", flush=True)
    caught = counts["mistakes"] - counts["missed"]
    print(
        f"{counts['right']} right transforms, {counts['accused']} accused; {counts['mistakes']} mistakes, {caught} "
        f"caught, {counts['right sentence']} with the right sentence; {time.perf_counter() - clock:.0f} s, a right "
        f"transform {np.median(functions):.2f} s in the median"
    )
    return int(
        counts["accused"] > 0 or counts["missed"] > 0 or counts["right sentence"] < 0.9 * counts["mistakes"]
    )


if __name__ == "__main__":
    sys.exit(main())
