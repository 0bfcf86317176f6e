"""The stand-in for CuPy's arrays is as strict as they are, and its tables say what CuPy says.

What can be told without a GPU is asked of both: CuPy's arrays then hold memory of the host, of which views can be
made and refusals heard, but with which nothing can be computed.
"""

import importlib
import inspect
import operator

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from autograd.extend import Box
from autograd.tracer import new_box
from stand_in import CREATION, FUNCTIONS, METHODS, NOT_UFUNCS, SCIPY, Module, StrictArray, Transfers, counted

from npflow.autodiff.gpu import devices
from npflow.autodiff.gpu.cupy import register


def strict(shape, dtype=np.float32):
    return StrictArray(np.ones(shape, dtype))


def of_cupy(shape, dtype=np.float32):
    """An array of CuPy's, of the host's memory where there is no GPU."""
    cupy = pytest.importorskip("cupy")
    register(cupy)
    try:
        return cupy.ones(shape, dtype)
    except cupy.cuda.runtime.CUDARuntimeError:
        host = np.ones(shape, dtype)
        memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


@pytest.fixture(params=[strict, of_cupy], ids=["strict", "cupy"])
def make(request):
    """What makes an array, the stand-in's or CuPy's."""
    devices.find_device("strict")  # autograd knows its arrays from here on
    request.param(())  # skip where there is none
    return request.param


HOST = np.ones((2, 3), np.float32)

# ---------------------------------------------------------------- both


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("convert", [np.asarray, np.array, np.ascontiguousarray, lambda x: np.array([x, x])])
def test_implicit_conversion_to_numpy_is_refused(make, convert):
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        convert(make((2, 3)))


