# %% [markdown]
# # A museum of wrong log-dets
#
# A wrong log-det is hard to see. Training runs, the loss falls, and samples look reasonable, but log p(x) is
# no density. The bugs below are real. They were in the code of well-known libraries (one in a pull request),
# and the tests passed. Each is rebuilt here in a few lines of our own, the wrong formula beside the right one,
# which `right` picks. The library, the number of the report and its author stand with it. A bug with a version
# instead of a number was found by `benchmarks/verify_peers.py`.
#
# `npflow.verify.check_functions` must name the cause of each bug in its first sentence, and pass the right
# formula.

# %%
import json
import math
import textwrap
from dataclasses import dataclass, field
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from npflow import plots
from npflow.autodiff import Layout
from npflow.cli.demo import demo_options
from npflow.layers import AffineCoupling, Chain, Conv1x1, Layer
from npflow.networks import MLP
from npflow.verify import check, check_functions
from npflow.verify.jacobians import by_finite_differences

options = demo_options("museum", "Real bugs in log-dets, rebuilt, and what npflow says of them.")
plt.style.use(plots.STYLE)
rng = np.random.default_rng(0)


@dataclass(frozen=True)
class Exhibit:
    """A bug: `make(right)` returns (forward, inverse), or a layer, with the right or the wrong formula."""

    name: str
    make: callable
    x: np.ndarray
    reported: str  # where, and by whom
    unseen: str  # why the tests passed
    shown: str = "forward"  # the Jacobian in the figure: of forward, of inverse, or of x -> z -> x ("back")
    known: dict = field(default_factory=dict)  # what is known of the functions, for `check_functions`


MUSEUM = []


def exhibit(name, x, **words):
    """Add a bug to the museum."""
    return lambda make: MUSEUM.append(Exhibit(name, make, x, **words)) or make


# %% [markdown]
# ## The sign
#
# The log-det of the inverse is minus that of forward, at the same pair (x, z). A test at the parameters where
# a layer starts often cannot see a wrong sign: the log-det is 0 there.


# %%
@exhibit(
    "scaling, backwards",
    rng.normal(size=(32, 3)),
    reported="FrEIA 0.2, LearnedElementwiseScaling",
    unseen="the scale starts at 1, where the log-det is 0",
    shown="inverse",
)
def scaling(right):
    log_scale = np.array([0.5, -0.3, 0.8])
    log_det = np.sum(log_scale)

    def forward(x):
        return x * np.exp(log_scale), np.full(len(x), log_det)

    def inverse(z):
        return z * np.exp(-log_scale), np.full(len(z), -log_det if right else log_det)

    return forward, inverse


@exhibit(
    "numerical inverse",
    rng.normal(size=(32, 3)),
    reported="flowjax 208, amanjitsk, 2025",
    unseen="the test inverts a map with log-det 0",
    shown="inverse",
)
def numerical_inverse(right):
    def forward(x):
        return x + 0.5 * np.tanh(x), np.sum(np.log(1 + 0.5 / np.cosh(x) ** 2), axis=1)

    def inverse(z):
        x = z
        for _ in range(40):  # Newton's method
            x = x - (forward(x)[0] - z) / (1 + 0.5 / np.cosh(x) ** 2)
        log_det = forward(x)[1]
        return x, -log_det if right else log_det

    return forward, inverse


@exhibit(
    "autoregressive, backwards",
    rng.normal(size=(32, 3)),
    reported="pytorch-flows 16, jaanaltosaar, 2020",
    unseen="the other layers have a test, MADE has none",
    shown="inverse",
)
def autoregressive(right):
    weight = np.triu(np.random.default_rng(1).normal(size=(3, 3)), 1)  # component i sees those before it

    def shift_and_log_scale(x):
        return x @ weight, np.tanh(x @ weight[::-1, ::-1].T)

    def forward(x):
        m, a = shift_and_log_scale(x)
        return (x - m) * np.exp(-a), -np.sum(a, axis=1)

    def inverse(z):
        x = np.zeros_like(z)
        for _ in range(x.shape[1]):  # each pass makes one more component right
            m, a = shift_and_log_scale(x)
            x = z * np.exp(a) + m
        log_det = np.sum(a, axis=1)
        return x, log_det if right else -log_det

    return forward, inverse


