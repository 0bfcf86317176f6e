"""The straight way: `fit` makes no forward pass but its steps' own, and few calls lie between it and a network."""

import inspect
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import refusal, rows, same_bits, vector

import npflow
from npflow import Dequantized, Flow, NonFiniteError, fit, load
from npflow.autodiff import tree
from npflow.flow import layout_of_init, layout_without_a_pass
from npflow.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    Conv1x1,
    Layer,
    Logit,
    Planar,
    Reverse,
    Split,
    Squeeze,
    Unsqueeze,
)
from npflow.layers.layer import zeros_per_row
from npflow.models import VAE, vae
from npflow.networks import MLP, Network
from npflow.priors import Normal
from npflow.training import Adam

NETWORK = MLP((4,))
PLAIN = Flow(Chain([AffineCoupling(NETWORK)]), Normal(2))
SCALES = [
    Squeeze(),
    ActNorm(),
    Conv1x1(),
    AffineCoupling(NETWORK),
    Split(AffineCoupling(NETWORK)),
    Unsqueeze(),
]
QUIET = {"record": False, "progress": False}
PACKAGE = str(Path(npflow.__file__).parent)


def run(model, *arrays, params=None, seed=0, **options):
    """`fit` without programs, on a model's own start by default."""
    params = model.init(np.random.default_rng(1), *arrays) if params is None else params
    return fit(model, params, *arrays, rng=np.random.default_rng(seed), **QUIET | options)


# ---------------------------------------------------------------- passes and frames


@pytest.fixture
def calls(monkeypatch):
    """The calls of `forward` and `inverse` of each layer, and of `apply` of each network, by class and method."""
    made = {}

    def counted(kind, name, method):
        def wrapper(self, *args, **kwargs):
            made[type(self).__name__, name] = made.get((type(self).__name__, name), 0) + 1
            return method(self, *args, **kwargs)

        # The signature stays: it says whether a layer takes a context.
        monkeypatch.setattr(kind, name, wrapper)
        wrapper.__signature__ = inspect.signature(method)

    for base, names in ((Layer, ("forward", "inverse")), (Network, ("apply",))):
        for kind in subclasses(base):
            for name in set(names) & vars(kind).keys():
                counted(kind, name, vars(kind)[name])
    return made


def subclasses(kind):
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in subclasses(sub))]


def forget_layouts():
    """As in a new process: nothing is known of what parameters look like."""
    for cached in (layout_without_a_pass, layout_of_init, vae.expected_layout):
        cached.cache_clear()


MODELS = {
    "coupling": (PLAIN, (rows(9, 2),)),
    "images": (Flow(Chain(SCALES), Normal((4, 4, 1))), (rows(9, 4, 4, 1),)),
    "context": (
        Flow(Chain([ActNorm(), AffineCoupling(NETWORK), Reverse()]), Normal(2), context_features=3),
        (rows(9, 2), rows(9, 3)),
    ),
    "integers": (
        Dequantized(Flow(Chain([Logit(), *SCALES]), Normal((4, 4, 1))), levels=8),
        (np.random.default_rng(0).integers(8, size=(9, 4, 4, 1)),),
    ),
    "VAE": (VAE(features=3, encoder=NETWORK, decoder=NETWORK), (rows(9, 3),)),
    "VAE with flows": (
        VAE(3, encoder=NETWORK, decoder=NETWORK, posterior=Planar(), prior=PLAIN, context_features=2),
        (rows(9, 3),),
    ),
}
ORIGINS = {
    "init": lambda params: params,
    "unpickled": lambda params: pickle.loads(pickle.dumps(params)),
    "hand-made": lambda params: tree.build(lambda _, leaf: np.array(leaf.tolist(), leaf.dtype), params),
}


def test_one_step_applies_each_layer_and_the_network_once(calls):
    params = PLAIN.init(np.random.default_rng(1), rows(9, 2))
    forget_layouts()
    calls.clear()
    run(PLAIN, rows(9, 2), params=params, steps=1)
    assert calls == {("Chain", "forward"): 1, ("AffineCoupling", "forward"): 1, ("MLP", "apply"): 1}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", MODELS)
def test_there_is_no_pass_but_the_steps_own(name, origin, calls):
    model, arrays = MODELS[name]
    params = ORIGINS[origin](model.init(np.random.default_rng(1), *arrays))
    noise = model.noise(np.random.default_rng(0), 9, vector(params).dtype)
    calls.clear()
    model.loss(params, *arrays, *noise)
    of_one_step = dict(calls)
    forget_layouts()
    calls.clear()
    run(model, *arrays, params=params, steps=2)
    assert calls == {call: 2 * times for call, times in of_one_step.items()}


