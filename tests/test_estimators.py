"""The estimators: scikit-learn's own checks, pipelines and searches, units, seeds, early stopping, Ctrl-C."""

import pickle
import signal

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from npflow import InputError, datasets
from npflow.estimators import FlowClassifier, FlowDensity, _stratified

pandas = pytest.importorskip("pandas")
QUICK = {"steps": 30, "options": {"steps": 1}, "random_state": 0}


@pytest.fixture(scope="module")
def moons():
    return datasets.moons(400, rng=np.random.default_rng(0)) * [1.0, 1000.0] + [0.0, 50.0]


@pytest.fixture(scope="module")
def density(moons):
    return FlowDensity(**QUICK).fit(moons)


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True, as_frame=True)
    return x, y.map({0: "setosa", 1: "versicolor", 2: "virginica"})


@pytest.fixture(scope="module")
def classifier(iris):
    return FlowClassifier("maf", {"steps": 1}, steps=150, learning_rate=0.02, random_state=0).fit(*iris)


ESTIMATORS = [
    FlowDensity("maf", **QUICK),
    FlowClassifier("maf", **QUICK | {"steps": 150, "learning_rate": 0.02}),
]
CHECKS = [pair for estimator in ESTIMATORS for pair in estimator_checks_generator(estimator)]


# Not `parametrize_with_checks`: that of scikit-learn 1.6 hands pytest an iterator, which pytest 9 warns of.
@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize(
    ("estimator", "check"), CHECKS, ids=[f"{type(e).__name__}-{c.func.__name__}" for e, c in CHECKS]
)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


# ---------------------------------------------------------------- a density


def test_the_density_integrates_to_one_in_the_units_of_the_data(density, moons):
    (low, high), cells = np.quantile(moons, [0, 1], axis=0), 120
    low, high = low - (high - low), high + (high - low)
    axes = [np.linspace(*ends, cells) for ends in zip(low, high)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    cell = np.prod((high - low) / (cells - 1))
    assert np.sum(np.exp(density.score_samples(grid))) * cell == pytest.approx(1.0, abs=0.02)
    assert density.score(moons) == pytest.approx(np.mean(density.score_samples(moons)))


def test_a_gaussian_of_one_feature_is_found():
    x = np.random.default_rng(0).normal(5.0, 2.0, (500, 1))
    density = FlowDensity(steps=100, random_state=0).fit(x)
    assert density.score(x) == pytest.approx(np.mean(norm(5, 2).logpdf(x)), abs=0.05)


def test_other_units_shift_the_score_by_the_log_of_their_size(moons):
    first, second = (FlowDensity(**QUICK).fit(x).score(x) for x in (moons, moons * 1024.0))
    assert first - second == pytest.approx(2 * np.log(1024.0), abs=1e-3)


def test_z_comes_back_to_x(density, moons):
    z = density.transform(moons)
    assert z.shape == moons.shape and np.abs(z).mean() < 2
    np.testing.assert_allclose(density.inverse_transform(z), moons, rtol=1e-8, atol=1e-6)


def test_seeds_are_integers_and_samples_have_the_units_of_the_data(density, moons):
    np.testing.assert_array_equal(density.sample(5, random_state=3), density.sample(5, random_state=3))
    assert not np.array_equal(density.sample(5, random_state=3), density.sample(5, random_state=4))
    new = density.sample(400, random_state=0)
    np.testing.assert_allclose(new.std(axis=0) / moons.std(axis=0), 1.0, atol=0.3)
    again = clone(density).fit(moons)
    np.testing.assert_array_equal(again.score_samples(moons), density.score_samples(moons))


def test_names_of_columns_are_kept_and_results_can_be_frames(moons):
    frame = pandas.DataFrame(moons, columns=["a", "b"])
    density = FlowDensity(**QUICK).set_output(transform="pandas").fit(frame)
    z = density.transform(frame)
    assert list(density.feature_names_in_) == ["a", "b"]
    assert list(z.columns) == ["flowdensity0", "flowdensity1"] and z.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names should match"):
        density.score_samples(frame[["b", "a"]])


def test_z_goes_back_to_x_whatever_the_names_of_its_columns(moons):
    frame = pandas.DataFrame(moons, columns=["a", "b"])
    for output in ("default", "pandas"):
        density = FlowDensity(**QUICK).set_output(transform=output).fit(frame)
        x = density.inverse_transform(density.transform(frame))
        np.testing.assert_allclose(x, moons, rtol=1e-8, atol=1e-6)
    with pytest.raises(ValueError, match="expected Z with 2 columns, got 1"):
        density.inverse_transform(moons[:, :1])
    with pytest.raises(ValueError, match="Z contains NaN"):
        density.inverse_transform([[0.0, np.nan]])


def test_a_fit_that_fails_leaves_the_flow_and_its_parameters_together(moons):
    density = FlowDensity(**QUICK).fit(moons)
    before = density.score(moons)
    with pytest.raises(InputError):
        density.set_params(options={"steps": 0}).fit(2 * moons)
    assert density.score(moons) == before


def test_a_constant_column_keeps_its_size():
    x = np.random.default_rng(0).normal(size=(200, 2)) * [0, 1e6] + [5.0, 0]
    density = FlowDensity("glow", **QUICK).fit(x)
    assert density.scale_[0] == 5
    assert np.abs(density.sample(100, random_state=0)[:, 0] - 5).max() < 50


def test_verbose_may_be_a_number(moons, capsys):
    FlowDensity("maf", steps=2, verbose=1).fit(moons)
    assert "2/2" in capsys.readouterr().err
    FlowDensity("maf", steps=2, verbose=0).fit(moons)
    assert not capsys.readouterr().err


def test_a_grid_search_over_a_pipeline_takes_a_frame(moons):
    frame = pandas.DataFrame(moons[:150], columns=["a", "b"])
    pipeline = make_pipeline(StandardScaler(), FlowDensity(**QUICK))
    grid = {"flowdensity__recipe": ["maf", "neural_spline"], "flowdensity__steps": [5, 20]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(frame)
    assert search.best_params_["flowdensity__steps"] == 20
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_pickle_gives_the_same_numbers(density, moons):
    again = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(again.score_samples(moons), density.score_samples(moons))


def test_training_stops_early_where_held_out_rows_get_no_better():
    x = np.random.default_rng(0).normal(size=(60, 3))
    options = {"steps": 2000, "learning_rate": 0.02, "random_state": 0}
    stopped = FlowDensity("maf", patience=20, **options).fit(x)
    assert 20 < len(stopped.history_.loss) < 500
    losses = stopped.history_.validation_loss
    assert len(losses) - 1 - np.argmin(losses) == 20
    everything = FlowDensity("maf", **options | {"steps": 30}, validation_fraction=0).fit(x)
    assert len(everything.history_.loss) == 30 and not everything.history_.validation_loss


def test_ctrl_c_keeps_what_has_been_learned(moons, monkeypatch):
    calls = iter(range(1000))
    update = FlowDensity.fit.__globals__["Adam"].update

    def interrupt(self, *arguments, **options):
        if next(calls) == 10:
            signal.raise_signal(signal.SIGINT)
        return update(self, *arguments, **options)

    monkeypatch.setattr(FlowDensity.fit.__globals__["Adam"], "update", interrupt)
    density = FlowDensity("nice", random_state=0).fit(moons)
    assert density.history_.interrupted and 10 <= len(density.history_.loss) < 20
    assert np.isfinite(density.score(moons))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recipe": "realnvp"}, "expected recipe to be one of .*'real_nvp'.*, got 'realnvp'"),
        ({"recipe": "nice"}, "expected options to be arguments of nice .*, got steps"),
        ({"steps": 0}, "expected steps .* got 0"),
        ({"validation_fraction": 1.0}, "expected validation_fraction .* got 1.0"),
        ({"patience": -1}, "expected patience .* got -1"),
        ({"batch_size": 2.5}, "expected batch_size .* got 2.5"),
        ({"verbose": "yes"}, "expected verbose .* got 'yes'"),
        ({"options": [1]}, r"expected options to be a dict or None, got \[1\]"),
        ({"options": {"features": 2}}, "other than features and context_features, got features"),
    ],
)
def test_a_wrong_parameter_is_named_when_it_is_used(options, sentence, moons):
    with pytest.raises(InputError, match=sentence):
        FlowDensity(**QUICK | options).fit(moons)


