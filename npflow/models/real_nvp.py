"""RealNVP, for rows of features and for images."""

from npflow.errors import InputError
from npflow.layers import ActNorm, AffineCoupling, Chain, Logit, Permutation, Split, Squeeze, Unsqueeze
from npflow.models.recipe import check_features, check_image_shape, flow_of
from npflow.networks import MLP, ResNet
from npflow.validation import check_count, check_sequence


def real_nvp(features, couplings=8, network=None, masks=None, prior=None, context_features=0):
    """RealNVP: affine couplings, each after an `ActNorm`, with random permutations or alternating masks.

    What keeps training finite, on heavy tails too: `ActNorm` starts every coupling on values of unit variance,
    whatever the data's units (the paper has a batch norm there); log-scales are bounded; a new coupling is the
    identity; and the networks see arcsinh(x). Without the last, the first step of training moves what 32 couplings
    make of an outlier by a factor each, and its square overflows.

    Parameters
    ----------
    features : int
        The number of features, at least two.
    couplings : int
        The number of couplings.
    network : Network, optional
        What each coupling computes its scale and shift with; by default ``MLP((64, 64, 64), squash_inputs=True)``.
    masks : sequence, optional
        What is transformed, for `AffineCoupling`: the couplings take the masks in turn, ``("second", "first")`` or
        ``("odd", "even")``, or any. By default each transforms the second half, and random permutations are
        between them.
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        How many numbers a row of context has, which every coupling sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, 2017, section 3.
    https://arxiv.org/abs/1605.08803

    Examples
    --------
    >>> len(real_nvp(features=6, couplings=8).layer.layers), len(real_nvp(6, 8, masks=("odd", "even")).layer.layers)
    (23, 16)
    """
    check_features(features)
    check_count(couplings, "the number of couplings")
    network = MLP((64, 64, 64), squash_inputs=True) if network is None else network
    if masks is None:
        step = [ActNorm(), AffineCoupling(network), Permutation()]
        return flow_of((step * couplings)[:-1], features, prior, context_features)
    masks = check_sequence(masks, "the masks")
    if not masks:
        raise InputError("expected at least one mask, got none")
    layers = []
    for number in range(couplings):
        layers += [ActNorm(), AffineCoupling(network, masks[number % len(masks)])]
    return flow_of(layers, features, prior, context_features)


def image_real_nvp(shape, levels=2, network=None, prior=None, context_features=0):
    """RealNVP on images: at each level three couplings of the checkerboard, and three of channels.

    Between the two, pixels become pixels of four times as many channels on half the height and width; after them half
    of the channels stay as they are, see `Split`, and the next level goes on with the rest. The last level has four
    couplings of the checkerboard. Images are taken as numbers in [0, 1], as `Dequantized` makes them; `Logit` makes
    them real numbers.

    What keeps training finite is said at `real_nvp`. An `ActNorm` in front of each coupling stands for the paper's
    batch norm. A learning rate that begins small (`WarmupCosine`) and a `clip_norm` are part of the recipe.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^(levels - 1).
    levels : int
        How many levels, the last one included; the paper has 2 for images of 32 x 32.
    network : Network, optional
        What each coupling computes its scale and shift with; by default ``ResNet(channels=64, blocks=4)``, half as deep
        as the paper's.
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        How many numbers a row of context has, which every coupling sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, 2017, sections 3.4 to 3.6 and 4.1.
    https://arxiv.org/abs/1605.08803

    Examples
    --------
    >>> from npflow.networks import ResNet
    >>> flow = image_real_nvp((8, 8, 1), levels=2, network=ResNet(channels=16))
    >>> [type(layer).__name__ for layer in flow.layer.layers][-3:]
    ['AffineCoupling', 'Split', 'Unsqueeze']
    """
    levels = check_count(levels, "the number of levels")
    shape = check_image_shape(shape, levels - 1)
    network = ResNet(channels=64, blocks=4) if network is None else network

    def couplings(*masks):
        return [layer for mask in masks for layer in (ActNorm(), AffineCoupling(network, mask))]

    even, odd = "checkerboard-even", "checkerboard-odd"
    layers = couplings(odd, even, odd, even)
    for _ in range(levels - 1):
        halves = couplings("second", "first", "second")
        layers = [*couplings(odd, even, odd), Squeeze(), *halves, Split(Chain(layers)), Unsqueeze()]
    return flow_of([Logit(), *layers], shape, prior, context_features)
