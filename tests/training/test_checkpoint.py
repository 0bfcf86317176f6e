"""Checkpoints: whole or not at all, no pickle, the architecture rebuilt."""

import importlib.util
import io
import json
import os
import pickle
import threading
import traceback
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, rows, same_bits
from runs import data, run

from npflow import Flow, InputError, load, save, to_device
from npflow.autodiff.gpu.devices import HOST
from npflow.layers import AffineCoupling, Chain, Conv1x1, Inverse, Layer, Permutation, Reverse, Units
from npflow.models import glow
from npflow.networks import MLP, Beside
from npflow.priors import GaussianMixture, Normal
from npflow.training import checkpoint as checkpoint_module
from npflow.training.checkpoint import check_random_state

small = MLP((4,), "tanh")


def make(flow, dtype=np.float64):
    x = rows(10, *flow.prior.event_shape, dtype=dtype)
    return moved(flow.init(np.random.default_rng(0), x)), x


def saved(path, name="glow"):
    """A checkpoint of a flow at `path`."""
    save(path, FLOWS[name], make(FLOWS[name])[0])
    return path


FLOWS = {
    "glow": glow(2, steps=2, network=small),
    "nested": Flow(
        Chain([Inverse(Chain([Permutation(), Conv1x1()])), AffineCoupling(Beside(small, small))]), Normal(4)
    ),
    "trained prior": Flow(AffineCoupling(small), Normal(2, trained=True)),
    "mixture": Flow(
        AffineCoupling(small, transformed="first", log_scale_limit=1.5),
        GaussianMixture(((0.0, 1.0), (1.0, 0.0)), (1.0, 2.0), trained=True),
    ),
    "image": Flow(Chain([Conv1x1(), AffineCoupling(small)]), Normal((2, 3, 4))),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FLOWS)
def test_architecture_and_parameters_come_back(name, dtype, tmp_path):
    flow = FLOWS[name]
    params, x = make(flow, dtype)
    save(tmp_path / "flow.npz", flow, params)
    loaded = load(tmp_path / "flow.npz")
    assert loaded.flow == flow
    assert same_bits(loaded.params, params)
    assert np.array_equal(loaded.flow.log_prob(loaded.params, x), flow.log_prob(params, x))


def test_it_is_an_npz_that_numpy_reads_without_pickle(tmp_path):
    with np.load(saved(tmp_path / "flow.npz"), allow_pickle=False) as file:
        description = json.loads(str(file["description"]))
    assert description["flow"]["class"] == "Flow"


def test_a_save_that_is_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    flow, path = FLOWS["glow"], saved(tmp_path / "flow.npz")
    before = path.read_bytes()

    def write_half(file, **contents):
        file.write(b"PK half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module.np, "savez", write_half)
    with pytest.raises(KeyboardInterrupt):
        save(path, flow, moved(make(flow)[0]))
    assert path.read_bytes() == before


def test_it_is_flushed_to_the_disk_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, checkpoint_module.Path.replace
    monkeypatch.setattr(checkpoint_module.os, "fsync", lambda fd: (events.append("flush"), fsync(fd)))
    monkeypatch.setattr(
        checkpoint_module.Path, "replace", lambda path, new: (events.append("rename"), replace(path, new))
    )
    saved(tmp_path / "flow.npz")
    assert events == ["flush", "rename", "flush"]
    assert [path.name for path in tmp_path.iterdir()] == ["flow.npz"]


def test_a_save_that_fails_leaves_nothing_beside_the_file(tmp_path, monkeypatch):
    def full(file, **contents):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint_module.np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        saved(tmp_path / "flow.npz")
    assert not list(tmp_path.iterdir())


def test_savers_that_race_for_one_path_leave_a_whole_file_at_every_instant(tmp_path):
    flow = FLOWS["glow"]
    params, _ = make(flow)
    path = tmp_path / "flow.npz"
    save(path, flow, params)
    threads = [
        threading.Thread(target=lambda: [save(path, flow, params) for _ in range(10)]) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert load(path).flow == flow
    for thread in threads:
        thread.join()
    assert [file.name for file in tmp_path.iterdir()] == ["flow.npz"]


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


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.int64])
def test_parameters_are_in_float32_or_float64(dtype, tmp_path):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, lambda contents: contents.update(params=contents["params"].astype(dtype)))
    assert "expected parameters in float32 or float64" in refusal(load, path)


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


