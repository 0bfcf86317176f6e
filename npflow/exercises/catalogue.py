"""The exercises in reading order, with the mistakes that each invites."""

import numpy as np
from scipy.special import logsumexp

from npflow import priors
from npflow.dequantization import Dequantized
from npflow.errors import InputError
from npflow.exercises.hints import PIXELS
from npflow.exercises.marking import FunctionExercise, LayerExercise
from npflow.flow import Flow
from npflow.layers import (
    ActNorm,
    AdditiveCoupling,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Gaussianize,
    MaskedAutoregressive,
    Planar,
    Reverse,
    Spline,
    Split,
    Squeeze,
)
from npflow.layers.parting import log_slope, log_sum, to_pair
from npflow.networks import MADE, MLP
from npflow.networks.masked import causal_mask
from npflow.training import ImportanceSample

SMALL = MLP((16, 16), "tanh")
COUPLING = AffineCoupling(MLP((16,), "tanh"))
# The log-det of an image of 2 x 3 pixels with a factor H or W alone.
ONE_SIDE = (r"log_det of \w+ is (half of|the mean over|off by)", PIXELS)
NO_INVERSE, FORMULA = r"the right z\. \w+\(\w+\(\w\)\) is ", "forward gives (z|the numbers of z)"

# ---------------------------------------------------------------- functions


def log_volume(A):
    """The answer to `volume`."""
    return np.linalg.slogdet(A)[1]


def log_density(x, sign=-1, constant=True):
    """The answer to `density`, by default."""
    z = np.log(x)
    log_prior = priors.Normal(x.shape[1]).log_prob({}, z) if constant else -np.sum(z * z, axis=1) / 2
    return log_prior + sign * np.sum(z, axis=1)


def estimates(log_density, log_prior, log_det):
    """The answer to `importance`."""
    sample = ImportanceSample(np.empty((len(log_density), 0)), log_density - log_prior + log_det)
    return np.array([sample.log_z, sample.effective_sample_size])


def translated(x, mean_A, L_A, mean_B, L_B):
    """The answer to `translation`."""
    return np.linalg.solve(L_A, (x - mean_A).T).T @ L_B.T + mean_B


def normals(rng):
    """Arguments of `translated`."""
    triangle = lambda: np.tril(rng.standard_normal((3, 3)), -1) + np.diag(rng.uniform(0.5, 2, 3))
    x, (mean_A, mean_B) = rng.standard_normal((5, 3)), rng.standard_normal((2, 3))
    return [(x, mean_A, triangle(), mean_B, triangle())]


def mask(kind, places, channels):
    """The answer to `causal_mask`."""
    return causal_mask(kind, (places, channels, channels), channels, np.float64)


def bits_per_dim(log_prob, x, u, levels):
    """The answer to `dequantization`."""
    D = x.shape[1]
    model = Dequantized(Flow(Affine(), priors.Normal(D)), levels)
    return (D * np.log(levels) - log_prob(model.dequantize(x, u))) / (D * np.log(2))


def bound(log_likelihood, log_std, epsilon, z, log_det, of_std=1, of_flow=1):
    """The answer to `bound`, by default."""
    normal = lambda z: -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=-1)
    log_q = normal(epsilon) - of_std * np.sum(log_std, axis=1)[:, None] - of_flow * log_det
    return logsumexp(log_likelihood + normal(z) - log_q, axis=1) - np.log(z.shape[1])


def codes(rng):
    """Arguments of `bound`: a few draws, one draw, and weights near 0."""
    for draws, offset in ((4, 0), (1, 0), (4, -1e3)):
        likelihood, log_det = rng.standard_normal((2, 5, draws))
        epsilon, z = rng.standard_normal((2, 5, draws, 3))
        yield offset + likelihood, rng.standard_normal((5, 3)), epsilon, z, log_det


def one_draw(log_likelihood, log_std, epsilon, z, log_det):
    """The arguments of `bound` for each draw alone."""
    for k in range(z.shape[1]):
        draw = slice(k, k + 1)
        yield log_likelihood[:, draw], log_std, epsilon[:, draw], z[:, draw], log_det[:, draw]


def follow(velocity, product, x, v, steps, sign=1, length=None, late=False, square=True):
    """The answer to `trace`, by default."""
    log_det, h = np.zeros(len(x)), 1 / steps
    for k in range(steps):
        t, before = k * h, x
        x = x + h * velocity(t, x)
        products = product(t, x if late else before, v)
        log_det = log_det + sign * (length or h) * np.sum(products * v if square else products, axis=1)
    return np.concatenate([x, log_det[:, None]], axis=1)


