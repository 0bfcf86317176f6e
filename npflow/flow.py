"""A flow: a layer and a prior, together a density with an exact log-probability and a sampler."""

import math
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import autograd.numpy as np
import numpy as onp
from autograd.tracer import getval
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import ndtr

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.autodiff.gpu.host_bound import draw, host_bound
from npflow.autodiff.mistakes import explain, explaining, pair_of, read_only
from npflow.autodiff.primitives import concatenate_last
from npflow.autodiff.program.chunks import map_rows
from npflow.autodiff.program.threads import one_blas_thread
from npflow.autodiff.tree import flattened
from npflow.description import checked, instance
from npflow.errors import ConvergenceError, InputError, kind_of
from npflow.layers import Layer, Reversible
from npflow.layers.composite import Visit, dry_run, name_of, uses_context, walk
from npflow.layers.layer import (
    check_keeps_shape,
    check_layer,
    check_results,
    check_start,
    domain_of,
    given,
    start_layer,
)
from npflow.layers.units import context_units, in_units
from npflow.model import Model, overflow_ignored, without_nan
from npflow.priors import Prior, check_drawn
from npflow.rations import SMALL, Rationed, TooLarge, ration_for
from npflow.summary import summary
from npflow.typing import Params
from npflow.validation import (
    cast,
    check_context,
    check_context_features,
    check_count,
    check_domain,
    check_dtype,
    check_instance,
    check_number,
    check_rng,
    check_rows,
    context_name,
    context_shape,
)


