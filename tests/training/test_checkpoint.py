"""Checkpoints: whole or not at all, no pickle, the architecture rebuilt."""

import importlib.util
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, same_bits
from stored import FLOWS, make, rewrite, saved, with_contents

from npflow import Flow, load, save, to_device
from npflow.autodiff.gpu.devices import HOST
from npflow.layers import Layer
from npflow.priors import Normal


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

    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(KeyboardInterrupt):
        save(path, flow, moved(make(flow)[0]))
    assert path.read_bytes() == before


def test_it_is_flushed_to_the_disk_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("flush"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda path, new: (events.append("rename"), replace(path, new)))
    saved(tmp_path / "flow.npz")
    assert events == ["flush", "rename", "flush"]
    assert [path.name for path in tmp_path.iterdir()] == ["flow.npz"]


def test_a_save_that_fails_leaves_nothing_beside_the_file(tmp_path, monkeypatch):
    def full(file, **contents):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
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


@pytest.mark.parametrize("path", [None, 3, "a\0.npz", "."])
def test_what_is_not_the_path_of_a_file_gets_a_sentence(path):
    assert refusal(load, path).startswith("expected ")


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.npz")


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
