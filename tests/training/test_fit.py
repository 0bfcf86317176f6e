"""The training loop: what it learns, keeps, refuses, and how it stops and goes on."""

import re
import signal
import threading
from dataclasses import dataclass
from inspect import getsourcelines

import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from autograd.tracer import getval
from helpers import assert_agrees
from kill_and_resume import killed_and_left_alone, same_bits

import npflow
from npflow import Flow, InputError, NonFiniteError, fit, load, to_device
from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.devices import HOST, find_device
from npflow.autodiff.program import slices
from npflow.layers import ActNorm, Affine, AffineCoupling, Chain, Conv1x1, Layer, Permutation, Reverse
from npflow.models import glow
from npflow.networks import MLP
from npflow.priors import GaussianMixture, Normal
from npflow.training import Adam, WarmupCosine
from npflow.training.clipping import clip, euclidean_norm
from npflow.training.run import Run

small = MLP((8,), "tanh")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    return rng.normal(2.0, 0.5, (50, 2))


def flow_and_params(x, layer=None, prior=None):
    flow = Flow(layer or Chain([ActNorm(), AffineCoupling(small)]), prior or Normal(x.shape[1:]))
    return flow, flow.init(np.random.default_rng(1), x)


def vector(params):
    return Layout(params).pack(params)


def run(x, *, seed=0, **options):
    flow, params = flow_and_params(x)
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    return flow, *fit(flow, params, x, rng=np.random.default_rng(seed), **options)


# ---------------------------------------------------------------- learning


def test_an_affine_layer_learns_the_maximum_likelihood_values(x, rng):
    flow, params = flow_and_params(x, Affine())
    schedule = WarmupCosine(0.1, steps=400)
    params, _ = fit(
        flow, params, x, rng=rng, steps=400, batch_size=50, optimizer=Adam(schedule), progress=False
    )
    np.testing.assert_allclose(params["layer"]["mean"], x.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.exp(params["layer"]["log_std"]), x.std(axis=0), atol=1e-4)


def test_a_trained_mixture_prior_finds_two_clusters(rng):
    x = np.concatenate([rng.normal(-3, 0.3, (100, 2)), rng.normal(3, 0.3, (100, 2))])
    prior = GaussianMixture(((-1.0, 0.0), (1.0, 0.0)), (1.0, 1.0), trained=True)
    flow = Flow(AffineCoupling(small), prior)
    params = flow.init(rng, x)
    params, history = fit(
        flow, params, x, rng=rng, steps=300, batch_size=200, optimizer=Adam(0.03), progress=False
    )
    assert history.loss[-1] < history.loss[0] - 2


def test_the_loss_of_the_history_is_the_mean_nll_of_the_batch_in_nats(x):
    flow, params = flow_and_params(x)
    _, history = fit(flow, params, x, rng=np.random.default_rng(0), steps=1, batch_size=50, progress=False)
    assert history.loss[0] == pytest.approx(-np.mean(flow.log_prob(params, x)), rel=1e-12)


def test_the_parameters_passed_in_are_left_as_they_are(x):
    flow, params = flow_and_params(x)
    before = vector(params)
    fitted, _ = fit(flow, params, x, rng=np.random.default_rng(0), steps=5, batch_size=10, progress=False)
    assert np.array_equal(vector(params), before)
    assert not np.array_equal(vector(fitted), before)


def test_constants_stay(rng):
    x = rng.standard_normal((40, 2)).astype(np.float32)
    flow = glow(2, steps=1, network=small)
    params = flow.init(rng, x)
    fitted, _ = fit(flow, params, x, rng=rng, steps=5, batch_size=10, progress=False)
    for (_, before), (_, after) in zip(tree.items(params), tree.items(fitted)):
        assert before.dtype == after.dtype
        if not tree.is_trained(before):
            assert np.array_equal(before, after)


def test_the_same_seed_gives_the_same_bits(x):
    (_, a, first), (_, b, second) = run(x), run(x)
    assert np.array_equal(vector(a), vector(b))
    assert first.loss == second.loss
    assert not np.array_equal(vector(a), vector(run(x, seed=1)[1]))


# ---------------------------------------------------------------- batches, clipping, average, validation


@dataclass(frozen=True)
class Recording(Layer):
    """The identity; it writes down the rows that it is given."""

    def init(self, rng, x):
        return {"a": np.zeros(1, x.dtype)}

    def forward(self, params, x):
        rows.append(np.asarray(x)[:, 0].tolist())
        return x + params["a"], np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        return z - params["a"], np.zeros(len(z), z.dtype)


rows = []