@exhibit(
    "a flow of layers, sampling",
    rng.normal(size=(32, 2)),
    reported="normflows 27, h2o64, 2023",
    unseen="the last layers of the test's networks are 0, so that all log-dets are 0",
    shown="inverse",
)
def flow_of_layers(right):
    slopes = (1.0, -0.7)  # each layer scales one component by a function of the other

    def forward(x):
        total = 0
        for slope in slopes:
            s = np.tanh(slope * x[:, 0])
            x = np.stack([x[:, 1] * np.exp(s), x[:, 0]], axis=1)
            total = total + s
        return x, total

    def inverse(z):
        total = 0
        for slope in reversed(slopes):
            s = np.tanh(slope * z[:, 1])
            z = np.stack([z[:, 1], z[:, 0] * np.exp(-s)], axis=1)
            total = total - s if right else total + s
        return z, total

    return forward, inverse


# %% [markdown]
# ## The cache
#
# TensorFlow Probability, pyro and flowtorch remember which `x` a `z` came from. `inverse(z)` then returns that
# `x`, and the code of the inverse does not run. A test of the round trip passes, whatever this code computes.
# So a check has to call the inverse with a new array.


# %%
def cached(forward, inverse):
    """Two functions with a memory: the inverse of an array that forward made is looked up."""
    made = {}

    def remembering(x):
        z, log_det = forward(x)
        made[id(z)] = z, x, log_det
        return z, log_det

    def recalling(z):
        if id(z) in made:
            _, x, log_det = made[id(z)]
            return x, -log_det
        return inverse(z)

    return remembering, recalling


@exhibit(
    "spline behind a cache",
    rng.normal(size=(32, 2)),
    reported="flowtorch 100, stefanwebb, 2022",
    unseen="the test compared log-dets from the cache",
    shown="inverse",
)
def spline_behind_a_cache(right):
    bend, end = 0.1, 3.0  # one parabola from (-3, -3) to (3, 3), and the identity outside

    def log_det(x):
        return np.sum(np.where(np.abs(x) < end, np.log(np.abs(1 - 2 * bend * x)), 0), axis=1)

    def forward(x):
        return np.where(np.abs(x) < end, x + bend * (end**2 - x**2), x), log_det(x)

    def inverse(z):
        inside = np.abs(z) < end
        root = np.sqrt(1 - 4 * bend * (np.where(inside, z, 0) - bend * end**2))
        x = np.where(inside, (1 - root) / (2 * bend), z)
        return x, -log_det(x) if right else log_det(x)

    return cached(forward, inverse)


@exhibit(
    "inverse behind a cache",
    rng.normal(size=(32, 2)),
    reported="tfp 0.26 (nightly), Softfloor",
    unseen="the cache answers inverse(forward(x))",
    shown="back",
)
def softfloor(right):
    t = 0.5
    e, lift = np.exp(0.5 / t), 1 / (1 + np.exp(0.5 / t))  # each step of the floor is a piece of a sigmoid

    def log_det(x):
        at = (x - 0.5 - np.floor(x - 0.5) - 0.5) / t
        slope = np.exp(at) / (1 + np.exp(at)) ** 2 / t * (e + 1) / (e - 1)
        return np.sum(np.log(slope), axis=1)

    def forward(x):
        step = np.floor(x - 0.5)
        rise = np.exp((x - 0.5 - step) / t)
        return step + e * (rise - 1) / ((e - 1) * (rise + e)) + lift, log_det(x)

    def inverse(z):
        y = z - lift if right else z
        step = np.floor(y)
        part = (e - 1) * (y - step)
        x = step + t * np.log((1 + part) / (e - part)) + (1 if right else 1 - lift)
        return x, -log_det(x)

    return cached(forward, inverse)


