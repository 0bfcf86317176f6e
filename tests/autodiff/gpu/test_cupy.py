"""autograd on CuPy's arrays: the values and gradients of NumPy's arrays, to second order, with no transfer.

Everything here uses autograd alone. `CASES` is one table for two comparisons: a device against the host, and the
host with the derivatives of `npflow.autodiff.gpu.cupy` against the host with autograd's own.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from autograd.extend import vspace
from autograd.numpy import numpy_wrapper
from helpers import assert_agrees

from npflow.autodiff import tree
from npflow.autodiff.gpu import devices
from npflow.autodiff.gpu.cupy import DERIVATIVES, DERIVATIVES_BY_NUMBER, FUNCTIONS, register

SQUARE, VECTOR, BLOCK = (4, 4), (4,), (2, 3, 4)


def same(x):
    return x


def positive(x):
    return abs(x) + 0.5


def regular(x):
    """Matrices far from singular ones; vectors as they are."""
    return x + 3 * np.eye(len(x)) if x.ndim == 2 else x


@dataclass(frozen=True)
class Case:
    """A function, the shapes of its arguments, and what is made of random ones.

    It `sends` where its index is a list, which goes to the device, or a mask, of which the host has to know how
    many there are. It is `of_host` where CuPy has no such call.
    """

    name: str
    fun: Callable
    shapes: tuple = (SQUARE,)
    domain: Callable = same
    sends: bool = False
    of_host: bool = False

    def arguments(self, dtype=np.float64):
        """Random arguments, no two numbers the same."""
        rng = np.random.default_rng(0)
        draws = [rng.standard_normal(shape) + 0.1 for shape in self.shapes]
        return [np.asarray(self.domain(draw)).astype(dtype) for draw in draws]

    def total(self, *args):
        """A number in which each number of the result has a slope of its own."""
        y = self.fun(*args)
        return anp.sum(y * y)

    def squared_gradient_norm(self, *args):
        """A number whose gradient holds the second derivatives."""
        return sum(anp.sum(g * g) for g in gradient(self.total, args))


def gradient(fun, args):
    """One argument at a time: of several at once, autograd casts the gradients to the dtypes of the arguments."""
    return [autograd.grad(fun, number)(*args) for number in range(len(args))]


def named(names, shapes=(SQUARE,), domain=same):
    return [Case(name, getattr(anp, name), shapes, domain) for name in names.split()]


def products(name):
    """Of vectors and matrices."""
    fun = getattr(anp, name)
    kinds = {"vector": VECTOR, "matrix": SQUARE}
    return [Case(f"{name} {a} {b}", fun, (kinds[a], kinds[b])) for a in kinds for b in kinds]


def joins(names):
    def join(fun):
        return lambda x, y: fun([x, y])

    return [Case(name, join(getattr(anp, name)), (SQUARE, SQUARE)) for name in names.split()]


def dots():
    kinds = {"scalar": (), "vector": VECTOR, "matrix": SQUARE, "block": BLOCK}
    seconds = kinds | {"block": (2, 4, 3)}
    return [Case(f"dot {a} {b}", anp.dot, (kinds[a], seconds[b])) for a in kinds for b in seconds]


REDUCTIONS = [
    *named("sum mean prod var std max min cumsum"),
    Case("sum axis", lambda x: anp.sum(x, axis=0)),
    Case("sum axes", lambda t: anp.sum(t, axis=(0, -1)), (BLOCK,)),
    Case("sum keepdims", lambda x: anp.sum(x, axis=1, keepdims=True) * x),
    Case("sum method", lambda x: x.sum(1)),
    Case("sum vector", anp.sum, (VECTOR,)),
    *[Case(f"{case.name} of a number", case.fun, ((),)) for case in named("sum mean prod var std max")],
    Case("mean axis", lambda x: anp.mean(x, axis=-1)),
    Case("mean axes", lambda t: anp.mean(t, axis=(0, 2), keepdims=True) * t, (BLOCK,)),
    Case("mean method", lambda x: x.mean(0)),
    Case("prod axis", lambda x: anp.prod(x, axis=1)),
    Case("var axis", lambda x: anp.var(x, axis=0)),
    Case("var ddof", lambda x: anp.var(x, axis=1, ddof=1, keepdims=True) * x),
    Case("std axis", lambda x: anp.std(x, axis=0)),
    Case("std ddof", lambda x: anp.std(x, axis=1, ddof=1)),
    Case("std of one", lambda x: anp.std(x, axis=0), ((1, 4),)),
    Case("max axis", lambda x: anp.max(x, axis=0)),
    Case("min axis", lambda x: anp.min(x, axis=-1)),
    Case("amax keepdims", lambda x: anp.amax(x, axis=1, keepdims=True) * x),
    Case("amin", anp.amin),
    Case("max of ties", lambda x: anp.max(anp.sign(x) + 0 * x, axis=0)),
    Case("cumsum axis 0", lambda x: anp.cumsum(x, axis=0)),
    Case("cumsum axis 1", lambda x: anp.cumsum(x, axis=1)),
]
PRODUCTS = [
    *products("matmul"),
    Case("matmul block matrix", lambda t, x: t @ x, (BLOCK, SQUARE)),
    Case("matmul blocks", anp.matmul, (BLOCK, (2, 4, 3))),
    *dots(),
    Case("dot matrix number", lambda x: anp.dot(x, 2.0), of_host=True),
    Case("dot number matrix", lambda x: anp.dot(2.0, x), of_host=True),
    *products("inner"),
    Case("outer", anp.outer, (VECTOR, VECTOR)),
    Case("kron", anp.kron, (SQUARE, SQUARE)),
    Case("tensordot", lambda t, x: anp.tensordot(t, x, 1), (BLOCK, SQUARE)),
    Case("tensordot 0", lambda t, x: anp.tensordot(t, x, 0), (VECTOR, SQUARE)),
    Case("tensordot axes", lambda t, x: anp.tensordot(t, x, ([2], [1])), (BLOCK, SQUARE)),
    Case("cross", anp.cross, ((4, 3), (4, 3))),
    Case("einsum", lambda x, y: anp.einsum("ij,jk->ik", x, y), (SQUARE, SQUARE)),
    Case("einsum of three", lambda x, y, v: anp.einsum("ij,jk,k->i", x, y, v), (SQUARE, SQUARE, VECTOR)),
    Case("einsum implicit", lambda x, y: anp.einsum("ij,jk", x, y), (SQUARE, SQUARE)),
    Case("einsum ellipsis", lambda t, x: anp.einsum("...c,cd->...d", t, x), (BLOCK, SQUARE)),
    Case("einsum summed alone", lambda x, y: anp.einsum("ij,kl->ik", x, y), (SQUARE, SQUARE)),
    Case("einsum both summed alone", lambda t, x: anp.einsum("abc,de->a", t, x), (BLOCK, SQUARE)),
    Case("einsum of one", lambda t: anp.einsum("abc->ca", t), (BLOCK,)),
    Case("einsum to a number", lambda x, y: anp.einsum("ij,ij->", x, y), (SQUARE, SQUARE)),
    Case("einsum sublists", lambda x, y: anp.einsum(x, [0, 1], y, [1, 2], [0, 2]), (SQUARE, SQUARE)),
]
MOVES = [
    Case("index", lambda x: x[1]),
    Case("index of a number", lambda x: x[1, 2]),
    Case("index negative", lambda x: x[-1]),
    Case("slice", lambda x: x[1:3]),
    Case("slice with a step", lambda x: x[::2, ::-1]),
    Case("index None", lambda x: x[:, None]),
    Case("index Ellipsis", lambda t: t[..., 0], (BLOCK,)),
    Case("index of the device", lambda x: x[anp.argsort(x[:, 0])]),
    Case("index of the device, repeated", lambda x: x[anp.argsort(x[:, 0]) // 2]),
    Case("index of the device, last axis", lambda x: x[:, anp.argsort(x[0])]),
    Case("index list", lambda x: x[[0, 2, 2]], sends=True),
    Case("index mask", lambda x: x[x > 0], sends=True),
    Case("concatenate", lambda x, y: anp.concatenate([x, y]), (SQUARE, SQUARE)),
    Case("concatenate axis", lambda x, y: anp.concatenate((x, x, y), axis=-1), (SQUARE, SQUARE)),
    *joins("stack hstack vstack"),
    Case("stack axis", lambda x, y: anp.stack([x, y], axis=-1), (SQUARE, SQUARE)),
    Case("append", anp.append, (SQUARE, SQUARE)),
    Case("where", lambda x, y: anp.where(x > 0, x, y), (SQUARE, SQUARE)),
    Case("where number", lambda x: anp.where(x > 0, x, 0.0)),
    Case("where number first", lambda x: anp.where(x > 0, 1, x)),
    Case("where broadcast", lambda x, y: anp.where(x[0] > 0, x, y), (SQUARE, SQUARE)),
    Case("array", anp.array),
    Case("array of a list", lambda v, w: anp.array([v, w]), (VECTOR, VECTOR)),
    Case("array of numbers", lambda v: anp.array([v[0], v[1]]), (VECTOR,)),
    Case("array of lists", lambda x: anp.array([[x[0, 0], x[0, 1]], [x[1, 0], x[1, 1]]])),
    Case("reshape", lambda x: anp.reshape(x, (2, 8))),
    Case("reshape method", lambda x: x.reshape(2, -1)),
    *named("ravel flipud fliplr rot90 triu tril diag transpose nan_to_num real conj"),
    Case("flatten", lambda x: x.flatten()),
    Case("T", lambda x: x.T),
    Case("transpose axes", lambda t: anp.transpose(t, (2, 0, 1)), (BLOCK,)),
    Case("swapaxes", lambda t: anp.swapaxes(t, 0, 2), (BLOCK,)),
    Case("moveaxis", lambda t: anp.moveaxis(t, 0, 2), (BLOCK,)),
    Case("rollaxis", lambda t: anp.rollaxis(t, 2), (BLOCK,)),
    Case("roll", lambda x: anp.roll(x, 1, axis=0)),
    Case("split", lambda x: anp.split(x, 2)[0]),
    Case("array_split", lambda x: anp.array_split(x, 3, axis=1)[1]),
    Case("expand_dims", lambda x: anp.expand_dims(x, 1)),
    Case("squeeze", lambda x: anp.squeeze(x[None], axis=0)),
    Case("atleast_2d", anp.atleast_2d, (VECTOR,)),
    Case("broadcast_to", lambda v: anp.broadcast_to(v[None], (3, 4)), (VECTOR,)),
    Case("repeat", lambda x: anp.repeat(x, 2, axis=1)),
    Case("repeat flat", lambda x: anp.repeat(x, 2)),
    Case("tile", lambda x: anp.tile(x, (2, 2))),
    Case("diff", lambda x: anp.diff(x, axis=0)),
    Case("tril k", lambda x: anp.tril(x, -1)),
    Case("diag of a vector", anp.diag, (VECTOR,)),
    Case("partition", lambda v: anp.partition(v, 2), (VECTOR,), of_host=True),
    Case("astype", lambda x: x.astype(np.float32)),
    Case("len", lambda x: x * len(x)),
    Case("sign", lambda x: x * anp.sign(x)),
]
BINARY = "add subtract multiply divide maximum minimum fmax fmin logaddexp logaddexp2 mod arctan2 hypot"
UNARY = (
    "abs fabs reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh arcsinh arctan rad2deg "
    "degrees deg2rad radians square sqrt sinc negative"
)
ELEMENTWISE = [
    *named(BINARY, (SQUARE, SQUARE)),
    *[Case(f"{case.name} broadcast", case.fun, case.shapes) for case in named(BINARY, (SQUARE, VECTOR))],
    *named(UNARY, domain=positive),
    *named("arcsin arccos arctanh", domain=np.tanh),
    Case("arccosh", anp.arccosh, domain=lambda x: positive(x) + 1),
    Case("clip", lambda x: anp.clip(x, -0.5, 0.5)),
    Case("power", anp.power, (SQUARE, SQUARE), positive),
    Case("power broadcast", lambda x, v: x**v, (SQUARE, VECTOR), positive),
    Case("power float", lambda x: x**3.5, domain=positive),
    Case("power int", lambda x: x**3),
    Case("power 1", lambda x: x**1),
    Case("power 0", lambda x: x**0),
    Case("power negative", lambda x: x**-2, domain=positive),
    Case("power of NumPy's float", lambda x: x ** np.float64(3.5), domain=positive),
    Case("power of NumPy's int", lambda x: x ** np.int64(2)),
    Case("power of a number", lambda x: 2.0**x),
]
ALGEBRA = [
    Case("inv", anp.linalg.inv, (SQUARE,), regular),
    Case("det", anp.linalg.det, (SQUARE,), regular),
    Case("slogdet", lambda x: anp.linalg.slogdet(x)[1], (SQUARE,), regular),
    Case("solve", anp.linalg.solve, (SQUARE, SQUARE), regular),
    Case("solve vector", anp.linalg.solve, (SQUARE, VECTOR), regular),
    Case("norm", anp.linalg.norm),
    Case("norm axis", lambda x: anp.linalg.norm(x, axis=1)),
]
CASES = [*REDUCTIONS, *PRODUCTS, *MOVES, *ELEMENTWISE, *ALGEBRA]

by_name = {"ids": lambda case: case.name}
every_case = pytest.mark.parametrize("case", [case for case in CASES if not case.of_host], **by_name)


def results(case, args, orders=("first", "second")):
    """The values and gradients of first and second order."""
    functions = {"first": case.total, "second": case.squared_gradient_norm}
    return {order: [functions[order](*args), *gradient(functions[order], args)] for order in orders}


def on_both(device, case, dtype, orders=("first", "second")):
    """The results on a device, computed with no transfer and in NumPy's order, and on the host."""
    args = case.arguments(dtype)
    sent = [device.send(arg) for arg in args]
    with stand_in.counted() as transfers, stand_in.numpys_order():
        got = results(case, sent, orders)
    assert case.sends or transfers == stand_in.Transfers()
    return got, results(case, args, orders)


