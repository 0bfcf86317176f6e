"""A flow: a layer and a prior, together a density with an exact log-probability and a sampler."""

import textwrap
from dataclasses import dataclass
from functools import lru_cache

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import Layout, tree
from npflow.autodiff.chunks import map_rows
from npflow.autodiff.devices import device_of, to_device, to_host
from npflow.culprit import draw, host_bound
from npflow.description import Described
from npflow.errors import InputError
from npflow.layers import Layer
from npflow.layers.layer import check_layer
from npflow.priors import Prior
from npflow.validation import check_count, check_rng, check_rows


@dataclass(frozen=True)
class Flow(Described):
    r"""A layer and a prior.

    z, log_det = layer.forward(x)       log p(x) = log prior(z) + log_det

    The parameters are a dict of the layer's and the prior's: ``{"layer": ..., "prior": ...}``. All
    methods check their input first, and say in one sentence what was expected and what came. Many rows
    are worked off in chunks that stay in the cache; so the layer and the prior treat each row by itself.

    Parameters
    ----------
    layer : Layer
    prior : Prior

    Examples
    --------
    >>> from npflow.layers import ActNorm, AffineCoupling, Chain
    >>> from npflow.priors import Normal
    >>> flow = Flow(Chain([ActNorm(), AffineCoupling()]), Normal(2))
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(5, 3, (100, 2))
    >>> params = flow.init(rng, x)
    >>> flow.log_prob(params, x).shape, flow.sample(params, rng, 7).shape
    ((100,), (7, 2))
    """

    layer: Layer
    prior: Prior

    def __post_init__(self):
        check_layer(self.layer, "the layer of a Flow")
        if not isinstance(self.prior, Prior):
            raise InputError(f"expected a prior from npflow.priors, got {self.prior!r}")
        try:
            hash(self)
        except TypeError as error:
            raise InputError(
                f"expected layers that are frozen dataclasses of numbers, strings and tuples, got {error}"
            ) from error

    def init(self, rng, x):
        """Parameters in the dtype of `x`, drawn from `rng`, started on the batch `x`, shape (n, *event).

        They are worked out on the host, and live where `x` lives.
        """
        check_rng(rng)
        check_rows(x, self.prior.event_shape)
        return to_device(self._init(rng, to_host(x)), device_of(x).name)

    def _init(self, rng, x):
        try:
            layer_params = self.layer.init(rng, x)
            z, log_det = self.layer.forward(layer_params, x)
        except InputError as error:
            raise error.inside("layer", self.layer) from error
        if np.shape(log_det) != (len(x),):
            raise InputError(
                f"expected the layer's log_det to have shape ({len(x)},), one number for each row, "
                f"got {np.shape(log_det)}; npflow.verify.check tells more"
            )
        params = {"layer": layer_params, "prior": self.prior.init(rng, z)}
        for path, leaf in tree.items(params):
            if tree.is_trained(leaf) and leaf.dtype != x.dtype:
                raise InputError(
                    f"expected init to give parameters in the dtype of x, {x.dtype}, got {leaf.dtype} at {path!r}: "
                    "make them with dtype=x.dtype"
                )
        return params

    def log_prob(self, params, x):
        """log p(x) in nats, shape (n,), for rows of shape (n, *event)."""
        self.check(params, x)
        return self._map_rows(self._log_prob, params, x, "forward")

    def _log_prob(self, params, x):
        z, log_det = self.layer.forward(params["layer"], x)
        return self.prior.log_prob(params["prior"], z) + log_det

    def _encode(self, params, x):
        return self.layer.forward(params["layer"], x)[0]

    def _decode(self, params, z):
        return self.layer.inverse(params["layer"], z)[0]

    def nll(self, params, x):
        """The mean negative log-likelihood of a batch, in nats: the loss that `fit` minimizes.

        Unlike the other methods it checks nothing, so that it is nothing but its arithmetic.
        """
        return -np.sum(self._log_prob(params, x)) / len(x)

    def sample(self, params, rng, n):
        """`n` draws of x, shape (n, *event): z from the prior, through the layer's inverse.

        They are made where the parameters live. On a GPU the random numbers come from a generator of the
        GPU's, which a number drawn from `rng` starts: they repeat themselves, and are others than the host's.
        """
        check_count(n, "the number of samples")
        check_rng(rng)
        self.check(params)
        z = draw(self.prior, params["prior"], rng, n, dtype_of(params), device_of(params))
        return self._map_rows(self._decode, params, z, "inverse")

    def encode(self, params, x):
        """z of x, both of shape (n, *event)."""
        self.check(params, x)
        return self._map_rows(self._encode, params, x, "forward")

    def decode(self, params, z):
        """x of z, both of shape (n, *event)."""
        self.check(params, z, "z")
        return self._map_rows(self._decode, params, z, "inverse")

    def _map_rows(self, method, params, x, direction):
        device_of({"params": params, "x" if direction == "forward" else "z": x})  # one, or its sentence
        try:
            return map_rows(method, params, x)
        except Exception as error:
            named = host_bound(error, self, params, x, direction)
            if named is None:
                raise
            raise named from error

    def check(self, params, x=None, name="x"):
        """Raise `InputError` unless `params` are this flow's, and `x` a batch of their dtype."""
        if not isinstance(params, dict) or set(params) != {"layer", "prior"}:
            got = f"one of {list(params)}" if isinstance(params, dict) else f"a {type(params).__name__}"
            raise InputError(f"expected the parameters of a flow, a dict of 'layer' and 'prior', got {got}")
        layout = Layout(params)
        expected = expected_layout(self)
        difference = expected and expected.difference(layout)
        if difference:
            raise InputError(
                f"expected the parameters of this flow, got another architecture's: {difference}"
            )
        if x is not None:
            check_rows(x, self.prior.event_shape, layout.dtype if layout.size else None, name)

    def __repr__(self):
        lines = f"layer={self.layer!r},\nprior={self.prior!r},"
        return f"Flow(\n{textwrap.indent(lines, '    ')}\n)"


def dtype_of(params):
    """The dtype of a parameter tree."""
    return Layout(params).dtype


@lru_cache(maxsize=64)
def expected_layout(flow):
    """The layout of a flow's parameters, from initializing it on noise; None where noise cannot tell.

    A layer may refuse noise (its domain is bounded), or have as many parameters as it sees rows.
    """
    rng = onp.random.default_rng(0)
    try:
        with onp.errstate(all="ignore"):
            few, more = (
                Layout(flow._init(rng, rng.standard_normal((rows, *flow.prior.event_shape))))
                for rows in (4, 5)
            )
    except Exception:
        return None
    return few if few.difference(more) is None else None
