"""Every mistake that a normalizing-flow layer is known to be shipped with, each caught for its own reason."""

import re
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
import pytest
from autograd.extend import defvjp, primitive
from autograd.tracer import getval
from helpers import rows

from npflow.autodiff.primitives import concatenate_last, split_last, spread_rows, sum_event, tanh
from npflow.errors import VerificationError
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Inverse, Layer, Split, Squeeze
from npflow.layers.composite import Composite, Step
from npflow.layers.coupling import Coupling
from npflow.layers.masks import ChannelMask, Checkerboard
from npflow.networks import MLP
from npflow.verify import check

WRONG = {}
small = MLP((8,), "tanh")


def wrong(check_name, words, event_shape=(4,)):
    """Register a wrong layer, the check that must fail, and what its sentence must say."""

    def register(cls):
        WRONG[cls.__name__] = (dataclass(frozen=True)(cls), check_name, words, event_shape)
        return cls

    return register


class Right(Layer):
    """The scale that the wrong layers below get wrong: z = x exp(s), one s for each component."""

    def init(self, rng, x):
        return {"s": np.zeros(x.shape[1:], x.dtype)}

    def forward(self, params, x):
        return x * np.exp(params["s"]), spread_rows(np.sum(params["s"]), len(x))

    def inverse(self, params, z):
        return z * np.exp(-params["s"]), spread_rows(-np.sum(params["s"]), len(z))


@dataclass(frozen=True)
class Small(AffineCoupling):
    """A right coupling with a small smooth network."""

    network: MLP = small


class Changed:
    """Changes the log-dets of the layer that stands behind it."""

    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return z, self.of_forward(log_det, params, x)

    def inverse(self, params, z):
        x, log_det = super().inverse(params, z)
        return x, self.of_inverse(log_det, params, z)

    of_forward = of_inverse = lambda self, log_det, params, array: log_det


def test_the_layer_that_they_are_variations_of_is_right():
    check(Right(), batch((4,))).raise_if_failed()


@wrong("log-det forward, finite differences", "opposite sign")
class SignOfTheLogDet(Changed, Right):
    of_forward = of_inverse = lambda self, log_det, params, x: -log_det


@wrong("log-det inverse, finite differences", "opposite sign.*minus the forward's")
class InverseNotNegated(Changed, Right):
    of_inverse = lambda self, log_det, params, z: -log_det


@wrong("log-det forward, finite differences", "abs is missing under the log")
class AbsForgotten(Layer):
    def init(self, rng, x):
        return {"a": np.ones(x.shape[1:], x.dtype)}

    def forward(self, params, x):
        return x * params["a"], spread_rows(np.sum(np.log(params["a"])), len(x))

    def inverse(self, params, z):
        return z / params["a"], spread_rows(-np.sum(np.log(params["a"])), len(z))


@wrong("log-det forward, finite differences", "lacks the factor H W = 6", event_shape=(2, 3, 4))
class PixelsForgotten(ActNorm):
    def log_det(self, params, x):
        return spread_rows(np.sum(params["log_scale"]), len(x))


@wrong("log-det forward, finite differences", "summed over the batch")
class SummedOverTheBatch(Changed, Small):
    of_forward = lambda self, log_det, params, x: spread_rows(np.sum(log_det), len(x))


@wrong("shapes", r"expected log_det of forward to have shape \(16,\).*got \(16, 1\)")
class LogDetOfShapeN1(Changed, Right):
    of_forward = lambda self, log_det, params, x: np.reshape(log_det, (-1, 1))


@wrong("shapes", r"expected log_det of forward to have shape \(16,\).*got \(\)")
class LogDetOneScalar(Changed, Right):
    of_forward = lambda self, log_det, params, x: np.sum(params["s"])


@wrong("log-det forward, finite differences", "leaves out that of layer 1 .Conv1x1.")
class LayerLeftOut(Chain):
    layers: tuple = (ActNorm(), Conv1x1(), Small())

    def forward(self, params, x):
        log_det = np.zeros(len(x), x.dtype)
        for index, (layer, p) in enumerate(zip(self.layers, params)):
            x, layer_log_det = layer.forward(p, x)
            if index != 1:
                log_det = log_det + layer_log_det
        return x, log_det


@wrong("log-det forward, finite differences", "the mean over the 4 components, not their sum")
class MeanForSum(Changed, Right):
    of_forward = lambda self, log_det, params, x: spread_rows(np.mean(params["s"]), len(x))


@wrong("log-det forward, finite differences", "differently in each row: it is taken from the wrong values")
class LogDetOfTheUntransformedHalf(Changed, Small):
    def of_forward(self, log_det, params, x):
        kept, changed = self.mask.parts(x)
        return Small.log_det(self, params, concatenate_last(changed, kept))


