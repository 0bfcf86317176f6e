"""NICE: additive couplings and a final scaling, for rows of features and for images."""

from npflow.flow import Flow
from npflow.layers import ActNorm, AdditiveCoupling, Logit, Scaling, Units
from npflow.models.recipe import check_depth, check_image_shape, flow_of, recipe
from npflow.networks import MLP, Network, ResNet
from npflow.priors import Logistic, Prior
from npflow.validation import check_count


@recipe
def nice(
    features: int,
    couplings: int = 4,
    network: Network | None = None,
    prior: Prior | None = None,
    context_features: int = 0,
) -> Flow:
    """NICE: Units, ActNorm, additive couplings that shift the odd and the even features in turn, and a Scaling.

    The couplings preserve volume, so the final scaling shows how much the data varies along each dimension of
    z: its spread is exp(-log_scale). Sorted, the spreads are a spectrum like that of principal components;
    see `npflow.plots.spectrum`.

    Training stays finite on heavy-tailed data. `Units` and `ActNorm`, which the paper does not have, remove the
    units of the data. The networks see arcsinh(x), so an outlier shifts other features by at most its logarithm. The
    derivative of the logistic prior's log-density is at most 1.

    Parameters
    ----------
    features : int
        At least 2.
    couplings : int
    network : Network, optional
        Computes the shift of each coupling. By default ``MLP((64, 64, 64), squash_inputs=True)``.
    prior : Prior, optional
        By default the logistic, as in most of the paper's experiments.

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, section 3.
    https://arxiv.org/abs/1410.8516

    Examples
    --------
    >>> from npflow.models import nice
    >>> flow = nice(features=4)
    >>> [type(layer).__name__ for layer in flow.layer.layers[4:]]
    ['AdditiveCoupling', 'AdditiveCoupling', 'Scaling']
    """
    features, couplings = check_count(features, "features", least=2), check_depth(couplings, "couplings")
    network = MLP((64, 64, 64), squash_inputs=True) if network is None else network
    parts = [("odd", "even")[index % 2] for index in range(couplings)]
    layers = [Units(), ActNorm(), *(AdditiveCoupling(network, part) for part in parts), Scaling()]
    return flow_of(layers, features, Logistic(features) if prior is None else prior, context_features)


@recipe
def image_nice(
    shape: tuple[int, int, int],
    couplings: int = 4,
    network: Network | None = None,
    prior: Prior | None = None,
    context_features: int | tuple[int, int, int] = 0,
) -> Flow:
    """NICE on images: Logit, Units, ActNorm, additive couplings that shift every other pixel in turn, and a Scaling.

    The couplings split pixels by a checkerboard and use convolutions; the paper's networks are dense. Pixels
    are numbers in [0, 1], as `Dequantized` makes them; `Logit` maps them to real numbers.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels).
    couplings : int
    network : Network, optional
        Computes the shift of each coupling. By default ``ResNet(channels=64, blocks=2)``.
    prior : Prior, optional
        By default the logistic, as in most of the paper's experiments.
    context_features : int or tuple of int
        The number of context features that condition every network, or the shape of an image that does; 0 for none.

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, sections 3 and 5.1.
    https://arxiv.org/abs/1410.8516

    Examples
    --------
    >>> from npflow.models import image_nice
    >>> flow = image_nice((8, 8, 1), couplings=2)
    >>> [type(layer).__name__ for layer in flow.layer.layers]
    ['Logit', 'Units', 'ActNorm', 'AdditiveCoupling', 'AdditiveCoupling', 'Scaling']
    """
    shape, couplings = check_image_shape(shape), check_depth(couplings, "couplings")
    network = ResNet(channels=64, blocks=2) if network is None else network
    parts = [("checkerboard-odd", "checkerboard-even")[index % 2] for index in range(couplings)]
    layers = [Logit(), Units(), ActNorm(), *(AdditiveCoupling(network, part) for part in parts), Scaling()]
    return flow_of(layers, shape, Logistic(shape) if prior is None else prior, context_features)