def test_at_most_eight_frames_lie_from_fit_to_the_network(monkeypatch):
    seen, apply = [], MLP.apply

    def watched(self, params, x):
        frame, names = sys._getframe(1), ["apply"]
        while names[-1] != "fit":
            if frame.f_code.co_filename.startswith(PACKAGE):
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        seen.append(names)
        return apply(self, params, x)

    params = PLAIN.init(np.random.default_rng(1), rows(9, 2))
    monkeypatch.setattr(MLP, "apply", watched)
    run(PLAIN, rows(9, 2), params=params, steps=1)
    assert len(seen) == 1
    assert len(seen[0]) <= 8, seen[0]


# ---------------------------------------------------------------- what is checked before the first step


class NoUpdate(Adam):
    """An optimizer that no run may come to."""

    def update(self, state, vector, gradient, step):
        raise AssertionError("a step was made")


def with_leaf(path, leaf):
    """Parameters of `PLAIN` with another leaf at a path."""
    params = PLAIN.init(np.random.default_rng(1), rows(9, 2))
    return tree.build(lambda place, old: leaf if place == path else old, params)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize(
    ("params", "path"),
    [
        (with_leaf("layer/0/0/bias", np.zeros(1)), "layer/0/0/bias"),  # (1,) for (4,) would broadcast
        (with_leaf("layer/0/0/bias", np.zeros((9, 4))), "layer/0/0/bias"),
        (with_leaf("layer/0/1/weight", np.zeros((1, 2))), "layer/0/1/weight"),
        (with_leaf("layer/0/0/weight", np.zeros(4)), "layer/0/0/weight"),
        (with_leaf("layer/0/0/bias", {"b": np.zeros(4)}), "layer/0/0/bias"),
        (with_leaf("layer/0/0/bias", np.zeros(4, int)), "layer/0/0/bias"),
        (
            {"layer": PLAIN.init(np.random.default_rng(1), rows(9, 2))["layer"] * 2, "prior": {}},
            "layer/1/0/bias",
        ),
        ({"layer": [], "prior": {}}, "layer/0/0/bias"),
    ],
)
def test_parameters_of_another_architecture_are_refused_by_their_path(params, path, record):
    forget_layouts()
    words = refusal(run, PLAIN, rows(9, 2), params=params, record=record, optimizer=NoUpdate())
    assert "another architecture" in words
    assert repr(path) in words or f"'{path}/" in words


@pytest.mark.parametrize(("model", "arrays"), MODELS.values(), ids=MODELS)
def test_each_model_refuses_a_leaf_that_would_broadcast(model, arrays):
    params = model.init(np.random.default_rng(1), *arrays)
    path, leaf = next((path, leaf) for path, leaf in tree.items(params) if leaf.ndim == 1 and leaf.size > 1)
    narrow = tree.build(lambda place, old: old[:1] if place == path else old, params)
    assert f"{leaf.shape} at '{path}', got shape (1,)" in refusal(
        run, model, *arrays, params=narrow, optimizer=NoUpdate()
    )


