"""From numbers to sentences: each known mistake gets its own."""

import re
from functools import partial

import numpy as np
import pytest
from helpers import rows

from npflow.verify import check_functions
from npflow.verify.diagnosis import of_log_det

RNG = np.random.default_rng(0)
TRUE = RNG.normal(2.0, 1.0, 8)
PARTS = {"0 (ActNorm)": RNG.normal(0.5, 0.3, 8), "1 (Conv1x1)": RNG.normal(-0.7, 0.3, 8)}


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        (-TRUE, "has the opposite sign"),
        (TRUE / 6, "lacks the factor H W = 6"),
        (TRUE / 24, "is the mean over the 24 components, not their sum"),
        (np.full(8, TRUE.sum()), "is summed over the batch"),
        (np.full(8, TRUE.mean()), "is averaged over the batch"),
        (TRUE - PARTS["1 (Conv1x1)"], r"leaves out that of layer 1 (Conv1x1)"),
        (TRUE + PARTS["0 (ActNorm)"], r"counts that of layer 0 (ActNorm) twice"),
        (TRUE - 2 * PARTS["0 (ActNorm)"], r"takes that of layer 0 (ActNorm) with the opposite sign"),
        (TRUE[::-1], "has the rows in another order"),
        (1.3 * TRUE, "is 1.3 times log|det J| in every row: a factor is wrong"),
        (TRUE / np.log(2), "is in bits, not in nats"),
        (np.exp(TRUE), "is |det J| itself: the logarithm is missing"),
        (TRUE + 0.25, "is off by 0.25 nats in every row"),
        (TRUE - np.log(2), "nats in every row (-log 2)"),
        (TRUE + 24 * np.log(2), "nats in every row (24 log 2)"),
        (TRUE + 1e-7, "is off by 1e-07 nats in every row"),
        (TRUE + TRUE**2, "differently in each row"),
        (np.where(np.arange(8) == 5, np.nan, TRUE), "is nan in row 5"),
    ],
)
def test_a_wrong_log_det_is_named(claimed, words):
    sentence = of_log_det(claimed, TRUE, "forward", (2, 3, 4), PARTS)
    assert words in sentence
    assert sentence.startswith("log_det of forward")


def test_the_sign_of_an_inverse_is_told_as_the_inverses():
    assert "the inverse's is minus the forward's" in of_log_det(-TRUE, TRUE, "inverse", (4,), {})


total = lambda a: np.sum(a, axis=1)


def sinh(x, log_det=lambda x: total(np.log(np.cosh(x)))):
    return np.sinh(x), log_det(x)


def arcsinh(z, of_x=lambda x: x):
    x = np.arcsinh(z)
    return of_x(x), -total(np.log(np.cosh(x)))


@pytest.mark.parametrize(
    ("of_x", "words"),
    [
        (lambda x: -x, "it is minus x"),
        (lambda x: x[:, ::-1], r"components in another order \(is a permutation or transpose undone\?\)"),
        (lambda x: x + 0.5, "by the same number in every row: a shift is not taken back"),
        (lambda x: x * [1, 2, 1], "in component 1: the two directions are not each other's inverse"),
        (lambda x: x * [1, 2, 3], "in components 1, 2: the two directions"),
        (lambda x: np.where(x[:, :1] > 0.5, 2 * x, x), "rows, those where x_0 is above 0"),
        (lambda x: x * (1 + 1e-5), "the inverse is approximate"),
    ],
)
def test_a_broken_round_trip_is_named(of_x, words):
    report = check_functions(sinh, partial(arcsinh, of_x=of_x), rows(60, 3))
    assert re.search(words, report["x -> z -> x"].sentence)


def test_a_round_trip_that_overflows_is_named():
    report = check_functions(sinh, partial(arcsinh, of_x=lambda x: x + 1e4), rows(60, 3))
    assert "forward(inverse(z)) is not finite: the map leaves its domain" in report["z -> x -> z"].sentence


def test_a_matrix_that_is_transposed_is_named():
    matrix, x = np.array([[1.0, 2.0], [0.5, 3.0]]), rows(60, 2)
    log_det = np.linalg.slogdet(matrix)[1]
    report = check_functions(
        lambda x: (x @ matrix, np.full(len(x), log_det)),
        lambda z: (z @ np.linalg.inv(matrix).T, np.full(len(z), -log_det)),
        x,
    )
    assert "the matrix of one of them is transposed" in report.cause


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (lambda a: total(a[:, [0, 2, 3]]), "leaves out component 1"),
        (lambda a: total(a) + a[:, 3], "counts component 3 twice"),
        (lambda a: total(a) - 2 * a[:, 0], "takes component 0 with the opposite sign"),
        (lambda a: total(a[:, 2:]), "leaves out the first half"),
        (lambda a: total(a[:, ::2]), "leaves out the odd components"),
    ],
)
def test_a_component_whose_term_is_wrong_is_named(part, words):
    forward = partial(sinh, log_det=lambda x: part(np.log(np.cosh(x))))
    assert words in check_functions(forward, arcsinh, rows(60, 4)).cause