@wrong("rows independent", "rows influence each other")
class BatchStatistics(Right):
    def forward(self, params, x):
        z, log_det = super().forward(params, x - np.mean(x, axis=0))
        return z, log_det


@wrong("x -> z -> x", "the inverse is approximate")
class InverseOnlyApproximate(Right):
    def inverse(self, params, z):
        x, log_det = super().inverse(params, z)
        return x + 1e-4 * np.sin(z), log_det


@wrong("x -> z -> x", "are halves taken and joined in the same way")
class InterleavedOneWayJoinedTheOther(Small):
    """Even channels condition odd ones, but both directions join the halves side by side."""

    class Mask(ChannelMask):
        def join(self, kept, changed):
            return concatenate_last(kept, changed)

    mask = Mask("odd")


@wrong("log-det forward, finite differences", "differently in each row", event_shape=(2, 2, 2))
class CheckerboardSummedOverAllPixels(Small):
    """The log-scales of the pixels that stay count too."""

    class Mask(Checkerboard):
        def log_det(self, log_slope):
            return sum_event(log_slope)

    mask = Mask("checkerboard-odd")


@wrong("x -> z -> x", "is a permutation or transpose undone", event_shape=(2, 4, 2))
class SqueezedInOneOrderUnsqueezedInTheOther(Squeeze):
    """All channels of the first pixel first, then back as if the pixels of each channel lay side by side."""

    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        pixels = np.reshape(z, (*z.shape[:-1], -1, 4))
        return np.reshape(np.swapaxes(pixels, -1, -2), z.shape), log_det


_cache = {}


@wrong("no memory between calls", r"something is kept between calls \(a cached log_det\?\)")
class LogDetFromACache(Small):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        _cache["log_det"] = log_det
        return z, log_det

    def inverse(self, params, z):
        x, log_det = super().inverse(params, z)
        cached = _cache.get("log_det")
        return x, (-cached if cached is not None and len(cached) == len(z) else log_det)


@wrong("float32 kept", "expected float32 throughout, got float64 from multiply")
class Float32Promoted(Changed, Right):
    of_forward = lambda self, log_det, params, x: log_det * onp.int64(1)


@wrong("input unchanged", "forward changed its input in place")
class InputChangedInPlace(Right):
    def forward(self, params, x):
        if isinstance(x, onp.ndarray):
            x += 1.0
            return super().forward(params, x)
        return super().forward(params, x + 1.0)

    def inverse(self, params, z):
        x, log_det = super().inverse(params, z)
        return x - 1.0, log_det


@wrong("input unchanged", "inverse changed the parameter 's' in place")
class ParameterChangedInPlace(Right):
    def inverse(self, params, z):
        if isinstance(params["s"], onp.ndarray):
            params["s"] *= 0.999
        return super().inverse(params, z)


@primitive
def half_tanh(x):
    return onp.tanh(x)


defvjp(half_tanh, lambda y, x: lambda g: 0.5 * g * (1 - y * y))