@dataclass(frozen=True)
class OwnSqueeze(Layer):
    """A reader's own rearranging layer, without `output_shape`: channels of 2 x 2 pixels, and back."""

    back: bool = False

    def forward(self, params, x):
        return (self.spread if self.back else self.gather)(x), np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        return (self.gather if self.back else self.spread)(z), np.zeros(len(z), z.dtype)

    def gather(self, x):
        n, height, width, channels = x.shape
        x = anp.reshape(x, (n, height // 2, 2, width // 2, 2, channels))
        return anp.reshape(anp.transpose(x, (0, 1, 3, 2, 4, 5)), (n, height // 2, width // 2, 4 * channels))

    def spread(self, x):
        n, height, width, channels = x.shape
        x = anp.transpose(anp.reshape(x, (n, height, width, 2, 2, channels // 4)), (0, 1, 3, 2, 4, 5))
        return anp.reshape(x, (n, 2 * height, 2 * width, channels // 4))


def test_a_rearranging_layer_without_an_output_shape_is_not_accused():
    inner = [ActNorm(), AffineCoupling(NETWORK)]
    flow = Flow(Chain([OwnSqueeze(), *inner, OwnSqueeze(back=True)]), Normal((4, 4, 1)))
    known = Flow(Chain([Squeeze(), *inner, Unsqueeze()]), Normal((4, 4, 1)))
    x = rows(9, 4, 4, 1)
    forget_layouts()
    (own, history), (expected, _) = run(flow, x, steps=3), run(known, x, steps=3)
    assert history.steps == 3
    assert same_bits(own, expected)
    narrow = tree.build(lambda path, leaf: leaf[:1] if path == "layer/1/bias" else leaf, own)
    assert "(4,) at 'layer/1/bias', got shape (1,)" in refusal(run, flow, x, params=narrow)


# ---------------------------------------------------------------- what is checked after the last step


class Ending(Adam):
    """Adam whose step of a number sets all parameters to `end`."""

    def __init__(self, number, end):
        super().__init__()
        object.__setattr__(self, "last", (number, end))

    def update(self, state, vector, gradient, step):
        rate = super().update(state, vector, gradient, step)
        if step == self.last[0]:
            vector[...] = self.last[1]
        return rate


@dataclass(frozen=True)
class Bounded(Layer):
    """The identity plus a, whose log-det is not finite where a is above 10."""

    def init(self, rng, x):
        return {"a": np.zeros(1, x.dtype)}

    def forward(self, params, x):
        return x + params["a"], anp.log(10 - params["a"]) + zeros_per_row(x)

    def inverse(self, params, z):
        return z - params["a"], -anp.log(10 - params["a"]) + zeros_per_row(z)


BOUNDED = Flow(Bounded(), Normal(2))


@pytest.mark.parametrize("record", [False, True])
def test_after_the_last_step_only_the_parameters_need_to_be_finite(record, tmp_path):
    path = tmp_path / "run.npz"
    params, history = run(BOUNDED, rows(9, 2), steps=3, optimizer=Ending(3, 11.0), record=record)
    assert vector(params) == 11  # their loss is nan, and nobody has asked
    assert history.steps == 3
    with pytest.raises(NonFiniteError, match="layer/a") as caught:
        run(
            BOUNDED,
            rows(9, 2),
            steps=3,
            optimizer=Ending(3, np.inf),
            record=record,
            checkpoint=path,
            checkpoint_every=1,
        )
    assert load(path).run["step"] == 2  # that of the last step was not written
    assert same_bits(caught.value.params, run(BOUNDED, rows(9, 2), steps=2)[0])


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("record", [False, True])
def test_a_checkpoint_has_parameters_whose_loss_is_finite(record, device, tmp_path):
    """Step 5 leaves finite parameters without a finite loss: its checkpoint is never written."""
    path, seen = tmp_path / "run.npz", []
    options = {"checkpoint": path, "checkpoint_every": 1, "device": device, "record": record}
    with pytest.raises(NonFiniteError, match=r"after step 5: .* layer \(Bounded\)") as caught:
        run(
            BOUNDED,
            rows(9, 2),
            steps=9,
            optimizer=Ending(5, 11.0),
            on_checkpoint=lambda params, history: seen.append((history.steps, params)),
            **options,
        )
    assert [steps for steps, _ in seen] == [1, 2, 3, 4]
    assert all(np.isfinite(BOUNDED.loss(params, rows(9, 2))) for _, params in seen)
    saved = load(path)
    assert saved.run["step"] == 4
    assert same_bits(caught.value.params, saved.params)
    assert caught.value.history.loss[:4] == saved.arrays["history:loss"].tolist()


@pytest.mark.parametrize("every", [3, 4, 5])  # an epoch has four steps
@pytest.mark.parametrize("name", ["coupling", "context", "integers"])
def test_a_run_killed_after_a_checkpoint_ends_with_the_bits_of_one_left_alone(name, every, tmp_path):
    model, arrays = MODELS[name]
    arrays = [np.resize(array, (50, *array.shape[1:])) for array in arrays]
    held_out = dict(zip(("validation", "validation_context"), (array[:7] for array in arrays)))
    options = {"average": 0.9, "clip_norm": 1.0, "batch_size": 16, "steps": 11, **held_out}
    path, alone_path = tmp_path / "run.npz", tmp_path / "alone.npz"

    def kill(params, history):
        raise KeyboardInterrupt

    alone, whole = run(model, *arrays, checkpoint=alone_path, **options)
    saving = {"checkpoint": path, "checkpoint_every": every, "on_checkpoint": kill}
    for seed in (0, 1):  # the seed of a resumed run does not matter
        with pytest.raises(KeyboardInterrupt):
            run(model, *arrays, seed=seed, **saving, **options)
        assert load(path).run["step"] == (seed + 1) * every
    resumed, history = run(model, *arrays, checkpoint=path, seed=9, **options)
    assert same_bits(resumed, alone)
    assert history.loss == whole.loss
    assert history.validation_loss == whole.validation_loss
    saved, expected = load(path), load(alone_path)
    assert saved.flow == model
    assert saved.run == expected.run
    assert same_bits({**saved.arrays, "history:seconds": 0}, {**expected.arrays, "history:seconds": 0})
