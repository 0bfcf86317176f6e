"""The divergence of a flow from a density that is known up to a constant, as a model to train."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as onp
from autograd.extend import defvjp, primitive

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import device_of, fetch
from npflow.autodiff.primitives import held, spread_event
from npflow.description import checked, describe, flag, instance
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers.composite import Visit, name_of
from npflow.model import Model
from npflow.priors import check_drawn
from npflow.validation import check_callable, context_shape


class OwnSamples(Model):
    """A flow that learns from its own samples: the loss of x is log q(x) - log p~(x), with q the flow's density.

    log q(x) = log prior(z) - log|det dx/dz| comes from the z that x was made of, so that no x goes back through the
    flow. x is a differentiable function of the flow's parameters, so the gradient goes through both terms.

    A subclass has the `flow` and `log_target(x, context)`, what it calls the flow, and what comes before the names of
    its layers.
    """

    noisy = True
    takes_rows = False
    role, path = "flow", ""

    def log_target(self, x, context):
        """log p~(x) of each row, shape (n,)."""
        raise NotImplementedError

    def check(self, params):
        layout = self.flow.check(params)
        if any(tree.items(params["prior"])):
            raise InputError(
                f"expected a {self.role} with a fixed prior, as z is drawn before the gradient is taken, got "
                f"{self.flow.prior!r}; an Affine as the last layer does what a trained mean and standard deviation of "
                "z do"
            )
        return layout

    def check_batch(self, x, context=None, dtype=None, name="x"):
        if x is not None:
            raise InputError(f"expected no rows, as a {self.role} learns from its own samples, got some")
        return x, self.flow.check_context(context, None, dtype)

    def noise(self, rng, rows, dtype):
        prior = self.flow.prior
        z = prior.sample({}, rng, rows, dtype)
        check_drawn(prior, z, (rows, *self.flow.event_shape), dtype)
        return (z,)

    def losses(self, params, *batch):
        z, context = parts(batch)
        x, log_q = self.flow.decode_with_log_prob(params, z, context)
        return log_q - self.log_target(x, context)

    def visits(self, params, *batch):
        """Each layer of the flow on the way from z to x, and its prior; returns x and the context."""
        z, context = parts(batch)
        x = yield from self.flow.visits(params, z, context, "inverse", self.path)
        prior = self.flow.prior
        yield Visit(name_of(f"{self.path}prior", prior), prior.log_prob, (params["prior"], z))
        return x, context

    @property
    def learned(self):
        """The flow."""
        return self.flow


def parts(batch):
    """z and the context of a batch, None where there is none."""
    *context, z = batch
    return z, context[0] if context else None


@dataclass(frozen=True, eq=False)
class ReverseKL(OwnSamples):
    r"""The Kullback-Leibler divergence of a flow from a density that is known up to a constant; no data is needed.

    E_z[log q(x) - log p~(x)] = KL(q || p) - log Z,     x = flow(z),  z ~ the prior,  p = p~ / Z

    This is variational inference: minus the loss is the evidence lower bound, and Z is the evidence where p~ is
    likelihood times prior. Pass it to `fit` in place of a flow, without rows:
    ``fit(ReverseKL(flow, log_density), params, None, rng=rng, steps=...)``.

    The divergence is large where the flow has samples and p has none, not where the flow misses a part of p. A flow
    that starts beside one of several modes may stay there, and its loss is only log(1 / share) higher. So start
    wide: ``flow.init(rng, x)`` with x drawn from a normal density that covers all of p, such as
    ``scale * rng.standard_normal((256, features))``. `npflow.training.importance_sample` tells how good the result is.

    A step goes from z to x, so a flow is fast whose `inverse` is: a coupling, an `iaf`, or any layer turned round,
    ``Flow(Inverse(layer), prior)``.

    Parameters
    ----------
    flow : Flow
        q, with a prior that has no parameters: z is noise, drawn before the gradient is taken.
    log_density : callable
        ``log_density(x)`` is log p~ of each row in nats, shape (n,), up to a constant; written with `autograd.numpy`
        unless there is a `score`. For a conditional flow ``log_density(x, context)``.
    score : callable, optional
        ``score(x)`` is the gradient of log p~ in x, in the shape of x. With it both functions are plain ones, with any
        code inside; their results are cast to the dtype of x. They see NumPy's arrays wherever the flow is trained.
        For a conditional flow ``score(x, context)``.
    path_gradient : bool
        Whether the gradient of log q(x) goes through x alone, not through the parameters of q, whose part has mean 0.
        Then the gradient of every sample is 0 where q is p, so that training settles there; without it the noise of the
        gradient stays, and leaves q some way from p. Far from a density with sharp edges it may fail, so begin with the
        other one, or with a flatter density. It takes a pass of x through the flow's `forward`, with the
        parameters held, so leave it False where that is slow, as for an `iaf`.

    References
    ----------
    Rezende, Mohamed: Variational inference with normalizing flows, 2015, section 4. https://arxiv.org/abs/1505.05770

    Roeder, Wu, Duvenaud: Sticking the landing, 2017, for the path gradient. https://arxiv.org/abs/1703.09194

    Papamakarios et al.: Normalizing flows for probabilistic modeling and inference, 2021, section 2.3.2.
    https://arxiv.org/abs/1912.02762

    Examples
    --------
    A standard normal density without its constant, so that log Z is log(2 pi) = 1.84:

    >>> import autograd.numpy as np
    >>> import npflow
    >>> from npflow.models import ReverseKL
    >>> from npflow.training import Adam
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.Flow(npflow.layers.Affine(), npflow.priors.Normal(2))
    >>> params = flow.init(rng, 3 * rng.standard_normal((256, 2)))
    >>> model = ReverseKL(flow, lambda x: -0.5 * np.sum(x**2, axis=1), path_gradient=True)
    >>> options = {"steps": 300, "optimizer": Adam(0.03), "progress": False}
    >>> params, history = npflow.fit(model, params, None, rng=rng, **options)
    >>> round(-history.loss[-1], 2)
    1.84
    """

    flow: Flow = instance(Flow)
    log_density: Callable = checked(check_callable)
    score: Callable | None = checked(check_callable, None)
    path_gradient: bool = flag(False)

    def losses(self, params, *batch):
        if not self.path_gradient:
            return super().losses(params, *batch)
        z, context = parts(batch)
        x, _ = self.flow.decode_with_log_prob(params, z, context)
        fixed = tree.build(lambda path, leaf: held(leaf), params)
        return -self.flow.losses(fixed, x, context) - self.log_target(x, context)

    def log_target(self, x, context):
        where = (x,) if context is None else (x, context)
        if self.score is None:
            return in_shape(self.log_density(*where), x.shape[:1], "log_density")
        return given_log_density(*where, log_density=self.log_density, score=self.score)

    def reversible(self):
        return replace(self, flow=self.flow.reversible())

    def visits(self, params, *batch):
        """Each layer of the flow on the way from z to x, its prior, and the density of x."""
        x, context = yield from super().visits(params, *batch)
        yield Visit("log_density", lambda x: self.log_target(x, context), (x,))

    def settings(self):
        """The flow; a function can not be described, so the density is known by its values at a few points."""
        rng = onp.random.default_rng(0)
        x = self.flow.prior.sample({}, rng, 8)
        wide = (
            rng.standard_normal((8, *context_shape(self.flow.context_features)))
            if self.flow.context_features
            else None
        )
        with onp.errstate(all="ignore"):
            values = fetch(self.log_target(x, wide))
        return {
            "flow": describe(self.flow),
            "log_density": [f"{value:.5g}" for value in values],
            "path_gradient": self.path_gradient,
        }


# ---------------------------------------------------------------- a density with a given gradient


@primitive
def given_log_density(x, *context, log_density, score):
    """log p~(x) by a plain function, in the dtype and on the device of x; its derivative in x is the `score`."""
    return in_shape(called(log_density, x, context), x.shape[:1], "log_density")


@primitive
def given_score(x, *context, score):
    """The gradient of log p~ by a plain function; it has no derivative of its own."""
    return in_shape(called(score, x, context), x.shape, "score")


def called(function, x, context):
    """What a plain function returns for arrays of NumPy's, in the dtype and on the device of x."""
    return device_of(x).send(onp.asarray(function(*map(fetch, (x, *context))), dtype=x.dtype))


def in_shape(values, shape, name):
    """Raise unless a result has a shape, as it would be broadcast to others; return it."""
    if onp.shape(values) != shape:
        raise InputError(f"expected {name} to return an array of shape {shape}, got {onp.shape(values)}")
    return values


defvjp(
    given_log_density,
    lambda y, x, *context, log_density, score: (
        lambda g: spread_event(g, x.shape) * given_score(x, *context, score=score)
    ),
    argnums=(0,),
)