def test_an_epoch_goes_through_all_rows_once_in_a_new_order(rng):
    x = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    flow, params = flow_and_params(x, Recording())
    flow.check(params, x)  # the first check of a flow initializes it once, on rows of its own
    rows.clear()
    fit(flow, params, x, rng=rng, steps=6, batch_size=4, record=False, progress=False)
    assert [len(batch) for batch in rows[:6]] == [4, 4, 2, 4, 4, 2]  # the seventh checks the result
    first, second = ([row for batch in epoch for row in batch] for epoch in (rows[:3], rows[3:6]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_by_default_a_batch_has_256_rows_or_all_there_are(rng):
    for n, sizes in ((300, [256, 44]), (50, [50, 50])):
        flow, params = flow_and_params(np.zeros((n, 2)), Recording())
        flow.check(params)
        rows.clear()
        fit(flow, params, np.zeros((n, 2)), rng=rng, steps=2, record=False, progress=False)
        assert [len(batch) for batch in rows[:2]] == sizes


def test_the_gradient_is_clipped_by_its_global_norm(x):
    flow, params = flow_and_params(x)

    class Watching(Adam):
        norms = []  # noqa: RUF012

        def update(self, state, vector, gradient, step):
            self.norms.append(float(np.linalg.norm(gradient)))
            return super().update(state, vector, gradient, step)

    _, history = fit(
        flow,
        params,
        x + 5,
        rng=np.random.default_rng(0),
        steps=5,
        batch_size=10,
        optimizer=Watching(),
        clip_norm=0.5,
        progress=False,
    )
    assert max(history.gradient_norm) > 0.5
    assert Watching.norms == pytest.approx([min(0.5, norm) for norm in history.gradient_norm])


def test_the_average_is_the_exponential_moving_average_of_the_parameters(x):
    expected = vector(flow_and_params(x)[1])
    for steps in range(1, 16):
        _, params, _ = run(x, steps=steps)
        decay = min(0.5, (1 + steps) / (10 + steps))
        expected = decay * expected + (1 - decay) * vector(params)
    _, averaged, _ = run(x, steps=15, average=0.5)
    np.testing.assert_allclose(vector(averaged), expected, rtol=1e-12)


def test_the_best_parameters_by_validation_are_returned(x, rng):
    held_out = rng.normal(2.0, 0.5, (30, 2))
    flow, params, history = run(x, steps=60, validation=held_out, optimizer=Adam(0.2))
    assert history.validation_step[:2] == [4, 8]
    assert history.validation_step[-1] == 60
    assert -np.mean(flow.log_prob(params, held_out)) == pytest.approx(min(history.validation_loss), rel=1e-12)
    assert min(history.validation_loss) < history.validation_loss[-1]  # it overfits, so that best is not last


def test_the_progress_bar_shows_loss_and_learning_rate(x, capsys):
    _, _, history = run(x, progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert f"loss={history.loss[-1]:.4f}" in shown
    assert "rate=1.0e-03" in shown


def test_the_clock_of_the_history_goes_forward(x):
    _, _, history = run(x)
    assert history.seconds == sorted(history.seconds)
    assert history.seconds[0] > 0


# ---------------------------------------------------------------- programs, slices and threads


@pytest.fixture
def cut(monkeypatch):
    """Every batch is cut into five slices, or into its rows, where there are fewer."""
    monkeypatch.setattr(slices, "SECONDS_A_LINE", 1e-15)
    monkeypatch.setattr(slices, "SECONDS_A_PARAMETER", 1e-15)
    monkeypatch.setattr(slices, "MOST_SLICES", 5)


EVERYTHING = {"average": 0.9, "clip_norm": 1.0, "optimizer": Adam(WarmupCosine(1e-2, 20))}


def same_history(first, second):
    measured = ("loss", "learning_rate", "gradient_norm", "validation_step", "validation_loss")
    return all(getattr(first, name) == getattr(second, name) for name in measured)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_by_programs_has_the_bits_of_one_through_the_layers(dtype, x, recordings):
    options = EVERYTHING | {"validation": (x[:7] + 0.1).astype(dtype)}
    _, plain, plain_history = run(x.astype(dtype), record=False, **options)
    assert recordings == []
    _, by_program, history = run(x.astype(dtype), record=True, **options)
    assert np.array_equal(vector(plain), vector(by_program))
    assert same_history(plain_history, history)
    assert len(history.loss) == 20


def test_there_is_one_program_for_each_size_of_batch(x, recordings):
    run(x, steps=20, batch_size=16)  # five epochs, each of three batches and a smaller one
    assert recordings == [16, 2]


def test_the_number_of_threads_makes_no_difference_to_a_bit(x, cut, recordings):
    _, alone, history = run(x, threads=1, **EVERYTHING)
    assert recordings == [16, 3, 4, 2, 1]
    for threads in (2, 4, None):
        _, params, other = run(x, threads=threads, **EVERYTHING)
        assert np.array_equal(vector(params), vector(alone))
        assert same_history(history, other)
    _, plain, _ = run(x, record=False, **EVERYTHING)
    np.testing.assert_allclose(vector(plain), vector(alone), rtol=1e-6, atol=1e-9)


def test_a_run_resumed_with_another_number_of_threads_equals_one_left_alone(x, cut, tmp_path):
    _, alone, whole = run(x, threads=2, **EVERYTHING)
    for stop, threads in ((3, 1), (7, 4), (13, 3)):
        _, resumed, history = run(
            x, steps=stop, threads=threads, checkpoint=tmp_path / "run.npz", **EVERYTHING
        )
    _, resumed, history = run(x, threads=1, seed=9, checkpoint=tmp_path / "run.npz", **EVERYTHING)
    assert np.array_equal(vector(resumed), vector(alone))
    assert same_history(history, whole)


def test_threads_end_with_the_run_whether_it_ends_well_or_not(x, cut):
    run(x, steps=1)  # the progress bar may start a thread of its own
    before = set(threading.enumerate())
    run(x, threads=3)
    flow, params = flow_and_params(x, Chain([ActNorm(), Exploding()]))
    with pytest.raises(NonFiniteError):
        fit(flow, params, x + 1, rng=np.random.default_rng(0), steps=99, threads=3, progress=False)
    assert set(threading.enumerate()) == before


@dataclass(frozen=True)
class Branching(Layer):
    """A layer that looks at the values of its rows."""

    def init(self, rng, x):
        return {"a": np.ones(1, x.dtype)}

    def forward(self, params, x):
        import autograd.numpy as anp

        factor = 2.0 if anp.sum(x) > 0 else 1.0
        return factor * params["a"] * x, 2 * anp.log(factor * params["a"]) * np.ones(len(x))

    def inverse(self, params, z):
        raise NotImplementedError


def test_a_layer_that_cannot_be_recorded_is_named_by_its_line_and_trains_without_a_program(x):
    lines, first = getsourcelines(Branching)
    line = next(number for number, text in enumerate(lines, first) if "if anp.sum" in text)
    flow, params = flow_and_params(x, Chain([ActNorm(), Branching()]))
    options = {"steps": 20, "batch_size": 16, "progress": False}
    with pytest.raises(InputError) as caught:
        fit(flow, params, x, rng=np.random.default_rng(0), **options)
    assert re.fullmatch(
        rf"expected operations that are the same for every batch of one shape, .* at {re.escape(__file__)}:{line} \("
        r"factor = 2\.0 if .*\); fit\(\.\.\., record=False\) runs it without a program",
        str(caught.value),
    )
    _, history = fit(flow, params, x, rng=np.random.default_rng(0), record=False, **options)
    assert history.loss[-1] < history.loss[0]


def test_an_error_of_a_layers_own_is_not_said_to_be_the_programs(x, tmp_path):
    @dataclass(frozen=True)
    class Picky(Affine):
        def forward(self, params, x):
            if len(x) < 16:
                raise InputError("expected at least 16 rows")
            return super().forward(params, x)

    flow, params = flow_and_params(x, Picky())
    for record in (True, False):
        with pytest.raises(InputError, match=r"^expected at least 16 rows$"):
            fit(
                flow,
                params,
                x,
                rng=np.random.default_rng(0),
                batch_size=16,
                record=record,
                progress=False,
            )


def test_a_flow_without_parameters_trains_nothing_and_fails_at_nothing(x):
    flow, params = flow_and_params(x, Permutation())
    options = {"steps": 3, "batch_size": 50, "progress": False}
    for record in (True, False):
        _, history = fit(flow, params, x, rng=np.random.default_rng(0), record=record, **options)
        assert history.loss == pytest.approx(3 * [-np.mean(flow.log_prob(params, x))])


# ---------------------------------------------------------------- stopping and going on


def test_a_resumed_run_ends_with_the_bits_of_one_left_alone(x, tmp_path):
    options = {
        "average": 0.9,
        "clip_norm": 1.0,
        "validation": x[:7] + 0.1,
        "optimizer": Adam(WarmupCosine(1e-2, 25)),
    }
    _, alone, whole = run(x, steps=25, checkpoint=tmp_path / "alone.npz", **options)
    for stop in (1, 4, 5, 13, 24, 25):  # 4 steps are an epoch: its last step, and the next one's first
        path = tmp_path / f"{stop}.npz"
        run(x, steps=stop, checkpoint=path, **options)
        if stop % 4 == 0 or stop == 25:
            saved = load(path)
            assert saved.run["step"] == stop
        _, resumed, history = run(x, steps=25, seed=99, checkpoint=path, **(options))
        if stop % 4 == 0:  # otherwise the end of the shorter run looked at the validation data once more
            assert history.validation_step == whole.validation_step
        assert history.loss == whole.loss
        assert np.array_equal(load(path).arrays["vector"], load(tmp_path / "alone.npz").arrays["vector"])
    assert np.isfinite(vector(alone)).all()
    assert np.isfinite(vector(resumed)).all()


def test_a_resumed_run_leaves_the_generator_where_one_left_alone_does(x, tmp_path):
    flow, params = flow_and_params(x)
    options = {"batch_size": 16, "progress": False}
    alone, resumed = np.random.default_rng(0), np.random.default_rng(5)
    fit(flow, params, x, rng=alone, steps=10, **options)
    fit(flow, params, x, rng=np.random.default_rng(0), steps=3, checkpoint=tmp_path / "a.npz", **options)
    fit(flow, params, x, rng=resumed, steps=10, checkpoint=tmp_path / "a.npz", **options)
    assert alone.bit_generator.state == resumed.bit_generator.state


def test_a_run_killed_at_random_moments_ends_with_the_bits_of_one_left_alone(tmp_path):
    killed, alone, reached = killed_and_left_alone(tmp_path, kills=3, steps=250)
    assert same_bits(killed, alone)
    assert len(reached) == 3


def test_a_resumed_run_goes_on_with_the_constants_of_its_checkpoint(x, tmp_path):
    """The start passed in has another permutation and other signs: it was drawn from another seed."""
    flow = Flow(Chain([Conv1x1(), Permutation(), AffineCoupling(small)]), Normal(4))
    x = np.concatenate([x, x**2], axis=1)
    first, second = (flow.init(np.random.default_rng(seed), x) for seed in (0, 3))
    assert not np.array_equal(first["layer"][1]["permutation"], second["layer"][1]["permutation"])
    options = {"batch_size": 16, "progress": False}
    alone, _ = fit(flow, first, x, rng=np.random.default_rng(0), steps=9, **options)
    path = tmp_path / "run.npz"
    fit(flow, first, x, rng=np.random.default_rng(0), steps=5, checkpoint=path, **options)
    resumed, _ = fit(flow, second, x, rng=np.random.default_rng(8), steps=9, checkpoint=path, **options)
    for (_, a), (_, b) in zip(tree.items(alone), tree.items(resumed), strict=True):
        assert np.array_equal(a, b)


def test_what_is_returned_shares_no_array_with_what_came_in(x):
    flow = Flow(Chain([Permutation(), AffineCoupling(small)]), Normal(2))
    params = flow.init(np.random.default_rng(0), x)
    fitted, _ = fit(flow, params, x, rng=np.random.default_rng(0), steps=1, progress=False)
    for (_, a), (_, b) in zip(tree.items(params), tree.items(fitted)):
        assert not np.shares_memory(a, b)


def test_a_refused_checkpoint_leaves_the_generator_alone(x, tmp_path):
    path = tmp_path / "run.npz"
    flow, params, _ = run(x, checkpoint=path)
    rng = np.random.default_rng(4)
    before = rng.bit_generator.state
    with pytest.raises(InputError):
        fit(flow, params, x, rng=rng, batch_size=7, checkpoint=path, progress=False)
    assert rng.bit_generator.state == before


def test_numpy_scalars_are_as_good_as_pythons(x, tmp_path):
    run(
        x,
        batch_size=np.int64(16),
        steps=np.int32(3),
        clip_norm=np.float32(3),
        average=np.float64(0.9),
        optimizer=Adam(np.float32(1e-3), beta2=np.float64(0.99)),
        checkpoint=tmp_path / "run.npz",
    )
    assert load(tmp_path / "run.npz").run["settings"]["clip_norm"] == 3.0


def test_a_schedule_that_cannot_be_described_is_fine_without_a_checkpoint(x, tmp_path):
    adam = Adam(lambda step: 1e-3 / step)
    _, _, history = run(x, optimizer=adam, steps=2)
    assert history.learning_rate == [1e-3, 5e-4]
    with pytest.raises(InputError, match="expected hyper-parameters that are numbers"):
        run(x, optimizer=adam, steps=2, checkpoint=tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


class InterruptedAt(Adam):
    """Adam that is sent Ctrl-C in the middle of a step."""

    def update(self, state, vector, gradient, step):
        if step == 7:
            signal.raise_signal(signal.SIGINT)
        return super().update(state, vector, gradient, step)


def test_ctrl_c_returns_what_has_been_learned_and_keeps_it(x, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    path = tmp_path / "interrupted.npz"
    _, params, history = run(x, optimizer=InterruptedAt(), checkpoint=path)
    assert history.interrupted
    assert history.steps == 7
    assert signal.getsignal(signal.SIGINT) is before
    assert load(path).run["step"] == 7
    assert np.array_equal(vector(params), vector(run(x, steps=7)[1]))
    assert np.array_equal(vector(load(path).params), vector(params))


class InterruptedTwice(Adam):
    def update(self, state, vector, gradient, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_interrupts_at_once(x):
    with pytest.raises(KeyboardInterrupt):
        run(x, optimizer=InterruptedTwice())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_trains_in_another_thread_too(x):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(x)))
    thread.start()
    thread.join()
    assert np.array_equal(vector(results[0][1]), vector(run(x)[1]))


# ---------------------------------------------------------------- what is not finite


@dataclass(frozen=True)
class Exploding(Layer):
    """The identity until its parameter has moved; then its output is not finite."""

    log_det_only: bool = False

    def init(self, rng, x):
        return {"a": np.zeros(1, x.dtype)}

    def forward(self, params, x):
        import autograd.numpy as anp

        bad = 0.0 * anp.sqrt(1e-4 - params["a"] * params["a"])  # nan once |a| has passed 0.01
        if self.log_det_only:
            return x + params["a"], np.zeros(len(x)) + bad
        return x + params["a"] + bad, np.zeros(len(x))

    def inverse(self, params, z):
        return z - params["a"], np.zeros(len(z))


@pytest.mark.parametrize("log_det_only", [False, True])
def test_a_loss_that_is_not_finite_names_the_first_layer_and_keeps_the_last_good_checkpoint(
    log_det_only, x, tmp_path
):
    flow, params = flow_and_params(x, Chain([ActNorm(), Chain([Affine(), Exploding(log_det_only)])]))
    path = tmp_path / "run.npz"
    with pytest.raises(NonFiniteError, match=r"that of layer/1/1 \(Exploding\)"):
        fit(
            flow,
            params,
            x + 1,
            rng=np.random.default_rng(0),
            steps=100,
            batch_size=10,
            checkpoint=path,
            checkpoint_every=1,
            progress=False,
        )
    good = load(path)
    assert good.run["step"] >= 1
    assert np.isfinite(good.flow.log_prob(good.params, x)).all()


def test_a_gradient_that_is_not_finite_names_the_parameter(x):
    @dataclass(frozen=True)
    class Corner(Layer):
        def init(self, rng, x):
            return {"a": np.zeros(1, x.dtype)}

        def forward(self, params, x):
            import autograd.numpy as anp

            return x + anp.sqrt(params["a"]), np.zeros(len(x))

        def inverse(self, params, z):
            return z, np.zeros(len(z))

    flow, params = flow_and_params(x, Chain([Affine(), Corner()]))
    with pytest.raises(
        NonFiniteError,
        match=r"expected a finite gradient at step 1, got one that is not: the first is that of layer/1/a",
    ):
        fit(flow, params, x, rng=np.random.default_rng(0), steps=3, batch_size=10, progress=False)


def test_a_parameter_that_is_not_finite_is_named(x):
    flow, params = flow_and_params(x, Affine(), Normal(2, trained=True))
    params["prior"]["log_std"][...] = np.nan
    with pytest.raises(NonFiniteError, match="after step 0: the parameter prior/log_std is not finite"):
        fit(flow, params, x, rng=np.random.default_rng(0), steps=3, batch_size=10, progress=False)


def test_a_prior_that_is_not_finite_is_named(x):
    flow, params = flow_and_params(x, Affine(), Normal(2, trained=True))
    params["prior"]["log_std"][...] = -1e5
    with pytest.raises(NonFiniteError, match="every layer's output is finite, the prior's is not"):
        fit(flow, params, x, rng=np.random.default_rng(0), steps=3, batch_size=10, progress=False)


def test_a_last_step_that_ruins_the_parameters_is_noticed_and_what_was_learned_is_kept(x, tmp_path):
    class RuinedAt(Adam):
        def update(self, state, vector, gradient, step):
            rate = super().update(state, vector, gradient, step)
            vector[0] = np.inf if step == 5 else vector[0]
            return rate

    path = tmp_path / "run.npz"
    with pytest.raises(
        NonFiniteError, match="after step 5: the parameter layer/0/bias is not finite"
    ) as raised:
        run(x, steps=5, optimizer=RuinedAt(), checkpoint=path, checkpoint_every=4)
    assert load(path).run["step"] == 4
    assert np.array_equal(vector(raised.value.params), vector(run(x, steps=4)[1]))
    assert raised.value.history.steps == 5


def test_a_validation_loss_that_is_not_finite_is_noticed(x):
    with pytest.raises(NonFiniteError, match="expected a finite validation loss, got inf after step 4"):
        run(x, steps=8, validation=np.full((3, 2), 1e300))


def test_a_gradient_too_large_to_square_in_float32_is_clipped_not_refused(x):
    @dataclass(frozen=True)
    class Steep(Layer):
        def init(self, rng, x):
            return {"a": np.zeros(2, x.dtype)}

        def forward(self, params, x):
            return x + params["a"] * np.float32(1e25), np.zeros(len(x), x.dtype)

        def inverse(self, params, z):
            return z, np.zeros(len(z), z.dtype)

    flow, params = flow_and_params(x.astype(np.float32), Steep())
    fitted, history = fit(
        flow,
        params,
        x.astype(np.float32),
        rng=np.random.default_rng(0),
        steps=1,
        batch_size=10,
        clip_norm=1e-30,
        progress=False,
    )
    assert history.gradient_norm[0] > 1e24
    assert np.isfinite(vector(fitted)).all()
    with pytest.raises(
        NonFiniteError, match=r"expected a gradient whose square float32 can hold, .* clip_norm"
    ):
        fit(flow, params, x.astype(np.float32), rng=np.random.default_rng(0), steps=1, progress=False)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "expected steps to be at least 1, got 0"),
        ({"steps": 2.5}, "expected steps to be an integer, got 2.5"),
        ({"batch_size": 51}, "expected batch_size to be at most 50, the 50 rows of data, got 51"),
        ({"batch_size": 0}, "expected batch_size to be at least 1, got 0"),
        ({"threads": 0}, "expected threads to be at least 1, got 0"),
        ({"threads": "2"}, "expected threads to be an integer, got '2'"),
        ({"checkpoint_every": 0}, "expected checkpoint_every to be at least 1, got 0"),
        ({"clip_norm": 0}, "expected clip_norm to be a finite number above 0, got 0"),
        ({"average": 1}, "expected average to be a finite number at least 0 below 1, got 1"),
        ({"rng": 0}, "expected rng to be a numpy.random.Generator, got a int"),
        (
            {"validation": np.zeros((3, 5))},
            "expected validation with rows of 2 features, got rows of 5 features",
        ),
        ({"validation": np.zeros((3, 2), np.float32)}, "expected validation in float64"),
        ({"checkpoint": "run.pkl"}, "expected a checkpoint's path to end in .npz"),
        ({"optimizer": 1e-3}, r"expected an optimizer such as Adam\(1e-3\), got 0.001"),
        ({"optimizer": Adam}, r"expected an optimizer such as Adam\(1e-3\), got <class"),
        ({"x": np.zeros((0, 2))}, "expected x to have at least one row"),
        ({"x": np.zeros((50, 3))}, "expected x with rows of 2 features, got rows of 3 features"),
        ({"x": np.arange(100).reshape(50, 2)}, "expected x in float32 or float64, got int64"),
        (
            {"x": np.ones((50, 2), np.float32)},
            "expected x in float64, the dtype of the parameters, got float32",
        ),
        (
            {"x": np.where(np.arange(100).reshape(50, 2) == 35, np.nan, 1.0)},
            "expected x to be finite, got nan in row 17",
        ),
        (
            {"params": {"layer": [], "prior": {}}},
            "expected the parameters of this flow, got another architecture's",
        ),
    ],
)
def test_bad_input_gets_a_sentence_before_any_work(options, sentence, x, rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow, params = flow_and_params(x)
    arguments = {
        "params": params,
        "x": x,
        "rng": rng,
        "steps": 5,
        "batch_size": 10,
        "progress": False,
    } | options
    with pytest.raises(InputError, match=sentence):
        fit(flow, arguments.pop("params"), arguments.pop("x"), **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 8}, r"got one whose batch_size is another \(16 there, 8 here\)"),
        ({"optimizer": Adam(0.5)}, "got one whose optimizer is another"),
        ({"average": 0.9}, "got one whose average is another"),
        ({"x": "other"}, "got one whose data is another"),
        ({"steps": 5}, "expected steps to be at least the 20 that .* has made, got 5"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(options, sentence, x, tmp_path):
    path = tmp_path / "run.npz"
    run(x, checkpoint=path)
    before = path.read_bytes()
    data = x + 1 if options.pop("x", None) else x
    flow, params = flow_and_params(x)
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    with pytest.raises(InputError, match=sentence):
        fit(flow, params, data, rng=np.random.default_rng(0), checkpoint=path, **options)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_architecture_or_without_a_run_is_refused(x, tmp_path):
    from npflow import save

    path = tmp_path / "run.npz"
    flow, params, _ = run(x, checkpoint=path)
    other, other_params = flow_and_params(x, Affine())
    with pytest.raises(InputError, match="got one whose flow is another"):
        fit(
            other,
            other_params,
            x,
            rng=np.random.default_rng(0),
            batch_size=16,
            checkpoint=path,
            progress=False,
        )
    save(path, flow, params)
    with pytest.raises(InputError, match="expected the checkpoint of a training run"):
        run(x, checkpoint=path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0, 1e25, 1e200])
def test_the_norm_of_a_gradient_does_not_overflow_where_its_squares_do(scale, dtype):
    with np.errstate(over="ignore"):
        vector = np.array([3.0, -4.0], dtype) * dtype(min(scale, 1e30 if dtype == np.float32 else scale))
        norm = euclidean_norm(vector)
    assert norm == pytest.approx(5 * float(np.abs(vector[0])) / 3, rel=1e-5)


def test_the_norm_of_what_is_not_finite_is_not():
    assert np.isnan(euclidean_norm(np.array([1.0, np.nan])))
    assert np.isinf(euclidean_norm(np.array([1.0, -np.inf])))


def test_a_run_saved_by_the_first_format_goes_on(x, tmp_path):
    """Its m and v had the factors 1 - beta, which now wait for the step."""
    path = tmp_path / "old.npz"
    flow, params = flow_and_params(x)
    options = {"batch_size": 10, "optimizer": Adam(0.05), "progress": False}
    whole, _ = fit(flow, params, x, rng=np.random.default_rng(0), steps=20, **options)
    fit(flow, params, x, rng=np.random.default_rng(0), steps=12, checkpoint=path, **options)
    with np.load(path) as archive:
        contents = dict(archive)
    contents["run:moment:m"] *= 1 - 0.9
    contents["run:moment:v"] *= 1 - 0.999
    contents["description"] = np.array(str(contents["description"]).replace("checkpoint 2", "checkpoint 1"))
    np.savez(path, **contents)
    resumed, _ = fit(flow, params, x, rng=np.random.default_rng(0), steps=20, checkpoint=path, **options)
    np.testing.assert_allclose(vector(resumed), vector(whole), rtol=1e-12)


# ---------------------------------------------------------------- on a device


def moons_run(device=None, steps=70, **options):
    x = npflow.datasets.moons(300, rng=np.random.default_rng(1)).astype(np.float32)
    flow = glow(2, steps=1, network=small)
    params = flow.init(np.random.default_rng(0), x)
    options = {"batch_size": 64, "progress": False, "rng": np.random.default_rng(3)} | options
    if options.pop("from_there", False):
        params, x = to_device((params, x), device)
        device = None
    if "validation" in options:
        options["validation"] = x[: options["validation"]]
    return fit(flow, params, x, steps=steps, device=device, **options)


def assert_same_run(device, there, here, home=None):
    (params, history), (expected, expected_history) = there, here
    assert_agrees(home or HOST, params, expected)
    assert history.steps == expected_history.steps == len(history.seconds)
    for series in ("loss", "gradient_norm", "validation_loss", "validation_step", "learning_rate"):
        tolerance = 0 if device.exact else 1e-3
        np.testing.assert_allclose(
            getattr(history, series), getattr(expected_history, series), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.5, "average": 0.9},
        {"validation": 50, "optimizer": Adam(WarmupCosine(1e-2, 70, 10))},
        {"record": False, "steps": 10},
    ],
    ids=["plain", "clipped and averaged", "validated", "without a program"],
)
def test_a_run_on_a_device_is_the_hosts_and_comes_home(options, device):
    if not device.exact:
        options = options | {"steps": 10}  # two roundings drift apart
    assert_same_run(device, moons_run(device.name, **options), moons_run(**options))


