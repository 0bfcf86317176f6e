"""The state of a training run: averages, the best parameters, checkpoints, and what is not finite."""

import sys
from functools import partial

import numpy as np
import pytest
from helpers import refusal, rows, same_bits, vector
from runs import EVERYTHING, SMALL, Exploding, Long, Steep, data, failure, flow_and_params, run, same_history
from stored import rewrite

from npflow import Dequantized, Flow, InputError, fit, load
from npflow.autodiff import Layout
from npflow.layers import ActNorm, Affine, AffineCoupling, Chain, Conv1x1, Permutation
from npflow.priors import Normal
from npflow.training import Adam
from npflow.training.older_formats import FORMAT


class Watching(Adam):
    """Adam that keeps the norms of the gradients that it is given, and the parameters that it makes."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "norms", [])
        object.__setattr__(self, "vectors", [])

    def update(self, state, vector, gradient, step):
        self.norms.append(float(np.linalg.norm(gradient)))
        rate = super().update(state, vector, gradient, step)
        self.vectors.append(vector.copy())
        return rate


def test_the_gradient_is_clipped_by_its_global_norm():
    watching = Watching()
    _, history = run(
        data() + 5, steps=5, params=flow_and_params(data())[1], optimizer=watching, clip_norm=0.5
    )
    assert max(history.gradient_norm) > 0.5
    assert watching.norms == pytest.approx([min(0.5, norm) for norm in history.gradient_norm])


def test_the_average_is_the_exponential_moving_average_of_the_parameters():
    watching = Watching()
    averaged, _ = run(data(), steps=15, average=0.5, optimizer=watching)
    expected = vector(flow_and_params(data())[1])
    for step, current in enumerate(watching.vectors, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * current
    np.testing.assert_allclose(vector(averaged), expected, rtol=1e-12)


def test_the_best_parameters_by_validation_are_returned():
    held_out = 2 + 0.5 * rows(30, 2)
    params, history = run(data(), steps=60, validation=held_out, optimizer=Adam(0.2))
    flow, _ = flow_and_params(data())
    assert history.validation_step == [*range(4, 60, 4), 60]  # after each epoch
    assert -np.mean(flow.log_prob(params, held_out)) == pytest.approx(min(history.validation_loss), rel=1e-12)
    assert (
        min(history.validation_loss) < history.validation_loss[-1]
    )  # it overfits, so the best is not the last


def test_a_run_stops_when_the_validation_loss_has_not_improved_for_a_while(tmp_path):
    """Its rows lie elsewhere: training leads away from them."""
    options = {"validation": data()[:7] + 3, "optimizer": Adam(0.3), "patience": 2, "steps": 200}
    params, history = run(data(), checkpoint=tmp_path / "run.npz", **options)
    losses = history.validation_loss
    assert len(losses) - 1 - np.argmin(losses) == 2 and history.steps == 4 * len(losses) < 200
    assert not history.interrupted
    best, _ = run(data(), **options | {"patience": None, "steps": 4 * (len(losses) - 2)})
    same_bits(params, best)
    again, resumed = run(data(), checkpoint=tmp_path / "run.npz", **options)  # nothing is left to do
    same_bits(params, again)
    assert resumed.steps == history.steps


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("stop", [1, 4, 13, 20])  # four steps are an epoch
def test_a_longer_run_goes_on_from_a_shorter_one(stop, tmp_path):
    x, path, rngs = data(), tmp_path / "run.npz", [np.random.default_rng(seed) for seed in (0, 5)]
    flow, params = flow_and_params(x)
    options = EVERYTHING | {"batch_size": 16, "progress": False, "checkpoint": path}
    alone, whole = fit(flow, params, x, rng=rngs[0], steps=20, **options | {"checkpoint": None})
    run(x, steps=stop, **options)
    assert load(path).run["step"] == stop
    resumed, history = fit(flow, params, x, rng=rngs[1], steps=20, **options)
    assert same_bits(resumed, alone)
    assert same_history(history, whole)
    if stop < 20:  # otherwise no order is drawn
        assert rngs[0].bit_generator.state == rngs[1].bit_generator.state


def test_a_resumed_run_goes_on_with_the_constants_of_its_checkpoint(tmp_path):
    """The parameters passed in have another permutation and other signs: they come from another seed."""
    x, path = rows(50, 4), tmp_path / "run.npz"
    flow = Flow(Chain([Conv1x1(), Permutation(), AffineCoupling(SMALL)]), Normal(4))
    first, second = (flow.init(np.random.default_rng(seed), x) for seed in (0, 3))
    assert not np.array_equal(first["layer"][1]["permutation"], second["layer"][1]["permutation"])
    options = {"batch_size": 16, "progress": False}
    alone, _ = fit(flow, first, x, rng=np.random.default_rng(0), steps=9, **options)
    fit(flow, first, x, rng=np.random.default_rng(0), steps=5, checkpoint=path, **options)
    resumed, _ = fit(flow, second, x, rng=np.random.default_rng(8), steps=9, checkpoint=path, **options)
    assert same_bits(alone, resumed)


def older(path, version):
    """Rewrite the checkpoint of a run as an older version of npflow would have written it."""
    with np.load(path) as archive:
        contents = dict(archive)
    layout = Layout(load(path).params)
    if version < 3:  # the bias of an ActNorm in units of x
        act_norm = lambda name: layout.unpack(contents[name], load(path).params)["layer"][0]
        scale = np.exp(act_norm("run:vector")["log_scale"])
        act_norm("run:moment:m")["bias"] *= scale
        act_norm("run:moment:v")["bias"] *= scale**2
        for name in ("params", "run:vector", "run:average"):
            act_norm(name)["bias"] /= np.exp(act_norm(name)["log_scale"])
    if version < 2:  # Adam's moments with the factors 1 - beta
        contents["run:moment:m"] *= 1 - 0.9
        contents["run:moment:v"] *= 1 - 0.999
    text = str(contents["description"]).replace(FORMAT, f"npflow checkpoint {version}")
    np.savez(path, **(contents | {"description": np.array(text)}))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_checkpoint_of_an_older_format_is_resumed(version, tmp_path):
    path, options = tmp_path / "run.npz", EVERYTHING | {"steps": 20}
    whole, _ = run(data(), **options)
    run(data(), checkpoint=path, **(options | {"steps": 12}))
    before = load(path).params
    older(path, version)
    np.testing.assert_allclose(vector(load(path).params), vector(before), rtol=1e-12)
    resumed, _ = run(data(), checkpoint=path, **options)
    np.testing.assert_allclose(vector(resumed), vector(whole), rtol=1e-10)


def test_a_refused_checkpoint_leaves_the_generator_alone(tmp_path, rng):
    flow, params = flow_and_params(data())
    run(data(), checkpoint=tmp_path / "run.npz")
    before = rng.bit_generator.state
    with pytest.raises(InputError):
        fit(flow, params, data(), rng=rng, batch_size=7, checkpoint=tmp_path / "run.npz", progress=False)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run.update(position=3), "expected 0 or 50 rows of the epoch to be used up, got 3"),
        (
            lambda run: run["settings"]["flow"].update({"class": "Model"}),
            "its flow: expected the name of a class",
        ),
        (lambda run: run["settings"].update(flow=[{"a": 1}]), "another flow (a dict"),
        (lambda run: run["settings"].update(data=[{"a": 1}]), "another data "),
        (lambda run: run["settings"]["optimizer"].update(beta1="x"), "its optimizer: expected"),
        (
            lambda run: run["epoch_rng"].update(bit_generator="Another"),
            "of the kind that the run began with, Another",
        ),
    ],
)
def test_a_state_of_another_run_gets_a_sentence_and_changes_nothing(change, words, tmp_path):
    path, params = tmp_path / "run.npz", flow_and_params(data())[1]
    run(data(), steps=12, checkpoint=path)
    rewrite(path, lambda description: change(description["run"]))
    before = path.read_bytes()
    said = refusal(run, data(), params=params, checkpoint=path)
    assert words in said or ("another flow" in words and "another flow" in said)
    assert path.read_bytes() == before


class AnotherLibrarys(np.random.PCG64):
    """A generator that NumPy does not know by name."""


def test_a_state_that_a_generator_refuses_is_told_and_leaves_it_as_it_was(tmp_path):
    """One of another library is not known before it is set."""
    path, (flow, params) = tmp_path / "run.npz", flow_and_params(data())
    fit_it = partial(fit, flow, params, data(), batch_size=16, progress=False, checkpoint=path)
    fit_it(rng=np.random.Generator(AnotherLibrarys(0)), steps=12)
    rewrite(path, lambda description: description["run"]["epoch_rng"].update(state={}))
    rng = np.random.Generator(AnotherLibrarys(5))
    before = rng.bit_generator.state
    assert "its generator" in refusal(fit_it, rng=rng, steps=20)
    assert rng.bit_generator.state == before


def test_a_checkpoint_whose_model_is_not_that_of_its_settings_is_refused(tmp_path):
    """Neither may another dtype be cast, where the data are integers and do not tell it."""
    path, x = tmp_path / "run.npz", np.random.default_rng(0).integers(4, size=(50, 2))
    model = Dequantized(flow_and_params(data())[0], levels=4)
    go = lambda dtype, steps: fit(
        model,
        model.init(np.random.default_rng(0), x, dtype=dtype),
        x,
        rng=np.random.default_rng(0),
        steps=steps,
        checkpoint=path,
        progress=False,
    )
    go(np.float32, 3)
    assert "another dtype ('float32' there, 'float64' here)" in refusal(go, np.float64, 5)
    go(np.float32, 5)
    with np.load(path) as archive:
        contents = dict(archive)
    text = str(contents["description"]).replace('"levels": 4', '"levels": 5', 1)
    np.savez(path, **contents | {"description": np.array(text)})
    assert "another model (levels: 5 there, 4 here)" in refusal(go, np.float32, 6)


# ---------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("log_det_only", [False, True])
def test_a_loss_that_is_not_finite_names_the_first_layer_and_keeps_the_last_good_checkpoint(
    log_det_only, tmp_path
):
    layer = Chain([ActNorm(), Chain([Affine(), Exploding(log_det_only)])])
    options = {"steps": 100, "batch_size": 10, "checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    error = failure(data() + 1, layer, params=flow_and_params(data(), layer)[1], **options)
    assert "output not finite is that of layer/1/1 (Exploding)" in str(error)
    good = load(tmp_path / "run.npz")
    assert good.run["step"] >= 1
    assert np.isfinite(good.flow.log_prob(good.params, data())).all()
    assert same_bits(error.params, good.params)


def test_a_gradient_that_is_not_finite_names_the_parameter():
    error = failure(data(), Chain([Steep(), Affine()]))
    assert "finite gradient at step 1" in str(error)
    assert "layer/0/scale" in str(error)


@pytest.mark.parametrize(
    ("log_std", "words"),
    [
        (np.nan, "after step 0: the parameter prior/log_std"),
        (-1e5, "output not finite is that of prior (Normal)"),
    ],
)
def test_a_parameter_or_a_prior_that_is_not_finite_is_named(log_std, words):
    flow, params = flow_and_params(data(), Affine(), Normal(2, trained=True))
    params["prior"]["log_std"][...] = log_std
    with pytest.raises(ArithmeticError) as caught:
        fit(flow, params, data(), rng=np.random.default_rng(0), steps=3, batch_size=10, progress=False)
    assert words in str(caught.value)


def test_a_loss_without_a_culprit_is_said_to_be_so():
    class Odd(Flow):
        """A flow whose loss is nan although all its outputs are finite."""

        def losses(self, params, *batch):
            return super().losses(params, *batch) * np.nan

    flow = Odd(Affine(), Normal(2))
    params = flow.init(np.random.default_rng(0), data())
    with pytest.raises(ArithmeticError, match="although parameters and outputs are finite"):
        fit(flow, params, data(), rng=np.random.default_rng(0), steps=3, progress=False)


def test_a_validation_loss_that_is_not_finite_is_noticed():
    error = failure(data(), steps=8, validation=np.full((3, 2), 1e300))
    assert "finite validation loss, got inf after step 4" in str(error)


def test_a_gradient_too_long_to_square_in_float32_is_clipped_or_refused():
    x = data(np.float32)
    fitted, history = run(x, Long(), steps=1, clip_norm=1e-30)
    assert history.gradient_norm[0] > 1e24
    assert np.isfinite(vector(fitted)).all()
    words = str(failure(x, Long(), steps=1))
    assert "a gradient whose square float32 can hold" in words
    assert "clip_norm" in words


KINDS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_with_any_kind_of_generator_and_with_no_other(kind, tmp_path):
    x = data()
    flow, params = flow_and_params(x)
    go_on = lambda kind, steps, **options: fit(
        flow,
        params,
        x,
        rng=np.random.Generator(kind(3)),
        steps=steps,
        batch_size=16,
        progress=False,
        **options,
    )
    checkpoint = tmp_path / "run.npz"
    go_on(kind, 3, checkpoint=checkpoint)
    assert same_bits(go_on(kind, 6, checkpoint=checkpoint)[0], go_on(kind, 6)[0])
    other = np.random.MT19937 if kind is np.random.PCG64 else np.random.PCG64
    with pytest.raises(
        InputError, match=f"expected a generator of the kind .* {kind.__name__}, got {other.__name__}"
    ):
        go_on(other, 9, checkpoint=checkpoint)


def test_the_time_of_the_first_step_includes_the_recording(monkeypatch):
    started = []
    monkeypatch.setattr(
        sys.modules["npflow.training.fit"], "prepare", lambda run, *_: started.append(run.started) or 0
    )
    run(data(), steps=1)
    assert started[0] != 0.0
