"""Gaussianization: iterative without gradients, and as a flow that is trained from there."""

from npflow.layers import Gaussianize, Rotation, Units
from npflow.models.recipe import check_features, flow_of
from npflow.validation import check_count


def gaussianization(features, steps=5, components=8, rotation="pca", prior=None):
    """Gaussianization: steps of [Gaussianize, Rotation] behind Units, and a Gaussianize at the end.

    Two models in one. ``flow.init(rng, x)`` on all of the data is iterative Gaussianization: layer by layer, each on
    what the layers before it make of the data, it makes every component normal and turns the axes. Nothing is
    differentiated, and it takes seconds. `fit` goes on from there by maximum likelihood: the Gaussianization flow.
    (The papers rotate first, which comes to the same in a chain of steps: here components lose their units before
    anything mixes them.)

    What keeps training finite, on heavy tails too: `Units` takes the units out of the data; `Gaussianize` is fitted
    to the middle of it whatever its outliers are, and moves those in proportion to how far out they are. In the other
    direction draws from the prior land among the data, of 15 steps that were not trained too; of 40, one in a hundred
    lands outside. `fit` mends what it sees.

    Parameters
    ----------
    features : int
        The number of features.
    steps : int
        The number of steps. On 20,000 rows of two moons `init` gains by some 20; on a table of a few hundred rows
        two of four components are enough, and more of either overfit.
    components : int
        How many logistics the distribution of each feature is a mixture of, in each `Gaussianize`.
    rotation : {"pca", "random"}
        How rotations start: with the principal components of what they are given, which takes all correlation out of
        a table in one step; or at random, which is better in the plane, where two columns without correlation have
        no principal components.
    prior : Prior, optional
        By default the standard normal.

    Returns
    -------
    Flow

    References
    ----------
    Chen, Gopinath: Gaussianization, 2000.

    Laparra, Camps-Valls, Malo: Iterative Gaussianization: from ICA to random rotations, 2011.
    https://arxiv.org/abs/1602.00229

    Meng, Song, Song, Ermon: Gaussianization flows, 2020. https://arxiv.org/abs/2003.01941

    Examples
    --------
    >>> flow = gaussianization(features=2, steps=5)
    >>> len(flow.layer.layers)
    12
    """
    check_features(features, least=1)
    check_count(steps, "the number of steps")
    step = [Gaussianize(components), Rotation(start=rotation)]
    return flow_of([Units(), *(step * steps), Gaussianize(components)], features, prior)
