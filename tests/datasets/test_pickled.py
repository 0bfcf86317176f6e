"""Pickles as data: what arrays need is read, by whichever Python and NumPy it was written; nothing is ever called."""

import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.datasets import pickled
from npflow.datasets.pickled import Call, as_array, read_pickle
from npflow.errors import InputError

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
BATCH = {
    b"batch_label": b"one of 5",
    b"labels": [3, 1, 300],
    b"data": PIXELS,
    b"filenames": [b"a.png", b"\xff"],
}


def by_python_2(data=bytes(range(12)), by_column=b"\x89"):
    """The same batch as Python 2 wrote it, with strings for bytes and NumPy 1's names; b"\\x88" for columns first."""
    array = b"".join([
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07",
        b"(K\x01K\x03K\x04\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09",
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        by_column + b"T" + struct.pack("<i", len(data)) + data + b"tb",
    ])  # fmt: skip
    return b"".join([
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x08one of 5q\x03U\x06labels]q\x04(K\x03K\x01M\x2c\x01eU\x04data",
        array,
        b"U\x09filenames]r\x00\x01\x00\x00(U\x05a.pngU\x01\xffeu.",
    ])  # fmt: skip


def by_python_3(batch=BATCH):
    return pickle.dumps(batch, protocol=2)


def of_array(array):
    return pickle.dumps(array, protocol=2)


@pytest.mark.parametrize(
    "data",
    [by_python_2(), by_python_3(), by_python_3().replace(b"numpy._core.", b"numpy.core.")],
    ids=["Python 2", "Python 3, NumPy 2", "Python 3, NumPy 1"],
)
def test_a_batch_is_read_as_pickle_would_read_it(data):
    batch = read_pickle(data)
    assert list(batch) == list(BATCH)
    np.testing.assert_array_equal(as_array(batch.pop(b"data")), PIXELS)
    assert batch == {key: value for key, value in BATCH.items() if key != b"data"}


def test_the_files_of_python_2_in_these_tests_are_such_files():
    batch = pickle.loads(by_python_2(), encoding="bytes")
    np.testing.assert_array_equal(batch.pop(b"data"), PIXELS)
    assert batch == {key: value for key, value in BATCH.items() if key != b"data"}


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.binary(min_size=1),
        lambda inside: (
            st.lists(inside)
            | st.tuples(inside)
            | st.tuples(inside, inside, inside, inside)
            | st.dictionaries(st.binary(min_size=1, max_size=3), inside)
        ),
        max_leaves=8,
    )
)
def test_plain_data_comes_back(value):
    assert read_pickle(pickle.dumps(value, protocol=2)) == value


def test_arrays_come_back_in_either_order():
    np.testing.assert_array_equal(as_array(read_pickle(of_array(np.asfortranarray(PIXELS)))), PIXELS)
    by_column = read_pickle(by_python_2(PIXELS.T.tobytes(), by_column=b"\x88"))
    np.testing.assert_array_equal(as_array(by_column[b"data"]), PIXELS)


@pytest.mark.parametrize(
    "value",
    [
        PIXELS[0],
        PIXELS[None],
        PIXELS.astype(np.int8),
        PIXELS.astype(np.float32),
        PIXELS[:0],
        np.array([[None]]),
    ],
    ids=["one axis", "three axes", "int8", "float32", "empty", "objects"],
)
def test_other_arrays_are_refused(value):
    with pytest.raises(InputError, match="expected "):
        as_array(read_pickle(of_array(value)))


@pytest.mark.parametrize("value", [None, 3, b"u1", [1, 2], {}, Call("numpy.dtype", ("u1", False, True))])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(InputError, match="expected an array of uint8 with two axes, got something else"):
        as_array(value)


def test_an_array_has_the_bytes_that_its_shape_says():
    """NumPy would ask for the memory of the shape first: here for 50 terabytes."""
    huge = by_python_2().replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fM\xff\x60\x86")
    with pytest.raises(InputError, match="expected an array of uint8 with two axes"):
        as_array(read_pickle(huge)[b"data"])


