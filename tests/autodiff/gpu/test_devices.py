"""The door between the host and a device: what is sent, what is fetched, and what says where an array lives."""

import copy
import pickle
import sys
import types
from collections import namedtuple

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import stand_in
from helpers import assert_agrees

from npflow.autodiff import tree
from npflow.autodiff.gpu import devices
from npflow.autodiff.gpu.device import ALIGNMENT
from npflow.errors import InputError

Pair = namedtuple("Pair", "first second")


def params():
    return {
        "layers": [{"weight": np.arange(6.0).reshape(2, 3), "bias": np.ones(3, np.float32)}, {}],
        "masks": (np.array([True, False]), np.arange(3)),
        "pair": Pair(np.zeros((0, 2)), np.array(1 + 2j)),
    }


def skeleton(arrays):
    return tree.build(lambda path, leaf: None, arrays)


def leaves(arrays):
    return [leaf for _, leaf in tree.items(arrays)]


# ---------------------------------------------------------------- to a device, and back


def test_a_tree_goes_to_a_device_and_back_as_it_was(any_device):
    there = devices.to_device(params(), any_device.name)
    assert skeleton(there) == skeleton(params())
    assert all(type(leaf) is any_device.array_type for leaf in leaves(there))
    assert_agrees(any_device, there, params())
    back = devices.to_host(there)
    assert skeleton(back) == skeleton(params())
    assert_agrees(devices.HOST, back, params())


def test_a_copy_of_a_device_is_the_device(any_device):
    assert copy.deepcopy(any_device) is pickle.loads(pickle.dumps(any_device)) is any_device


def test_what_is_there_already_is_not_copied(any_device):
    there = devices.to_device(params(), any_device.name)
    with stand_in.counted() as transfers:
        again = devices.to_device(there, any_device.name)
    assert transfers == stand_in.Transfers()
    assert all(a is b for a, b in zip(leaves(again), leaves(there), strict=True))


def test_each_array_is_sent_once_and_fetched_once():
    count = len(leaves(params()))
    with stand_in.counted() as transfers:
        there = devices.to_device(params(), "strict")
    assert transfers == stand_in.Transfers(to_device=count)
    with stand_in.counted() as transfers:
        devices.to_host(there)
    assert transfers == stand_in.Transfers(to_host=count)


def test_what_was_sent_is_a_copy(device):
    host = np.ones(3)
    there = devices.to_device(host, device.name)
    host += 1
    np.testing.assert_array_equal(devices.to_host(there), np.ones(3))


def test_numpys_scalars_become_arrays_without_axes(any_device):
    got = devices.to_device({"a": np.float32(2), "b": np.int64(3)}, any_device.name)
    assert_agrees(any_device, got, {"a": np.array(2, np.float32), "b": np.array(3)})
    assert all(leaf.shape == () for leaf in leaves(got))


def test_an_array_of_one_device_goes_to_another_over_the_host(monkeypatch):
    class Other(stand_in.StrictArray):
        __slots__ = ()

    class OtherDevice(stand_in.Strict):
        name = "other"

        def __init__(self):
            self.array_type, self.module = Other, types.SimpleNamespace(ndarray=Other)

        def send(self, array):
            return Other(array)

    there = devices.to_device(np.arange(3.0), "strict")
    fresh(monkeypatch)
    monkeypatch.setitem(devices.MAKERS, "other", OtherDevice)
    got = devices.to_device(there, "other")
    assert type(got) is Other
    np.testing.assert_array_equal(got.host, np.arange(3.0))
    assert devices.device_of(got).name == repr(devices.device_of(got)) == "other"


def test_numbers_and_arrays_are_read_on_the_host_wherever_they_live(any_device):
    there = devices.to_device(np.arange(3.0), any_device.name)
    for value, expected in ((there, np.arange(3.0)), (2.0, np.array(2.0)), ([1, 2], np.array([1, 2]))):
        np.testing.assert_array_equal(devices.fetch(value), expected, strict=True)
    assert devices.as_array(there) is there
    np.testing.assert_array_equal(devices.as_array(2.0), np.array(2.0), strict=True)


# ---------------------------------------------------------------- where an array lives