def test_parameters_on_a_device_are_trained_there_and_stay(device):
    steps = 70 if device.exact else 10
    there = moons_run(device.name, steps, from_there=True)
    assert_same_run(device, there, moons_run(steps=steps), home=device)


def test_a_step_on_a_device_waits_for_nothing_and_sends_nothing(monkeypatch):
    transfers, update = [], Run.update

    def watched(self, gradient, sound=None):
        rate = update(self, gradient, sound)
        transfers.append((stand_in.TRANSFERS.to_device, stand_in.TRANSFERS.to_host))
        return rate

    monkeypatch.setattr(Run, "update", watched)
    moons_run("strict", steps=45, batch_size=300, clip_norm=0.5, average=0.9)
    sent, read = np.diff(transfers[2:], axis=0).T  # the first two steps prepare
    assert sent.tolist() == [1] * 42  # a batch of all rows is an epoch, whose order is sent
    assert read.tolist() == [0] * 42
    transfers.clear()
    moons_run("strict", steps=40, batch_size=10)
    sent, read = np.diff(transfers[2:], axis=0).T
    assert sent.sum() == 1  # the second epoch's order, after thirty batches
    assert read.sum() == 0


def test_a_data_set_that_does_not_fit_is_streamed(monkeypatch):
    monkeypatch.setattr(find_device("strict"), "available", 1000, raising=False)
    with stand_in.counted() as streamed:
        there = moons_run("strict", steps=20, validation=200)
    assert_same_run(find_device("strict"), there, moons_run(steps=20, validation=200))
    assert streamed.to_device > 20