# %%
softfloors, inverse_of_softfloors = softfloor(right=False)
x = rng.normal(size=(32, 2))
z, _ = softfloors(x)
off = [np.max(np.abs(inverse_of_softfloors(array)[0] - x)) for array in (z, z.copy())]
print(f"the round trip is off by {off[0]:.3f} through the cache, by {off[1]:.3f} with a copy of z\n")

# %% [markdown]
# ## An inverse that does not invert
#
# A coupling must join its halves as it took them apart. A planar layer is invertible only if its parameters
# satisfy a condition. Where they do not, log|det J| still has a value: the absolute value hides that det J
# changes sign.


# %%
@exhibit(
    "halves joined another way",
    rng.normal(size=(32, 4)),
    reported="pytorch-normalizing-flows 1, TrentBrick, 2020",
    unseen="with two components both ways agree",
    shown="back",
)
def halves(right):
    def join(a, b):
        interleaved = np.stack([a, b], axis=2).reshape(len(a), -1)
        return interleaved if right else np.concatenate([a, b], axis=1)

    def forward(x):
        a, b = x[:, ::2], x[:, 1::2]  # the even and the odd components
        s = np.tanh(a)
        return join(a, b * np.exp(s)), np.sum(s, axis=1)

    def inverse(z):
        a, b = z[:, ::2], z[:, 1::2]
        s = np.tanh(a)
        return join(a, b * np.exp(-s)), -np.sum(s, axis=1)

    return forward, inverse


@exhibit(
    "planar, condition missed",
    rng.normal(size=(64, 2)),
    reported="pyro 2192, jrmcornish, 2019",
    unseen="log|det J| is right where det J is negative too, and there is no inverse to test",
    shown="back",
)
def planar(right):
    u, w = np.array([-5.0, 4.0]), np.array([0.4, -0.3])
    length = np.sum(w**2) if right else np.sqrt(np.sum(w**2))
    u = u + (np.log1p(np.exp(w @ u)) - 1 - w @ u) * w / length  # by |w|^2, now w u > -1

    def log_det(along):
        return np.log(np.abs(1 + (w @ u) / np.cosh(along) ** 2))

    def forward(x):
        return x + u * np.tanh(x @ w)[:, None], log_det(x @ w)

    def inverse(z):  # added here: bisection finds w x, if forward increases along w
        low, high = z @ w - np.abs(w @ u), z @ w + np.abs(w @ u)
        for _ in range(60):
            middle = (low + high) / 2
            above = middle + (w @ u) * np.tanh(middle) > z @ w
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return z - u * np.tanh(low)[:, None], -log_det(low)

    return forward, inverse


# %% [markdown]
# ## The sum
#
# A log-det is one number for each row: a sum over all components of the row, pixels included, and over nothing
# else. Arrays of different shapes are broadcast, and added without an error.


# %%
@exhibit(
    "H W forgotten",
    rng.normal(size=(32, 2, 1, 2)),
    reported="tfp 238, leao1995, 2018",
    unseen="the test repeats the formula, or has variance 1, with log-det 0",
)
def batch_normalization(right):
    log_scale = np.array([0.4, 0.7])  # one for each channel
    log_det = (2 if right else 1) * np.sum(log_scale)  # H W: each of 2 x 1 pixels is scaled

    def forward(x):
        return x * np.exp(log_scale), np.full(len(x), log_det)

    def inverse(z):
        return z * np.exp(-log_scale), np.full(len(z), -log_det)

    return forward, inverse


@exhibit(
    "summed over one axis",
    rng.normal(size=(32, 2, 1, 2)),
    reported="FrEIA 176 and 177, StefanWahl, 2024",
    unseen="a vector has only one axis to sum over",
    known={"codomain": (0, 1)},
)
def sigmoid(right):
    axes = (1, 2, 3) if right else 1

    def forward(x):
        z = 1 / (1 + np.exp(-x))
        return z, np.sum(np.log(z * (1 - z)), axis=axes)

    def inverse(z):
        return np.log(z / (1 - z)), -np.sum(np.log(z * (1 - z)), axis=axes)

    return forward, inverse


