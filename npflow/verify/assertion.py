"""`assert_flow`: one line in a test suite, for layers of npflow's form and for other libraries'."""

import numpy as np

from npflow.autodiff.gpu.devices import to_host
from npflow.errors import InputError, in_short
from npflow.flow import Flow
from npflow.layers import Given
from npflow.layers.units import in_units
from npflow.verify.check import check
from npflow.verify.functions import check_functions
from npflow.verify.report import Report

# Libraries of PyTorch and of JAX: the first part of the name of the module where a class, or a parent, is defined.
TORCH = {"torch", "pyro", "zuko", "nflows", "normflows", "FrEIA"}
JAX = {"flowjax", "distrax", "numpyro", "tensorflow_probability", "equinox"}


def assert_flow(subject: object, *arguments, **options) -> Report:
    """Raise unless a flow passes the checks of `npflow.verify`.

    Parameters
    ----------
    subject : object
        A `Layer` or a `Flow`, then rows for it: ``assert_flow(layer, x)``. Or two functions, then rows for the first:
        ``assert_flow(forward, inverse, x)``. Or a transform of PyTorch or a bijector of JAX, then rows.
    arguments, options
        Those of `check`, `check_functions`, ``check_torch`` or ``check_jax``. The `params` of a `Flow` are those of the
        flow. A conditional one is checked at one `context`, shape (context_features,) or that of an image, of ones by default.

    Returns
    -------
    Report

    Raises
    ------
    VerificationError
        If a check failed, or too little could be decided. It is an AssertionError whose message is the report.
    InputError
        If `subject` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Conv1x1
    >>> from npflow.verify import assert_flow
    >>> x = np.random.default_rng(0).normal(size=(8, 4))
    >>> assert_flow(Conv1x1(), x).verdict
    'passed'
    >>> assert_flow(lambda x: (x + 1, 0 * x[:, 0]), lambda z: (z - 1, 0 * z[:, 0]), x).verdict
    'passed'
    """
    report = _checker(subject, arguments)(subject, *arguments, **options)
    report.raise_if_failed()
    return report


def _checker(subject, arguments):
    """The function that checks an object of some kind."""
    families = {kind.__module__.partition(".")[0] for kind in type(subject).__mro__}
    if isinstance(subject, Flow):
        return _check_flow
    if families & TORCH:
        from npflow.verify.torch import check_torch

        return check_torch
    if families & JAX:
        from npflow.verify.jax import check_jax

        return check_jax
    if all(callable(getattr(subject, name, None)) for name in ("init", "forward", "inverse")):
        return check
    if callable(subject) and arguments and (callable(arguments[0]) or arguments[0] is None):
        return check_functions
    raise InputError(
        "expected a layer, a Flow, a transform of PyTorch or JAX, or two functions (forward, inverse), got "
        f"{in_short(subject)}"
    )


def _check_flow(flow, x, *, params=None, context=None, **options):
    """The report of the layer of a flow."""
    if context is None and flow.context_features:
        context = np.ones(flow.context_features)
    layer, context = flow.layer, flow.check_context(context, 1, np.dtype(np.float64))
    if params is not None:
        flow.check(params)
        params = to_host(params)
        context, params = in_units(params, context), params["layer"]
    if context is not None:
        layer = Given(layer, context[0].tolist())
    return check(layer, x, params=params, **options)