def test_no_two_cases_have_one_name():
    assert len({case.name for case in CASES}) == len(CASES) > 180


@every_case
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_values_and_gradients_on_a_device_are_those_on_the_host(case, device):
    got, expected = on_both(device, case, np.float64)
    assert_agrees(device, got, expected)
    # Where results lie rows first, as CuPy's do, NumPy adds up in another order: the same up to rounding.
    got = results(case, devices.to_device(case.arguments(), device.name), ["second"])
    for found, wanted in zip(got["second"], expected["second"], strict=True):
        np.testing.assert_allclose(devices.fetch(found), wanted, rtol=1e-12, atol=1e-12)


@every_case
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_float32_has_the_dtypes_of_the_host_on_a_device(case, device):
    got, expected = on_both(device, case, np.float32, ["second"])  # which goes through the first
    if device.exact:
        assert_agrees(device, got, expected)
    dtypes = [[array.dtype for _, array in tree.items(results)] for results in (got, expected)]
    assert dtypes[0] == dtypes[1]


def test_arrays_and_numbers_of_the_host_beside_one_of_the_device_have_no_gradient_of_their_own():
    weights = devices.to_device(np.arange(4.0), "strict")
    slope = autograd.grad(lambda x: anp.sum(x * weights * np.float64(2) * 3))(
        devices.to_device(np.ones(4), "strict")
    )
    np.testing.assert_array_equal(slope.host, 6 * np.arange(4.0))