@pytest.mark.parametrize("path", [None, 3, "a\0.npz", "."])
def test_what_is_not_the_path_of_a_file_gets_a_sentence(path):
    assert refusal(load, path).startswith("expected ")


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


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.npz")


def with_contents(path, change, savez=np.savez):
    with np.load(path) as file:
        contents = dict(file)
    change(contents)
    savez(path, **contents)


def rewrite(path, change):
    def change_description(contents):
        description = json.loads(str(contents["description"]))
        change(description)
        contents["description"] = np.array(json.dumps(description))

    with_contents(path, change_description)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda d: d["flow"].update({"class": "os.system"}),
            "expected the name of a class that is defined, got 'os.system'",
        ),
        (lambda d: d["flow"]["prior"].update(shape=3), "expected the hyper-parameters of Normal"),
        (
            lambda d: d["flow"]["prior"].update(event_shape=[4]),
            "expected the parameters of this flow, got another architecture's: expected an array of shape",
        ),
        (lambda d: d["flow"]["layer"].update(layers=[]), "Chain's layers to be at least one layer"),
        (
            lambda d: d.update(params={"shape": [10**12], "trained": True}),
            "expected a vector of 1000000000000 numbers, got shape",
        ),
        (lambda d: d.update(params={"shape": [10**30], "trained": True}), "got another .npz: "),
        (lambda d: d.pop("params"), "got another .npz: KeyError: 'params'"),
        (
            lambda d: d["params"]["dict"].pop("prior"),
            "expected the parameters of a flow, a dict of 'layer' and 'prior', got one of",
        ),
    ],
)
def test_a_description_that_does_not_fit_gets_a_sentence(change, sentence, tmp_path):
    path = saved(tmp_path / "flow.npz")
    rewrite(path, change)
    assert sentence in refusal(load, path)


def test_brackets_without_end_get_a_sentence(tmp_path):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, lambda contents: contents.update(description=np.array(100_000 * "[")))
    assert "RecursionError" in refusal(load, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c.pop("constant:layer/2/permutation"),
            "an entry for the constant 'layer/2/permutation', got none",
        ),
        (lambda c: c.update({"constant:x": np.arange(2)}), "constants of the architecture, got 'x'"),
        (lambda c: c.update({"constant:layer/2/sign": np.ones(3, np.int8)}), "integers of shape (2,) at"),
        (lambda c: c.update({"constant:layer/2/sign": np.ones(2)}), "integers of shape (2,) at"),
        (lambda c: c.update({"run:vector": np.zeros(2)}), "expected the state of a run"),
    ],
)
def test_missing_and_odd_entries_get_a_sentence(change, words, tmp_path):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, change)
    words_said = refusal(load, path)
    assert words in words_said
    assert str(path) in words_said


# ---------------------------------------------------------------- the state of a run


