"""Glow, for rows of features and for images."""

from npflow.flow import Flow
from npflow.layers import ActNorm, AffineCoupling, AffineInjector, Conv1x1, Logit, Units
from npflow.models.recipe import check_depth, check_image_shape, flow_of, multi_scale, recipe
from npflow.networks import MLP, ConvNet, Network
from npflow.priors import Prior
from npflow.validation import check_count, check_flag


@recipe
def glow(
    features: int,
    steps: int = 10,
    network: Network | None = None,
    prior: Prior | None = None,
    context_features: int = 0,
) -> Flow:
    """Glow on rows of features: Units, then steps of [ActNorm, AffineCoupling, Conv1x1].

    The paper has the convolution before the coupling. In a chain of steps the two orders differ at the ends
    alone; in this order no convolution is wasted before the first coupling.

    Training stays finite on heavy-tailed data. `ActNorm` gives every coupling inputs of unit variance.
    Log-scales are bounded, a new coupling is the identity, and 1x1 convolutions start as rotations. The
    networks see arcsinh(x), so they respond to an outlier about as strongly as to other rows.

    Parameters
    ----------
    features : int
        At least 2.
    steps : int
    network : Network, optional
        Computes the scale and shift of each coupling. By default ``MLP((64, 64, 64), squash_inputs=True)``.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3.
    https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> from npflow.models import glow
    >>> flow = glow(features=2, steps=10)
    >>> len(flow.layer.layers)
    31
    """
    features, steps = check_count(features, "features", least=2), check_depth(steps, "steps")
    network = MLP((64, 64, 64), squash_inputs=True) if network is None else network
    step = [ActNorm(), AffineCoupling(network), Conv1x1()]
    return flow_of([Units(), *(step * steps)], features, prior, context_features)


@recipe
def image_glow(
    shape: tuple[int, int, int],
    levels: int = 3,
    steps: int = 16,
    network: Network | None = None,
    prior: Prior | None = None,
    context_features: int | tuple[int, int, int] = 0,
    logit: bool = True,
) -> Flow:
    """Glow on images: Logit, Units, then levels of [Squeeze, steps of [ActNorm, Conv1x1, AffineCoupling], Split].

    Squeeze halves height and width and gives pixels four times as many channels. After each level but the
    last, half of the channels are split off, with a learned prior; see `Split`. Pixels are numbers in [0, 1],
    as `Dequantized` makes them; `Logit`, which the paper does without, maps them to real numbers. It gains
    much on images with many pixels at the ends, such as digits on white paper.

    A context may be an image, as in SRFlow: the networks of the couplings, and so those of the learned priors, see
    it beside their input. The last prior is then learned too, N(mean(c), std(c)^2), by an `AffineInjector`.

    Training stays finite: after `init` every `ActNorm` has outputs of unit variance, log-scales are bounded,
    a new coupling is the identity, and 1x1 convolutions start as rotations. Adam's first steps move all
    weights of a wide network by the same amount, which moves its outputs thousands of times as much; so train
    with a learning rate that starts small (`WarmupCosine`) and with `clip_norm`.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^levels.
    levels : int
        L; the paper has 3 for images of 32 x 32.
    steps : int
        K, the steps of each level.
    network : Network, optional
        Computes the scale and shift of each coupling. By default the paper's, ``ConvNet((512, 512), (3, 1,
        3))``.
    context_features : int or tuple of int
        The number of context features that condition every network, or the shape of an image that does; 0 for none.
    logit : bool
        Whether `Logit` comes first. Without it x are real numbers, such as the details of `BlockMeans`.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3 and figure 2.
    https://arxiv.org/abs/1807.03039

    Lugmayr, Danelljan, Van Gool, Timofte: SRFlow: Learning the super-resolution space with normalizing flow, 2020,
    section 3 (an image as context). https://arxiv.org/abs/2006.14200

    Examples
    --------
    >>> from npflow.models import image_glow
    >>> from npflow.networks import ConvNet
    >>> flow = image_glow((8, 8, 3), levels=2, steps=4, network=ConvNet((32, 32)))
    >>> len(flow.layer.layers), flow.prior.event_shape
    (18, (8, 8, 3))
    """
    levels, steps = check_count(levels, "levels"), check_depth(steps, "steps")
    shape = check_image_shape(shape, halvings=levels)
    network = ConvNet((512, 512), (3, 1, 3)) if network is None else network
    step = [ActNorm(), Conv1x1(), AffineCoupling(network)]
    scales = [step * steps] * levels
    if isinstance(context_features, tuple):
        scales[-1] = [*scales[-1], AffineInjector(ConvNet((), (3,)))]
    start = [Logit(), Units()] if check_flag(logit, "logit") else [Units()]
    layers = [*start, *multi_scale(scales).layers]
    return flow_of(layers, shape, prior, context_features)