@pytest.mark.parametrize(("first", "second"), [("device", "cpu"), ("cpu", "device"), ("device", "device")])
def test_a_checkpoint_knows_no_device(first, second, device, tmp_path):
    steps = 60 if device.exact else 10
    names = {"device": device.name, "cpu": "cpu"}
    options = {"average": 0.9, "clip_norm": 1.0}
    whole = moons_run(steps=steps, **options)
    options |= {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 15}
    moons_run(names[first], steps // 2, **options)
    assert_same_run(device, moons_run(names[second], steps, **options), whole)
    assert isinstance(load(tmp_path / "run.npz").params["layer"][0]["bias"], np.ndarray)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": Adam(1e3)},
        {"optimizer": Adam(1e3), "average": 0.9},
        {"optimizer": Adam(30.0), "clip_norm": 1.0},
    ],
    ids=["plain", "averaged", "clipped"],
)
def test_a_failure_found_late_has_the_sentence_the_parameters_and_the_history_of_one_found_at_once(options):
    failures = []
    for name in ("cpu", "strict"):
        with pytest.raises(NonFiniteError) as caught:
            moons_run(name, **options)
        failures.append(caught.value)
    at_once, late = failures
    assert str(late) == str(at_once)
    assert_agrees(HOST, late.params, at_once.params)
    assert late.history.loss == at_once.history.loss
    assert len(late.history.seconds) == len(late.history.learning_rate) == late.history.steps


