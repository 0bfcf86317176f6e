"""Flow matching: a velocity field learned by regression, without a solver."""

import math
from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff import tree
from npflow.autodiff.primitives import held, sum_event
from npflow.description import choice, instance
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import Chain, Continuous
from npflow.layers.composite import Visit, walk
from npflow.model import Model
from npflow.priors import Normal

PATHS = {}


def straight(x, z, t):
    r"""The straight path from x to z, and its velocity.

    x_t = (1 - t) x + t z           dx_t/dt = z - x
    """
    return (1 - t) * x + t * z, z - x


def diffusion(x, z, t):
    r"""The path of a diffusion that preserves variance, and its velocity.

    x_t = cos(a) x + sin(a) z       dx_t/dt = pi/2 (cos(a) z - sin(a) x),   a = pi t / 2
    """
    a = 0.5 * math.pi * t
    cos, sin = np.cos(a), np.sin(a)
    return cos * x + sin * z, 0.5 * math.pi * (cos * z - sin * x)


PATHS = {"straight": straight, "diffusion": diffusion}


@dataclass(frozen=True)
class FlowMatching(Model):
    flow: Flow = instance(Flow)
    path: str = choice(PATHS, "straight")

    noisy = True

    def check(self, params):
        return self.flow.check(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        return self.flow.check_batch(x, context, dtype, name)

    def noise(self, rng, rows, dtype):
        t = rng.random((rows, 1), dtype)
        return t, rng.standard_normal((rows, *self.flow.event_shape), dtype)

    def losses(self, params, *batch):
        x, t, z = batch
        *first, field = self.flow.layer.layers
        *fixed, weights = params["layer"]
        for layer, held_params in zip(first, fixed):
            x, _ = layer.forward(tree.build(lambda path, leaf: held(leaf), held_params), x)
        at, target = PATHS[self.path](x, z, t)
        off = field.velocity(weights, t, at) - target
        return sum_event(off * off)

    @property
    def learned(self):
        """The flow."""
        return self.flow
