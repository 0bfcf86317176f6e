"""RealNVP, for rows of features."""

from npflow.errors import InputError
from npflow.layers import ActNorm, AffineCoupling, Permutation
from npflow.models.recipe import check_features, flow_of
from npflow.networks import MLP
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
