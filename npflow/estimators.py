"""Flows as scikit-learn estimators: a density that is also a transformer, and a classifier by Bayes' rule."""

import inspect
import math
from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from numpy.random import RandomState
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from npflow import models
from npflow.autodiff import tree
from npflow.errors import InputError, in_short
from npflow.layers.layer import largest, mean_and_std
from npflow.training import Adam, WarmupCosine, fit
from npflow.validation import check_choice, check_count, check_number

__all__ = ["FlowClassifier", "FlowDensity"]

RECIPES = ("nice", "real_nvp", "glow", "maf", "iaf", "neural_spline", "gaussianization")


class _FlowEstimator(BaseEstimator):
    """What both estimators share: their parameters, the units of the data, and training."""

    def __init__(
        self,
        recipe="neural_spline",
        options=None,
        *,
        steps=1000,
        batch_size=256,
        learning_rate=3e-3,
        validation_fraction=0.1,
        patience=200,
        random_state=None,
        verbose=False,
    ):
        self.recipe = recipe
        self.options = options
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, X, labels=None, classes=0):
        """Train a flow on the standardized rows of X, and on the class of each row where there are classes."""
        steps = check_count(self.steps, "steps")
        rate = check_number(self.learning_rate, "learning_rate", above=0)
        fraction = check_number(self.validation_fraction, "validation_fraction", least=0, below=1)
        verbose = (
            self.verbose if isinstance(self.verbose, bool) else check_count(self.verbose, "verbose", least=0)
        )
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
        flow = self._make_flow(X.shape[1], classes)
        mean, scale = mean_and_std(X)
        size = largest(X)
        constant = np.std(X / size, axis=0) <= 10 * np.finfo(X.dtype).eps
        scale = np.where(constant, size, scale)  # of its own units, not of another column's
        x = ((X - mean) / scale).astype(np.float32)
        order = rng.permutation(len(x))
        if labels is not None:
            order = _stratified(order, labels)
        held_out, kept = np.split(order, [int(fraction * len(x))])
        context = lambda rows: None if labels is None else labels[rows]
        validated = len(held_out) > 0
        batch_size = min(check_count(self.batch_size, "batch_size"), len(kept))
        epoch = math.ceil(len(kept) / batch_size)  # steps
        patience = (
            None if self.patience is None else math.ceil(check_count(self.patience, "patience") / epoch)
        )
        params, history = fit(
            flow,
            flow.init(rng, x[kept], context(kept)),
            x[kept],
            context(kept),
            rng=rng,
            validation=x[held_out] if validated else None,
            validation_context=context(held_out) if validated else None,
            patience=patience if validated else None,
            steps=steps,
            batch_size=batch_size,
            optimizer=Adam(WarmupCosine(rate, steps=steps, warmup=steps // 10)),
            clip_norm=10.0,
            progress=bool(verbose),
        )
        self.flow_, self.history_, self.mean_, self.scale_ = flow, history, mean, scale
        # Trained in float32, which is faster, and used in float64, so that z comes back to x.
        self.params_ = tree.build(
            lambda _, leaf: leaf.astype(np.float64) if tree.is_trained(leaf) else leaf, params
        )
        return self

    def _make_flow(self, features, classes):
        check_choice(self.recipe, RECIPES, "recipe")
        if not isinstance(self.options, Mapping | None):
            raise InputError(f"expected options to be a dict or None, got {in_short(self.options)}")
        options = dict(self.options or {})
        if features == 1 and self.recipe in ("nice", "real_nvp", "glow"):
            raise InputError(
                f"expected at least 2 features for {self.recipe}, whose couplings leave some of them alone, got 1 feature(s)"
            )
        if self.recipe == "neural_spline":
            options.setdefault("kind", "autoregressive")  # does better on small tables, and takes one feature
        make = getattr(models, self.recipe)
        known = set(inspect.signature(make).parameters)
        if classes and "context_features" not in known:
            raise InputError(
                f"expected recipe to take a context, here the class, got {self.recipe!r}, which does not"
            )
        unknown = set(options) - (known - {"features", "context_features"})  # these two come from the data
        if unknown:
            raise InputError(
                f"expected options to be arguments of {self.recipe} other than features and context_features, "
                f"got {', '.join(sorted(map(str, unknown)))}"
            )
        if classes:
            options["context_features"] = classes
        return make(features, **options)

    def _validated(self, X):
        """New rows as float64, standardized."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return (X.astype(np.float64) - self.mean_) / self.scale_

    def _log_prob(self, x, context=None):
        """log p(X) in nats, of standardized rows, in the units of the data."""
        return self.flow_.log_prob(self.params_, x, context) - np.sum(np.log(self.scale_))


class FlowDensity(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, _FlowEstimator):
    r"""A normalizing flow as a scikit-learn estimator of a density.

    log p(x) = log prior(z) + log|det dz/dx|        z = flow((x - mean) / scale)

    The rows are standardized inside, and the log-determinant of that is part of log p(x), so `score_samples` is
    in the units of the data. `transform` takes rows to z, which is distributed as a standard normal, and
    `inverse_transform` takes z back.

    Parameters
    ----------
    recipe : {"neural_spline", "nice", "real_nvp", "glow", "maf", "iaf", "gaussianization"}, default="neural_spline"
        The recipe of `npflow.models` that makes the flow.
    options : dict, default=None
        Further arguments of the recipe, such as ``{"steps": 5}``. A spline is autoregressive by default;
        ``{"kind": "coupling"}`` samples faster.
    steps : int, default=1000
        Maximum number of training steps.
    batch_size : int, default=256
    learning_rate : float, default=3e-3
        Peak learning rate. It warms up over the first tenth of the steps, then decays to zero along a cosine.
    validation_fraction : float, default=0.1
        Fraction of the rows that is set aside for validation. The parameters with the best validation loss are
        kept, or with 0 those of the last step.
    patience : int or None, default=200
        Training stops when the validation loss has not improved for this many steps. None disables early stopping.
    random_state : int, RandomState instance or None, default=None
        Controls the initial parameters, the validation rows and the order of the rows.
    verbose : bool or int, default=False
        Whether to show a progress bar.

    Attributes
    ----------
    flow_ : Flow
    params_ : tree of ndarray
        The trained parameters, in float64.
    history_ : History
        The losses of the training.
    mean_, scale_ : ndarray, shape (n_features,)
        ``(X - mean_) / scale_`` is what the flow learns. A constant column has mean 0, and its absolute value as scale.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Only if all names of the columns of `X` in `fit` are strings.

    Notes
    -----
    Ctrl-C ends `fit` early; the estimator then has the parameters learned so far.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.estimators import FlowDensity
    >>> x = npflow.datasets.moons(500, rng=np.random.default_rng(0))
    >>> density = FlowDensity(steps=50, random_state=0).fit(x)
    >>> density.score_samples(x).shape, density.sample(3).shape
    ((500,), (3, 2))
    >>> z = density.transform(x)
    >>> bool(np.allclose(density.inverse_transform(z), x))
    True
    """

    def fit(self, X: ArrayLike, y: object = None) -> "FlowDensity":
        """Train the flow.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        return self._fit(X.astype(np.float64))

    def score_samples(self, X: ArrayLike) -> ndarray:
        """Compute log p(x) of each row, in nats.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        return self._log_prob(self._validated(X))

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Compute the mean of log p(x) over rows, in nats.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> ndarray:
        """Draw rows from the density.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState instance or None

        Returns
        -------
        ndarray, shape (n_samples, n_features)
        """
        check_is_fitted(self)
        rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
        return self.flow_.sample(self.params_, rng, n_samples) * self.scale_ + self.mean_

    def transform(self, X: ArrayLike) -> ndarray:
        """Take rows to z.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_features)
        """
        x = self._validated(X)
        return self.flow_.encode(self.params_, x)

    def inverse_transform(self, Z: ArrayLike) -> ndarray:
        """Take z to rows.

        Parameters
        ----------
        Z : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_features)
        """
        check_is_fitted(self)
        Z = check_array(
            Z, dtype=np.float64, input_name="Z"
        )  # not of the columns of X, whose names it may not have
        if Z.shape[1] != self.n_features_in_:
            raise InputError(f"expected Z with {self.n_features_in_} columns, got {Z.shape[1]}")
        return self.flow_.decode(self.params_, Z) * self.scale_ + self.mean_

    @property
    def _n_features_out(self):
        return self.n_features_in_


class FlowClassifier(ClassifierMixin, _FlowEstimator):
    r"""A classifier by Bayes' rule, over one flow that is conditional on the class.

    P(c | x) = P(c) p(x | c) / sum_k P(k) p(x | k)

    Parameters
    ----------
    recipe : {"neural_spline", "nice", "real_nvp", "glow", "maf", "iaf"}
        The recipe of `npflow.models` that makes the flow.
    options, steps, batch_size, learning_rate, validation_fraction, patience, random_state, verbose
        Those of `FlowDensity`.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    class_log_prior_ : ndarray, shape (n_classes,)
        log P(c), the logarithm of the frequency of each class.
    flow_, params_, history_, mean_, scale_, n_features_in_, feature_names_in_
        Those of `FlowDensity`.

    Examples
    --------
    >>> from npflow.estimators import FlowClassifier
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> classifier = FlowClassifier("maf", {"steps": 2}, random_state=0).fit(x[::2], y[::2])
    >>> classifier.score(x[1::2], y[1::2]) > 0.8
    True
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> "FlowClassifier":
        """Train the flow.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : array-like, shape (n_samples,)
            The class of each row.

        Returns
        -------
        self
        """
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.class_log_prior_ = np.log(counts / len(y))
        return self._fit(X.astype(np.float64), labels, len(self.classes_))

    def _joint_log_prob(self, X):
        """log P(c) p(x | c), shape (n_samples, n_classes)."""
        x = self._validated(X)
        # With one class the context is one number, which is always 0.
        each = [self._log_prob(x, label) for label in range(len(self.classes_))]
        return np.stack(each, axis=1) + self.class_log_prior_

    def score_samples(self, X: ArrayLike) -> ndarray:
        """Compute log p(x) of each row, in nats: that of the mixture of the classes.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        return logsumexp(self._joint_log_prob(X), axis=1)

    def predict_log_proba(self, X: ArrayLike) -> ndarray:
        """Compute log P(c | x).

        Far from all data, where the density of every class underflows to zero, it is log P(c).

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
        """
        joint = self._joint_log_prob(X)
        nowhere = np.isneginf(joint).all(
            axis=1, keepdims=True
        )  # x tells nothing where no class has a density
        return log_softmax(np.where(nowhere, self.class_log_prior_, joint), axis=1)

    def predict_proba(self, X: ArrayLike) -> ndarray:
        """Compute P(c | x).

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
        """
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: ArrayLike) -> ndarray:
        """Predict the most probable class of each row.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        log_p = self.predict_log_proba(X)
        return self.classes_[np.argmax(log_p, axis=1)]


def _stratified(order, labels):
    """Rows in an order whose first part has its share of each class; the first row of a class comes last."""
    rank = np.empty(len(order))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        rank[rows] = np.arange(len(rows)) / len(rows)
    return order[np.argsort(-rank[order], kind="stable")]
