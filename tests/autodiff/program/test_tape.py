"""Values, and the straight line of calls that makes them."""

import dataclasses

import numpy as np
import pytest
from tapes import call, entry, line

from npflow.autodiff.program.tape import Place, Tape, Value

ROW = np.array([0.3, -1.7, 2.9])


def called(tape):
    return [one.function for one in tape.calls]


def test_the_parents_of_a_value_are_the_values_among_its_arguments():
    x, y = entry(ROW), entry(ROW)
    assert call(np.where, ROW > 0, x, y).parents == (x, y)
    assert call(np.add, x, x).parents == (x, x)
    assert x.parents == ()


@pytest.mark.parametrize(
    ("example", "expected"), [(ROW, True), (np.array(1.0), True), (np.float64(1), False), ((ROW,), False)]
)
def test_a_value_knows_whether_it_is_an_array(example, expected):
    assert Value(example).is_array is expected


def test_values_are_told_apart_by_identity():
    assert len({entry(ROW), entry(ROW)}) == 2
    assert entry(ROW) != entry(ROW)


def test_the_results_are_the_values_that_are_returned():
    x = entry(ROW)
    value, gradient = call(np.sum, x), call(np.exp, x)
    assert Tape((x,), (), (value, gradient), value, (gradient, None, 2.0)).results == (value, gradient)
    assert Tape((x,), (), (), 3.0, ()).results == ()
    assert Tape((), (x,), (), x).results == (x,)


@pytest.mark.parametrize(("thing", "field"), [(Place(), "prefix"), (line([entry(ROW)], entry(ROW)), "calls")])
def test_places_and_tapes_are_frozen(thing, field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, field, None)


def test_a_rewrite_that_changes_nothing_keeps_the_calls_themselves():
    x = entry(ROW)
    tape = line([x], one := call(np.exp, x), call(np.negative, one), gradients=(one, None))
    assert tape.rewrite(lambda one: one) == tape


def test_a_rewrite_puts_a_constant_in_every_place_of_a_call():
    x = entry(ROW)
    y = call(np.exp, x)
    z = call(np.add, y, y)
    tape = Tape((x,), (), (y, z), y, (z, y, None)).rewrite(lambda one: 7.0 if one is y else one)
    assert (tape.value, tape.gradients[1:]) == (7.0, (7.0, None))
    assert [one.arguments for one in tape.calls] == [(7.0, 7.0)]


def test_a_rewrite_may_put_two_calls_in_the_place_of_one():
    x = entry(ROW)
    y = call(np.exp, x)
    z = call(np.negative, y)
    new = call(np.square, x)
    newer = call(np.exp, new)
    tape = line([x], y, z).rewrite(lambda one: (new, newer) if one is y else one)
    assert called(tape) == [np.square, np.exp, np.negative]
    assert tape.calls[-1].arguments == (newer,)


def test_a_rewrite_gives_later_calls_the_arguments_that_earlier_ones_became():
    x = entry(ROW)
    one = call(np.exp, x)
    two = call(np.negative, one)
    three = call(np.add, two, x)
    tape = line([x], one, two, three).rewrite(lambda seen: x if seen is one else seen)
    assert called(tape) == [np.negative, np.add]
    assert tape.calls[0].arguments == (x,)
    assert tape.calls[1].arguments == (tape.calls[0], x)
    assert two.arguments == (one,)  # the old call is as it was