REFUSED = {
    "initial of sum": (TypeError, lambda x: np.sum(x, initial=0)),
    "where of sum": (TypeError, lambda x: np.sum(x, where=x)),
    "initial of the method sum": (TypeError, lambda x: x.sum(initial=0)),
    "out of the host for sum": (TypeError, lambda x: np.sum(x, axis=0, out=np.ones(3, np.float32))),
    "mode of take": (TypeError, lambda x: np.take(x, x, mode="clip")),
    "quicksort": (ValueError, lambda x: np.argsort(x, kind="quicksort")),
    "order of argsort": (TypeError, lambda x: np.argsort(x, -1, None, None)),
    "min of clip": (TypeError, lambda x: np.clip(x, min=0)),
    "like of ones": (TypeError, lambda x: np.ones(3, like=x)),
    "like of eye": (TypeError, lambda x: np.eye(3, like=x)),
    "order of a ufunc": (TypeError, lambda x: np.add(x, x, order="C")),
    "subok of a ufunc": (TypeError, lambda x: np.exp(x, subok=True)),
    "x of astype by name": (TypeError, lambda x: type(x).__array_function__(x, np.astype, (), (), {"x": x})),
    "setting to an array of the host": (ValueError, lambda x: operator.setitem(x, 0, np.ones(3))),
    "a number for dot": (TypeError, lambda x: np.dot(x, 2.0)),
    "a number for outer": ((TypeError, AttributeError), lambda x: np.outer(2.0, x)),
    "a number for tensordot": ((TypeError, AttributeError), lambda x: np.tensordot(x, 2.0, 0)),
    "multiply.at": (NotImplementedError, lambda x: np.multiply.at(x, 0, x)),
    "maximum.reduce": (NotImplementedError, lambda x: np.maximum.reduce(x)),
    "copying from the host": (ValueError, lambda x: np.copyto(x, HOST)),
    "sharing memory with the host": (TypeError, lambda x: np.may_share_memory(x, HOST)),
    "hash": (TypeError, hash),
    "an index out of bounds": (IndexError, lambda x: x[5]),
    "a new attribute": (AttributeError, lambda x: setattr(x, "name", 1)),
    "ctypes": (AttributeError, lambda x: x.ctypes),
    "round": (TypeError, round),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cupy_has_not_is_refused(make, what):
    error, call = REFUSED[what]
    with pytest.raises(error):
        call(make((2, 3)))


def test_complex_numbers_cannot_be_added_at_an_index(make):
    x, index = make((3,), np.complex64), make((3,), np.int64)
    with pytest.raises(TypeError, match=r"add\.at only supports"):
        np.add.at(x, index, x)


@pytest.mark.parametrize("name", sorted(NOT_UFUNCS))
def test_ufuncs_that_cupy_has_not_are_refused(make, name):
    x = make((2, 3))
    assert x.__array_ufunc__(getattr(np, name), "__call__", x, x) is NotImplemented


@pytest.mark.parametrize("name", ["block", "geomspace", "insert", "nanquantile", "unstack"])
def test_functions_that_cupy_has_not_are_refused(make, name):
    x = make((2, 3))
    assert x.__array_function__(getattr(np, name), (type(x),), (x,), {}) is NotImplemented


class Foreign:
    """An array of somebody else's."""

    def __array_ufunc__(self, *args, **kwargs):
        return "mine"

    def __array_function__(self, *args, **kwargs):
        return "mine"

    __radd__ = __matmul__ = __rmatmul__ = lambda self, other: "mine"


def test_operators_and_functions_are_left_to_foreign_types(make):
    x, foreign = make((2, 3)), Foreign()
    assert x.__array_ufunc__(np.add, "__call__", x, foreign) is NotImplemented
    assert x.__array_function__(np.sum, (Foreign,), (foreign,), {}) is NotImplemented
    assert np.add(x, foreign) == np.add(foreign, x) == x + foreign == "mine"


def test_operators_are_left_to_boxes_of_autograd(make):
    x = make((3, 3))
    box = new_box(make((3, 3)), 0, None)
    assert isinstance(box, Box)
    for fun in (np.add, np.matmul, np.greater):
        assert x.__array_ufunc__(fun, "__call__", x, box) is NotImplemented


VIEWS = {
    "row": lambda x: x[0],
    "number": lambda x: x[0, 1],
    "step": lambda x: x[:, ::2],
    "backwards": lambda x: x[::-1],
    "None": lambda x: x[:, None],
    "Ellipsis": lambda x: x[..., 0],
    "NumPy's integer": lambda x: x[np.int64(1)],
    "T": lambda x: x.T,
    "transpose": lambda x: np.transpose(x, np.array([1, 0])),
    "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "reshape": lambda x: np.reshape(x, (3, 2)),
    "reshape method": lambda x: x.reshape(-1),
    "broadcast_to": lambda x: np.broadcast_to(x, (4, 2, 3)),
    "expand_dims": lambda x: np.expand_dims(x, 0),
    "squeeze": lambda x: np.squeeze(x[None], axis=0),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1),
    "diagonal": lambda x: np.diagonal(x, axis1=-1, axis2=-2),
    "flip": lambda x: np.flip(x, -1),
    "ravel": np.ravel,
    "real": np.real,
    "split": lambda x: np.split(x, [1])[1],
    "array_split": lambda x: np.array_split(x, 2)[0],
    "view": lambda x: x.view("u4"),
    "astype": lambda x: x.astype(np.float32, copy=False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_have_the_shapes_and_strides_of_numpys(make, name):
    x, view = make((2, 3)), VIEWS[name]
    with counted() as transfers:
        got = view(x)
    assert type(got) is type(x)
    expected = view(HOST)
    assert (got.shape, got.dtype) == (np.shape(expected), expected.dtype)
    if isinstance(expected, np.ndarray):
        assert got.strides == expected.strides
        assert got.flags.c_contiguous == expected.flags.c_contiguous
        assert (got.size, got.ndim, got.nbytes) == (expected.size, expected.ndim, expected.nbytes)
    assert np.may_share_memory(got, x)
    assert transfers == Transfers()


def test_shapes_and_dtypes_are_known_on_the_host(make):
    x = make((2, 3))
    assert (np.shape(x), np.ndim(x), np.size(x), np.size(x, 1), len(x)) == ((2, 3), 2, 6, 3, 2)
    assert np.result_type(x, np.float64) == np.float64
    assert not np.iscomplexobj(x)
    assert not np.isscalar(x[0, 0])
    assert [row.shape for row in x] == [(3,), (3,)]


# ---------------------------------------------------------------- the stand-in: what it refuses


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: x + np.array(1.0),
        lambda x: np.multiply(x, HOST),
        lambda x: x @ HOST.T,
        lambda x: x > HOST,
        lambda x: operator.iadd(x, HOST),
        lambda x: np.add(x, x, out=HOST.copy()),
        lambda x: np.add(HOST, HOST, out=x),
        lambda x: np.add.at(x, 0, np.ones(3)),
        lambda x: np.dot(x, HOST.T),
        lambda x: np.where(x > 0, x, HOST),
        lambda x: np.where(HOST > 0, x, x),
        lambda x: np.concatenate([x, HOST]),
        lambda x: np.stack([HOST, x]),
        lambda x: np.einsum("ij,ij->i", x, HOST),
        lambda x: np.take(x, np.array([0, 1])),
        lambda x: x.take(np.array([0, 1])),
        lambda x: x[np.array([0, 1])],
        lambda x: x[:, np.array([True, False, True])],
        lambda x: x.dot(HOST.T),
        lambda x: np.linalg.solve(x[:, :2], HOST),
        lambda x: np.add(x, [1.0, 2.0, 3.0]),
        lambda x: Module().add(x, HOST),
        lambda x: Module().where(x > 0, x, HOST),
    ],
)
def test_arrays_of_the_host_are_refused_beside_the_devices(call):
    with pytest.raises(TypeError):
        call(strict((2, 3)))


