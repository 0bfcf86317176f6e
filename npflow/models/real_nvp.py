"""RealNVP, for rows of features and for images."""

from collections.abc import Sequence

from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import ActNorm, AffineCoupling, Chain, Logit, Permutation, Split, Squeeze, Units, Unsqueeze
from npflow.models.recipe import check_depth, check_image_shape, flow_of, recipe
from npflow.networks import MLP, Network, ResNet
from npflow.priors import Prior
from npflow.validation import check_count, check_sequence


@recipe
def real_nvp(
    features: int,
    couplings: int = 8,
    network: Network | None = None,
    masks: Sequence | None = None,
    prior: Prior | None = None,
    context_features: int = 0,
) -> Flow:
    """RealNVP: Units, then affine couplings, each after an `ActNorm`, with random permutations or alternating masks.

    Training stays finite on heavy-tailed data for the reasons given at `glow`; `ActNorm` replaces the paper's
    batch norm. Without arcsinh, the first step of training lets each of 32 couplings multiply an outlier, and
    its square overflows.

    Parameters
    ----------
    features : int
        At least 2.
    couplings : int
    network : Network, optional
        Computes the scale and shift of each coupling. By default ``MLP((64, 64, 64), squash_inputs=True)``.
    masks : sequence, optional
        The features that couplings transform, taken in turn, such as ``("second", "first")`` or ``("odd",
        "even")``; see `AffineCoupling`. By default each coupling transforms the second half, with a random
        permutation between couplings.

    References
    ----------
    Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, 2017, section 3.
    https://arxiv.org/abs/1605.08803

    Examples
    --------
    >>> from npflow.models import real_nvp
    >>> len(real_nvp(features=6, couplings=8).layer.layers)
    24
    >>> len(real_nvp(features=6, couplings=8, masks=("odd", "even")).layer.layers)
    17
    """
    features, couplings = check_count(features, "features", least=2), check_depth(couplings, "couplings")
    network = MLP((64, 64, 64), squash_inputs=True) if network is None else network
    if masks is None:
        step = [ActNorm(), AffineCoupling(network), Permutation()]
        return flow_of([Units(), *(step * couplings)[:-1]], features, prior, context_features)
    masks = check_sequence(masks, "masks")
    if not masks:
        raise InputError("expected at least one mask, got none")
    layers = [Units()]
    for index in range(couplings):
        layers += [ActNorm(), AffineCoupling(network, masks[index % len(masks)])]
    return flow_of(layers, features, prior, context_features)


@recipe
def image_real_nvp(
    shape: tuple[int, int, int],
    levels: int = 2,
    network: Network | None = None,
    prior: Prior | None = None,
    context_features: int | tuple[int, int, int] = 0,
) -> Flow:
    """RealNVP on images: Logit, Units, then levels of affine couplings with checkerboard and channel masks.

    A level is three checkerboard couplings, Squeeze, three channel couplings and Split. Squeeze halves height
    and width and gives pixels four times as many channels; Split lets the next level go on with half of them.
    The last level is four checkerboard couplings. Pixels are numbers in [0, 1], as `Dequantized` makes them;
    `Logit` maps them to real numbers.

    Training stays finite for the reasons given at `glow`; `ActNorm` replaces the paper's batch norm.
    Train with a learning rate that starts small (`WarmupCosine`) and with `clip_norm`.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^(levels - 1).
    levels : int
        The number of levels; the paper has 2 for images of 32 x 32.
    network : Network, optional
        Computes the scale and shift of each coupling. By default ``ResNet(channels=64, blocks=4)``, half as
        deep as the paper's.
    context_features : int or tuple of int
        The number of context features that condition every network, or the shape of an image that does; 0 for none.

    References
    ----------
    Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, 2017, sections 3.4 to 3.6 and 4.1.
    https://arxiv.org/abs/1605.08803

    Examples
    --------
    >>> from npflow.models import image_real_nvp
    >>> from npflow.networks import ResNet
    >>> flow = image_real_nvp((8, 8, 1), levels=2, network=ResNet(channels=16))
    >>> [type(layer).__name__ for layer in flow.layer.layers][-3:]
    ['AffineCoupling', 'Split', 'Unsqueeze']
    """
    levels = check_count(levels, "levels")
    shape = check_image_shape(shape, halvings=levels - 1)
    network = ResNet(channels=64, blocks=4) if network is None else network

    def couplings(*masks):
        return [layer for mask in masks for layer in (ActNorm(), AffineCoupling(network, mask))]

    even, odd = "checkerboard-even", "checkerboard-odd"
    layers = couplings(odd, even, odd, even)
    for _ in range(levels - 1):
        halves = couplings("second", "first", "second")
        layers = [*couplings(odd, even, odd), Squeeze(), *halves, Split(Chain(layers)), Unsqueeze()]
    return flow_of([Logit(), Units(), *layers], shape, prior, context_features)
