"""IAF: the autoregressive layers turned round, so that sampling takes one pass each."""

from npflow.layers import ActNorm, Inverse, MaskedAutoregressive, Reverse, ScaleShift
from npflow.models.recipe import check_features, flow_of
from npflow.networks import MADE
from npflow.validation import check_count


def iaf(features, steps=5, network=None, transformer=None, prior=None, context_features=0):
    """IAF: steps of [ActNorm, Inverse(MaskedAutoregressive), Reverse].

    Sampling takes one pass of each network; the density of a given row goes feature by feature, that of its own
    samples is there with them (`Flow.sample_and_log_prob`). So it is trained best where it samples: as the student of
    another density (`npflow.training.distill`), or as a posterior.

    What keeps training finite: the bounds of `maf`, which this is, turned round.

    Parameters
    ----------
    features : int
        The number of features.
    steps : int
        The number of steps.
    network : MADE, optional
        By default ``MADE((64, 64), squash_inputs=True)``.
    transformer : Elementwise, optional
        How each component of z is transformed on the way to x; by default it is scaled and shifted, `ScaleShift`.
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        How many numbers a row of context has, which every network sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling: Improved variational inference with inverse autoregressive
    flow, 2016, section 3. https://arxiv.org/abs/1606.04934

    Examples
    --------
    >>> len(iaf(features=6).layer.layers)
    14
    """
    check_features(features, least=1)
    check_count(steps, "the number of steps")
    network = MADE((64, 64), squash_inputs=True) if network is None else network
    transformer = ScaleShift() if transformer is None else transformer
    step = [ActNorm(), Inverse(MaskedAutoregressive(network, transformer)), Reverse()]
    return flow_of((step * steps)[:-1], features, prior, context_features)
