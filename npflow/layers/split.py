"""Multi-scale flows by recursion: a part of the channels stays, a layer goes on with the rest."""

from dataclasses import dataclass

from npflow.layers.layer import Layer, check_keeps_shape, check_layer, given
from npflow.layers.masks import ChannelMask


@dataclass(frozen=True)
class Split(Layer):
    r"""The first half of the channels stays as it is, and a layer that keeps its shape is applied to the rest.

    x = (a, b)      z = (a, f(b))           log|det J| = log|det J_f(b)|
                    x = (a, f^-1(z_b))

    So a whole multi-scale flow is one layer that keeps its shape, such as this one of two scales:

    Chain([Squeeze(), steps..., Split(Chain([Squeeze(), steps..., Unsqueeze()])), Unsqueeze()])

    In Glow's code the half that is split off has a prior of its own, N(mean(b), std(b)^2) with a network's mean and
    std. `AffineCoupling(network, transformed="first")` in front of the `Split` is just that: with its
    z_a = a exp(log_scale(b)) + shift(b),

    log N(z_a; 0, 1) + sum(log_scale(b)) = log N(a; mean(b), std(b)^2),
    std(b) = exp(-log_scale(b)),     mean(b) = -shift(b) std(b)

    The parameters are those of the inner layer. Where the number of channels is odd, the first half is the larger
    by one.

    Parameters
    ----------
    layer : Layer

    Source: Dinh et al. 2017, Density estimation using Real NVP, section 3.6; Kingma & Dhariwal 2018, Glow, section 3.
    """

    layer: Layer

    mask = ChannelMask("second")

    def __post_init__(self):
        check_layer(self.layer, "the layer of Split")

    def init(self, rng, x, context=None):
        _, rest = self.mask.parts(x)
        params = self.layer.init(rng, rest, **given(self.layer, context))
        changed, _ = self.layer.forward(params, rest, **given(self.layer, context))
        check_keeps_shape("the layer of Split", rest, changed)
        return params

    def forward(self, params, x, context=None):
        first, rest = self.mask.parts(x)
        rest, log_det = self.layer.forward(params, rest, **given(self.layer, context))
        return self.mask.join(first, rest), log_det

    def inverse(self, params, z, context=None):
        first, rest = self.mask.parts(z)
        rest, log_det = self.layer.inverse(params, rest, **given(self.layer, context))
        return self.mask.join(first, rest), log_det