@dataclass(frozen=True)
class Flow(Model):
    r"""A layer and a prior.

    z, log_det = layer.forward(x)       log p(x) = log prior(z) + log_det

    A conditional flow has a density for each context, log p(x | context): its layers take the context.

    The parameters are a dict of those of the layer and the prior: ``{"layer": ..., "prior": ...}``. In a conditional
    flow a third entry, "context", holds the units of the context that `init` saw. The layers see a context in these
    units; see `npflow.layers.units.in_units`.

    All methods check their input, and say in one sentence what was expected and what came. They take arrays in the
    dtype of the parameters, and convert lists and integers to it; `init` converts them to float64. Many rows are
    evaluated in chunks that stay in the cache, so the layer and the prior must treat each row by itself.

    Parameters
    ----------
    layer : Layer
    prior : Prior
    context_features : int or tuple of int
        The number of features of a row of context, or (height, width, channels) where a context is an image, beside
        images; see `npflow.layers.layer.context_at`. With 0, the default, there is no context; otherwise every method
        takes one beside its rows: `context`, shape (n, context_features), or one row for all. Integers of shape (n,),
        or a single one, are classes: their context is one-hot.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow import Flow
    >>> from npflow.layers import ActNorm, AffineCoupling, Chain
    >>> from npflow.priors import Normal
    >>> flow = Flow(Chain([ActNorm(), AffineCoupling()]), Normal(2))
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(5, 3, (100, 2))
    >>> params = flow.init(rng, x)
    >>> flow.log_prob(params, x).shape, flow.sample(params, rng, 7).shape
    ((100,), (7, 2))
    """

    layer: Layer = checked(check_layer)
    prior: Prior = instance(Prior)
    context_features: int | tuple[int, int, int] = checked(check_context_features, 0)

    invertible = True

    def __post_init__(self):
        super().__post_init__()
        if self.context_features and not uses_context(
            self.layer, self.prior.event_shape, context_shape(self.context_features)
        ):
            raise InputError(
                f"expected a layer that takes a context, as context_features is {self.context_features}, got none in "
                f"{self.layer!r}"
            )
        try:
            hash(self)
        except TypeError as error:
            raise InputError(
                f"expected layers that are classes with @dataclass(frozen=True), of numbers, strings and tuples, got {error}"
            ) from error

    @property
    def domain(self):
        """The open interval that each component of x must lie in, that of the layer."""
        return domain_of(self.layer)

    @property
    def event_shape(self):
        """The shape of a row of x, and of z."""
        return self.prior.event_shape

    # ---------------------------------------------------------------- parameters

    def init(self, rng: Generator, x: ArrayLike, context: ArrayLike | None = None) -> Params:
        """Draw parameters, and start them on a batch.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        x : array_like, shape (n, *event)
            A batch like the training data. The parameters have its dtype; those of layers such as `ActNorm` depend on its
            values.
        context : array_like, shape (n, context features), optional
            For a conditional flow.

        Returns
        -------
        tree of ndarray
            They are computed on the host and live where `x` lives.

        Raises
        ------
        InputError
            If `x` or `context` does not fit the flow, or lies outside its `domain`; or if a layer or the prior breaks its
            contract.
        """
        check_rng(rng)
        x, context = self.check_batch(x, context)
        check_domain(x, self.domain)
        host = to_host(x if context is None else (x, context))
        params = self._init(rng, host) if context is None else self._init(rng, *host)
        return to_device(params, device_of(x).name)

    def _init(self, rng, x, context=None):
        with explaining():
            try:
                units = {} if context is None else {"context": context_units(context)}
                layer_params, z = start_layer(self.layer, rng, x, in_units(units, context))
                check_keeps_shape("the layer of a Flow", x, z)
            except InputError as error:
                raise error.inside("layer", self.layer) from error
            try:
                prior_params = self.prior.init(rng, z)
                check_start(self.prior.init, prior_params, z)
                method = self.prior.log_prob
                with onp.errstate(all="ignore"):
                    log_prob = method(read_only(prior_params), read_only(z))
                check_results(method, {"result": log_prob}, prior_params, z)
            except InputError as error:
                raise error.inside("prior", self.prior) from error
        return {"layer": layer_params, "prior": prior_params, **units}

    def check(self, params):
        kind, _ = flattened(params)
        layout = None if kind is None else LAYOUTS.get((self, kind))
        if layout is None:
            layout = self._check(params)
            if kind is not None:
                if len(LAYOUTS) >= KEPT_LAYOUTS:
                    LAYOUTS.clear()
                LAYOUTS[self, kind] = layout
        return layout

    def _check(self, params):
        names = ("layer", "prior", "context") if self.context_features else ("layer", "prior")
        if not isinstance(params, dict) or set(params) != set(names):
            got = f"one of {list(params)}" if isinstance(params, dict) else kind_of(params)
            *names, last = map(repr, names)
            raise InputError(
                f"expected the parameters of a flow, a dict of {', '.join(names)} and {last}, got {got}"
            )
        layout = Layout(params)
        check_dtype(layout.dtype)
        difference = difference_of_layouts(self, layout)
        if difference:
            raise InputError(
                f"expected the parameters of this flow, got another architecture's: {difference}"
            )
        return layout

    def check_batch(self, x, context=None, dtype=None, name="x"):
        x = check_rows(x, self.event_shape, dtype, name)
        return x, self.check_context(context, len(x), getval(x).dtype, context_name(name))

    def check_context(self, context, rows, dtype, name="context"):
        """The context of `rows` rows, or of any number of them, as an array; None where the flow takes none."""
        return check_context(context, self.context_features, rows, dtype, "a flow", name)

    # ---------------------------------------------------------------- the density

    def losses(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Compute -log p(x) of each row. It is pure arithmetic and checks nothing.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, *event)
        context : ndarray, shape (n, context features), optional

        Returns
        -------
        ndarray, shape (n,)
            In nats.
        """
        # As `_pair`, but without its frame on the way from `fit` to a layer.
        forward, context = self.layer.forward, in_units(params, context)
        z, log_det = pair_of(forward, forward(params["layer"], x, **given(self.layer, context)))
        log_prob = self.prior.log_prob(params["prior"], z) + log_det
        return -log_prob

    def loss(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> float:
        """Compute the mean of -log p(x) over a batch: what `fit` minimizes and a program records.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, *event)
        context : ndarray, shape (n, context features), optional

        Returns
        -------
        float
            In nats. It is pure arithmetic and checks nothing.
        """
        return np.sum(self.losses(params, x, context)) / len(x)

    def reversible(self):
        return replace(self, layer=Reversible(self.layer))

    def log_prob(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Compute log p(x) of each row.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, *event)
        context : array_like, shape (n, context features), optional
            For a conditional flow: a row for each row of `x`, or one for all, or classes.

        Returns
        -------
        ndarray, shape (n,)
            In nats. It is -inf outside the `domain`, and where a row is so far out that the layers overflow. A layer of
            your own that gives nan for ordinary rows gives -inf here too: `npflow.verify.check` tells why.

        Raises
        ------
        InputError
            If `params`, `x` or `context` does not fit the flow.
        """
        layout, x, context = self.checked(params, x, context)
        with overflow_ignored():
            log_prob = -self._map_rows(self.losses, params, read_only(x), context, "forward")
        return without_nan(log_prob, layout, params)

    # ---------------------------------------------------------------- x and z

    def sample(
        self,
        params: Params,
        rng: Generator,
        n: int,
        context: ArrayLike | None = None,
        temperature: float = 1.0,
    ) -> ndarray:
        """Draw rows of x: z from the prior, then the inverse of the layer.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
            On a GPU it seeds a generator of the GPU, whose draws are reproducible and differ from those of the host.
        n : int
            The number of rows.
        context : array_like, shape (n, context features), optional
            For a conditional flow: a row for each draw, or one for all.
        temperature : float
            T, at least 0, multiplies z where the prior is a standard normal. That draws z from p(z)^(1/T^2), normalized:
            below 1 samples are closer to each other and more likely, at 0 all are the x of z = 0. Other priors draw z T
            times as far from its mean, a mixture from the mean of each component.

        Returns
        -------
        ndarray, shape (n, *event)
            In the dtype of the parameters, and where they live.

        Raises
        ------
        InputError
            If an argument cannot be used, or `params` are another flow's.
        ConvergenceError
            If the inverse of a layer is an iteration that does not converge.

        References
        ----------
        Kingma & Dhariwal 2018, Glow, section 6, after Parmar et al. 2018, Image transformer.
        """
        temperature = check_number(temperature, "temperature", least=0)
        z, context = self._draw(params, rng, n, context, temperature)
        return self._map_rows(self._decode, params, z, context, "inverse")

    def sample_and_log_prob(
        self, params: Params, rng: Generator, n: int, context: ArrayLike | None = None
    ) -> tuple[ndarray, ndarray]:
        """Draw rows of x, with log p(x) of each.

        log p(x) = log prior(z) - log|det dx/dz| comes from the z that x was made of, without `forward`. For an inverse
        autoregressive flow, whose `forward` takes one pass for each feature, that is much faster.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
            The number of rows.
        context : array_like, shape (n, context features), optional
            For a conditional flow: a row for each draw, or one for all.

        Returns
        -------
        x : ndarray, shape (n, *event)
        log_prob : ndarray, shape (n,)
            In nats.

        Raises
        ------
        InputError, ConvergenceError
            As `sample`.
        """
        z, context = self._draw(params, rng, n, context)
        both = self._map_rows(self._sample_log_prob, params, z, context, "inverse")
        return np.reshape(both[:, :-1], z.shape), both[:, -1]

    def encode(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Map x to z.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, *event)
        context : array_like, shape (n, context features), optional

        Returns
        -------
        ndarray, shape (n, *event)
            z, distributed as the prior where x is distributed as the flow.

        Raises
        ------
        InputError
            If `params`, `x` or `context` does not fit the flow.
        """
        _, x, context = self.checked(params, x, context)
        return self._map_rows(self._encode, params, x, context, "forward")

    def decode(self, params: Params, z: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Map z to x, the inverse of `encode`.

        Parameters
        ----------
        params : tree of ndarray
        z : array_like, shape (n, *event)
        context : array_like, shape (n, context features), optional

        Returns
        -------
        ndarray, shape (n, *event)
            x.

        Raises
        ------
        InputError
            If `params`, `z` or `context` does not fit the flow.
        ConvergenceError
            If the inverse of a layer is an iteration that does not converge.
        """
        _, z, context = self.checked(params, z, context, "z")
        return self._map_rows(self._decode, params, z, context, "inverse")

    def _draw(self, params, rng, n, context, temperature=1.0):
        """`n` draws of z, and the context of each."""
        n = check_count(n, "the number of samples")
        check_rng(rng)
        dtype = self.check(params).dtype
        cast(temperature, dtype, "expected temperature")
        context = self.check_context(context, n, dtype)
        with explaining():
            z = draw(self.prior, params["prior"], rng, n, dtype, device_of(params), temperature)
        check_drawn(self.prior, z, (n, *self.event_shape), dtype)
        return z, context

    def _encode(self, params, x, context=None):
        return self._pair(self.layer.forward, params, x, context)[0]

    def _decode(self, params, z, context=None):
        return self._pair(self.layer.inverse, params, z, context)[0]

    def _pair(self, method, params, x, context):
        return pair_of(method, method(params["layer"], x, **given(self.layer, in_units(params, context))))

    def decode_with_log_prob(
        self, params: Params, z: ArrayLike, context: ArrayLike | None = None
    ) -> tuple[ndarray, ndarray]:
        """Map z to x, with log p(x). It is pure arithmetic and checks nothing.

        Parameters
        ----------
        params : tree of ndarray
        z : ndarray, shape (n, *event)
        context : ndarray, shape (n, context features), optional

        Returns
        -------
        x : ndarray, shape (n, *event)
        log_prob : ndarray, shape (n,)
            In nats.
        """
        x, log_det = self._pair(self.layer.inverse, params, z, context)
        return x, self.prior.log_prob(params["prior"], z) - log_det

    def _sample_log_prob(self, params, z, context=None):
        x, log_prob = self.decode_with_log_prob(params, z, context)
        return concatenate_last(np.reshape(x, (len(x), -1)), np.reshape(log_prob, (-1, 1)))

    def _map_rows(self, method, params, x, context, direction):
        arrays = {"x" if direction == "forward" else "z": x}
        if context is not None:
            arrays["context"] = context
        visits = lambda params, *batch: self.visits(params, *batch, direction=direction)
        try:
            with named_errors(visits, params, *arrays.values()):
                return map_rows(method, params, *arrays.values())
        except Exception:
            device_of({"params": params, **arrays})  # raises where they are on several devices
            raise

    # ---------------------------------------------------------------- to look inside

    def visits(self, params, x, context=None, direction="forward", path=""):
        """Each layer on the way from x to z, and the prior; or each layer on the way from z to x."""
        context = in_units(params, context)
        z = yield from walk(self.layer, params["layer"], x, direction, context, f"{path}layer")
        if direction == "forward":
            name = name_of(f"{path}prior", self.prior)
            yield Visit(name, self.prior.log_prob, (params["prior"], z))
        return z

    def __repr__(self):
        lines = f"layer={self.layer!r},\nprior={self.prior!r},"
        if self.context_features:
            lines += f"\ncontext_features={self.context_features},"
        return f"Flow(\n{textwrap.indent(lines, '    ')}\n)"

    def _repr_html_(self):
        return summary(self)._repr_html_()