@exhibit(
    "two shapes, broadcast",
    rng.normal(size=(32, 4)),
    reported="tfp 576, MokkeMeguru, 2019",
    unseen="(n, 1) + (n,) is (n, n), without an error",
)
def blocks(right):
    def forward(x):
        a, b = x[:, :2], x[:, 2:]
        of_a = np.sum(a, axis=1, keepdims=not right)
        of_b = np.sum(np.log(np.cosh(b)), axis=1)
        return np.concatenate([np.exp(a), np.sinh(b)], axis=1), of_a + of_b

    def inverse(z):
        a, b = np.log(z[:, :2]), np.arcsinh(z[:, 2:])
        return np.concatenate([a, b], axis=1), -forward(np.concatenate([a, b], axis=1))[1]

    return forward, inverse


@exhibit(
    "summed over the batch",
    rng.uniform(0.3, 3, size=(32, 2)),
    reported="pymc 800, jsalvatier, 2015",
    unseen="the test looked at the sum, which was right; the density added it to each element",
    known={"domain": (0, np.inf)},
)
def logarithm(right):
    def forward(x):
        log_det = -np.sum(np.log(x), axis=1)
        return np.log(x), log_det if right else np.full(len(x), np.sum(log_det))

    def inverse(z):
        log_det = np.sum(z, axis=1)
        return np.exp(z), log_det if right else np.full(len(z), np.sum(log_det))

    return forward, inverse


@exhibit(
    "overwritten, not added",
    rng.normal(size=(32, 4)),
    reported="tensorflow/models 7465, haowen-xu, 2019",
    unseen="training uses the other direction",
    shown="inverse",
)
def chain(right):
    layers = (Conv1x1(), AffineCoupling(MLP((8,), "tanh")))
    return (Chain if right else Overwriting)(layers)


@dataclass(frozen=True)
class Overwriting(Chain):
    """A chain whose inverse keeps the log-det of the last layer that it applies."""

    def inverse(self, params, z):
        for layer, p in reversed(list(zip(self.layers, params))):
            z, log_det = layer.inverse(p, z)  # log_det = log_det + ...
        return z, log_det


# %% [markdown]
# ## The determinant
#
# A paper writes columns, `A x`; code has rows, `x A`. The matrices of a formula then change places, and their
# product need not be triangular any more. And det J may be negative: `log` needs its absolute value.


# %%
@exhibit(
    "Sylvester, in rows",
    rng.normal(size=(32, 3)),
    reported="pyro 1.9.2, Sylvester",
    unseen="the test starts at weights below 0.01: the error is below 1e-7, its tolerance 1e-4",
)
def sylvester(right):
    draw = np.random.default_rng(3)
    q, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    r, s = np.triu(draw.uniform(-0.9, 0.9, size=(2, 3, 3)))
    a, b = q @ r, s @ q.T

    def forward(x):
        h = np.tanh(x @ b)
        slope = (1 - h**2)[:, None, :]
        if right:  # det(I + B diag(h') A) = det(I + A B diag(h')), and A B = Q R S Q' is not triangular
            log_det = np.linalg.slogdet(np.eye(3) + (a @ b) * slope)[1]
        else:
            log_det = np.sum(np.log(np.abs(1 + slope[:, 0] * np.diag(r) * np.diag(s))), axis=1)
        return x + h @ a, log_det

    return forward, None


@exhibit(
    "abs forgotten",
    rng.normal(size=(32, 2)),
    reported="aeppl 111, lucianopaz, 2022",
    unseen="an increasing map needs no abs",
)
def decreasing(right):
    scale = np.array([-2.0, 0.7])

    def forward(x):
        det = np.prod(scale)
        return x * scale, np.full(len(x), np.log(np.abs(det) if right else det))

    def inverse(z):
        x = z / scale
        return x, -forward(x)[1]

    return forward, inverse


