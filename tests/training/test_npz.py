"""The file of a checkpoint: what is damaged, foreign or hostile is refused before it does harm."""

import io
import json
import os
import pickle
import traceback
import zipfile

import numpy as np
import pytest
from helpers import refusal, same_bits
from stored import saved, with_contents

from npflow import Flow, InputError, load, save
from npflow.layers import Reverse
from npflow.priors import Normal


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_gets_a_sentence(share, tmp_path):
    path = saved(tmp_path / "flow.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "flow.npz, got a file that is damaged, cut short" in refusal(load, path)


def test_a_flipped_bit_gets_a_sentence(tmp_path):
    path = saved(tmp_path / "flow.npz")
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"params.npy") + 300] ^= 4
    path.write_bytes(damaged)
    assert "damaged" in refusal(load, path)


def header_of(path, name):
    """Where the shape in the header of an entry starts in a file."""
    contents = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return contents.index(b"'shape': (", archive.getinfo(f"{name}.npy").header_offset) + len("'shape': (")


def test_a_shape_that_has_become_smaller_is_noticed(trained):
    """The entry then has more bytes than its header accounts for, and a reader of its first ones sees no checksum."""
    for name in ("run:history:loss", "run:moment:m", "run:average", "params"):
        place, whole = header_of(trained, name), trained.read_bytes()
        damaged = bytearray(whole)
        damaged[place] = ord("1") if damaged[place] != ord("1") else ord("2")
        trained.write_bytes(damaged)
        assert "damaged" in refusal(load, trained)
        trained.write_bytes(whole)


def test_the_checksum_of_an_entry_without_numbers_is_compared_too(tmp_path):
    path = tmp_path / "empty.npz"
    flow = Flow(Reverse(), Normal(2))
    save(path, flow, {"layer": {}, "prior": {}})
    damaged = bytearray(path.read_bytes())
    damaged[header_of(path, "params") + 40] ^= 1  # of the padding
    path.write_bytes(damaged)
    assert "damaged" in refusal(load, path)


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, complex), np.zeros(3, [("a", float)]), np.zeros(3, "M8[s]")],
    ids=lambda array: str(array.dtype),
)
def test_an_entry_of_another_kind_is_refused(array, tmp_path):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, lambda contents: contents.update({"run:vector": array}))
    assert "expected numbers or a text in 'run:vector.npy'" in refusal(load, path)


def test_a_file_of_a_machine_of_the_other_byte_order_is_loaded(tmp_path):
    path = saved(tmp_path / "flow.npz")
    params = load(path).params
    swap = lambda array: array.astype(array.dtype.newbyteorder())
    with_contents(path, lambda contents: contents.update({name: swap(a) for name, a in contents.items()}))
    assert same_bits(load(path).params, params)


def test_an_entry_twice_is_refused(tmp_path):
    path = saved(tmp_path / "flow.npz")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("params.npy", archive.read("params.npy"))
    assert "one of each name, got one twice" in refusal(load, path)


def long_header():
    """An archive whose entry has a longer header than NumPy reads by default: NumPy advises to trust the file."""
    entry, archive = io.BytesIO(), io.BytesIO()
    np.save(entry, np.zeros(1, [(f"field{number}", np.int8) for number in range(1000)]))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("params.npy", entry.getvalue())
    return archive.getvalue()


def foreign_files():
    array = io.BytesIO()
    np.save(array, np.arange(3))
    archive = io.BytesIO()
    np.savez(archive, a=np.arange(3))
    text = io.BytesIO()
    np.savez(text, description=np.array("not JSON"))
    other = io.BytesIO()
    np.savez(other, description=np.array(json.dumps({"format": "somebody else's"})))
    return {
        "text": b"hello",
        "array": array.getvalue(),
        "archive": archive.getvalue(),
        "long header": long_header(),
        "not json": text.getvalue(),
        "format": other.getvalue(),
        "pickle": pickle.dumps({"a": 1}),
    }


@pytest.mark.parametrize("name", foreign_files())
def test_a_foreign_file_gets_a_sentence(name, tmp_path):
    path = tmp_path / "foreign.npz"
    path.write_bytes(foreign_files()[name])
    with pytest.raises(InputError, match="expected") as caught:
        load(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert "allow_pickle" not in shown, "NumPy's advice: load a file that you trust by pickle"


class Trap:
    def __reduce__(self):
        return (os._exit, (3,))


def test_a_pickle_inside_is_never_executed(tmp_path):
    np.savez(tmp_path / "trap.npz", description=np.array([Trap()], dtype=object))
    assert "expected numbers or a text" in refusal(load, tmp_path / "trap.npz")


def never(*arguments, **options):
    raise AssertionError("an entry was read")


def test_compressed_entries_are_refused_before_any_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, lambda contents: contents.update({"run:zeros": np.zeros(10**6)}), np.savez_compressed)
    monkeypatch.setattr(zipfile.ZipFile, "open", never)
    assert "entries that are not compressed" in refusal(load, path)


def test_entries_that_share_their_bytes_are_refused_before_any_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "flow.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("run:zeros.npy", bytes(10**4))
        archive.filelist += 99 * archive.filelist[-1:]
    monkeypatch.setattr(zipfile.ZipFile, "open", never)
    assert "entries that fit into the file of" in refusal(load, path)


@pytest.mark.parametrize("name", ["other", "my params", "description.json", "constants"])
def test_entries_that_npflow_does_not_write_are_refused_before_any_is_read(name, tmp_path, monkeypatch):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, lambda contents: contents.update({name: np.zeros(3)}))
    monkeypatch.setattr(zipfile.ZipFile, "open", never)
    assert f"got one called '{name}" in refusal(load, path)
