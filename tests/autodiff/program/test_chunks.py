"""Functions of many rows and of long vectors, a chunk at a time."""

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_agrees, moved
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import Flow, to_device
from npflow.autodiff import Layout, value_and_grad
from npflow.autodiff.gpu.device import Device
from npflow.autodiff.program import chunks
from npflow.autodiff.program.chunks import NUMBERS, WORTH_THREADS, in_chunks, map_rows, rows_in_cache
from npflow.autodiff.program.threads import one_blas_thread
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Layer, Permutation, Reverse
from npflow.models import glow
from npflow.networks import MLP
from npflow.priors import GaussianMixture, Normal

SMALL = MLP((6,), "tanh")
FLOWS = {
    "glow": glow(2, steps=2, network=SMALL),
    "mixture": Flow(
        Chain([ActNorm(), AffineCoupling(SMALL)]), GaussianMixture([[-1, 0], [1, 0]], [1, 1], trained=True)
    ),
    "images": Flow(Chain([ActNorm(), AffineCoupling(SMALL, "first"), Conv1x1()]), Normal((2, 3, 2))),
    "no parameters": Flow(Chain([Reverse(), Permutation()]), Normal(2)),
}
every_flow = pytest.mark.parametrize("name", FLOWS)
ROWS = 8  # of a chunk, in these tests
NEVER = 10**9


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of 8 rows, recorded from 2 of them on, and no programs from other tests."""
    monkeypatch.setattr(chunks, "CACHE_BYTES", 1)
    monkeypatch.setattr(chunks, "FEWEST", ROWS)
    monkeypatch.setattr(chunks, "WORTH_RECORDING", 2)
    monkeypatch.setattr(chunks, "PROGRAMS", OrderedDict())
    monkeypatch.setattr(chunks, "USES", {})
    monkeypatch.setattr(chunks, "TRUSTED", {})
    monkeypatch.setattr(chunks, "SIZES", {})
    monkeypatch.setattr(chunks, "OFTEN", NEVER)


@pytest.fixture
def recordings(monkeypatch):
    """What has been recorded: the function and the number of rows each time."""
    made, record = [], chunks.record

    def counting(fun, params, x, gradient):
        made.append((fun.__name__, len(x)))
        return record(fun, params, x, gradient=gradient)

    monkeypatch.setattr(chunks, "record", counting)
    return made


@pytest.fixture
def no_programs(monkeypatch):
    """A call that runs a function with plain chunks alone."""

    def plainly(call, *args):
        with monkeypatch.context() as patch:
            patch.setattr(chunks, "WORTH_RECORDING", NEVER)
            patch.setattr(chunks, "PROGRAMS", OrderedDict())
            return call(*args)

    return plainly


def rows(flow, n, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).normal(0.5, 1.5, (n, *flow.prior.event_shape)).astype(dtype)


def start(flow, dtype=np.float64, seed=0):
    """Parameters as training might leave them: none of them where it started."""
    return moved(flow.init(np.random.default_rng(seed), rows(flow, 50, dtype)), seed)


def assert_same_bits(first, second):
    assert (first.dtype, first.shape) == (second.dtype, second.shape)
    assert first.tobytes() == second.tobytes()


def by_hand(fun, params, x):
    """What a chunk at a time gives."""
    with one_blas_thread():
        return np.concatenate([fun(params, x[start : start + ROWS]) for start in range(0, len(x), ROWS)])


class Watched:
    """A function of rows that keeps what it was called with, boxed or not."""

    def __init__(self):
        self.calls = []

    def squares(self, params, x):
        self.calls.append(x)
        return anp.sum(params["a"] * x * x, axis=-1)


# ---------------------------------------------------------------- the same results


@pytest.mark.parametrize("n", [1, ROWS - 1, ROWS])
def test_few_rows_are_one_call_of_the_function_itself(n, recordings):
    watched, x = Watched(), np.ones((n, 2))
    result = map_rows(watched.squares, {"a": np.ones(2)}, x)
    assert len(watched.calls) == 1
    assert watched.calls[0] is x
    assert_same_bits(result, np.full(n, 2.0))
    assert recordings == []


@every_flow
@pytest.mark.parametrize(("dtype", "n"), [(np.float32, 5 * ROWS + 3), (np.float64, 3 * ROWS)])
def test_many_rows_have_the_bits_of_a_chunk_at_a_time_by_program_or_not(name, dtype, n):
    flow = FLOWS[name]
    params, x = start(flow, dtype), rows(flow, n, dtype)
    for fun in (flow.losses, flow._encode, flow._decode):
        expected = by_hand(fun, params, x)
        for worth in (2, NEVER):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(chunks, "WORTH_RECORDING", worth)
                patch.setattr(chunks, "PROGRAMS", OrderedDict())
                assert_same_bits(map_rows(fun, params, x), expected)


@every_flow
def test_the_methods_of_a_flow_give_each_of_many_rows_what_it_gets_alone(name):
    flow, n = FLOWS[name], 3 * ROWS + 1
    params, x = start(flow), rows(flow, n)
    z = flow.prior.sample(params["prior"], np.random.default_rng(3), n)
    for got, fun, batch in (
        (-flow.log_prob(params, x), flow.losses, x),
        (flow.encode(params, x), flow._encode, x),
        (flow.decode(params, x), flow._decode, x),
        (flow.sample(params, np.random.default_rng(3), n), flow._decode, z),
    ):
        one_by_one = np.concatenate([fun(params, batch[row : row + 1]) for row in range(n)])
        np.testing.assert_allclose(got, one_by_one, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got, fun(params, batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("arrange", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_a_program_gives_the_same_bits_however_the_rows_lie_in_memory(arrange, recordings):
    flow = FLOWS["glow"]
    params, x = start(flow), rows(flow, 40)
    expected = flow.log_prob(params, x)
    assert_same_bits(flow.log_prob(params, arrange(x)), expected)
    assert len(recordings) == 1


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_the_result_is_the_same_for_any_number_of_cores_and_no_thread_is_left(
    cores, monkeypatch, no_programs
):
    flow = FLOWS["glow"]
    params, x = start(flow), rows(flow, 100)
    before = set(threading.enumerate())
    expected = no_programs(flow.log_prob, params, x)
    monkeypatch.setattr(chunks, "available_cores", lambda: cores)
    assert_same_bits(flow.log_prob(params, x), expected)
    assert set(threading.enumerate()) == before


def test_rows_may_be_mapped_from_several_threads_at_a_time():
    flow = FLOWS["glow"]
    params = start(flow)
    batches = [rows(flow, 100, seed=seed) for seed in range(4)]
    expected = [-by_hand(flow.losses, params, x) for x in batches]
    results = {}
    together = threading.Barrier(4)

    def work(number):
        together.wait()
        results[number] = flow.log_prob(params, batches[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert_same_bits(results[number], expected[number])


# ---------------------------------------------------------------- how large chunks are


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 5000),
    event=st.sampled_from([(1,), (7,), (4, 4, 3), (32, 32, 48)]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_few_arrays_as_wide_as_the_widest_layer_fit_into_the_cache_unless_rows_are_very_large(
    width, event, dtype
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CACHE_BYTES", 2**20)
        patch.setattr(chunks, "FEWEST", 4)
        n = rows_in_cache({"w": np.zeros((3, width)), "b": np.zeros(2)}, np.zeros((1, *event), dtype))
    in_each = max(width, event[-1]) * int(np.prod(event[:-1])) * dtype().itemsize
    assert 4 <= n <= chunks.MOST
    assert n == 4 or 4 * n * in_each <= 2**20
    assert n == chunks.MOST or 4 * (n + 1) * in_each > 2**20


def test_chunks_do_not_depend_on_the_number_of_rows():
    params = {"w": np.zeros((2, 5))}
    assert rows_in_cache(params, np.zeros((9, 2))) == rows_in_cache(params, np.zeros((9000, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_integers_are_as_many_as_of_what_is_computed_from_them(dtype):
    params = {"w": np.zeros((3, 50), dtype), "order": np.arange(3)}
    pixels = np.zeros((2, 8, 8, 1))
    assert rows_in_cache(params, pixels.astype(np.uint8)) == rows_in_cache(params, pixels.astype(dtype))


# ---------------------------------------------------------------- which programs there are


def test_a_function_is_recorded_where_chunks_are_many_and_its_program_serves_fewer_afterwards(recordings):
    watched, params = Watched(), {"a": np.array([1.0, 2.0])}
    few, many = np.ones((2 * ROWS, 2)), np.ones((3 * ROWS, 2))
    map_rows(watched.squares, params, few)
    assert recordings == []
    map_rows(watched.squares, params, many)
    assert recordings == [("squares", ROWS)]
    watched.calls.clear()
    params = {"a": 2 * params["a"]}  # they are read at each call, whichever arrays they are
    assert_same_bits(map_rows(watched.squares, params, few), np.full(2 * ROWS, 6.0))
    assert len(watched.calls) == 1  # the first chunk says what the result's shape is
    assert recordings == [("squares", ROWS)]


def test_rows_of_one_chunk_and_a_part_of_another_are_mapped_while_there_is_a_program():
    watched, params = Watched(), {"a": np.array([1.0, 2.0])}
    map_rows(watched.squares, params, np.ones((3 * ROWS, 2)))
    assert_same_bits(map_rows(watched.squares, params, np.ones((ROWS + 1, 2))), np.full(ROWS + 1, 3.0))


def test_each_flow_method_and_dtype_has_a_program_of_its_own(recordings):
    for flow in 2 * [glow(2, steps=1, network=SMALL)]:
        for dtype in (np.float32, np.float64):
            params, x = start(flow, dtype), rows(flow, 30, dtype)
            flow.log_prob(params, x), flow.encode(params, x), flow.decode(params, x)
            flow.sample(params, np.random.default_rng(0), 40)
    assert [name for name, _ in recordings] == 2 * ["losses", "_encode", "_decode"]


@pytest.mark.parametrize("n", [3 * ROWS, 2 * ROWS])  # worth another recording, and not
def test_other_constants_are_not_those_of_the_program_that_is_there(n, no_programs):
    flow = Flow(Chain([Permutation(), AffineCoupling(SMALL)]), Normal(6))
    first, second = start(flow, seed=0), start(flow, seed=3)
    assert not np.array_equal(first["layer"][0]["permutation"], second["layer"][0]["permutation"])
    many, x = rows(flow, 40), rows(flow, n)
    flow.log_prob(first, many)
    for params in (second, first, second):
        assert_same_bits(flow.log_prob(params, x), no_programs(flow.log_prob, params, x))


@dataclass(frozen=True)
class Branching(Layer):
    """A layer that looks at the values of its rows."""

    def init(self, rng, x):
        return {"a": np.ones(2, x.dtype)}

    def forward(self, params, x):
        factor = 2.0 if anp.max(x) > 1e3 else 1.0
        return factor * x * params["a"], anp.zeros(len(x)) + anp.sum(anp.log(factor * params["a"]))

    def inverse(self, params, z):
        return z / params["a"], anp.zeros(len(z)) - anp.sum(anp.log(params["a"]))


def test_a_function_that_cannot_be_recorded_runs_as_it_is():
    flow = Flow(Branching(), Normal(2))
    params, x = start(flow), rows(flow, 50)
    x[2 * ROWS] = 1e4  # its chunk takes the other branch
    assert_same_bits(flow.encode(params, x), by_hand(flow._encode, params, x))
    assert flow.encode(params, x)[2 * ROWS, 0] == pytest.approx(2e4 * params["layer"]["a"][0])
    assert list(chunks.PROGRAMS.values()) == [None]  # it is not tried again


def test_the_programs_that_were_used_last_are_kept(monkeypatch, recordings):
    monkeypatch.setattr(chunks, "KEPT", 2)
    watched, params, x = [Watched() for _ in range(3)], {"a": np.ones(2)}, np.ones((4 * ROWS, 2))
    kept = lambda: [owner for owner, *_ in chunks.PROGRAMS]
    for number in (0, 1, 0):
        map_rows(watched[number].squares, params, x)
    assert kept() == [watched[1], watched[0]]
    map_rows(watched[2].squares, params, x)
    assert kept() == [watched[0], watched[2]]
    assert len(recordings) == 3
    map_rows(watched[1].squares, params, x)
    assert len(recordings) == 4


@dataclass(frozen=True)
class Nested(Layer):
    """A layer whose log-det is what another flow, of parameters of its own, says of the rows."""

    def init(self, rng, x):
        return {"a": np.zeros(2, x.dtype)}

    def forward(self, params, x):
        inner = FLOWS["glow"]
        return x + params["a"], inner.log_prob(start(inner), anp.concatenate([x, x]))[: len(x)]

    def inverse(self, params, z):
        return z - params["a"], anp.zeros(len(z))


def test_a_flow_may_map_the_rows_of_another_one_while_its_own_are_mapped():
    """While the outer one is recorded, the inner one has many rows too: neither may wait for the other."""
    flow = Flow(Nested(), Normal(2))
    params, x = start(flow), rows(flow, 8 * ROWS)
    results = []
    thread = threading.Thread(target=lambda: results.append(flow.log_prob(params, x)), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert results, "it waits for a lock that it holds itself"
    np.testing.assert_allclose(results[0], -flow.losses(params, x), rtol=1e-9)


# ---------------------------------------------------------------- calls that come often


@every_flow
@pytest.mark.parametrize("n", [1, ROWS, 3 * ROWS + 1])
def test_a_call_that_comes_often_is_recorded_and_keeps_its_bits(name, n, recordings, monkeypatch):
    monkeypatch.setattr(chunks, "WORTH_RECORDING", NEVER)
    flow = FLOWS[name]
    params, x = start(flow, np.float32), rows(flow, n, np.float32)
    calls = (lambda: flow.log_prob(params, x), lambda: flow.encode(params, x), lambda: flow.decode(params, x))
    expected = [call() for call in calls]
    monkeypatch.setattr(chunks, "OFTEN", 3 * -(-n // ROWS))
    for _ in range(4):
        for call, before in zip(calls, expected):
            assert_same_bits(call(), before)
    assert recordings == [(name, min(n, ROWS)) for name in ("losses", "_encode", "_decode")]
    other = start(flow, np.float32, seed=5)  # parameters are read at each call, wherever they are
    got = flow.log_prob(other, x)
    chunks.TRUSTED.clear()
    assert_same_bits(flow.log_prob(other, x), got)


def test_a_call_of_another_librarys_class_is_not_trusted_to_a_program(recordings, monkeypatch):
    monkeypatch.setattr(chunks, "OFTEN", 1)
    flow = Flow(Chain([ActNorm(), Adjustable(2.0)]), Normal(2))
    params, x = flow.init(np.random.default_rng(0), rows(flow, 9)), rows(flow, 3)
    for _ in range(3):
        flow.encode(params, x)
    assert recordings == []


@pytest.mark.parametrize("n", [2 * ROWS, 2 * ROWS + 1])
@pytest.mark.parametrize("cores", [1, 2])
def test_halves_are_the_same_by_program_or_not_and_on_any_number_of_cores(n, cores, recordings, monkeypatch):
    for name, value in {"WORTH_HALVES": 1, "FEWEST_IN_HALF": ROWS, "FEWEST": 4 * ROWS, "OFTEN": 5}.items():
        monkeypatch.setattr(chunks, name, value)
    monkeypatch.setattr(chunks, "available_cores", lambda: cores)
    flow = FLOWS["glow"]
    params, x, half = start(flow), rows(flow, n), -(-n // 2)
    with one_blas_thread():
        halves = [flow.losses(params, x[:half]), flow.losses(params, x[n - half :])[2 * half - n :]]
    for _ in range(4):
        assert_same_bits(flow.log_prob(params, x), -np.concatenate(halves))
    assert recordings == [("losses", half)]


# ---------------------------------------------------------------- gradients and errors


def test_boxes_go_through_the_function_in_one_chunk(recordings):
    flow = FLOWS["glow"]
    params, x, layout = start(flow), rows(flow, 50), Layout(start(flow))
    plainly = {"log_prob": lambda *args: -flow.losses(*args), "encode": flow._encode, "decode": flow._decode}
    for call in (flow.log_prob, flow.encode, flow.decode):
        plain = plainly[call.__name__]
        loss, gradient = value_and_grad(lambda params, call=call: anp.sum(call(params, x) ** 2))(params)
        expected, slopes = value_and_grad(lambda params, plain=plain: anp.sum(plain(params, x) ** 2))(params)
        assert loss == expected
        assert_same_bits(layout.pack(gradient), layout.pack(slopes))
        _, in_data = value_and_grad(lambda x, call=call: anp.sum(call(params, x) ** 2))(x)
        _, slopes = value_and_grad(lambda x, plain=plain: anp.sum(plain(params, x) ** 2))(x)
        assert_same_bits(in_data, slopes)
    assert recordings == []


class Exponential:
    def exp(self, params, x):
        return anp.exp(params["a"] * x)


def test_the_error_state_of_the_caller_reaches_the_threads_and_their_errors_reach_the_caller(monkeypatch):
    """Warnings are errors here: one from a thread whose NumPy was not told would be raised by the call."""
    monkeypatch.setattr(chunks, "available_cores", lambda: 2)
    fun, params, x = Exponential().exp, {"a": np.ones(1)}, np.ones((5 * ROWS, 1))
    x[2 * ROWS] = 1e4  # in a chunk that a thread works off
    with np.errstate(all="ignore"):
        result = map_rows(fun, params, x)
    assert np.flatnonzero(np.isinf(result)).tolist() == [2 * ROWS]
    assert len(chunks.PROGRAMS) == 1
    with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="overflow"):
        map_rows(fun, params, x)
    with pytest.warns(RuntimeWarning, match="overflow"):
        map_rows(fun, params, x)
    with np.errstate(all="raise"):  # and the program is as good after an error as before
        np.testing.assert_allclose(map_rows(fun, params, np.ones((5 * ROWS, 1))), np.e)


class Adjustable(Layer):
    """Not frozen, and equal to all of its kind: what a flow's contract excludes, and Python does not."""

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        return type(other) is type(self)

    def __hash__(self):
        return 0

    def forward(self, params, x):
        return self.factor * x, np.full(len(x), x.shape[1] * np.log(self.factor))

    def inverse(self, params, z):
        return z / self.factor, np.full(len(z), -z.shape[1] * np.log(self.factor))