class Additive(Layer):
    """An additive coupling; its log-det of 0 cannot show a wrong derivative of its network."""

    def init(self, rng, x):
        half = x.shape[-1] // 2
        return {"w": rng.standard_normal((half, half)).astype(x.dtype), "b": np.zeros(half, x.dtype)}

    def forward(self, params, x):
        kept, changed = split_last(x, x.shape[-1] // 2)
        return concatenate_last(kept, changed + self.shift(params, kept)), np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        kept, changed = split_last(z, z.shape[-1] // 2)
        return concatenate_last(kept, changed - self.shift(params, kept)), np.zeros(len(z), z.dtype)


@wrong("derivative of forward", "a primitive's derivative is wrong, by a factor of 0.5")
class DerivativeOffByAFactor(Additive):
    def shift(self, params, kept):
        return half_tanh(kept) @ params["w"] + params["b"]


@primitive
def dense_with_wrong_bias(x, w, b):
    return x @ w + b


defvjp(
    dense_with_wrong_bias,
    lambda y, x, w, b: lambda g: g @ w.T,
    lambda y, x, w, b: lambda g: x.T @ g,
    lambda y, x, w, b: lambda g: np.mean(g, axis=0),
)


@wrong("gradient of forward", "in the parameter 'b' is .*: a primitive's derivative is wrong")
class ParameterGradientOff(Additive):
    def shift(self, params, kept):
        return tanh(dense_with_wrong_bias(kept, params["w"], params["b"]))


_dice = onp.random.default_rng(0)


@wrong("same output twice", "forward gave two outputs for the same input")
class RandomOutput(Right):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return z + 1e-6 * _dice.standard_normal(x.shape), log_det


@wrong("Jacobian invertible", "the Jacobian of forward is singular in row 0")
class Singular(Right):
    """Adds up its components: no bijection. The log-det -inf is right, and must not pass all the same."""

    def forward(self, params, x):
        total = np.sum(x, axis=-1, keepdims=True)
        return total * np.ones(x.shape[-1]), np.full(len(x), -np.inf)


@dataclass(frozen=True)
class Scaled(Coupling):
    """A coupling that scales by exp(clip(raw)) and sums raw."""

    network: MLP = small
    numbers = 2
    clip = staticmethod(lambda raw: raw)

    def forward(self, params, x):
        kept, changed = self.mask.parts(x)
        raw, shift = split_last(self.network.apply(params, kept), kept.shape[-1])
        return self.mask.join(kept, changed * np.exp(self.clip(raw)) + shift), sum_event(raw)

    def inverse(self, params, z):
        kept, changed = self.mask.parts(z)
        raw, shift = split_last(self.network.apply(params, kept), kept.shape[-1])
        return self.mask.join(kept, (changed - shift) * np.exp(-self.clip(raw))), -sum_event(raw)


@wrong("finite for large inputs", "an exp overflows; bound its argument")
class Overflowing(Scaled):
    network: MLP = MLP((8,), "softplus")


@wrong("log-det forward, far out", "off by .* nats")
class ClippedInTheMapAlone(Scaled):
    """The log-scale is clipped for exp, but summed as it was: right until training gets there."""

    clip = staticmethod(lambda raw: np.clip(raw, -3, 3))


@wrong("log_det alone", "the method log_det gave another number")
class LogDetMethodDiffers(Right):
    def log_det(self, params, x):
        return spread_rows(-np.sum(params["s"]), len(x))


@wrong("log_det alone", r"the method log_det gave shape \(\), forward \(8,\)")
class LogDetMethodOfAnotherShape(Right):
    def log_det(self, params, x):
        return np.sum(params["s"])


@wrong("log-dets cancel", "forward and inverse are the same")
class BothDirectionsTheSame(Changed, Right):
    of_inverse = lambda self, log_det, params, z: -log_det


@wrong(
    "log-det forward, finite differences",
    "off by .* nats in every row: a term that depends on the parameters",
)
class ConstantTermMissing(Changed, Chain):
    layers: tuple = (Right(), ActNorm())
    of_forward = lambda self, log_det, params, x: log_det - params[0]["s"][0]


@wrong("gradient of forward", "forward's log_det in its input is .* a primitive's derivative is wrong")
class LogDetCutOffFromItsInput(Changed, Small):
    """Right in value, but the log-det that every earlier layer is trained by has no gradient."""

    of_forward = lambda self, log_det, params, x: Small.forward(self, params, getval(x))[1]


@wrong("no memory between calls", "something is kept from the first call .an initialization in forward")
class InitializedAtItsFirstForward(Layer):
    def forward(self, params, x):
        if "mean" not in vars(self):
            object.__setattr__(self, "mean", onp.mean(getval(x), axis=0))
        return x - self.mean.astype(x.dtype), np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        return z + self.mean.astype(z.dtype), np.zeros(len(z), z.dtype)


@wrong(
    "log-det forward, finite differences", "abs is missing under the log|by .* nats|differently in each row"
)
class AbsForgottenUnderADeterminant(Layer):
    """log(det W) is right for half of all matrices."""

    def init(self, rng, x):
        return {"w": onp.eye(x.shape[1], dtype=x.dtype)}

    def forward(self, params, x):
        return x @ params["w"], spread_rows(np.log(np.linalg.det(params["w"])), len(x))

    def inverse(self, params, z):
        return z @ np.linalg.inv(params["w"]), spread_rows(-np.log(np.linalg.det(params["w"])), len(z))


@wrong("derivative of forward", "autograd sees no way from the input of forward to its output")
class WrittenWithPlainNumPy(Right):
    def forward(self, params, x):
        return onp.array(getval(x)) * np.exp(params["s"]), spread_rows(np.sum(params["s"]), len(x))


spread = primitive(lambda row, rows: onp.tile(row, (rows, 1)))
defvjp(spread, lambda y, row, rows: lambda g: g)  # it does not sum over the rows


@wrong(
    "float64 kept", r"a derivative of <lambda> that has the shape of its argument, got one of shape \(8, 4\)"
)
class BroadcastNotSummedByADerivative(Right):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return z + 0 * spread(params["s"], len(x)), log_det


@wrong("input unchanged", "forward changed the tree of parameters itself: expected no array at 'cache'")
class CacheInTheParameters(Right):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        params["cache"] = log_det
        return z, log_det


@wrong("float32 agrees with float64", "the array of forward differs between float32 and float64")
class WrongInFloat32Alone(Right):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return (z + np.float32(0.01), log_det) if x.dtype == onp.float32 else (z, log_det)


@wrong("init repeats itself", "init changed its batch in place")
class InitChangesItsBatch(Right):
    def init(self, rng, x):
        x -= x.mean(axis=0)
        return super().init(rng, x)


@wrong("init repeats itself", "init gave two trees for the same seed")
class InitDrawsFromElsewhere(Right):
    def init(self, rng, x):
        return {"s": _dice.standard_normal(x.shape[1:]).astype(x.dtype)}


@wrong("z -> x -> z, any z", "forward.inverse.z.. is not")
class NotOnto(Layer):
    """arctan reaches (-pi/2, pi/2) alone: samples from further out make no sense."""

    def forward(self, params, x):
        return np.arctan(x), -sum_event(np.log1p(x * x))

    def inverse(self, params, z):
        return np.tan(z), -2 * sum_event(np.log(np.abs(np.cos(z))))


@wrong("float32 kept", "the method log_det's result is float64 for float32 input")
class LogDetMethodPromotes(Right):
    def log_det(self, params, x):
        return super().forward(params, x)[1] * onp.float64(1)


# ---------------------------------------------------------------- inside layers made of layers


@dataclass(frozen=True)
class Own(Composite):
    """A reader's own container, whose attributes have names of their own."""

    inside: tuple = (ActNorm(), Chain([Conv1x1(), SignOfTheLogDet()]))

    def steps(self, x, direction, context=None):
        inner = dict(zip(("begin", "end"), self.inside))
        for name in inner if direction == "forward" else reversed(inner):
            x = yield Step(name, inner[name], x, direction, context)
        return x


@wrong(
    "log-det forward, autograd", r"in layer end/1 .SignOfTheLogDet., log_det of forward has the opposite sign"
)
class WrongLayerDeepInside(Own):
    pass


@wrong(
    "log-det inverse, autograd", r"in layer 1/0 .SignOfTheLogDet., .* opposite sign", event_shape=(2, 2, 4)
)
class WrongLayerTurnedRoundInAHalf(Chain):
    layers: tuple = (ActNorm(), Split(Inverse(Chain([SignOfTheLogDet()]))))


@wrong("log-det forward, finite differences", r"leaves out that of layer end(\n|$)")
class ContainerLeftOut(Changed, Own):
    inside: tuple = (ActNorm(), Chain([Conv1x1(), Right()]))

    def of_forward(self, log_det, params, x):
        return self.inside[0].forward(params["begin"], x)[1]


@wrong("log-det forward, autograd", "off by .* differently in each row")
class ContainerWhoseStepsDoNotRun(Changed, Small, Composite):
    """Another reason is still given where the layers inside cannot be looked at."""

    of_forward = lambda self, log_det, params, x: log_det + x[:, 0]

    def steps(self, x, direction, context=None):
        yield Step(7, Small(), x, direction)


def batch(event_shape):
    return rows(16, *event_shape, seed=5) * 1.2 + 0.3


def failures(layer, event_shape, **options):
    """The names of the checks that fail."""
    return [failure.name for failure in check(layer, batch(event_shape), **options).failures]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_layer_is_caught_for_its_own_reason(name):
    layer, check_name, words, event_shape = WRONG[name]
    report = check(layer(), batch(event_shape))
    assert not report[check_name].passed
    assert re.search(words, report[check_name].sentence)
    with pytest.raises(VerificationError, match=words):
        report.raise_if_failed()


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("seed", (1, 2))  # a check without a generator has seed 0
def test_wrong_layers_are_caught_whatever_the_seed(seed):
    assert not [
        name
        for name, (layer, check_name, _, event_shape) in WRONG.items()
        if check_name not in failures(layer(), event_shape, rng=onp.random.default_rng(seed))
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "SignOfTheLogDet",
            [f"log-det {{}}, {how}" for how in ("finite differences", "autograd", "far out")],
        ),
        ("DerivativeOffByAFactor", ["derivative of {}", "gradient of {}"]),
        ("InputChangedInPlace", ["input unchanged"]),
    ],
)
def test_a_wrong_layer_fails_in_nothing_but_what_follows_from_its_mistake(name, expected):
    expected = {
        check_name.format(direction) for check_name in expected for direction in ("forward", "inverse")
    }
    assert set(failures(WRONG[name][0](), (4,))) == expected
