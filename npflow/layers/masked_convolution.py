"""MintNet's layer: masked convolutions, whose Jacobian is triangular."""

import itertools
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import tree
from npflow.autodiff.convolution import half_turn
from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import elu, elu_slope, linear, softplus, sum_event
from npflow.autodiff.triangular import invert_triangular
from npflow.errors import InputError
from npflow.layers.layer import Layer
from npflow.networks.masked import causal_mask, groups_of, masked_convolution
from npflow.validation import check_choice, check_count

PLACES = 5  # of a kernel of 3 x 3, row by row, those as far as its middle
START = (1.0, 1.0, 0.2)  # what D adds up to in each convolution: d starts between t and t + 0.2


@dataclass(frozen=True)
class MaskedConvolution(Layer):
    r"""Three masked convolutions beside the identity, with a triangular Jacobian; starts near the identity.

    f(x) = t x + W3 h(a2) + b3                  a1 = W1 x + b1,  a2 = W2 h(a1) + b2,  W = L + D,  h = ELU
    d(x) = t + D3 h'(a2) D2 h'(a1) D1           t = exp(log_scale) > 0,  D = softplus(diagonal) > 0

    z = f(x)                                    log|det J| = sum(log d(x))
    x = f^-1(z), by x <- x + (z - f(x)) / d(x)

    The components of an image have an order: pixel by pixel, row by row, and channel by channel within a pixel. Each
    hidden channel belongs to a channel of the image, `filters` of them to each. L is a convolution with the mask A of a
    PixelCNN, through which a component sees those before it; D is what it sees itself by. So f is triangular. On the
    diagonal of its Jacobian is d, made of the ways that lead through D alone, and d is positive whatever is learned.

    In the reversed order z = -R f(-R x), where R turns an image by half a circle and reverses its channels: the last
    component comes first. Each f_i is convex in its own x_i, as h is, and as D is positive; the signs make it concave. So
    of a pair of layers the one has slopes that rise with x_i, the other slopes that fall. And with either the inverse's
    iteration converges from anywhere (`npflow.autodiff.triangular` says why). In the paper D1 and D3 may have any signs,
    and D2 has those that make the products positive; there the iteration converges from nearby.

    The inverse stops where all residuals z - f(x) are rounding. Where in fifty steps not one more comes to that, and some are
    not below eps^(2/3) of the size of the numbers they are made of (4e-11 in float64), it raises `ConvergenceError`.

    Parameters
    ----------
    filters : int
        How many hidden channels each channel of the image has, in both hidden layers.
    order : {"raster", "reversed"}
        Whether components see what is above and on the left of them, or what is below and on the right.

    References
    ----------
    Song, Meng, Ermon: MintNet: Building invertible neural networks with masked convolutions, 2019.
    https://arxiv.org/abs/1907.07945
    """

    filters: int = 16
    order: str = "raster"

    def __post_init__(self):
        object.__setattr__(self, "filters", check_count(self.filters, "MaskedConvolution's filters"))
        check_choice(self.order, ("raster", "reversed"), "MaskedConvolution's order")

    def init(self, rng, x):
        if x.ndim != 4:
            raise InputError(f"expected images (n, height, width, channels), got shape {x.shape}")
        channels = x.shape[-1]
        hidden = self.filters * channels
        widths = [channels, hidden, hidden, channels]
        convolutions = []
        for (inputs, outputs), start in zip(itertools.pairwise(widths), START):
            lower = causal_mask("A", (PLACES, inputs, outputs), channels, onp.float64)
            seen = onp.maximum(onp.sum(lower, axis=(0, 1)), 1)
            convolutions.append(
                {
                    "lower": lower * rng.standard_normal(lower.shape) / onp.sqrt(seen),
                    "diagonal": onp.full((inputs, outputs), onp.log(onp.expm1(start * channels / inputs))),
                    "bias": 0.5 * rng.standard_normal(outputs),
                }
            )
        for name in ("lower", "bias"):
            convolutions[-1][name][...] = 0
        params = {"log_scale": onp.zeros(x.shape[1:]), "convolutions": convolutions}
        return tree.build(lambda _, leaf: leaf.astype(x.dtype), params)

    def forward(self, params, x):
        z, slope = residual_block(self.in_order(x), *self.arrays(params, x))
        return self.in_order(z), sum_event(np.log(slope))

    def inverse(self, params, z):
        arrays = self.arrays(params, z)
        x = self.in_order(invert_triangular(residual_block, self.in_order(z), *arrays))
        return x, -self.log_det(params, x)

    def in_order(self, x):
        """x, or -R x, which takes itself back."""
        return x if self.order == "raster" else -half_turn(x)

    def arrays(self, params, x):
        """t, and L, D and b of each convolution: what `residual_block` takes."""
        arrays = [np.exp(params["log_scale"])]
        for layer in params["convolutions"]:
            inputs, outputs = (groups_of(count, x.shape[-1]) for count in layer["diagonal"].shape)
            same = (inputs[:, None] == outputs).astype(x.dtype)
            arrays += [layer["lower"], softplus(layer["diagonal"]) * constant(same, like=x), layer["bias"]]
        return arrays


def residual_block(x, t, lower1, diagonal1, bias1, lower2, diagonal2, bias2, lower3, diagonal3, bias3):
    """f(x) and d(x) of `MaskedConvolution`, each of the shape of x."""
    channels = x.shape[-1]
    a = masked_convolution(x, lower1, bias1, "A", channels) + linear(x, diagonal1)
    slope = elu_slope(a) * np.sum(diagonal1, axis=0)
    h = elu(a)
    a = masked_convolution(h, lower2, bias2, "A", channels) + linear(h, diagonal2)
    slope = elu_slope(a) * linear(slope, diagonal2)
    h = elu(a)
    a = masked_convolution(h, lower3, bias3, "A", channels) + linear(h, diagonal3)
    return t * x + a, t + linear(slope, diagonal3)