def test_a_kept_program_is_not_used_for_another_object_or_a_changed_one(recordings):
    layer = Adjustable(2.0)
    flow, x = Flow(layer, Normal(2)), np.random.default_rng(0).standard_normal((8 * ROWS, 2))
    params = {"layer": {}, "prior": {}}
    assert np.array_equal(flow.encode(params, x), 2 * x)
    assert np.array_equal(flow.encode(params, x), 2 * x)
    assert len(recordings) == 1
    layer.factor = 3.0
    assert np.array_equal(flow.encode(params, x), 3 * x)
    equal = Flow(Adjustable(5.0), Normal(2))
    assert equal == flow
    assert np.array_equal(equal.encode(params, x), 5 * x)
    assert len(recordings) == 3


def test_a_kept_program_holds_no_memory(recordings, monkeypatch):
    taken, memory = [], Device.memory

    def noted(self, nbytes):
        array = memory(self, nbytes)
        taken.append(weakref.ref(array.base))
        return array

    monkeypatch.setattr(Device, "memory", noted)
    Flow(Adjustable(2.0), Normal(2)).encode({"layer": {}, "prior": {}}, np.ones((8 * ROWS, 2)))
    assert len(chunks.PROGRAMS) == 1
    assert taken
    assert [array for array in taken if array() is not None] == []