# %% [markdown]
# ## The tail
#
# Right for most rows, wrong far out or on one side. A few rows from a normal distribution seldom get there.


# %%
@exhibit(
    "leaky ReLU, one side",
    rng.normal(size=(64, 2)),
    reported="flowjax 169, weiyaw, 2024 (in review)",
    unseen="all rows of the test fell on the positive side",
    shown="inverse",
)
def leaky_planar(right):
    u, w, leak = np.array([0.9, 0.4]), np.array([0.7, 0.5]), 0.2

    def forward(x):
        at = x @ w + 1.0
        slope = np.where(at < 0, leak, 1.0)
        return x + u * (slope * at)[:, None], np.log(1 + slope * (w @ u))

    def inverse(z):
        at = z @ w + 1.0  # has the sign of x w + 1
        slope = np.where(at < 0, leak, 1.0)
        x = z - u * (slope * at / (1 + slope * (w @ u)))[:, None]
        return x, -np.log(1 + (slope if right else slope**2) * (w @ u))

    return forward, inverse


@exhibit(
    "spline, outside",
    np.concatenate([rng.normal(size=(48, 2)), rng.normal(size=(16, 2)) + 5]),
    reported="pyro 3139, LiaoShiqi97, 2022",
    unseen="only a z outside of the interval meets it",
    shown="inverse",
)
def spline_outside(right):
    bend, end = 0.1, 3.0

    def log_det(x):
        return np.sum(np.where(np.abs(x) < end, np.log(np.abs(1 - 2 * bend * x)), 0), axis=1)

    def forward(x):
        return np.where(np.abs(x) < end, x + bend * (end**2 - x**2), x), log_det(x)

    def inverse(z):
        inside = np.abs(z) < end
        square = 1 - 4 * bend * ((np.where(inside, z, 0) if right else z) - bend * end**2)
        if (square < 0).any():
            raise ValueError("expected a square root of a number that is not negative")
        x = np.where(inside, (1 - np.sqrt(square)) / (2 * bend), z)
        return x, -log_det(x)

    return forward, inverse


@exhibit(
    "tanh, far out",
    np.concatenate([rng.normal(size=(48, 2)), 11 + rng.uniform(size=(16, 2))]).astype(np.float32),
    reported="survae_flows 12, norabelrose, 2021",
    unseen="rows of a normal distribution do not reach 9, where tanh x rounds to 1 in float32",
    known={"jacobian": lambda x: np.eye(2) / np.cosh(x)[:, :, None] ** 2},  # differences see only rounding
)
def tanh(right):
    def forward(x):
        z, size = np.tanh(x), np.abs(x)
        slope = math.log(4) - 2 * size - 2 * np.log1p(np.exp(-2 * size)) if right else np.log(1 - z**2)
        return z, np.sum(slope, axis=1)

    return forward, None


# %% [markdown]
# ## What the check says
#
# `check_functions` takes functions, `check` a layer. The error is that of the log-det at the worst row, in nats,
# or that of x where the inverse is wrong.


# %%
def checked(one, right):
    """The report of an exhibit."""
    subject = one.make(right)
    if isinstance(subject, Layer):
        return check(subject, one.x)
    return check_functions(*subject, one.x, name=one.name, **one.known)


def functions(one, right):
    """The two directions as functions; those of a layer away from where its parameters start."""
    subject = one.make(right)
    if not isinstance(subject, Layer):
        return subject
    start = subject.init(np.random.default_rng(0), one.x)
    layout = Layout(start)
    params = layout.unpack(
        layout.pack(start) + 0.3 * np.random.default_rng(1).normal(size=layout.size), start
    )
    return tuple(partial(method, params) for method in (subject.forward, subject.inverse))