def test_a_gradient_that_is_not_finite_is_named_though_it_is_found_late():
    x = np.full((50, 2), 1e25, np.float32)
    sentences = []
    for name in ("cpu", "strict"):
        flow = Flow(Steep(), Normal(2))
        params = flow.init(np.random.default_rng(0), x)
        with pytest.raises(NonFiniteError) as caught:
            fit(flow, params, x, rng=np.random.default_rng(0), steps=5, device=name, progress=False)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    assert "gradient" in sentences[0]


def test_a_layer_that_makes_numpy_arrays_is_named():
    x = np.random.default_rng(0).normal(size=(20, 2))
    flow, params = flow_and_params(x, Chain([ActNorm(), HostBound()]))
    with pytest.raises(
        InputError, match=r"layer/1 \(HostBound\): expected forward to compute on strict alone"
    ):
        fit(flow, params, x, rng=np.random.default_rng(0), steps=2, device="strict", progress=False)


def test_a_layer_that_converts_its_input_is_named_with_and_without_a_program():
    x = np.random.default_rng(0).normal(size=(20, 2))
    flow, params = flow_and_params(x, Chain([ActNorm(), Converting()]))
    for record in (True, False):
        with pytest.raises(
            InputError, match=r"layer/1 \(Converting\): expected .* alone.*Implicit conversion"
        ):
            fit(
                flow,
                params,
                x,
                rng=np.random.default_rng(0),
                steps=2,
                device="strict",
                record=record,
                progress=False,
            )


