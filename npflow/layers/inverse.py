"""A layer turned round."""

from dataclasses import dataclass

from npflow.description import checked
from npflow.layers.composite import Composite, Step
from npflow.layers.layer import Layer, check_layer, given


@dataclass(frozen=True)
class Inverse(Composite):
    r"""A layer turned round: its forward is the inverse of the other.

    z = f^-1(x)         log|det J| = -log|det J_f(z)|
    x = f(z)

    `init` hands the batch to the inner layer as it is. An inner layer whose start depends on the data, such as
    ActNorm, would normalize the batch. Turned round it does the opposite: it gives noise the mean and variance of the
    batch.

    Parameters
    ----------
    layer : Layer
        f. Its parameters are those of this layer.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import AffineCoupling, Inverse
    >>> rng = np.random.default_rng(0)
    >>> coupling, x = AffineCoupling(), rng.normal(size=(5, 2))
    >>> params = coupling.init(rng, x)
    >>> z, _ = coupling.forward(params, x)
    >>> bool(np.allclose(Inverse(coupling).forward(params, z)[0], x))
    True
    """

    layer: Layer = checked(check_layer)

    def init(self, rng, x, context=None):
        return self.layer.init(rng, x, **given(self.layer, context))

    def steps(self, x, direction, context=None):
        opposite = {"forward": "inverse", "inverse": "forward"}[direction]
        return (yield Step(None, self.layer, x, opposite, context))