def test_numbers_and_scalars_of_the_host_are_taken():
    x = strict((2, 3))
    for number in (2, 2.0, True, np.float32(2), np.int64(2)):
        for result in (x * number, number * x, np.where(x > 0, x, number), np.maximum(x, number)):
            assert isinstance(result, StrictArray)
        x[0] = number
    assert (np.float64(2) * x).dtype == np.float64
    assert (2.0 * x).dtype == np.float32
    x[0, 1] = np.array(7.0)
    assert x.host[0, 1] == 7


@pytest.mark.parametrize(
    "compare", [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne]
)
def test_comparisons_alone_take_arrays_without_axes(compare):
    x = strict((2, 3))
    zero = np.array(0.5)
    np.testing.assert_array_equal(compare(x, zero).host, compare(HOST, zero))
    np.testing.assert_array_equal(compare(zero, x).host, compare(zero, HOST))


@pytest.mark.parametrize(
    "call",
    [np.sum, np.mean, np.max, np.argmax, np.all, lambda x: x.sum(), lambda x: x[0, 0], lambda x: x[0] @ x[0]],
)
def test_what_numpy_gives_as_a_scalar_is_an_array_without_axes(call):
    result = call(strict((2, 3)))
    assert isinstance(result, StrictArray)
    assert result.shape == ()


def test_a_number_of_an_array_is_a_view_of_it():
    x = strict((2, 3))
    number = x[0, 1]
    number += 6
    np.testing.assert_array_equal(x.host, [[1, 7, 1], [1, 1, 1]])


def test_indices_out_of_bounds_are_an_error_that_cupy_would_not_raise():
    x, outside = strict((2, 3)), StrictArray(np.array([0, 3]))
    for call in (
        lambda: x[outside],
        lambda: x[..., outside],
        lambda: np.take(x, outside, axis=1),
        lambda: x.take(outside, 1),
        lambda: np.take(x, indices=StrictArray(np.array([6]))),
        lambda: operator.setitem(x, outside, 1),
        lambda: np.add.at(x, outside, 1),
    ):
        with pytest.raises(IndexError, match="out of bounds"):
            call()
    assert x[:, StrictArray(np.array([0, -1]))].shape == (2, 2)


# ---------------------------------------------------------------- the stand-in: what it does


def test_operators_functions_and_methods_compute_what_numpy_computes():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 3))
    pairs = [
        lambda a, b: a + b - 2 * a / b,
        lambda a, b: 1 - a + (2 / b) ** 2,
        lambda a, b: -abs(a) @ +b,
        lambda a, b: (a > b) & ~(a <= b) | (a == b) ^ (a != b),
        lambda a, b: a % 2 + a // 2 + 7 % b,
        lambda a, b: np.linalg.solve(a, b),
        lambda a, b: np.linalg.slogdet(a)[1],
        lambda a, b: np.linalg.slogdet(a).sign,
        lambda a, b: np.add.reduce(a, axis=0, keepdims=True),
        lambda a, b: a.astype(np.float32).clip(-1, 1).cumsum(1).T.copy(),
        lambda a, b: np.concatenate([a, b], axis=1).reshape(-1, 2).swapaxes(0, 1),
        lambda a, b: a[a > 0],
        lambda a, b: a[[0, 2]],
        lambda a, b: np.nonzero(a)[0] + a.nonzero()[1],
        lambda a, b: np.allclose(a, b),
    ]
    for fun in pairs:
        got = fun(StrictArray(a.copy()), StrictArray(b.copy()))
        assert isinstance(got, StrictArray)
        np.testing.assert_array_equal(got.host, fun(a, b))


