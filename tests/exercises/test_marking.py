"""Each exercise can be solved from its page, and typical wrong answers lead to the hint that fits."""

import re
from pathlib import Path

import numpy as np
import pytest
from solutions import OTHERS, SOLUTIONS, WRONG

import npflow
from npflow import exercises
from npflow.cli.verify import own_module
from npflow.exercises.hints import COMMON, LAST
from npflow.layers import Affine

ROOT = Path(npflow.__file__).parents[1]
BLANK = re.compile(r"(?<==) \.\.\.|(?<=return) \.\.\.")
every_exercise = pytest.mark.parametrize("name", exercises.EXERCISES)


def completed(name, answers):
    """The page of an exercise with an answer in the place of each `...`."""
    answers = iter(answers)
    return BLANK.sub(lambda _: f" {next(answers)}", exercises.page(name))


@pytest.fixture
def mark(tmp_path):
    """Mark the text of an answer, as a reader's file."""

    def mark_text(name, text):
        path = tmp_path / "answer.py"
        path.write_text(text, "utf-8")
        return exercises.mark(name, getattr(own_module(str(path)), exercises.find(name).asked))

    return mark_text


def test_there_is_an_answer_to_each_exercise():
    assert SOLUTIONS.keys() == exercises.EXERCISES.keys()


@every_exercise
def test_the_page_is_solved_by_its_formula(name, mark):
    assert len(BLANK.findall(exercises.page(name))) == len(SOLUTIONS[name])
    result = mark(name, completed(name, SOLUTIONS[name]))
    assert result.passed, result
    assert str(result).startswith(f"{name}: right. The library's own: ")


@pytest.mark.parametrize("name", OTHERS)
def test_an_answer_may_be_written_in_another_way(name, mark):
    result = mark(name, completed(name, OTHERS[name]))
    assert result.passed, result


@every_exercise
def test_the_page_as_it_is_has_lines_to_complete(name, mark):
    result = mark(name, exercises.page(name))
    line = int(re.fullmatch(r"\w+ still has \.\.\. in line (\d+)", result.sentence)[1])
    assert BLANK.search(exercises.page(name).splitlines()[line - 1])
    assert "in the place of each `...`" in result.hint


@pytest.mark.parametrize(("name", "old", "new", "words"), WRONG)
def test_a_wrong_answer_leads_to_its_hint(name, old, new, words, mark):
    text = completed(name, SOLUTIONS[name])
    assert old in text
    result = mark(name, text.replace(old, new))
    assert words in result.hint, result
    assert len(result.sentence) < 500
    assert str(result) == f"{name}: not yet. {result.sentence}.\nHint: {result.hint}"


def test_each_hint_is_that_of_some_wrong_answer():
    given = {name: [words for one, _, _, words in WRONG if one == name] for name in exercises.EXERCISES}
    for name, exercise in exercises.EXERCISES.items():
        for _, hint in (*exercise.hints, *exercise.variants):
            assert any(words in hint for words in given[name]), (name, hint)
    for _, hint in (*COMMON[1:], LAST):  # the first is that of an empty page
        assert any(words in hint for _, _, _, words in WRONG), hint


@pytest.mark.parametrize("name", ["affine", "coupling", "spline"])
def test_a_forward_without_its_inverse_is_marked_alone(name, mark):
    first, second, *_ = SOLUTIONS[name]
    result = mark(name, completed(name, (first, second, "...", "...")))
    assert re.match(r"forward is right. (inverse|untransform) still has ... in line \d+", result.sentence)
    assert not mark(name, completed(name, (first, f"-1 * ({second})", "...", "..."))).sentence.startswith(
        "forward is right"
    )


# ---------------------------------------------------------------- pages


@every_exercise
def test_the_page_says_where_the_librarys_own_stands(name):
    named = re.search(r"own: ([\w.]+)", exercises.find(name).solution)[1].partition(".")[0]
    path = re.search(r"npflow/[\w/]+\.py", exercises.find(name).solution)[0]
    assert re.search(rf"^(class|def) {named}\b", (ROOT / path).read_text("utf-8"), re.MULTILINE)
    for demo in re.findall(r"demos/[\w/]+\.py", exercises.page(name)):
        assert (ROOT / demo).is_file()


@every_exercise
def test_the_page_begins_with_what_it_asks(name):
    assert exercises.page(name).startswith(f'"""Exercise {name}: {exercises.find(name).title}')
    assert "\nHints:\n\n1. " in exercises.page(name)
    assert f"\nMark it: ``npflow exercise {name} {name}.py``. " in exercises.page(name)


# ---------------------------------------------------------------- in Python


def test_a_layer_or_a_function_of_a_session_is_marked():
    assert exercises.mark("affine", Affine()).passed
    assert exercises.mark("volume", lambda A: np.linalg.slogdet(A)[1]).passed
    assert exercises.mark("affine", 3).sentence.startswith("expected MyAffine to be an object with init")


def test_an_error_that_an_answer_raises_is_its_mark():
    def log_volume(A):
        raise RuntimeError("nothing yet")

    assert exercises.mark("volume", log_volume).sentence == "RuntimeError: nothing yet"


def test_an_unknown_exercise_gets_the_names():
    with pytest.raises(npflow.InputError, match=r"expected an exercise among volume, .*, got 'nothing'"):
        exercises.page("nothing")
