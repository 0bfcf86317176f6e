"""Flow matching: the velocity field of a continuous flow, learned by regression, without a solver."""

import math
from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff import tree
from npflow.autodiff.primitives import held, sum_event
from npflow.autodiff.program.frames import follows_steps
from npflow.description import checked, choice
from npflow.errors import InputError, in_short
from npflow.flow import Flow, check_unconditional
from npflow.layers import Chain, Continuous
from npflow.layers.composite import Step, Visit, name_of, walk
from npflow.model import Model
from npflow.priors import Normal


def straight(x, z, t):
    """The point (1 - t) x + t z on the straight path from x to z, and its velocity."""
    return (1 - t) * x + t * z, z - x


def diffusion(x, z, t):
    """The point cos(a) x + sin(a) z, a = pi t / 2, on the path of a diffusion from x to z, and its velocity."""
    a = 0.5 * math.pi * t
    cos, sin = np.cos(a), np.sin(a)
    return cos * x + sin * z, 0.5 * math.pi * (cos * z - sin * x)


PATHS = {"straight": straight, "diffusion": diffusion}


@dataclass(frozen=True)
class FlowMatching(Model):
    r"""A continuous flow, trained by regression: its field learns the velocities of paths from data to noise.

    E_{x, z, t} |f(t, x_t) - u|^2       x a row of data, z standard normal, t uniform in [0, 1], u = dx_t/dt

    - straight:  x_t = (1 - t) x + t z,                     u = z - x
    - diffusion: x_t = cos(pi t / 2) x + sin(pi t / 2) z,   u = pi/2 (cos(pi t / 2) z - sin(pi t / 2) x)

    Many paths cross in a point, with different velocities. The best f is their mean, E[u | x_t]. And the flow along
    this mean takes the density of the data to that of the noise: the continuity equation of the density p_t of x_t is
    linear in p_t u, and the mean keeps p_t u. So the field of a flow is found without following it. A step of
    training takes one pass of the network, and the likelihood is not looked at; the flow has it all the same.

    The straight path is that of optimal transport between x and z. The other one is the path of every diffusion that
    preserves variance, up to the speed at which it is passed: a rate beta(t) is the angle a(t) with
    beta = 2 tan(a) da/dt. The same network is then a diffusion model. Its score, the gradient of log p_t, is
    -x - f / (pi/2 tan(pi t / 2)), and the flow is the differential equation of the diffusion's probability.

    Time runs from the data at 0 to the noise at 1, as `forward` does. Many papers count the other way.

    The loss is not a likelihood and not in nats. Its least value is the mean variance of u given x_t, not 0. Layers
    before the last stay as `init` made them: the loss shrinks with its data, and would shrink them. Evaluate the trained
    flow itself, by its own steps or, to a tolerance, by `Solved`.

    Parameters
    ----------
    flow : Flow
        A `Chain` that ends with a `Continuous` layer, and a standard normal prior, such as `continuous_flow` makes.
    path : {"straight", "diffusion"}

    References
    ----------
    Lipman, Chen, Ben-Hamu, Nickel, Le: Flow matching for generative modeling, 2023, sections 3 and 4.
    https://arxiv.org/abs/2210.02747

    Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole: Score-based generative modeling through stochastic differential
    equations, 2021, section 4.3. https://arxiv.org/abs/2011.13456

    Albergo, Vanden-Eijnden: Building normalizing flows with stochastic interpolants, 2023, section 2 (the path with
    cosine and sine). https://arxiv.org/abs/2209.15571

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import FlowMatching, continuous_flow
    >>> rng = np.random.default_rng(0)
    >>> flow, x = continuous_flow(2, hidden=(16, 16)), npflow.datasets.moons(500, rng=rng)
    >>> params = flow.init(rng, x)
    >>> params, _ = npflow.fit(FlowMatching(flow), params, x, rng=rng, steps=50, progress=False)
    >>> flow.log_prob(params, x).shape, flow.sample(params, rng, 3).shape
    ((500,), (3, 2))
    """

    flow: Flow = checked(check_unconditional)
    path: str = choice(PATHS, "straight")

    noisy = True

    def __post_init__(self):
        super().__post_init__()
        layer = self.flow.layer
        if not isinstance(layer, Chain) or not isinstance(layer.layers[-1], Continuous):
            got = (
                f"one that ends with {in_short(layer.layers[-1])}"
                if isinstance(layer, Chain)
                else in_short(layer)
            )
            raise InputError(f"expected a Chain that ends with a Continuous layer, got {got}")
        if not isinstance(self.flow.prior, Normal) or self.flow.prior.trained:
            raise InputError(
                f"expected a standard normal prior, which the paths end at, got {self.flow.prior!r}"
            )

    @property
    def domain(self):
        """That of the flow."""
        return self.flow.domain

    def check(self, params):
        return self.flow.check(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        return self.flow.check_batch(x, context, dtype, name)

    def noise(self, rng, rows, dtype):
        """t, shape (rows, 1), and z, shape (rows, D)."""
        return rng.random((rows, 1), dtype), rng.standard_normal((rows, *self.flow.event_shape), dtype)

    @follows_steps
    def losses(self, params, *batch):
        """Compute ``|f(t, x_t) - u|^2`` of each row.

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            x, t and z.

        Returns
        -------
        ndarray, shape (n,)
            In the units of the last layer's x, squared. It is pure arithmetic and checks nothing.
        """
        x, t, z = batch
        *before, last = self.flow.layer.layers
        *fixed, weights = params["layer"]
        # The lines of a program are named after `step`.
        for number, (layer, numbers) in enumerate(zip(before, fixed)):
            step = Step(number, layer, x)
            x, _ = step.apply(tree.build(lambda _, leaf: held(leaf), numbers))
        at, u = PATHS[self.path](x, z, t)
        step = Step(len(before), last, at)
        off = step.layer.velocity(weights, t, step.x) - u
        return sum_event(off * off)

    def visits(self, params, *batch):
        """Each layer before the last, and the velocity field."""
        x, t, z = batch
        *before, last = self.flow.layer.layers
        *fixed, weights = params["layer"]
        for number, (layer, numbers) in enumerate(zip(before, fixed)):
            x = yield from walk(layer, numbers, x, path=f"layer/{number}")
        at, _ = PATHS[self.path](x, z, t)
        yield Visit(name_of(f"layer/{len(before)}", last), last.velocity, (weights, t, at))

    @property
    def learned(self):
        """The flow."""
        return self.flow
