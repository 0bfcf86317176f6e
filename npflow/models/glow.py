"""Glow, for rows of features."""

from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.validation import check_count


def glow(features, steps=10, network=None, prior=None):
    """Glow: steps of [ActNorm, AffineCoupling, Conv1x1], here on rows of features.

    The paper has the convolution before the coupling. In a chain of steps the two orders differ at the ends
    alone; this one leaves no convolution idle in front of the first coupling.

    Parameters
    ----------
    features : int
        The number of features, at least two, so that couplings have parts to take.
    steps : int
        The number of steps.
    network : Network, optional
        What each coupling computes its scale and shift with; by default ``MLP((64, 64, 64))``.
    prior : Prior, optional
        By default the standard normal.

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
    check_count(steps, "the number of steps")
    check_count(features, "the number of features", least=2)
    if prior is not None and prior.event_shape != (features,):
        raise InputError(f"expected a prior of {features} features, got one of shape {prior.event_shape}")
    network = MLP((64, 64, 64)) if network is None else network
    step = [ActNorm(), AffineCoupling(network), Conv1x1()]
    return Flow(Chain(step * steps), Normal(features) if prior is None else prior)