def test_the_device_of_an_array_and_of_a_tree_is_where_they_live(any_device):
    there = devices.to_device(params(), any_device.name)
    assert devices.device_of(there) is any_device
    assert all(devices.device_of(leaf) is any_device for leaf in leaves(there))
    assert devices.device_of({"beside": None, "number": 2.0, **there}) is any_device


@pytest.mark.parametrize("nothing", [{}, [], None, 2.0, "text", {"a": [1, None]}])
def test_what_has_no_arrays_lives_on_the_host(nothing):
    assert devices.device_of(nothing) is devices.HOST


def test_the_device_of_a_box_is_that_of_its_array(any_device):
    found = []

    def loss(x):
        found.append(devices.device_of(x))
        found.append(devices.device_of({"box": x}))
        return anp.sum(x * x)

    second = lambda x: anp.sum(autograd.grad(loss)(x))
    autograd.grad(second)(devices.to_device(np.ones(3), any_device.name))
    assert found == [any_device, any_device]


def test_arrays_on_several_devices_are_refused_with_their_paths():
    there = devices.to_device(np.ones(3), "strict")
    mixed = {"bias": np.ones(3), "layers": [there, np.ones(2)]}
    with pytest.raises(InputError, match="cpu at 'bias', strict at 'layers/0'; see npflow"):
        devices.device_of(mixed)


def test_subclasses_of_numpys_arrays_live_on_the_host():
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    assert devices.device_of(masked) is devices.HOST
    assert devices.is_array(masked)


def test_arrays_are_told_from_other_values(any_device):
    assert devices.is_array(devices.to_device(np.ones(3), any_device.name))
    for other in (np.float64(2), 2.0, [np.ones(3)], None, "text"):
        assert not devices.is_array(other)


# ---------------------------------------------------------------- names


def test_an_unknown_device_is_refused_with_the_choices():
    for name, got in (("gpu", "'gpu'"), (None, "None"), (0, "0"), (["cuda"], "a list")):
        with pytest.raises(InputError, match="expected a device among 'cpu', 'cuda'") as caught:
            devices.find_device(name)
        assert str(caught.value).endswith(f"got {got}")
    with pytest.raises(InputError, match="got 'gpu'"):
        devices.to_device(np.ones(3), "gpu")


def test_a_device_is_made_once(any_device):
    assert devices.find_device(any_device.name) is any_device
    assert repr(any_device) == any_device.name


# ---------------------------------------------------------------- constants


def test_a_constant_is_itself_on_the_host():
    mask = np.array([True, False])
    assert devices.constant(mask, np.ones(2)) is mask
    assert devices.constant(mask, {"no": "arrays"}) is mask


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False, True]),
        np.array([2, 0, 1]),
        np.arange(12.0, dtype=np.float32).reshape(3, 4).T,
        np.zeros((0, 2)),
        np.array(3.0),
    ],
    ids=["mask", "permutation", "columns", "empty", "number"],
)
def test_a_constant_lives_beside_the_array(device, values):
    like = devices.to_device(np.ones(3), device.name)
    assert_agrees(device, devices.constant(values, like), values)


def test_a_constant_is_sent_once_and_then_kept():
    like = devices.to_device(np.ones(3), "strict")
    values = np.array([5, 3, 9, 1])
    with stand_in.counted() as transfers:
        kept = [devices.constant(values.copy(), {"like": like}) for _ in range(3)]
    assert transfers == stand_in.Transfers(to_device=1)
    assert kept[0] is kept[1] is kept[2]


def test_constants_of_other_values_shapes_and_dtypes_are_others():
    like = devices.to_device(np.ones(3), "strict")
    for values in (
        np.array([0, 1, 0, 2]),
        np.array([0, 1, 0, 3]),
        np.array([[0, 1], [0, 2]]),
        np.array([0, 1, 0, 2], float),
    ):
        assert_agrees(devices.find_device("strict"), devices.constant(values, like), values)


def test_a_constant_is_not_changed_with_the_array_it_was_made_of():
    like = devices.to_device(np.ones(3), "strict")
    values = np.array([7, 7])
    kept = devices.constant(values, like)
    values += 1
    np.testing.assert_array_equal(kept.host, [7, 7])
    np.testing.assert_array_equal(devices.constant(values, like).host, [8, 8])


