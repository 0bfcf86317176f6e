"""A flow: a layer and a prior, together a density with an exact log-probability and a sampler."""

import textwrap
from dataclasses import dataclass
from functools import lru_cache

import autograd.numpy as np
import numpy as onp
from autograd.tracer import getval

from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.autodiff.primitives import concatenate_last
from npflow.autodiff.program.chunks import map_rows
from npflow.autodiff.program.threads import one_blas_thread
from npflow.culprit import draw, first_lost, first_non_finite, host_bound
from npflow.errors import ConvergenceError, InputError
from npflow.layers import Layer
from npflow.layers.layer import check_keeps_shape, check_layer, given, uses_context
from npflow.model import Model
from npflow.priors import Prior
from npflow.validation import check_context, check_count, check_number, check_rng, check_rows


@dataclass(frozen=True)
class Flow(Model):
    r"""A layer and a prior.

    z, log_det = layer.forward(x)       log p(x) = log prior(z) + log_det

    A conditional flow has a density for each context, log p(x | context): its layers are conditioned by it.

    The parameters are a dict of the layer's and the prior's: ``{"layer": ..., "prior": ...}``. All
    methods check their input first, and say in one sentence what was expected and what came. Many rows
    are worked off in chunks that stay in the cache; so the layer and the prior treat each row by itself.

    Parameters
    ----------
    layer : Layer
    prior : Prior
    context_features : int
        How many numbers a row of context has. By default there is none; where there is, every method takes one
        beside its rows: `context`, shape (n, context_features).

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
    context_features: int = 0

    def __post_init__(self):
        check_layer(self.layer, "the layer of a Flow")
        count = check_count(self.context_features, "a Flow's context_features", least=0)
        object.__setattr__(self, "context_features", count)
        if count and not uses_context(self.layer):
            raise InputError(
                f"expected a layer that takes a context, as context_features is {count}, got none in {self.layer!r}"
            )
        if not isinstance(self.prior, Prior):
            raise InputError(f"expected a prior from npflow.priors, got {self.prior!r}")
        try:
            hash(self)
        except TypeError as error:
            raise InputError(
                f"expected layers that are frozen dataclasses of numbers, strings and tuples, got {error}"
            ) from error

    def init(self, rng, x, context=None):
        """Parameters in the dtype of `x`, drawn from `rng`, started on the batch `x`, shape (n, *event).

        They are worked out on the host, and live where `x` lives.
        """
        check_rng(rng)
        check_rows(x, self.prior.event_shape)
        self.check_context(context, len(x), x.dtype)
        host = to_host(x if context is None else (x, context))
        params = self._init(rng, host) if context is None else self._init(rng, *host)
        return to_device(params, device_of(x).name)

    def _init(self, rng, x, context=None):
        beside = given(self.layer, context)
        try:
            layer_params = self.layer.init(rng, x, **beside)
            z, log_det = self.layer.forward(layer_params, x, **beside)
            check_keeps_shape("the layer of a Flow", x, z)
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

    def log_prob(self, params, x, context=None):
        """log p(x) in nats, shape (n,), for rows of shape (n, *event)."""
        self.check(params, x, context=context)
        return self._map_rows(self._log_prob, params, x, context, "forward")

    def _log_prob(self, params, x, context=None):
        z, log_det = self.layer.forward(params["layer"], x, **given(self.layer, context))
        return self.prior.log_prob(params["prior"], z) + log_det

    def _encode(self, params, x, context=None):
        return self.layer.forward(params["layer"], x, **given(self.layer, context))[0]

    def _decode(self, params, z, context=None):
        return self.layer.inverse(params["layer"], z, **given(self.layer, context))[0]

    def _sample_log_prob(self, params, z, context=None):
        x, log_det = self.layer.inverse(params["layer"], z, **given(self.layer, context))
        log_prob = self.prior.log_prob(params["prior"], z) - log_det
        return concatenate_last(np.reshape(x, (len(x), -1)), np.reshape(log_prob, (-1, 1)))

    def nll(self, params, x, context=None):
        """The mean negative log-likelihood of a batch, in nats: the loss that `fit` minimizes.

        Unlike the other methods it checks nothing, so that it is nothing but its arithmetic.
        """
        return -np.sum(self._log_prob(params, x, context)) / len(x)

    loss = nll

    def row_losses(self, params, x, context=None):
        """The negative log-likelihood of each row, in nats, shape (n,); unlike `log_prob` it checks nothing."""
        return -self._log_prob(params, x, context)

    def losses(self, params, x, context=None):
        """The negative log-likelihood of each row, in nats, shape (n,)."""
        return -self.log_prob(params, x, context)

    def sample(self, params, rng, n, context=None, temperature=1.0):
        """`n` draws of x, shape (n, *event): z from the prior, through the layer's inverse.

        They are made where the parameters live. On a GPU the random numbers come from a generator of the
        GPU's, which a number drawn from `rng` starts: they repeat themselves, and are others than the host's.
        A `context` has a row for each draw.

        The `temperature` T, from 0 on, multiplies z, where the prior is a standard normal. That draws z from p(z)^(1/T^2),
        made to integrate to one: below 1 samples are nearer to each other and to what is likeliest, at 0 all are the x
        of z = 0. Other priors draw z T times as far from their mean, a mixture from the mean of each component.

        Source: Kingma & Dhariwal 2018, Glow, section 6, after Parmar et al. 2018, Image transformer.
        """
        temperature = check_number(temperature, "temperature", least=0)
        z = self._draw(params, rng, n, context, temperature)
        return self._map_rows(self._decode, params, z, context, "inverse")

    def sample_and_log_prob(self, params, rng, n, context=None):
        """`n` draws of x, shape (n, *event), and their log p(x), shape (n,), by way of the z that they were made of.

        log p(x) = log prior(z) - log|det dx/dz|, so that no x goes back through `forward`: of an inverse
        autoregressive flow that takes one pass a feature, its own samples' density none beside the sampling.
        """
        z = self._draw(params, rng, n, context)
        both = self._map_rows(self._sample_log_prob, params, z, context, "inverse")
        return np.reshape(both[:, :-1], z.shape), both[:, -1]

    def _draw(self, params, rng, n, context, temperature=1.0):
        check_count(n, "the number of samples")
        check_rng(rng)
        dtype = self.check(params).dtype
        self.check_context(context, n, dtype)
        return draw(self.prior, params["prior"], rng, n, dtype, device_of(params), temperature)

    def encode(self, params, x, context=None):
        """z of x, both of shape (n, *event)."""
        self.check(params, x, context=context)
        return self._map_rows(self._encode, params, x, context, "forward")

    def decode(self, params, z, context=None):
        """x of z, both of shape (n, *event)."""
        self.check(params, z, "z", context)
        return self._map_rows(self._decode, params, z, context, "inverse")

    def _map_rows(self, method, params, x, context, direction):
        arrays = {"x" if direction == "forward" else "z": x}
        if context is not None:
            arrays["context"] = context
        device_of({"params": params, **arrays})  # one, or its sentence
        try:
            return map_rows(method, params, *arrays.values())
        except ConvergenceError as error:
            place = first_lost(self.layer, params["layer"], x, direction=direction, context=context)
            raise ConvergenceError(f"{place}: {error}") from error
        except Exception as error:
            named = host_bound(error, self, params, x, direction, context)
            if named is None:
                raise
            raise named from error

    def host_bound(self, error, params, x, context=None):
        """The error that names what cannot compute on a device, where an error came; None if it is another."""
        return host_bound(error, self, params, x, context=context)

    def explain(self, params, x, context=None):
        """What is the first to be not finite where a loss is not, as the end of a sentence."""
        culprit = first_non_finite(self.layer, params["layer"], x, context=context)
        if culprit is None:
            return "every layer's output is finite, the prior's is not"
        return f"the first output not finite is that of {culprit}"

    def check(self, params, x=None, name="x", context=None):
        """The layout of `params`.

        Raises
        ------
        InputError
            Unless they are this flow's, and `x` and `context` rows of their dtype.
        """
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
            self.check_context(context, len(x), getval(x).dtype)
        return layout

    def check_context(self, context, rows, dtype):
        """Raise `InputError` unless there is a row of context for each of so many rows, where this flow takes one."""
        check_context(context, self.context_features, rows, dtype, "a flow")

    def __repr__(self):
        lines = f"layer={self.layer!r},\nprior={self.prior!r},"
        if self.context_features:
            lines += f"\ncontext_features={self.context_features},"
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
        with one_blas_thread(), onp.errstate(all="ignore"):
            few, more = (Layout(flow._init(rng, *_noise(flow, rng, rows))) for rows in (4, 5))
    except Exception:
        return None
    return few if few.difference(more) is None else None


def _noise(flow, rng, rows):
    """Rows of noise in the shape of a flow's x, and of its context where it takes one."""
    shapes = [flow.prior.event_shape] + [(flow.context_features,)] * bool(flow.context_features)
    return [rng.standard_normal((rows, *shape)) for shape in shapes]