@pytest.fixture
def trained(tmp_path):
    """The checkpoint of a run of 12 steps, with an average and the best parameters by validation."""
    path = tmp_path / "run.npz"
    run(data(), steps=12, average=0.9, validation=data()[:9], checkpoint=path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run.pop("epoch_rng"), "got none of ['epoch_rng']"),
        (lambda run: run.pop("step"), "got none of ['step']"),
        (lambda run: run.update(step="x"), "the step of the run to be an integer"),
        (lambda run: run.update(step=True), "the step of the run to be an integer"),
        (lambda run: run.update(step=-1), "the step of the run to be at least 0"),
        (lambda run: run.update(step=11), "float64 of shape (11,) in 'run:history:"),
        (lambda run: run.update(settings=[]), "the settings of the run"),
        (lambda run: run["settings"].update(average=None), "expected no entry 'run:average'"),
        (lambda run: run.update(position=2.5), "the position in the epoch"),
        (lambda run: run.update(best_loss=float("nan")), "the best validation loss"),
        (lambda run: run.update(best_loss=None), "expected no entry 'run:best'"),
        (lambda run: run.update(noise_seed=None), "the seed of the noise"),
        (lambda run: run.update(epoch_rng=[1]), "the state of the random generator"),
        (lambda run: run["epoch_rng"].pop("bit_generator"), "the kind of generator"),
        (lambda run: run["epoch_rng"].pop("state"), "generator PCG64, got one that it refuses: KeyError"),
        (lambda run: run["epoch_rng"]["state"].update(inc=2**200), "got one that it"),
        (lambda run: run["epoch_rng"].update(more=1), "got one that it cannot be in"),
    ],
)
def test_a_foreign_state_gets_a_sentence(change, words, trained):
    rewrite(trained, lambda description: change(description["run"]))
    words_said = refusal(load, trained)
    assert words in words_said
    assert str(trained) in words_said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("run:vector"), "expected an entry 'run:vector', got none"),
        (lambda c: c.pop("run:average"), "expected an entry 'run:average', got none"),
        (lambda c: c.pop("run:best"), "expected an entry 'run:best', got none"),
        (lambda c: c.pop("run:history:seconds"), "'run:history:seconds' missing or unknown"),
        (lambda c: c.update({"run:x": np.zeros(2)}), "'run:x' missing or unknown"),
        (lambda c: c.update({"run:vector": c["run:vector"][:-1]}), "in 'run:vector', got float64 of shape"),
        (lambda c: c.update({"run:best": c["run:best"][None]}), "in 'run:best', got float64 of shape (1, "),
        (lambda c: c.update({"run:moment:m": np.zeros(3)}), "in 'run:moment:m', got float64 of shape (3,)"),
        (lambda c: c.update({"run:moment:v": c["run:moment:v"] > 0}), "in 'run:moment:v', got bool"),
        (
            lambda c: c.update({"run:history:loss": np.zeros(11)}),
            "float64 of shape (12,) in 'run:history:loss'",
        ),
        (
            lambda c: c.update({"run:history:validation_loss": np.zeros(9)}),
            "in 'run:history:validation_loss'",
        ),
        (lambda c: c["run:history:validation_step"].fill(np.nan), "validations after steps 1 to 12"),
        (lambda c: c["run:history:validation_step"].fill(13), "validations after steps 1 to 12"),
    ],
)
def test_arrays_that_do_not_fit_each_other_get_a_sentence(change, words, trained):
    with_contents(trained, change)
    assert words in refusal(load, trained)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (np.random.MT19937, lambda state: state["state"].update(pos=10**6)),
        (np.random.MT19937, lambda state: state["state"].update(pos=-1)),
        (np.random.MT19937, lambda state: state["state"]["key"].pop()),
        (np.random.Philox, lambda state: state.update(buffer_pos=-5)),
        (np.random.SFC64, lambda state: state["state"]["state"].__setitem__(0, -1)),
    ],
)
def test_a_state_that_a_generator_cannot_be_in_is_refused(kind, change):
    """NumPy takes some of them, and then reads numbers behind the end of its own."""
    state = kind(0).state
    state = json.loads(json.dumps(state, default=lambda array: array.tolist()))
    check_random_state(state)
    change(state)
    assert f"the state of a random generator {kind.__name__}" in refusal(check_random_state, state)


# ---------------------------------------------------------------- files of any kind, at random