def swirl(rng):
    """Arguments of `follow`: f = tanh(x A + t)."""
    A, x = rng.standard_normal((3, 3)), rng.standard_normal((5, 3))
    velocity = lambda t, x: np.tanh(x @ A + t)
    product = lambda t, x, v: (v @ A) * (1 - velocity(t, x) ** 2)
    return [(velocity, product, x, rng.choice([-1.0, 1.0], x.shape), 4)]


def pair(l, v, share=0.5, around_l=False, sign=1, more=0.0):
    """The answer to `pair`, by default."""
    a, b, _ = to_pair(l, v)
    w = l if around_l else (a + b) / 2
    a, b = w + share * v, w - share * v
    log_det = log_sum(log_slope(a), log_slope(b)) - np.log(2) - log_slope(l)
    return np.stack([a, b, sign * log_det + more], axis=1)


def pixels(rng):
    """Arguments of `bits_per_dim`."""
    prior = priors.Normal(6)
    return [(lambda y: prior.log_prob({}, y), rng.integers(8, size=(5, 6)), rng.random((5, 6)), 8)]


VOLUME = FunctionExercise(
    "volume",
    "log_volume",
    own=log_volume,
    arguments=lambda rng: [(rng.standard_normal((8, 3, 3)),)],
    hints=(
        (
            "= nan",
            "Half of all determinants are negative. A volume has no sign: take np.abs before the logarithm.",
        ),
        ("of shape", "np.linalg.det gives one number for each matrix. Keep them apart."),
    ),
    variants=(
        (lambda A: np.exp(log_volume(A)), "This is the factor itself. Return its logarithm."),
        (lambda A: log_volume(A) / np.log(2), "This is in bits. Take the natural logarithm, np.log."),
        (
            lambda A: log_volume(A) / np.log(10),
            "This is to the base of 10. Take the natural logarithm, np.log.",
        ),
    ),
)
DENSITY = FunctionExercise(
    "density",
    "log_prob",
    own=log_density,
    arguments=lambda rng: [(rng.lognormal(size=(6, 3)),)],
    variants=(
        (
            lambda x: log_density(x, sign=1),
            "This is the log-det of z -> x. The formula asks for x -> z: the derivative of log(x) is 1 / x.",
        ),
        (
            lambda x: log_density(x, sign=0),
            "The log-det is missing. The Jacobian of z_i = log(x_i) has 1 / x_i on its diagonal.",
        ),
        (
            lambda x: log_density(x, constant=False),
            "The constant of the normal density is missing: each component has a term -log(2 pi) / 2.",
        ),
        (
            lambda x: log_density(x, sign=0) - np.sum(np.log(x)),
            "Each row has a log-det of its own: sum over the components of a row (axis=1), not over all "
            "rows.",
        ),
        (
            lambda x: log_density(x, sign=0) + np.sum(1 / x, axis=1),
            "The determinant is the product of the 1 / x_i. Its logarithm is the sum of their logarithms.",
        ),
    ),
)
IMPORTANCE = FunctionExercise(
    "importance",
    "estimates",
    own=estimates,
    arguments=lambda rng: [
        (offset + rng.standard_normal(50), *rng.standard_normal((2, 50))) for offset in (0, 1e3)
    ],
    hints=(("= (nan|-?inf)", "exp overflows. Use `w`, from which the largest log w is subtracted already."),),
    variants=(
        (
            lambda p, q, det: estimates(p, q, -det),
            "log|det dx/dz| is of z -> x: where it is large, x is spread thin. Subtract it from log prior(z).",
        ),
        (
            lambda p, q, det: estimates(p, q, 0),
            "The log-det is missing: log prior(z) is the density of z, not of x.",
        ),
        (lambda p, q, det: estimates(-p, -q, -det), "This is q over p~. The weight is p~ over q."),
        (
            lambda p, q, det: estimates(p, q, det) - np.array([np.max(p - q + det), 0]),
            "Add the largest log w to log Z again: it was subtracted.",
        ),
        (
            lambda p, q, det: estimates(p, q, det) + np.array([np.log(len(p)), 0]),
            "Z is the mean of the weights, not their sum.",
        ),
        (
            lambda p, q, det: estimates(p, q, det) * np.array([1, len(p)]),
            "This is a number of samples. Divide it by n.",
        ),
        (
            lambda p, q, det: np.array([np.mean(p - q + det), estimates(p, q, det)[1]]),
            "This is the mean of log w, a lower bound: minus the loss of the flow. Take the mean of w first.",
        ),
    ),
)
PAIR = FunctionExercise(
    "pair",
    "pair",
    own=pair,
    arguments=lambda rng: [(rng.standard_normal(6), rng.standard_normal(6))],
    variants=(
        (lambda l, v: pair(l, v, share=1.0), "Then a - b is 2 v: the logits lie v / 2 above and below w."),
        (
            lambda l, v: pair(l, v, around_l=True),
            "Around l in place of w, the pixels would have another mean: sigmoid is not linear.",
        ),
        (lambda l, v: pair(l, v, sign=-1), "log|det| is that of (a, b) -> (l, v), not of the inverse."),
        (lambda l, v: pair(l, v, more=np.log(2)), "The mean is half of a sum: subtract log(2 slope(l))."),
    ),
)
TRANSLATION = FunctionExercise(
    "translation",
    "translated",
    own=translated,
    arguments=normals,
    variants=(
        (
            lambda x, mean_A, L_A, mean_B, L_B: translated(x, mean_B, L_B, mean_A, L_A),
            "This goes from B to A. Encode by the flow of A, and decode by that of B.",
        ),
        (
            lambda x, mean_A, L_A, mean_B, L_B: (x - mean_A) @ np.linalg.inv(L_A) @ L_B.T + mean_B,
            "A row of a batch is a row vector: L^-1 x is `np.linalg.solve(L, x.T).T`.",
        ),
        (
            lambda x, mean_A, L_A, mean_B, L_B: translated(x, mean_A, L_A, mean_B, L_B.T),
            "A row of a batch is a row vector: L z is `z @ L.T`.",
        ),
        (
            lambda x, mean_A, L_A, mean_B, L_B: translated(x, mean_A, L_A, 0 * mean_B, L_B) + mean_B @ L_B.T,
            "g subtracts the mean first, and then undoes L. So its inverse multiplies by L first, and then adds the "
            "mean.",
        ),
        (
            lambda x, mean_A, L_A, mean_B, L_B: translated(x, 0 * mean_A, L_A, mean_B, L_B),
            "f subtracts the mean of A before it undoes L.",
        ),
    ),
)
TRACE = FunctionExercise(
    "trace",
    "follow",
    own=follow,
    arguments=swirl,
    hints=(
        (
            r"result\[\d, 3\]",
            "x is right. log_det grows by h times the sum of v * product(t, x, v) of each row.",
        ),
        (r"result\[\d, [0-2]\]", "A step of Euler's method is x + h * velocity(t, x)."),
    ),
    variants=(
        (
            lambda *given: follow(*given, sign=-1),
            "This is the log-det of the inverse. Space grows where tr F > 0.",
        ),
        (lambda *given: follow(*given, length=1), "A step takes the time h: multiply the trace by h."),
        (
            lambda *given: follow(*given, late=True),
            "Take the trace before x moves: at the x that velocity sees.",
        ),
        (
            lambda *given: follow(*given, square=False),
            "This is the sum of F v. Multiply by v before the sum: v^T F v.",
        ),
    ),
)
CAUSAL_MASK = FunctionExercise(
    "causal_mask",
    "causal_mask",
    own=mask,
    arguments=lambda rng: [("B", 5, 3), ("A", 5, 3), ("A", 1, 2)],
    hints=(
        (r"result\[[0-3],", "The first four places are all ones. Write to the last place alone."),
        (
            r"result\[4, (\d), \1\]",
            'Here a channel sees itself, or not: with mask "B" it does, with mask "A" it must not.',
        ),
        (
            r"result\[",
            "The first index of the two is the input channel i, the second the output channel j: j sees the "
            "i before it.",
        ),
    ),
)
BOUND = FunctionExercise(
    "bound",
    "bound",
    own=bound,
    arguments=lambda rng: list(codes(rng)),
    hints=(
        (
            "= (nan|-?inf)",
            "exp overflows, or the log of 0 is taken. Add the largest log w after the logarithm, not before.",
        ),
        ("of shape", "Each row has one bound, over its K draws: axis=1."),
    ),
    variants=(
        (
            lambda *given: bound(*given, of_flow=-1),
            "log_det is that of z_0 -> z: where it is large, q is small. Subtract it in log q.",
        ),
        (lambda *given: bound(*given, of_flow=0), "The log-det of the flow is missing in log q(z | x)."),
        (
            lambda *given: bound(*given, of_std=-1),
            "exp(log_std) stretches epsilon: where it is large, q is small. Subtract log_std in log q.",
        ),
        (
            lambda *given: bound(*given, of_std=0),
            "The step from epsilon to z_0 is missing in log q(z | x): a change of variables by exp(log_std).",
        ),
        (
            lambda *given: bound(*given) + np.log(given[3].shape[1]),
            "p(x) is the mean of the K weights, not their sum.",
        ),
        (
            lambda *given: np.mean([bound(*alone) for alone in one_draw(*given)], axis=0),
            "This is the mean of log w: an estimate of the ELBO, from K draws. Take the mean of w first.",
        ),
    ),
)
DEQUANTIZATION = FunctionExercise(
    "dequantization",
    "bits_per_dim",
    own=bits_per_dim,
    arguments=pixels,
    variants=(
        (
            lambda log_prob, x, u, levels: bits_per_dim(log_prob, x, u, levels) - 2 * np.log2(levels),
            "Subtract D log(levels): a division by `levels` shrinks the volume of a cell.",
        ),
        (
            lambda log_prob, x, u, levels: bits_per_dim(log_prob, x, u, levels) - np.log2(levels),
            "The change of variables is missing: D numbers are divided by `levels`.",
        ),
        (
            lambda *given: bits_per_dim(*given) - (1 - 1 / given[1].shape[1]) * np.log2(given[3]),
            "Each of the D numbers of a row is divided by `levels`: the term counts D times.",
        ),
        (lambda *given: bits_per_dim(*given) * given[1].shape[1], "This is for the whole row. Divide by D."),
        (
            lambda *given: bits_per_dim(*given) * np.log(2),
            "This is in nats. A bit is log(2) nats: divide by log(2).",
        ),
        (lambda *given: -bits_per_dim(*given), "A code of a likely row is short: bits are -log P(x)."),
        (
            lambda log_prob, x, u, levels: bits_per_dim(log_prob, x, 0 * u, levels),
            "The noise is missing: y = (x + u) / levels.",
        ),
        (
            lambda log_prob, *given: bits_per_dim(lambda y: log_prob(given[2] * y), *given),
            "log_prob takes numbers between 0 and 1: divide by `levels`.",
        ),
    ),
)

