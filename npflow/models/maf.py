"""MAF: autoregressive layers, which compute densities in one pass."""

from npflow.layers import ActNorm, MaskedAutoregressive, Reverse, ScaleShift
from npflow.models.recipe import flow_of
from npflow.networks import MADE
from npflow.validation import check_count


def maf(features, steps=5, network=None, transformer=None, prior=None, context_features=0):
    """MAF: steps of [ActNorm, MaskedAutoregressive, Reverse].

    Each step takes the features in the reverse order of the one before. The density takes one pass of each
    network; sampling goes feature by feature.

    Training stays finite on heavy-tailed data: `ActNorm` (batch norm in the paper) gives each layer inputs of
    unit variance, log-scales are bounded, a new layer is the identity, and the networks see arcsinh(x), so
    that their response to an outlier has the size of their response to other rows.

    Parameters
    ----------
    features : int
    steps : int
    network : MADE, optional
        By default ``MADE((64, 64), squash_inputs=True)``.
    transformer : Elementwise, optional
        Maps each component. By default `ScaleShift`; a `Spline` makes an autoregressive neural spline flow.
    prior : Prior, optional
        By default the standard normal. A `GaussianMixture` makes the paper's MAF MoG.
    context_features : int
        The number of context features that condition every network; 0 for none.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        If an argument is invalid, or the prior has another number of features.

    References
    ----------
    Papamakarios, Pavlakou, Murray: Masked autoregressive flow for density estimation, 2017, section 3.
    https://arxiv.org/abs/1705.07057

    Examples
    --------
    >>> from npflow.models import maf
    >>> len(maf(features=6).layer.layers)
    14
    """
    features, steps = check_count(features, "features"), check_count(steps, "steps")
    network = MADE((64, 64), squash_inputs=True) if network is None else network
    transformer = ScaleShift() if transformer is None else transformer
    step = [ActNorm(), MaskedAutoregressive(network, transformer), Reverse()]
    return flow_of((step * steps)[:-1], features, prior, context_features)
