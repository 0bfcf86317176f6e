"""Multi-scale flows by recursion: half of the channels stay, a layer transforms the rest."""

from dataclasses import dataclass

from npflow.description import checked
from npflow.layers.composite import Composite, Step
from npflow.layers.layer import Layer, check_keeps_shape, check_layer
from npflow.layers.masks import ChannelMask


@dataclass(frozen=True)
class Split(Composite):
    r"""Leave the first half of the channels as it is, and apply a layer that keeps its shape to the rest.

    x = (a, b)      z = (a, f(b))           log|det J| = log|det J_f(b)|
                    x = (a, f^-1(z_b))

    So a whole multi-scale flow is one layer that keeps its shape. One of two scales is

    Chain([Squeeze(), steps..., Split(Chain([Squeeze(), steps..., Unsqueeze()])), Unsqueeze()])

    In Glow's code the half that is split off has a prior of its own, N(mean(b), std(b)^2), whose mean and std a
    network computes. An `AffineCoupling(network, transformed="first")` in front of the `Split` is the same. With its
    z_a = a exp(log_scale(b)) + shift(b),

    log N(z_a; 0, 1) + sum(log_scale(b)) = log N(a; mean(b), std(b)^2),
    std(b) = exp(-log_scale(b)),     mean(b) = -shift(b) std(b)

    Where the number of channels is odd, the first half is larger by one.

    Parameters
    ----------
    layer : Layer
        f. Its parameters are those of this layer.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 3.6; Kingma & Dhariwal 2018, Glow, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Conv1x1, Split
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Split(Conv1x1()), rng.normal(size=(5, 4, 4, 6))
    >>> z, _ = layer.forward(layer.init(rng, x), x)
    >>> bool(np.all(z[..., :3] == x[..., :3]))
    True
    """

    layer: Layer = checked(check_layer)

    mask = ChannelMask("second")

    def steps(self, x, direction, context=None):
        first, rest = self.mask.parts(x)
        changed = yield Step(None, self.layer, rest, direction, context)
        check_keeps_shape("the layer of Split", rest, changed)
        return self.mask.join(first, changed)