def test_equal_flows_share_a_program_and_other_shapes_of_parameters_have_their_own(recordings):
    flows = [Flow(Chain([ActNorm(), AffineCoupling(SMALL)]), Normal(2)) for _ in range(2)]
    assert flows[0] is not flows[1]
    assert flows[0] == flows[1]
    x = rows(flows[0], 3 * ROWS)
    for flow in flows:
        flow.log_prob(start(flow), x)
    assert len(recordings) == 1
    watched, x = Watched(), np.ones((3 * ROWS, 2))
    for a in (np.ones(2), np.ones((1, 2)), np.ones(2)):
        assert_same_bits(map_rows(watched.squares, {"a": a}, x), np.full(3 * ROWS, 2.0))
    assert len(recordings) == 3


class Unhashable(Watched):
    __hash__ = None


def test_an_object_without_a_hash_has_no_program(recordings):
    result = map_rows(Unhashable().squares, {"a": np.ones(2)}, np.ones((5 * ROWS, 2)))
    assert_same_bits(result, np.full(5 * ROWS, 2.0))
    assert recordings == []


@pytest.mark.parametrize("name", FLOWS)
def test_on_a_device_the_chunks_are_larger_and_no_program_is_made(name, device, recordings, monkeypatch):
    flow, rng = FLOWS[name], np.random.default_rng(0)
    x = rng.standard_normal((3 * ROWS + 5, *flow.prior.event_shape))
    params = flow.init(rng, x)
    seen, losses = [], Flow.losses

    def watched(self, params, x):
        seen.append(len(x))
        return losses(self, params, x)

    monkeypatch.setattr(chunks, "DEVICE_ROWS", 2)
    expected = flow.log_prob(params, x)
    monkeypatch.setattr(Flow, "losses", watched)
    recordings.clear()
    assert_agrees(device, flow.log_prob(*to_device((params, x), device.name)), expected)
    assert seen == [2 * ROWS, ROWS + 5]
    assert recordings == []


