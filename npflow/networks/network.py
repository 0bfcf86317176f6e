"""The contract of a network, and two networks side by side."""

from dataclasses import dataclass

from npflow.autodiff.primitives import concatenate_last
from npflow.description import Described
from npflow.errors import InputError


class Network(Described):
    """A function of an array with parameters: what layers compute with that are conditioned by it.

    A network is a frozen dataclass of hyper-parameters; its arrays live in `params`. A new network gives
    zeros, so that a layer conditioned by it starts as the identity.
    """

    def init(self, rng, x, outputs):
        """Parameters for inputs like `x`, shape (n, ..., inputs), and `outputs` features or channels."""
        raise NotImplementedError

    def apply(self, params, x):
        """The network's value: shape (n, ..., inputs) gives (n, ..., outputs)."""
        raise NotImplementedError


def check_network(network, name):
    """Raise unless `network` is an object with the methods of a network; return it."""
    methods = ("init", "apply")
    if isinstance(network, type) or not all(callable(getattr(network, method, None)) for method in methods):
        raise InputError(f"expected {name} to be an object with init and apply, got {network!r}")
    return network


def check_context(layer, context):
    """Raise unless there is a context where the parameters of a first layer were made for one."""
    if ("context" in layer) != (context is not None):
        made, got = ("with", "none") if context is None else ("without", "one")
        raise InputError(f"expected parameters and rows with or without a context, got parameters made {made} "
                         f"a context and {got}")  # fmt: skip


@dataclass(frozen=True)
class Beside(Network):
    """Two networks of the same input, their outputs side by side: half the outputs come from each.

    `AffineCoupling(Beside(log_scale=..., shift=...))` has a scale network and a shift network of their own.
    """

    log_scale: Network
    shift: Network

    def __post_init__(self):
        check_network(self.log_scale, "Beside's log_scale")
        check_network(self.shift, "Beside's shift")

    def init(self, rng, x, outputs):
        if outputs % 2:
            raise InputError(
                f"expected an even number of outputs to share between two networks, got {outputs}"
            )
        return {
            "log_scale": self.log_scale.init(rng, x, outputs // 2),
            "shift": self.shift.init(rng, x, outputs // 2),
        }

    def apply(self, params, x):
        return concatenate_last(
            self.log_scale.apply(params["log_scale"], x),
            self.shift.apply(params["shift"], x),
        )