# ---------------------------------------------------------------- what dispatch cannot do


@pytest.mark.parametrize("name", ["expit", "gammaln", "log_ndtr", "ndtr", "ndtri"])
def test_special_functions_are_scipys(any_device, name):
    x = np.linspace(0.05, 0.95, 7)
    found = devices.scipy_function(f"special.{name}", devices.to_device(x, any_device.name))
    got = found(devices.to_device(x, any_device.name))
    assert_agrees(any_device, got, getattr(scipy.special, name)(x))


def test_triangular_systems_are_solved_by_scipys_function(any_device):
    rng = np.random.default_rng(0)
    a, b = np.tril(rng.standard_normal((4, 4))) + 3 * np.eye(4), rng.standard_normal((4, 2))
    there = devices.to_device({"a": a, "b": b}, any_device.name)
    solve = devices.scipy_function("linalg.solve_triangular", there)
    with stand_in.counted() as transfers:
        got = solve(there["a"], there["b"], lower=True)
    assert transfers == stand_in.Transfers()
    assert_agrees(any_device, got, scipy.linalg.solve_triangular(a, b, lower=True))


def test_the_hosts_functions_are_scipys_own():
    assert devices.scipy_function("special.ndtri", np.ones(1)) is scipy.special.ndtri
    assert devices.HOST.scipy("linalg.solve_triangular") is scipy.linalg.solve_triangular


def test_a_generator_draws_on_the_device_what_the_hosts_generator_decides(any_device):
    def draws(seed):
        generator = any_device.generator(np.random.default_rng(seed))
        return generator.standard_normal((3, 2))

    first, again, other = draws(0), draws(0), draws(1)
    assert devices.device_of(first) is any_device
    assert first.shape == (3, 2)
    first, again, other = map(devices.to_host, (first, again, other))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_arrays_are_laid_out_in_memory(any_device):
    memory = any_device.memory(200)
    assert devices.device_of(memory) is any_device
    assert memory.size >= 200
    assert memory.dtype == np.uint8
    x = any_device.array_at(memory, 64, (2, 3), np.float32, (4, 8))
    x[...] = devices.to_device(np.arange(6, dtype=np.float32).reshape(2, 3), any_device.name)
    assert x.strides == (4, 8)
    column = any_device.array_at(memory, 64 + 8, (2,), np.float32, (4,))
    assert_agrees(any_device, column, np.array([1, 4], np.float32))


def test_memory_of_the_host_begins_at_a_multiple_of_the_alignment():
    for size in (1, 64, 1000):
        memory = devices.HOST.memory(size)
        assert memory.ctypes.data % ALIGNMENT == 0
        assert memory.size == size


# ---------------------------------------------------------------- CuPy, or what stands in for the module


def fresh(monkeypatch):
    """Let devices be made anew, and forgotten after the test."""
    monkeypatch.setattr(devices, "DEVICES", dict(devices.DEVICES))


class Called(list):
    """The calls of functions, in order; each returns its own name."""

    def of(self, name):
        return lambda *args: self.append((name, *args)) or name


@pytest.fixture
def fake_cupy(monkeypatch):
    """A module `cupy` that notes what is called, with one GPU."""
    called = Called()
    cupy = types.ModuleType("cupy")
    cupy.__version__, cupy.called, cupy.__file__ = "14.9", called, "/somewhere/cupy/__init__.py"
    cupy.ndarray = type("ndarray", (), {"__module__": "cupy", "dtype": np.dtype(float)})
    cupy.asarray, cupy.asnumpy, cupy.empty = map(called.of, ("asarray", "asnumpy", "empty"))
    cupy.random = types.SimpleNamespace(
        Generator=called.of("Generator"), Philox4x3210=called.of("Philox4x3210")
    )
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1, memGetInfo=lambda: (1000, 8000), getDevice=lambda: 0
    )
    stream = types.SimpleNamespace(ptr=7)
    cupy.cuda = types.SimpleNamespace(runtime=runtime, get_current_stream=lambda: stream)
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 24)
    special = types.ModuleType("cupyx.scipy.special")
    special.ndtri = called.of("ndtri")
    for name in ("cupyx", "cupyx.scipy"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.special", special)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def test_without_cupy_the_device_says_what_to_install(monkeypatch):
    fresh(monkeypatch)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"expected CuPy .* pip install 'cupy-cuda12x") as caught:
        devices.to_device(np.ones(3), "cuda")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ImportError)


