"""The contract of a network, and two networks side by side."""

from dataclasses import dataclass

from numpy import ndarray
from numpy.random import Generator

from npflow.autodiff.gpu.devices import is_array
from npflow.autodiff.primitives import concatenate_last
from npflow.autodiff.program.frames import line_of
from npflow.description import Described, checked
from npflow.errors import InputError, in_short
from npflow.typing import Params

DEEPEST = 1000  # blocks: no deeper network is known, and each takes its time to initialize


class Network(Described):
    """A function with parameters that conditions a layer.

    A network is a frozen dataclass of hyper-parameters; its arrays live in `params`. A new network returns
    zeros, so that a layer conditioned by it starts as the identity.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from dataclasses import dataclass
    >>> from npflow.layers import AffineCoupling
    >>> from npflow.networks import Network
    >>> @dataclass(frozen=True)
    ... class Linear(Network):
    ...     def init(self, rng, x, outputs):
    ...         return {"weight": np.zeros((x.shape[-1], outputs), x.dtype)}
    ...
    ...     def apply(self, params, x):
    ...         return x @ params["weight"]
    >>> rng = np.random.default_rng(0)
    >>> layer, x = AffineCoupling(network=Linear()), rng.normal(size=(5, 4))
    >>> layer.init(rng, x)["weight"].shape  # log_scale and shift of two components, from the other two
    (2, 4)
    """

    def init(self, rng: Generator, x: ndarray, outputs: int) -> Params:
        """Draw parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
        x : ndarray, shape (n, ..., inputs)
            A batch like those the network will see. It sets the number of inputs and the dtype.
        outputs : int
            The number of output features or channels.

        Returns
        -------
        params : tree of ndarray
        """
        raise NotImplementedError

    def apply(self, params: Params, x: ndarray) -> ndarray:
        """Evaluate the network.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, ..., inputs)

        Returns
        -------
        ndarray, shape (n, ..., outputs)
        """
        raise NotImplementedError


def check_network(network, name):
    """Raise `InputError` unless `network` is an object with `init` and `apply`; return it."""
    methods = ("init", "apply")
    if isinstance(network, type) or not all(callable(getattr(network, method, None)) for method in methods):
        raise InputError(f"expected {name} to be an object with init and apply, got {network!r}")
    return network


def check_outputs(network, params, x, outputs, *context):
    """Raise `InputError` unless a network makes `outputs` numbers of each row of `x`. Two rows are tried.

    Otherwise the layer around it would fail in one of its own lines, or broadcast. `context` is what `apply` takes
    beside the rows, which may be None.
    """
    if isinstance(network, Beside):
        for name in ("log_scale", "shift"):
            check_outputs(getattr(network, name), params[name], x, outputs // 2)
    few = [array if array is None else array[:2] for array in (x, *context)]
    result, shape = network.apply(params, *few), (*few[0].shape[:-1], outputs)
    if not is_array(result) or result.shape != shape:
        got = f"shape {result.shape}" if is_array(result) else in_short(result)
        raise InputError(
            f"expected apply of {type(network).__name__} to return an array of shape {shape}, got {got}, "
            f"at {line_of(network.apply)}"
        )


def check_context(params, context):
    """Raise `InputError` unless a context is given exactly if the parameters have weights for it."""
    if "context" in params and context is None:
        raise InputError("expected a context, since the parameters were initialized with one, got none")
    if "context" not in params and context is not None:
        raise InputError("expected no context, since the parameters were initialized without one, got one")
    check_context_of_features(context)


def check_context_of_features(context):
    """Raise `InputError` if a context is images, where rows of features alone are taken."""
    if context is not None and context.ndim != 2:
        raise InputError(
            f"expected a context of rows of features, shape (n, features), got images of shape {context.shape}: "
            "couplings and AffineInjector take them"
        )


@dataclass(frozen=True)
class Beside(Network):
    """Two networks with the same input, whose outputs are concatenated; each gives half of them.

    Parameters
    ----------
    log_scale : Network
        Gives the first half of the outputs, which an `AffineCoupling` takes as log-scales.
    shift : Network
        Gives the second half.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.networks import Beside, MLP
    >>> rng = np.random.default_rng(0)
    >>> network = Beside(log_scale=MLP((8,), "tanh"), shift=MLP((16, 16)))
    >>> x = rng.standard_normal((5, 3))
    >>> network.apply(network.init(rng, x, outputs=4), x).shape
    (5, 4)
    """

    log_scale: Network = checked(check_network)
    shift: Network = checked(check_network)

    def init(self, rng, x, outputs):
        if outputs % 2:
            raise InputError(f"expected an even number of outputs for Beside, got {outputs}")
        return {
            "log_scale": self.log_scale.init(rng, x, outputs // 2),
            "shift": self.shift.init(rng, x, outputs // 2),
        }

    def apply(self, params, x):
        return concatenate_last(
            self.log_scale.apply(params["log_scale"], x),
            self.shift.apply(params["shift"], x),
        )
