"""A comparison of a new program with the function that it was recorded from."""

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import as_array, fetch, is_array
from npflow.autodiff.gradient import value_and_grad
from npflow.autodiff.program.threads import one_blas_thread


def is_proven(program, fun, params, args):
    """Whether a program gives the results of the function: to the bit if the device is exact, and on other
    values too.

    On other values, as a number that was read off an array unnoticed would stay what it was in the recording.
    """
    failed, compared = None, False
    with one_blas_thread(), np.errstate(all="ignore"):
        for trial in _trials(params, args):
            try:
                expected = _plainly(fun, *trial) if program.with_gradient else (fun(trial[0], *trial[1]),)
            except Exception as error:  # such as a matrix that is not positive definite
                failed = error
                continue
            got = program(trial[0], *trial[1])
            got = got if program.with_gradient else (got,)
            agree = _same_bits if program.device.exact else _agree
            if not all(agree(fetch(one), fetch(other)) for one, other in zip(expected, got)):
                return False
            compared = True
            if np.isfinite(fetch(expected[0])).all():
                return True
    if not compared:
        raise failed
    return True


def _same_bits(expected, got):
    return np.array_equal(expected, got, equal_nan=True)


def _agree(expected, got):
    """Whether two results agree up to rounding, for a device that may round in two ways."""
    with np.errstate(all="ignore"):
        scale = np.max(np.abs(expected), initial=0, where=np.isfinite(expected))
        tolerance = 1e3 * np.finfo(expected.dtype).eps if expected.dtype.kind == "f" else 0.0
        return np.allclose(expected, got, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _plainly(fun, params, args):
    """The value and the gradient, as a vector, without a program."""
    value, leaves = value_and_grad(fun)(params, *args)
    return value, tree.Layout(params).pack(leaves)


def _trials(params, args):
    """Parameters and arguments to compare on, those that differ most from the recorded ones first."""
    nudged = tree.build(
        lambda _, leaf: as_array(leaf) * leaf.dtype.type(1 + 2**-10) if tree.is_trained(leaf) else leaf,
        params,
    )

    def reverse(sign):
        def turned(_, leaf):
            if not is_array(leaf) or not leaf.ndim:
                return leaf
            leaf = leaf[::-1].copy("K")
            return sign * leaf if np.issubdtype(leaf.dtype, np.floating) else leaf

        return [tree.build(turned, arg) for arg in args]

    yield nudged, reverse(-1)
    yield nudged, reverse(1)
    yield nudged, args
    yield params, args