def test_results_of_ufuncs_lie_rows_first_whatever_their_arguments_do():
    x = strict((2, 3)).T
    assert (x + x).flags.c_contiguous
    with stand_in.numpys_order():
        assert not (x + x).flags.c_contiguous
    assert (x + x).flags.c_contiguous


@pytest.mark.parametrize("method", stand_in.UFUNC_METHODS)
def test_cupys_ufuncs_have_the_methods_of_the_table(method):
    cupy, x = pytest.importorskip("cupy"), of_cupy((3,))
    have = set()
    for name in ("add", "multiply", "maximum", "minimum", "divide", "power", "logaddexp", "hypot"):
        try:
            getattr(getattr(cupy, name), method)(
                *((x, cupy.ndarray.view(x, "i4"), x) if method == "at" else (x,))
            )
        except NotImplementedError:
            continue
        except Exception:  # no GPU, which is asked for after the method was found
            pass
        have.add(name)
    assert have == stand_in.UFUNC_METHODS[method]


def test_out_is_written_to_and_given_back():
    x, out = strict((2, 3)), StrictArray(np.zeros((2, 3), np.float32))
    column = StrictArray(np.zeros(2, np.float32))
    assert np.add(x, x, out=out) is out
    assert np.sum(x, axis=1, out=column) is column
    assert x.sum(1, None, column) is column
    assert np.dot(x, x.T, out=StrictArray(np.zeros((2, 2), np.float32))).shape == (2, 2)
    np.testing.assert_array_equal(out.host, 2 * HOST)
    np.testing.assert_array_equal(column.host, [3, 3])
    x += 1
    np.testing.assert_array_equal(x.host, 2 * HOST)
    np.copyto(out, x, where=x > 0)
    np.add.at(out, (0, StrictArray(np.array([0, 0]))), 1)
    out[1] = x[0]
    out[0, 1:].fill(9)
    np.testing.assert_array_equal(out.host, [[4, 9, 9], [2, 2, 2]])


@pytest.mark.parametrize(
    ("call", "to_device", "to_host"),
    [
        (bool, 0, 1),
        (float, 0, 1),
        (int, 0, 1),
        (complex, 0, 1),
        (lambda x: [1, 2][x.astype(int) - 1], 0, 1),
        (lambda x: x.item(), 0, 1),
        (lambda x: x.tolist(), 0, 1),
        (lambda x: x.tobytes(), 0, 1),
        (lambda x: x.get(), 0, 1),
        (lambda x: x[None][x[None] > 0], 0, 1),
        (lambda x: np.nonzero(x[None]), 0, 1),
        (lambda x: x[None][[0]], 1, 0),
        (lambda x: operator.setitem(x[None], slice(None), [2.0]), 1, 0),
        (lambda x: Module().asarray(HOST), 1, 0),
        (lambda x: Module().array([1, 2]), 1, 0),
        (lambda x: stand_in.Strict().send(HOST), 1, 0),
        (lambda x: stand_in.Strict().fetch(x), 0, 1),
        (lambda x: Module().asarray(x), 0, 0),
        (lambda x: Module().zeros((2, 3)), 0, 0),
        (lambda x: np.sum(x * 2 + np.float64(3)), 0, 0),
        (lambda x: x[None][x.astype(int) - 1], 0, 0),
    ],
)
def test_transfers_are_counted(call, to_device, to_host):
    x = strict(())
    with counted() as transfers:
        call(x)
    assert transfers == Transfers(to_device, to_host)


def test_sent_and_fetched_arrays_are_copies():
    host = HOST.copy()
    device = stand_in.Strict()
    sent = device.send(host)
    host += 1
    fetched = device.fetch(sent)
    fetched += 1
    np.testing.assert_array_equal(sent.host, HOST)