@pytest.mark.parametrize("layer", [Reverse(), Permutation()], ids=repr)
@pytest.mark.parametrize("record", [True, False])
def test_a_flow_that_trains_nothing_runs_on_a_device(layer, record, device):
    x = np.random.default_rng(0).normal(size=(20, 2))
    flow, params = flow_and_params(x, Chain([layer]))
    options = {"steps": 3, "average": 0.9, "record": record, "progress": False}
    expected = fit(flow, params, x, rng=np.random.default_rng(0), **options)
    there = to_device((params, x), device.name)
    for arguments, device_name in (((params, x), device.name), (there, None)):
        _, history = fit(flow, *arguments, rng=np.random.default_rng(0), device=device_name, **options)
        np.testing.assert_allclose(history.loss, expected[1].loss, rtol=1e-12)


def test_a_device_that_is_not_there_is_said_before_any_work(x):
    with pytest.raises(InputError, match="expected a device among 'cpu', 'cuda'"):
        run(x, device="gpu")


@dataclass(frozen=True)
class HostBound(Layer):
    """What no layer may do: it makes an array on the host on its way."""

    def forward(self, params, x):
        return x + np.zeros(x.shape, x.dtype), np.zeros(len(x), x.dtype)

    inverse = forward


@dataclass(frozen=True)
class Converting(Layer):
    """What only works on the host: it asks for NumPy's array itself."""

    def forward(self, params, x):
        return x + 0.0 * float(np.asarray(getval(x)).sum()), anp.zeros_like(x, shape=(len(x),))

    inverse = forward


@dataclass(frozen=True)
class Steep(Layer):
    """A layer whose value is finite where its derivative is not."""

    def init(self, rng, x):
        return {"scale": np.ones(2, x.dtype)}

    def forward(self, params, x):
        y = x * params["scale"]
        return y * 1e-25, anp.sum(anp.sqrt(y - y), axis=1)

    def inverse(self, params, z):
        return z, z[:, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e25, 0.0])
def test_the_norm_on_a_device_is_the_hosts_and_stays_there(scale, dtype, device):
    gradient = (scale * np.random.default_rng(0).standard_normal(50)).astype(dtype)
    with np.errstate(all="ignore"):
        there = device.send(gradient)
        with stand_in.counted() as transfers:
            norm = euclidean_norm(there)
            clip(there, norm, 0.5)
        assert transfers == stand_in.Transfers(0, 0)
        expected = euclidean_norm(gradient)
        clip(gradient, expected, 0.5)
    assert_agrees(device, norm, np.array(expected))
    assert_agrees(device, there, gradient)