def beside(one):
    """The Jacobian of an exhibit at its worst row, the true and the claimed log-det there, and the error, as text."""
    (forward, inverse), right = functions(one, False), functions(one, True)
    x = one.x.astype(np.float64)
    if one.shown == "back":
        back = lambda x: inverse(forward(x)[0].copy())[0]  # a copy, which no cache knows
        off = np.max(np.abs(back(x) - x), axis=1)
        worst = np.argmax(off)
        words = f"should be the identity\nx is off by {off[worst]:.3f}"
        return by_finite_differences(back, x)[0][worst], words, f"{off[worst]:.2f} in x"
    side = one.shown == "inverse"
    rows = forward(x)[0] if side else x
    matrices, _ = by_finite_differences(lambda rows: right[side](rows)[0], rows)
    true = np.linalg.slogdet(matrices)[1]
    try:
        claimed = (forward, inverse)[side](rows.astype(one.x.dtype))[1]
    except ValueError:
        return matrices[-1], f"log|det J| = {true[-1]:z.3f}\nclaimed: none, it raises an error", "error"
    if claimed.shape != true.shape:
        return matrices[0], f"log|det J| = {true[0]:z.3f}\nclaimed: shape {claimed.shape}", "shape"
    off = np.abs(claimed - true)
    worst = np.argmax(off)  # a nan, if there is one
    return (
        matrices[worst],
        f"log|det J| = {true[worst]:z.3f}\nclaimed: {claimed[worst]:z.3f}",
        f"{off[worst]:.2f}",
    )


with np.errstate(all="ignore"):
    reports = {one.name: checked(one, right=False) for one in MUSEUM}
    mended = {one.name: checked(one, right=True) for one in MUSEUM}
    shown = {one.name: beside(one) for one in MUSEUM}
print(f"{'exhibit':27}{'reported':46}{'error [nats]':>12}  the first sentence of the check")
for one in MUSEUM:
    sentence = reports[one.name].cause.partition(": ")[2]
    print(f"{one.name:27}{one.reported:46}{shown[one.name][2]:>12}  {textwrap.shorten(sentence, 90)}")
print(f"{sum(report.passed for report in mended.values())} of {len(mended)} right formulas pass")

# %% [markdown]
# ## Why the tests did not see it

# %%
for one in MUSEUM:
    print(f"{one.name:27}{one.unseen}")

# %% [markdown]
# One report in full, of the first exhibit:

# %%
print(reports[MUSEUM[0].name])

# %% [markdown]
# ## Each Jacobian beside the claim
#
# The numerical Jacobian of the map, at the row where the wrong formula is furthest off. A row of the picture is
# an output, a column an input. The true and the claimed log|det J| stand below.

# %%
WHICH = {"forward": "z(x)", "inverse": "x(z)", "back": "x(z(x))"}
figure, axes = plt.subplots(4, 5, figsize=(10, 11), layout="constrained")
figure.get_layout_engine().set(h_pad=0.15)
for ax, one in zip(axes.flat, MUSEUM):
    matrix, words, _ = shown[one.name]
    plots.jacobian(matrix, ax, title=f"{one.name}\n{one.reported.split(',')[0]}")
    ax.images[0].colorbar.ax.set_visible(False)  # the numbers are in the cells
    ax.title.set_fontsize(8)
    size = np.max(np.abs(matrix))
    ax.set(
        ylabel="", xlabel=f"J of {WHICH[one.shown]}{f', up to {size:.0e}' if size < 1e-3 else ''}\n{words}"
    )
for ax in axes.flat[len(MUSEUM) :]:
    ax.set_axis_off()
figure.savefig(options.out / "museum.png")

# %%
summary = {
    one.name: {
        "reported": one.reported,
        "unseen_because": one.unseen,
        "wrong": reports[one.name].verdict,
        "cause": reports[one.name].cause,
        "right": mended[one.name].verdict,
    }
    for one in MUSEUM
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"figure and summary.json in {options.out}")
