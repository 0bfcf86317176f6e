"""Glow, for rows of features and for images."""

from npflow.layers import ActNorm, AffineCoupling, Conv1x1
from npflow.models.recipe import check_features, check_image_shape, flow_of, multi_scale
from npflow.networks import MLP, ConvNet
from npflow.validation import check_count


def glow(features, steps=10, network=None, prior=None, context_features=0):
    """Glow: steps of [ActNorm, AffineCoupling, Conv1x1], here on rows of features.

    The paper has the convolution before the coupling. In a chain of steps the two orders differ at the ends
    alone; this one leaves no convolution idle in front of the first coupling.

    What keeps training finite, on heavy tails too: `ActNorm` starts every coupling on values of unit variance,
    log-scales are bounded, a new coupling is the identity, 1x1 convolutions start as rotations, and the networks
    see arcsinh(x), so that what they say of an outlier is of the size of what they say of other rows.

    Parameters
    ----------
    features : int
        The number of features, at least two, so that couplings have parts to take.
    steps : int
        The number of steps.
    network : Network, optional
        What each coupling computes its scale and shift with; by default ``MLP((64, 64, 64), squash_inputs=True)``.
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        How many numbers a row of context has, which every coupling sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3.
    https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> flow = glow(features=2, steps=10)
    >>> len(flow.layer.layers)
    30
    """
    check_features(features)
    check_count(steps, "the number of steps")
    network = MLP((64, 64, 64), squash_inputs=True) if network is None else network
    step = [ActNorm(), AffineCoupling(network), Conv1x1()]
    return flow_of(step * steps, features, prior, context_features)


def image_glow(shape, levels=3, steps=16, network=None, prior=None, context_features=0):
    """Glow on images: `levels` levels of `steps` steps of [ActNorm, Conv1x1, AffineCoupling].

    Each level begins with pixels of four times as many channels on half the height and width, and after it half of
    the channels stay as they are: see `Split`, and there for their learned prior. Images are taken as numbers in
    [0, 1], as `Dequantized` makes them.

    What keeps training finite: the first batch leaves every `ActNorm` with unit variance, log-scales are bounded, a
    new coupling is the identity, and convolutions start as rotations. Adam moves all weights of a wide network
    by the same in its first steps, and its outputs by thousands of times as much: a learning rate that begins small
    (`WarmupCosine`) and a `clip_norm` are part of the recipe.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^levels.
    levels : int
        L; the paper has 3 for images of 32 x 32.
    steps : int
        K, in each level.
    network : Network, optional
        What each coupling computes its scale and shift with; by default the paper's, ``ConvNet((512, 512), (3, 1, 3))``.
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        How many numbers a row of context has, which every coupling sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3 and figure 2.
    https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> from npflow.networks import ConvNet
    >>> flow = image_glow((8, 8, 3), levels=2, steps=4, network=ConvNet((32, 32)))
    >>> len(flow.layer.layers), flow.prior.event_shape
    (16, (8, 8, 3))
    """
    shape = check_image_shape(shape, check_count(levels, "the number of levels"))
    check_count(steps, "the number of steps")
    network = ConvNet((512, 512), (3, 1, 3)) if network is None else network
    step = [ActNorm(), Conv1x1(), AffineCoupling(network)]
    return flow_of(multi_scale([step * steps] * levels).layers, shape, prior, context_features)