def test_the_gradient_in_several_arguments_at_once_is_that_of_the_host(device):
    case = Case("", lambda x, v: anp.tanh(x @ v) * x, (SQUARE, VECTOR))
    at_once = autograd.grad(case.total, (0, 1))
    args = case.arguments()
    assert_agrees(device, at_once(*map(device.send, args)), at_once(*args))


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: anp.gradient(x, axis=0),
        lambda x: anp.partition(x[0], 2),
        lambda x: anp.sort(x[0]),
        anp.trace,
        lambda x: anp.diagonal(x, axis1=-1, axis2=-2),
        lambda x: anp.array(x, ndmin=3),
        lambda x: anp.linalg.cholesky(x @ x.T),
        lambda x: anp.linalg.eigh(x @ x.T)[0],
        lambda x: anp.linalg.svd(x, full_matrices=False)[1],
        anp.linalg.pinv,
    ],
    ids=[
        "gradient",
        "partition",
        "sort",
        "trace",
        "diagonal",
        "array ndmin",
        "cholesky",
        "eigh",
        "svd",
        "pinv",
    ],
)
def test_derivatives_that_still_make_arrays_on_the_host_are_refused(fun):
    case = Case("", fun, (SQUARE,), regular)
    (x,) = case.arguments()
    assert all(np.isfinite(gradient(case.total, [x])[0]).flat)
    with pytest.raises(TypeError):
        gradient(case.total, [devices.to_device(x, "strict")])