# ---------------------------------------------------------------- long vectors


@pytest.mark.parametrize("size", [0, 1, NUMBERS, NUMBERS + 1, 3 * NUMBERS, WORTH_THREADS + 7])
def test_every_number_is_seen_once_beside_its_own_in_the_other_vector(size):
    a, b = np.arange(size), np.zeros(size, int)

    def work(a, b):
        assert len(a) <= NUMBERS
        b += a + 1

    in_chunks(work, a, b)
    np.testing.assert_array_equal(b, np.arange(1, size + 1))


def test_long_vectors_are_shared_out_to_as_many_threads_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(chunks, "available_cores", lambda: 2)
    together, seen = threading.Barrier(2, timeout=10), set()

    def work(vector):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            together.wait()  # until the other thread is here too

    in_chunks(work, np.zeros(WORTH_THREADS))
    assert len(seen) == 2
    in_chunks(lambda vector: seen.add(threading.get_ident()), np.zeros(WORTH_THREADS - 1))
    assert threading.get_ident() in seen  # the caller's thread is one of the two
    assert len(seen) == 2


def test_an_error_in_a_thread_of_a_vector_reaches_the_caller():
    def work(vector):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_chunks(work, np.zeros(WORTH_THREADS))


def test_a_long_vector_of_a_device_is_one_call(device):
    lengths = []
    in_chunks(lambda vector: lengths.append(len(vector)), to_device(np.zeros(3 * NUMBERS), device.name))
    assert lengths == [3 * NUMBERS]
