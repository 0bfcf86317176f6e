"""The estimators: scikit-learn's own checks, pipelines and searches, units, early stopping."""


import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from npflow.estimators import FlowClassifier, FlowDensity

QUICK = {"steps": 30, "options": {"steps": 1}, "random_state": 0}


@pytest.mark.usefixtures("uncovered")
@parametrize_with_checks(
    [FlowDensity(**QUICK), FlowClassifier(**QUICK | {"steps": 150, "learning_rate": 0.02})]
)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)