def test_no_damaged_or_crafted_file_does_harm(tmp_path):
    """A few cases of each kind of benchmarks/fuzz_checkpoints.py, which has thousands."""
    pytest.importorskip("resource")
    place = Path(__file__).parents[2] / "benchmarks" / "fuzz_checkpoints.py"
    spec = importlib.util.spec_from_file_location("fuzz_checkpoints", place)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    found = {}
    for name in ("glow", "images", "dequantized"):
        found |= fuzz.bases(tmp_path, (name,))
    path, _ = found["glow"]
    results = [
        *fuzz.flip_outcomes(path, 50, headers=False),
        *fuzz.mutation_outcomes(found, 30),
        *fuzz.mutation_outcomes(found, 15, "run"),
        *fuzz.crafted_outcomes(20),
    ]
    assert [result for result in results if fuzz.is_bad(result)] == []
    assert results.count("refused") > 60


@pytest.mark.parametrize(
    "numbers",
    [[0, 1, 2, 101], [0, 1, 2, 2], [-1, 0, 1, 2], np.array([0, 1, 2, 3], np.uint64)],
    ids=["out of bounds", "twice", "negative", "no index"],
)
@pytest.mark.parametrize("layer", ["Permutation", "Conv1x1"])
def test_a_permutation_that_is_none_gets_a_sentence(layer, numbers, tmp_path):
    path = saved(tmp_path / "flow.npz", "nested")
    place = f"layer/0/{['Permutation', 'Conv1x1'].index(layer)}/permutation"
    with_contents(path, lambda contents: contents.update({f"constant:{place}": np.array(numbers)}))
    assert f"each number below 4 once at '{place}'" in refusal(load, path)


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


@dataclass(frozen=True)
class Doubling(Layer):
    """A layer of the reader's own."""

    factor: float = 2.0

    def forward(self, params, x):
        return self.factor * x, np.full(len(x), x.shape[1] * np.log(self.factor))

    def inverse(self, params, z):
        return z / self.factor, np.full(len(z), -z.shape[1] * np.log(self.factor))


def test_a_readers_own_layer_is_found_by_module_and_name(tmp_path):
    flow = Flow(Doubling(3.0), Normal(2))
    save(tmp_path / "own.npz", flow, make(flow)[0])
    assert load(tmp_path / "own.npz").flow == flow


def test_what_cannot_be_saved_gets_a_sentence_before_anything_is_written(tmp_path):
    flow, path = FLOWS["glow"], tmp_path / "flow.npz"
    params, _ = make(flow)
    for arguments, words in (
        ((tmp_path / "flow.pkl", flow, params), "end in .npz"),
        ((path, flow, make(FLOWS["nested"])[0]), "expected the parameters of this flow"),
        ((flow, params, path), "the path of a checkpoint to be a path, got a Flow"),
        ((path, params, flow), "a path, a Flow and its parameters, in this order, got a dict"),
    ):
        assert words in refusal(save, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_prints_as_its_architecture_not_its_arrays(tmp_path):
    shown = repr(load(saved(tmp_path / "flow.npz", "trained prior")))
    assert shown.startswith("Checkpoint of 22 parameters and no training run:\nFlow(")


@pytest.mark.parametrize("name", FLOWS)
def test_what_is_saved_on_a_device_is_loaded_on_the_host(name, device, tmp_path):
    flow = FLOWS[name]
    params, _ = make(flow)
    save(tmp_path / "there.npz", flow, to_device(params, device.name))
    loaded = load(tmp_path / "there.npz")
    assert loaded.flow == flow
    assert_agrees(HOST, loaded.params, params)


def test_units_of_an_older_format_have_no_centers(tmp_path, monkeypatch):
    flow = Flow(Chain([Units(), Inverse(Units())]), Normal(2))
    params = flow.init(np.random.default_rng(0), rows(50, 2) + 1)
    older = {"layer": [{"exponent": layer["exponent"]} for layer in params["layer"]], "prior": {}}
    monkeypatch.setattr(checkpoint_module, "FORMAT", checkpoint_module.FORMATS[1])
    checkpoint_module.write(tmp_path / "flow.npz", flow, older, {}, {})
    assert same_bits(load(tmp_path / "flow.npz").params, params)
