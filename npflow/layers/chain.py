"""Layers in order."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from npflow.description import checked
from npflow.errors import InputError
from npflow.layers.composite import Composite, Step, check_layers
from npflow.layers.layer import domain_of


@dataclass(frozen=True)
class Chain(Composite):
    r"""Layers in order.

    z = f_K(... f_2(f_1(x)))                log|det J| = sum_k log|det J_k|
    x = f_1^-1(f_2^-1(... f_K^-1(z)))       log|det J^-1| = -log|det J|

    `init` starts each layer on what the layers before it make of the batch. A context is handed to the layers that
    take one. The parameters are a list with one entry for each layer.

    Parameters
    ----------
    layers : list or tuple of Layer
        At least one.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import ActNorm, AffineCoupling, Chain, Reverse
    >>> rng = np.random.default_rng(0)
    >>> chain, x = Chain([ActNorm(), AffineCoupling(), Reverse()]), rng.normal(5, 3, (100, 4))
    >>> params = chain.init(rng, x)
    >>> z, log_det = chain.forward(params, x)
    >>> z.shape, log_det.shape
    ((100, 4), (100,))
    """

    layers: Sequence = checked(check_layers)

    @property
    def domain(self):
        """That of the first layer."""
        return domain_of(self.layers[0])

    def check_params(self, params):
        if len(params) != len(self.layers):
            raise InputError(
                f"expected parameters for each of the {len(self.layers)} layers of a Chain, got {len(params)} entries"
            )

    def steps(self, x, direction, context=None):
        order = list(enumerate(self.layers))
        for index, layer in order if direction == "forward" else reversed(order):
            x = yield Step(index, layer, x, direction, context)
        return x

    def __repr__(self):
        lines = ",\n".join(repr(layer) for layer in self.layers)
        return f"Chain([\n{textwrap.indent(lines, '    ')},\n])"