def test_a_coupling_of_one_feature_is_refused():
    with pytest.raises(InputError, match=r"expected at least 2 features for real_nvp, .* got 1"):
        FlowDensity("real_nvp").fit(np.ones((10, 1)))


# ---------------------------------------------------------------- a classifier


def test_classes_are_names_and_their_probabilities_follow_bayes_rule(classifier, iris):
    x, y = iris
    assert list(classifier.classes_) == ["setosa", "versicolor", "virginica"]
    assert classifier.score(x, y) > 0.9
    log_p = classifier.predict_log_proba(x)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1.0)
    each = [classifier._log_prob(classifier._validated(x), label) for label in range(3)]
    joint = np.stack(each, axis=1) + np.log(1 / 3)
    np.testing.assert_allclose(log_p, joint - classifier.score_samples(x)[:, None], atol=1e-9)
    assert set(classifier.predict(x)) <= set(classifier.classes_)


def test_a_classifier_works_in_a_cross_validation_of_a_pipeline(iris):
    pipeline = make_pipeline(
        StandardScaler(), clone(FlowClassifier("maf", {"steps": 1}, steps=60, learning_rate=0.02))
    )
    assert cross_val_score(pipeline, *iris, cv=2).mean() > 0.8


def test_rare_classes_have_a_small_prior(iris):
    x, y = iris
    rare = FlowClassifier("maf", **QUICK).fit(x[:60], y[:60])
    np.testing.assert_allclose(np.exp(rare.class_log_prior_), [5 / 6, 1 / 6])


def test_held_out_rows_are_a_share_of_each_class_and_never_its_only_row():
    labels = np.array([0] * 80 + [1] * 19 + [2])
    held_out = _stratified(np.random.default_rng(0).permutation(100), labels)[:10]
    assert list(np.bincount(labels[held_out], minlength=3)) == [8, 2, 0]
    assert len(set(_stratified(np.random.default_rng(0).permutation(100), labels))) == 100


def test_where_no_class_has_a_density_the_classes_are_as_frequent_as_before(classifier, iris):
    far = iris[0][:1] * 1e200
    np.testing.assert_allclose(classifier.predict_proba(far), 1 / 3)
    assert classifier.score_samples(far) == [-np.inf]


def test_a_recipe_that_takes_no_class_is_named(iris):
    with pytest.raises(InputError, match=r"expected recipe to take a context.*'gaussianization'"):
        FlowClassifier("gaussianization").fit(*iris)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples"])
def test_a_classifier_must_be_fitted_first(method, iris):
    with pytest.raises(NotFittedError):
        getattr(FlowClassifier(), method)(iris[0])