def test_complex_numbers_and_jacobians_are_refused_on_a_device():
    with pytest.raises(TypeError, match="expected real numbers"):
        autograd.grad(anp.sum)(devices.to_device(np.ones(4, complex), "strict"))
    with pytest.raises(TypeError, match="for a Jacobian"):
        autograd.jacobian(anp.tanh)(devices.to_device(np.ones(4), "strict"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_the_vectors_that_autograd_makes_live_on_the_device(device, dtype):
    host = Case("", same, (VECTOR,)).arguments(dtype)[0]
    space, wanted = vspace(device.send(host)), vspace(host)
    assert (space.size, space.shape, space.dtype) == (wanted.size, wanted.shape, wanted.dtype)
    assert_agrees(device, space.zeros(), wanted.zeros())
    assert_agrees(device, space.ones(), wanted.ones())


# ---------------------------------------------------------------- NumPy's arrays


KINDS = {
    "float64": (np.float64, "F"),  # a sum that adds in another memory order has other last bits
    "float32": (np.float32, "C"),
}


def results_of_the_host():
    """The second-order results in bytes and dtype, or the error, of every case and kind of array."""
    table = {}
    for kind, (dtype, layout) in KINDS.items():
        for case in CASES:
            args = [np.asarray(arg, order=layout) for arg in case.arguments(dtype)]
            try:
                # The second order goes through the first.
                norm = case.squared_gradient_norm
                found = [np.asarray(number) for number in (norm(*args), *gradient(norm, args))]
                outcome = [(number.shape, str(number.dtype), number.tobytes()) for number in found]
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            table[f"{case.name}, {kind}"] = outcome
    return table


def report_what_register_changes():
    """For a fresh interpreter: others have registered a device already."""
    warnings.simplefilter("ignore")
    before = results_of_the_host()
    own = autograd.core.primitive_vjps[anp.sum]
    register(stand_in.Module())
    after = results_of_the_host()
    values = [key for key, outcome in before.items() if isinstance(outcome, list)]
    report = {
        "registered": autograd.core.primitive_vjps[anp.sum] is not own,
        "compared": {kind: sum(key.endswith(kind) for key in values) for kind in KINDS},
        "differ": [key for key in values if after[key] != before[key]],
        "errors": {key: outcome for key, outcome in before.items() if isinstance(outcome, str)},
        "errors after": {key: outcome for key, outcome in after.items() if isinstance(outcome, str)},
    }
    print(json.dumps(report))


def fresh(code):
    """What a fresh interpreter prints."""
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, [here, here.parent, here.parents[1]]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_the_replaced_derivatives_give_on_the_host_what_autograds_own_give():
    report = fresh("import test_cupy; test_cupy.report_what_register_changes()")
    assert report["registered"]
    assert report["differ"] == []
    assert report["errors after"] == report["errors"]
    assert min(report["compared"].values()) > 100


def test_importing_npflow_changes_nothing_of_autograd_and_loads_no_cupy():
    report = fresh("""
import json, sys
import autograd.numpy as anp
from autograd.core import primitive_vjps
from autograd.numpy import numpy_wrapper

def state():
    return dict(primitive_vjps), dict(vars(numpy_wrapper)), dict(vars(anp))

def changed(before):
    return [str(key) for old, new in zip(before, state()) for key in old if old[key] is not new[key]]

before = state()
import npflow
import npflow.autodiff.gpu.cupy
import stand_in
imported = changed(before)
npflow.autodiff.gpu.cupy.register(stand_in.Module())
print(json.dumps({
    "imported": imported, "registered": changed(before), "loaded": sorted({"cupy", "cupyx"} & set(sys.modules)),
}))
""")
    assert report["imported"] == report["loaded"] == []
    # One entry for each derivative that autograd has; a function is in the wrapper and in the package.
    assert len(report["registered"]) >= 2 * len(FUNCTIONS)
    assert any("sum" in key for key in report["registered"])


def test_registering_twice_is_harmless():
    first = devices.find_device("strict")
    case = Case("", lambda x, y: anp.concatenate([anp.dot(x, y), x]), (SQUARE, SQUARE))
    args = case.arguments()
    before = results(case, args)
    register(first.module)
    register(first.module)
    assert_agrees(devices.HOST, results(case, args), before)
    assert_agrees(first, results(case, [first.send(arg) for arg in args]), before)


def test_every_replaced_function_of_autograd_is_one_that_it_has():
    own = {**vars(numpy_wrapper), **vars(anp)}
    assert set(FUNCTIONS) <= set(own)
    replaced = {getattr(fun, "__name__", "") for fun in [*DERIVATIVES, *DERIVATIVES_BY_NUMBER]}
    assert {"sum", "dot", "einsum", "where", "power"} <= replaced