class Runs:
    """What a pickle would call on being loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(marker):
    """Pickles that would create the folder `marker`, by name."""
    mkdir = Runs(os.mkdir, marker)
    shell = Runs(os.system, f"mkdir {marker}")
    text = b"X" + struct.pack("<i", len(marker.encode())) + marker.encode()
    return {
        "a function": pickle.dumps(mkdir, 2),
        "a shell": pickle.dumps(shell, 2),
        "a shell, protocol 0": pickle.dumps(shell, 0),
        "a shell, protocol 4": pickle.dumps(shell, 4),
        "exec": pickle.dumps(Runs(exec, f"import os; os.mkdir({marker!r})"), 2),
        "among the labels": by_python_3(BATCH | {b"labels": [1, mkdir]}),
        "in an array of objects": by_python_3(BATCH | {b"data": np.array([[mkdir]])}),
        "in what nobody reads": by_python_3(BATCH | {b"more": mkdir}),
        "INST": b"(" + text + b"ios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\n" + text + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + text + b"\x85R.",
    }


@pytest.mark.parametrize("name", hostile("marker"))
def test_nothing_is_executed(name, tmp_path):
    marker = tmp_path / "marker"
    data = hostile(str(marker))[name]
    with pytest.raises(InputError, match="expected a pickle"):
        read_pickle(data)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(data)  # the file is what it is meant to be: it does run where pickles are run
    assert marker.exists()


def test_a_function_is_named_before_anything_else_is_looked_at():
    with pytest.raises(InputError, match=r"got one that names 'os\.system'; nothing in it was called"):
        read_pickle(b"cos\nsystem\n(X\x04\x00\x00\x00true")
    with pytest.raises(InputError, match=r"got the instruction PERSID at byte 0"):
        read_pickle(b"P1\n.")


@pytest.mark.parametrize(
    "call",
    [
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85R.",  # memory for any shape
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7\x86R.",
        b"X\x03\x00\x00\x00abc(tR.",
        b"cnumpy\ndtype\n]R.",
    ],
    ids=["ndarray", "another encoding", "a string", "arguments in a list"],
)
def test_other_calls_are_refused(call):
    with pytest.raises(InputError, match="got one with another call; nothing in it was called"):
        read_pickle(b"\x80\x02" + call)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02e.",
        b"\x80\x02(",
        b"\x80\x02h\x05.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02}K\x01K\x02s.",
        b"\x80\x02}(U\x01au.",
        b"\x80\x02]U\x01aK\x01s.",
        b"\x80\x02}}b.",
        b"\x80\x02cnumpy\ndtype\n}b.",
        b"\xff\xd8\xff\xe0JFIF",
        b"<!DOCTYPE html>",
    ],
)
def test_what_is_no_program_is_refused(data):
    with pytest.raises(InputError, match=r"expected a pickle"):
        read_pickle(data)


@pytest.mark.parametrize("data", [by_python_2(), by_python_3()], ids=["Python 2", "Python 3"])
def test_a_file_cut_short_anywhere_is_refused(data):
    for length in range(len(data)):
        with pytest.raises(InputError, match="damaged or cut short after byte"):
            read_pickle(data[:length])


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=200)
@given(st.sampled_from([by_python_2(), by_python_3()]), st.data())
def test_a_damaged_file_is_read_or_refused(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = read_pickle(bytes(damaged))
        array = as_array(found[b"data"] if isinstance(found, dict) and b"data" in found else found)
    except InputError:
        return
    assert (array.dtype, array.ndim) == (np.uint8, 2)
    assert array.size <= len(data)


def test_places_in_the_memo_cost_nothing():
    """`pickle.Unpickler` makes room for all places below: 64 GiB for these ten bytes."""
    assert read_pickle(b"\x80\x02}r\xff\xff\xff\xff.") == {}


def test_keys_are_bytes_whose_hash_is_quick():
    """The hash of this key takes 2^40 steps: each tuple has the one before it twice."""
    doubled = b"".join(b"h\x00h\x00\x86q\x00" for _ in range(40))
    with pytest.raises(InputError, match="damaged"):
        read_pickle(b"\x80\x02}K\x01q\x00" + doubled + b"K\x01s.")


def test_a_text_is_encoded_once_however_often_it_is_asked_for():
    text = b"X" + struct.pack("<i", 1000) + 1000 * b"a" + b"q\x00"
    once = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    encoded = read_pickle(b"\x80\x02](" + text + 50 * once + b"e.")[1:]
    assert encoded == 50 * [1000 * b"a"]
    assert len({id(item) for item in encoded}) == 1


def test_more_instructions_than_a_batch_has_are_refused(monkeypatch):
    monkeypatch.setattr(pickled, "MOST", 100)
    assert len(read_pickle(b"\x80\x02](" + 95 * b"N" + b"e.")) == 95
    with pytest.raises(InputError, match="expected a pickle of fewer than 100 instructions, got more"):
        read_pickle(b"\x80\x02](" + 96 * b"N" + b"e.")
