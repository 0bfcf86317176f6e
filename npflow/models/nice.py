"""NICE: additive couplings, and one scaling at the end; for rows of features and for images."""

from npflow.layers import ActNorm, AdditiveCoupling, Logit, Scaling
from npflow.models.recipe import check_features, check_image_shape, flow_of
from npflow.networks import MLP, ResNet
from npflow.priors import Logistic
from npflow.validation import check_count


def nice(features, couplings=4, network=None, prior=None, context_features=0):
    """NICE: additive couplings that shift the odd and the even features in turn, and a scaling of each.

    All but the scaling keeps volume. So the scaling alone says how much room the flow gives each of its
    dimensions: exp(-log_scale) is the spread of the data along it, and sorted it is a spectrum, as principal
    components have one: see `npflow.plots.spectrum`.

    What keeps training finite, on heavy tails too: an `ActNorm` in front of the paper's layers takes the units out of
    the data; the networks see arcsinh(x), so that an outlier shifts others by no more than its logarithm; and the
    logistic prior's gradient is at most one, however far out a value lies.

    Parameters
    ----------
    features : int
        The number of features, at least two.
    couplings : int
        The number of couplings.
    network : Network, optional
        What each coupling computes its shift with; by default ``MLP((64, 64, 64), squash_inputs=True)``.
    prior : Prior, optional
        By default the logistic, as in most of the paper's experiments.
    context_features : int
        How many numbers a row of context has, which every coupling sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, section 3.
    https://arxiv.org/abs/1410.8516

    Examples
    --------
    >>> flow = nice(features=4)
    >>> [type(layer).__name__ for layer in flow.layer.layers[3:]]
    ['AdditiveCoupling', 'AdditiveCoupling', 'Scaling']
    """
    check_features(features)
    check_count(couplings, "the number of couplings")
    network = MLP((64, 64, 64), squash_inputs=True) if network is None else network
    parts = [("odd", "even")[number % 2] for number in range(couplings)]
    layers = [ActNorm(), *(AdditiveCoupling(network, part) for part in parts), Scaling()]
    return flow_of(layers, features, Logistic(features) if prior is None else prior, context_features)


def image_nice(shape, couplings=4, network=None, prior=None, context_features=0):
    """NICE on images: additive couplings that shift every other pixel in turn, and a scaling of each number.

    The couplings are those of a checkerboard with convolutions (the paper's networks are dense, and take all pixels
    alike). Images are taken as numbers in [0, 1], as `Dequantized` makes them; `Logit` makes them real numbers.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels).
    couplings : int
        The number of couplings.
    network : Network, optional
        What each coupling computes its shift with; by default ``ResNet(channels=64, blocks=2)``.
    prior : Prior, optional
        By default the logistic, as in most of the paper's experiments.
    context_features : int
        How many numbers a row of context has, which every coupling sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, sections 3 and 5.1.
    https://arxiv.org/abs/1410.8516

    Examples
    --------
    >>> flow = image_nice((8, 8, 1))
    >>> [type(layer).__name__ for layer in flow.layer.layers]
    ['Logit', 'ActNorm', 'AdditiveCoupling', 'AdditiveCoupling', 'AdditiveCoupling', 'AdditiveCoupling', 'Scaling']
    """
    shape = check_image_shape(shape)
    check_count(couplings, "the number of couplings")
    network = ResNet(channels=64, blocks=2) if network is None else network
    parts = [("checkerboard-odd", "checkerboard-even")[number % 2] for number in range(couplings)]
    layers = [Logit(), ActNorm(), *(AdditiveCoupling(network, part) for part in parts), Scaling()]
    return flow_of(layers, shape, Logistic(shape) if prior is None else prior, context_features)
