"""Glow, for rows of features."""

from npflow.layers import ActNorm, AffineCoupling, Conv1x1
from npflow.models.recipe import check_features, flow_of
from npflow.networks import MLP
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
