"""MAF: autoregressive layers whose density takes one pass each."""

from npflow.layers import ActNorm, MaskedAutoregressive, Reverse, ScaleShift
from npflow.models.recipe import check_features, flow_of
from npflow.networks import MADE
from npflow.validation import check_count


def maf(features, steps=5, network=None, transformer=None, prior=None, context_features=0):
    """MAF: steps of [ActNorm, MaskedAutoregressive, Reverse]: each sees the features in the other's reverse order.

    The density of all features takes one pass of each network; sampling goes feature by feature.

    What keeps training finite, on heavy tails too: `ActNorm` starts each layer on values of unit variance, whatever
    the data's units (it is where the paper has batch norm); log-scales are bounded; a new layer is the identity; and
    the networks see arcsinh(x), so that what they say of an outlier is of the size of what they say of other rows.

    Parameters
    ----------
    features : int
        The number of features.
    steps : int
        The number of steps.
    network : MADE, optional
        By default ``MADE((64, 64), squash_inputs=True)``.
    transformer : Elementwise, optional
        How each component is transformed; by default it is scaled and shifted, `ScaleShift`. With a `Spline` this is
        an autoregressive neural spline flow.
    prior : Prior, optional
        By default the standard normal; a `GaussianMixture` as in the paper's MAF MoG.
    context_features : int
        How many numbers a row of context has, which every network sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Papamakarios, Pavlakou, Murray: Masked autoregressive flow for density estimation, 2017, section 3.
    https://arxiv.org/abs/1705.07057

    Examples
    --------
    >>> len(maf(features=6).layer.layers)
    14
    """
    check_features(features, least=1)
    check_count(steps, "the number of steps")
    network = MADE((64, 64), squash_inputs=True) if network is None else network
    transformer = ScaleShift() if transformer is None else transformer
    step = [ActNorm(), MaskedAutoregressive(network, transformer), Reverse()]
    return flow_of((step * steps)[:-1], features, prior, context_features)