def test_the_module_has_the_functions_by_their_names():
    module, x = Module(), strict((2, 2), np.float64)
    assert module.ndarray is StrictArray
    assert module.float32 is np.float32
    for result, expected in (
        (module.exp(x), np.exp(x.host)),
        (module.add(x, 1), x.host + 1),
        (module.sum(x, axis=0), np.sum(x.host, axis=0)),
        (module.linalg.det(x), np.linalg.det(x.host)),
        (module.full((2,), 3.0), np.full(2, 3.0)),
        (module.arange(3), np.arange(3)),
        (module.asarray(x, dtype=np.float32), x.host.astype(np.float32)),
    ):
        assert isinstance(result, StrictArray)
        np.testing.assert_array_equal(result.host, expected)
    with pytest.raises(TypeError, match=r"cupy\.sum\(\)"):
        module.sum(x, initial=0)
    with pytest.raises(TypeError, match=r"cupy\.zeros\(\)"):
        module.zeros(3, like=x)


@pytest.mark.parametrize("name", ["trapezoid", "spacing", "random", "nothing", "memmap"])
def test_the_module_has_no_others(name):
    with pytest.raises(AttributeError, match=name):
        getattr(Module(), name)


def test_numbers_are_drawn_by_the_hosts_generator_and_live_on_the_device():
    device, host = stand_in.Strict(), np.random.default_rng(3)
    generator = device.generator(np.random.default_rng(3))
    for draw in (
        lambda rng: rng.standard_normal((2, 3), np.float32),
        lambda rng: rng.random(4),
        lambda rng: rng.uniform(-1, 1, (2,)),
    ):
        got = draw(generator)
        assert isinstance(got, StrictArray)
        np.testing.assert_array_equal(got.host, draw(host), strict=True)


def test_autograd_differentiates_its_arrays():
    slope = autograd.grad(lambda x: anp.sum(x**2))(devices.to_device(HOST, "strict"))
    assert isinstance(slope, StrictArray)
    np.testing.assert_array_equal(slope.host, 2 * HOST)


# ---------------------------------------------------------------- the tables, against CuPy


def words(function):
    """The arguments of a function as the tables write them."""
    found, star = [], False
    parameters = list(inspect.signature(function).parameters.values())
    for number, parameter in enumerate(parameters):
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and not star:
            found.append("*")
        star = star or kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        found.append(
            {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(kind, "") + parameter.name
        )
        following = parameters[number + 1 :][:1]
        if kind is parameter.POSITIONAL_ONLY and [p.kind for p in following] != [kind]:
            found.append("/")
    return " ".join(found)


def documented(function):
    """The arguments of a function of Cython's, of which only the first line of its description knows."""
    arguments = function.__doc__.partition("(")[2].partition(")")[0].removeprefix("self").removeprefix(", ")
    return " ".join(word.partition("=")[0].split()[-1] for word in arguments.split(",") if word)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CREATION])
def test_functions_have_the_arguments_of_cupys(name):
    cupy = pytest.importorskip("cupy")
    function = operator.attrgetter(name)(cupy)
    expected = {**FUNCTIONS, **CREATION}[name]
    if isinstance(function, cupy.ufunc):
        assert len(expected.split()) == function.nin
    elif inspect.isbuiltin(function):
        assert documented(function) == expected
    else:
        assert words(function) == expected


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_the_arguments_of_cupys(name):
    cupy = pytest.importorskip("cupy")
    assert documented(getattr(cupy.ndarray, name)) == METHODS[name]


def test_cupy_has_all_ufuncs_of_numpy_but_those_in_the_table():
    cupy = pytest.importorskip("cupy")
    ufuncs = {name for name, value in vars(np).items() if isinstance(value, np.ufunc)}
    assert {name for name in ufuncs if not hasattr(cupy, name)} == NOT_UFUNCS


@pytest.mark.parametrize("name", SCIPY)
def test_cupyx_has_the_functions_of_scipy_with_these_arguments(name):
    cupy = pytest.importorskip("cupy")
    module, _, function = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(f"cupyx.scipy.{module}"), function)
    except ImportError as error:
        pytest.skip(f"CUDA's libraries are missing: {error}")
    assert ("" if isinstance(found, cupy.ufunc) else words(found)) == SCIPY[name]


def test_the_tables_are_read_as_signatures():
    assert str(stand_in.signature("x dtype / * copy")) == "(x=None, dtype=None, /, *, copy=None)"
    assert str(stand_in.signature("*operands **kwargs")) == "(*operands, **kwargs)"
    assert words(lambda x, y, /, a, *, b: None) == "x y / a * b"
    assert words(lambda *x, a, **b: None) == "*x a **b"