def test_without_a_gpu_the_device_says_so(monkeypatch, fake_cupy):
    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver")

    fresh(monkeypatch)
    for count, found in ((lambda: 0, "found none;"), (no_driver, r"found none \(cudaErrorInsufficient")):
        fake_cupy.cuda.runtime.getDeviceCount = count
        with pytest.raises(InputError, match=f"expected a GPU .* CuPy 14.9 {found}.* NVIDIA driver"):
            devices.find_device("cuda")


def test_cuda_is_asked_for_in_cupys_own_functions(fake_cupy):
    cuda, called = devices.Cuda(), fake_cupy.called
    assert (cuda.array_type, cuda.module) == (fake_cupy.ndarray, fake_cupy)
    assert (cuda.name, cuda.alias, cuda.exact) == ("cuda", "cupy", False)
    x = np.ones(3)
    assert cuda.send(x) == "asarray"
    assert cuda.fetch("array") == "asnumpy"
    assert cuda.scipy("special.ndtri")("array") == "ndtri"
    assert cuda.memory(100) == "empty"
    assert cuda.free_bytes() == 1024  # what the driver has, and what CuPy's pool holds
    assert cuda.queue() == (0, 7)
    seeds = [cuda.generator(np.random.default_rng(seed)) and called[-2] for seed in (5, 5, 6)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert isinstance(seeds[0][1], int)
    names = [call[0] for call in called]
    assert names == ["asarray", "asnumpy", "ndtri", "empty", *["Philox4x3210", "Generator"] * 3]
    assert called[0][1] is x


def test_an_array_in_cudas_memory_begins_at_its_pointer_and_offset(fake_cupy):
    made = []
    fake_cupy.ndarray = lambda *args: made.append(args)
    memory = types.SimpleNamespace(data=4096)
    devices.Cuda().array_at(memory, 64, (2, 3), np.float32, (12, 4))
    assert made == [((2, 3), np.float32, 4096 + 64, (12, 4))]


def test_an_array_made_with_cupy_itself_lives_on_cuda(monkeypatch, fake_cupy):
    fresh(monkeypatch)
    array = fake_cupy.ndarray()
    assert devices.device_of({"x": array}).name == "cuda"
    assert devices.is_array(array)
    assert devices.DEVICES[fake_cupy.ndarray] is devices.find_device("cuda")
    assert devices.to_device(array, "cuda") is array
    assert devices.to_host(array) == "asnumpy"


def test_what_is_no_array_is_refused_with_its_place(any_device):
    for thing, got in (
        (None, "a NoneType"),
        ("text", "a str"),
        (np.array([None]), "an ndarray of dtype object"),
    ):
        with pytest.raises(
            InputError, match=f"expected arrays of numbers to move to {any_device}, got {got} at 'a/0'"
        ):
            devices.to_device({"a": [thing]}, any_device.name)
    assert_agrees(
        any_device, devices.to_device([1.5, True], any_device.name), [np.array(1.5), np.array(True)]
    )


def test_a_constant_may_be_given_as_a_list_or_a_number(any_device):
    like = any_device.send(np.ones(2))
    assert_agrees(any_device, devices.constant([1.0, 0.0], like), np.array([1.0, 0.0]))
    assert_agrees(any_device, devices.constant(2, like), np.array(2))
    assert devices.constant(like, like) is like
    assert_agrees(devices.HOST, devices.constant(like, np.ones(1)), np.ones(2))


def test_a_function_that_is_not_there_is_refused_with_an_example(any_device):
    like = any_device.send(np.ones(2))
    for name in ("ndtri", "special.nothing", "nothing.at_all", ""):
        with pytest.raises(
            InputError, match=f"expected a function of SciPy's that {any_device} has.*got '{name}'"
        ):
            devices.scipy_function(name, like)