# ---------------------------------------------------------------- layers

CHAIN = LayerExercise(
    "chain",
    "MyChain",
    own=Chain([ActNorm(), COUPLING, Reverse(), COUPLING]),
    shape=(4,),
    hints=(
        (FORMULA, "The first layer takes x, and each other layer what the one before it gave."),
        (
            NO_INVERSE,
            "The layer that was applied last is undone first, by its inverse: reverse the list of pairs.",
        ),
        ("opposite sign", "layer.inverse gives the log-det of the inverse. Add it as it is."),
        (
            "differently in each row|leaves out",
            "Add up the log-dets of all layers, each taken at what its own layer was given.",
        ),
    ),
)
TRIANGLE = LayerExercise(
    "triangle",
    "MyTriangle",
    own=Conv1x1(),
    shape=(3,),
    translate=lambda params: {
        "permutation": np.arange(len(params["below"])),
        "lower": np.zeros_like(params["below"]),
        "upper": params["below"].T,
        "log_scale": params["log_diagonal"],
        "sign": np.ones(len(params["below"]), np.int8),
    },
    hints=(
        ("is -inf", "Above the diagonal L is 0. The determinant is the product of the diagonal alone."),
        (FORMULA, "A row of a batch is a row vector: z = L x is `x @ L.T`."),
        (
            "depends on the parameters",
            "log_diagonal holds the logarithms of the diagonal already: add them up.",
        ),
    ),
)
AFFINE = LayerExercise(
    "affine",
    "MyAffine",
    own=Affine(),
    shape=(3,),
    hints=(
        (
            NO_INVERSE,
            "forward subtracts the mean first, and scales then. So the inverse undoes the scale first, and "
            "adds the mean last.",
        ),
        (
            "log_det of forward has the opposite sign",
            "forward divides by exp(log_std). Where log_std is large it shrinks space, and the log-det is "
            "negative.",
        ),
    ),
)
ACT_NORM = LayerExercise(
    "act_norm",
    "MyActNorm",
    own=ActNorm(),
    shape=(2, 3, 2),
    starts=True,
    hints=(
        ONE_SIDE,
        (
            "init gives .* of shape",
            "A channel has one number: take mean and std over rows and pixels, axis=(0, 1, 2).",
        ),
        ("init gives log_scale", "exp(log_scale) = 1 / std. Solve it for log_scale."),
        (
            "init gives bias",
            "Scale first, then look at the mean: x / std + bias has mean 0 where bias = -mean / std.",
        ),
        (
            NO_INVERSE,
            "forward scales first, and adds the bias last. So the inverse subtracts the bias first.",
        ),
    ),
)
ADDITIVE = LayerExercise(
    "additive_coupling",
    "MyAdditiveCoupling",
    own=AdditiveCoupling(SMALL),
    shape=(4,),
    variants=((AdditiveCoupling(SMALL, "first"), "The network sees a, the first half, and b is shifted."),),
    hints=(
        ("in another order", "Join the halves as they were cut: a comes first, in z and in x."),
        (FORMULA, "z = (a, b + network(a)): a comes first and is unchanged, and the network sees a alone."),
        (
            NO_INVERSE,
            "a is the same in x and z, so the network gives the same shift of b. The inverse subtracts it.",
        ),
        ("opposite sign|off by", "The diagonal of the Jacobian is all ones, and the logarithm of 1 is 0."),
    ),
)
AFFINE_COUPLING = LayerExercise(
    "coupling",
    "MyCoupling",
    own=AffineCoupling(SMALL),
    shape=(4,),
    variants=(
        (AffineCoupling(SMALL, "first"), "The network sees a, the first half, and b is scaled and shifted."),
        (
            AffineCoupling(SMALL, log_scale_limit=1.0),
            "log_scale is 2 tanh(raw / 2): both numbers 2 are needed.",
        ),
        (AffineCoupling(SMALL, log_scale_limit=1e6), "log_scale is not raw itself, but 2 tanh(raw / 2)."),
    ),
    hints=(
        ("in another order", "Join the halves as they were cut: a comes first, in z and in x."),
        (
            FORMULA,
            "z = (a, b * exp(log_scale) + shift): a comes first, the network sees a, raw is the first half of "
            "its outputs, and b is scaled before it is shifted.",
        ),
        (
            NO_INVERSE,
            "forward scales b first, and shifts it last. So the inverse subtracts the shift first, and then "
            "multiplies by exp(-log_scale). Both come from a, cut as in forward.",
        ),
        ("differently in each row", "The log-det is the sum of log_scale, the bounded one, over a row."),
    ),
)
CONV1X1 = LayerExercise(
    "conv1x1",
    "MyConv1x1",
    own=Conv1x1(),
    shape=(2, 3, 3),
    hints=(
        ONE_SIDE,
        (
            "is -inf|is nan",
            "|det W| is the product of the diagonal of U without its signs. log_scale has the logarithms.",
        ),
        (
            FORMULA,
            'Take `L @ U` first, then its rows by params["permutation"]. In z = x W the matrix comes last.',
        ),
        (
            NO_INVERSE,
            "The inverse multiplies by the inverse of the whole W, permutation included, on the same side.",
        ),
    ),
)
SQUEEZE = LayerExercise(
    "squeeze",
    "MySqueeze",
    own=Squeeze(),
    shape=(4, 2, 3),
    hints=(
        (
            FORMULA,
            "In channel 4 c + 2 a + b of z, c changes slowest and b fastest. So the axes before the last "
            "reshape are row, i, j, c, a, b.",
        ),
        (
            NO_INVERSE,
            "The inverse reshapes z to row, i, j, c, a, b, and transposes it to row, i, a, j, b, c.",
        ),
        ("off by", "Numbers only change their places, so each volume stays as it is: the log-det is 0."),
    ),
)
SPLIT = LayerExercise(
    "split",
    "MySplit",
    own=Split(Conv1x1()),
    shape=(2, 2, 4),
    hints=(
        ("in another order", "Join the halves as they were cut: a comes first, in z and in x."),
        (FORMULA, "z = (a, f(b)): a is the first half of the channels, and f takes the others."),
        (NO_INVERSE, "a is the same in x and z. The inverse applies the inverse of f to the second half."),
        ("log_det", "The block of a is the identity and adds nothing. The log-det is that of f, as it is."),
    ),
)
AUTOREGRESSIVE = LayerExercise(
    "autoregressive",
    "MyAutoregressive",
    own=MaskedAutoregressive(MADE((16, 16), "tanh")),
    shape=(4,),
    hints=(
        (
            NO_INVERSE,
            "Each round makes one more component right, so D rounds are needed. A round computes log_scale "
            "and shift from the newest x, and then x anew from z: less the shift, times exp(-log_scale).",
        ),
        (
            "log_det of inverse is taken at",
            "log_scale depends on x: take it at the x that was found, not at z.",
        ),
    ),
)
PLANAR = LayerExercise(
    "planar",
    "MyPlanar",
    own=Planar(),
    shape=(3,),
    hints=(
        (FORMULA, "z = x + u tanh(a) with a = w.x + b, one number for each row."),
        (
            NO_INVERSE,
            "The inverse needs the a of x, not that of z: root(w.z + b, 1 + w.u) finds it.",
        ),
        (
            "differently in each row",
            "The determinant is 1 + tanh'(a) w.u: it takes the slope of tanh, 1 - tanh(a)^2, and w.u is `product - 1`.",
        ),
    ),
)
GAUSSIANIZE = LayerExercise(
    "gaussianize",
    "MyGaussianize",
    own=Gaussianize(3),
    shape=(2,),
    hints=(
        (FORMULA, "x goes to the logit of F(x), and this logit to z by normal_of_logit."),
        (NO_INVERSE, "z goes back to the logit by logit_of_normal, and this logit to x by mixture_quantile."),
        (
            "differently in each row|taken at",
            "Each component has two terms, log_slope of the mixture and log_normal_slope(z, logit). The "
            "inverse has both with a minus, at the x that was found.",
        ),
    ),
)
SPLINE = LayerExercise(
    "spline",
    "MySpline",
    own=Spline(),
    shape=(2,),
    spread=4.0,
    hints=(
        (
            "the array of .* is nan|is nan",
            "A square root or a logarithm had a negative argument. Check A, B and C, and that y is z - y0.",
        ),
        (
            "rows, those where",
            "Outside [-bound, bound] the curve is z = x: `np.where(outside, x, z)`, and so for x.",
        ),
        (
            r"no len|expected transform|expected untransform",
            "Return the log-slope of each component. The class adds them up.",
        ),
        (FORMULA, "Check z: d0 belongs to t u, s to t^2, and h times the fraction is added to y0."),
        (
            NO_INVERSE,
            "Here t is a share of the bin: between 0 and 1. Check A, B and C, the sign of the root, and x = "
            "x0 + t w.",
        ),
        (
            "differently in each row",
            "Check the slope: d1 belongs to t^2, d0 to u^2, and the whole is divided by D^2. Then take its "
            "logarithm.",
        ),
    ),
)
CONDITIONAL = LayerExercise(
    "conditional",
    "MyConditional",
    own=AdditiveCoupling(SMALL),
    shape=(4,),
    starts=True,
    context=(0.5, -1.0),
    hints=(
        (
            "init gives .* of shape",
            "The network sees a and the context, and returns one number for each component of b.",
        ),
        ("takes a context", "Keep the argument context=None in all three methods."),
        (
            "shapes fit",
            "The network sees `np.concatenate([a, context], axis=1)` in all three methods, a first.",
        ),
        (
            FORMULA,
            "The network sees `np.concatenate([a, context], axis=1)`, a first. Its output is added to b.",
        ),
        (
            NO_INVERSE,
            "a and the context are known, so the network gives the same shift of b. The inverse subtracts "
            "it.",
        ),
    ),
)

EXERCISES = {
    exercise.name: exercise
    for exercise in (
        VOLUME,
        DENSITY,
        IMPORTANCE,
        CHAIN,
        TRIANGLE,
        AFFINE,
        ACT_NORM,
        ADDITIVE,
        AFFINE_COUPLING,
        CONV1X1,
        SQUEEZE,
        SPLIT,
        AUTOREGRESSIVE,
        CAUSAL_MASK,
        GAUSSIANIZE,
        SPLINE,
        PLANAR,
        TRACE,
        CONDITIONAL,
        PAIR,
        TRANSLATION,
        DEQUANTIZATION,
        BOUND,
    )
}


def find(name: str) -> "LayerExercise | FunctionExercise":
    """Return the exercise of a name.

    Parameters
    ----------
    name : str

    Returns
    -------
    LayerExercise or FunctionExercise

    Raises
    ------
    InputError
        If there is no exercise of that name.

    Examples
    --------
    >>> from npflow import exercises
    >>> exercises.find("affine").title
    'scale and shift each component'
    """
    if name not in EXERCISES:
        raise InputError(f"expected an exercise among {', '.join(EXERCISES)}, got {name!r}")
    return EXERCISES[name]