def check_unconditional(flow, name):
    """Raise unless `flow` is a flow without a context; return it."""
    check_instance(flow, Flow, name)
    if flow.context_features:
        raise InputError(
            f"expected {name} to be a flow without a context, got context_features={flow.context_features}"
        )
    return flow


@contextmanager
def named_errors(visits, *arguments):
    """Errors of a pass name the layer that they come from; ``visits(*arguments)`` goes through the pass again."""
    try:
        yield
    except ConvergenceError as error:
        raise ConvergenceError(f"{first_lost(visits(*arguments))}: {error}") from error
    except Exception as error:
        named = host_bound(error, visits, *arguments) or explain(error)
        if named is error:
            raise
        raise named from error


AT_ONCE = 2**24  # numbers of noise that are drawn at a time


def estimates_of(model, params, x, context, rng, draws):
    """Yield a noisy model's estimates of log p(x) for some rows at a time: a list with an array for each draw."""
    layout, x, context = model.checked(params, x, context)
    there = device_of({"params": params, "x": x, "context": context}).generator(rng)
    arrays = (x,) if context is None else (x, context)
    numbers = sum(array.size for array in model.scoring_noise(onp.random.default_rng(0), 1, layout.dtype))
    rows = max(1, AT_ONCE // max(1, numbers))
    for start in range(0, len(x), rows):
        chunk, found = [array[start : start + rows] for array in arrays], []
        for _ in range(draws):
            batch = (*chunk, *model.scoring_noise(there, len(chunk[0]), layout.dtype))
            with overflow_ignored(), named_errors(model.visits, params, *batch):
                found.append(without_nan(-map_rows(model.losses, params, *batch), layout, params))
        yield found


def first_lost(visits):
    """The name of the first of the visits whose iteration does not converge."""
    for visit in visits:
        try:
            visit.result  # noqa: B018 (it computes)
        except ConvergenceError:
            return visit.name
    return None


# ---------------------------------------------------------------- what the parameters of a flow look like

# The layouts of trees that `Flow.check` has passed, by the flow and the kind of the tree: each request for one row asks
# again.
LAYOUTS, KEPT_LAYOUTS = {}, 64


def difference_of_layouts(flow, layout):
    """A sentence on the first place where parameters of a layout are not those of a flow, or None.

    Shapes are compared with those that `init` gives, without applying a layer. Where they differ, `init` itself
    has the last word: a user's layer may rearrange rows without an `output_shape`, refuse noise, or have as
    many parameters as it sees rows. `init` gets a ration that goes by the size of the layout, as a file may describe
    an architecture of any size.
    """
    ration = ration_for(flow, layout)
    expected = layout_without_a_pass(flow, ration)
    difference = None if expected is None else expected.difference(layout)
    if expected is None or difference:
        expected = layout_of_init(flow, ration)
        difference = None if expected is None else expected.difference(layout)
    return difference


@lru_cache(maxsize=64)
def layout_without_a_pass(flow, ration=SMALL):
    """The layout of a flow's parameters, from `init` of its layers on noise; None where they refuse noise."""
    rng = Rationed(ration)
    init = lambda layer, x, context, _: layer.init(rng, x, **given(layer, context))
    try:
        x, *context = _noise(flow, 4)
        with one_blas_thread(), onp.errstate(all="ignore"):
            params, z = dry_run(flow.layer, x, init, context=context[0] if context else None)
            units = {"context": context_units(context[0])} if context else {}
            return Layout({"layer": params, "prior": flow.prior.init(rng, z), **units})
    except TooLarge:
        raise
    except Exception:
        return None


@lru_cache(maxsize=64)
def layout_of_init(flow, ration=SMALL):
    """The layout of a flow's parameters, from initializing it on noise; None where noise cannot tell."""
    try:
        with one_blas_thread(), onp.errstate(all="ignore"):
            few, more = (Layout(flow._init(Rationed(ration), *_noise(flow, rows))) for rows in (4, 5))
    except TooLarge:
        raise
    except Exception:
        return None
    return few if few.difference(more) is None else None


def _noise(flow, rows):
    """Rows of noise in the shape and the domain of x, and of the context where the flow takes one."""
    shapes = [flow.event_shape] + [context_shape(flow.context_features)] * bool(flow.context_features)
    if rows * sum(map(math.prod, shapes)) > SMALL:
        raise ValueError("rows too large for noise")
    rng = onp.random.default_rng(0)
    x, *context = (rng.standard_normal((rows, *shape)) for shape in shapes)
    low, high = flow.domain
    return [low + (high - low) * ndtr(x) if onp.isfinite(high - low) else x, *context]
