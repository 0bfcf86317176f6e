"""IAF: inverted autoregressive layers, which sample in one pass."""

from npflow.flow import Flow
from npflow.layers import ActNorm, Elementwise, Inverse, MaskedAutoregressive, Reverse, ScaleShift, Units
from npflow.models.recipe import check_depth, flow_of, recipe
from npflow.networks import MADE
from npflow.priors import Prior
from npflow.validation import check_count


@recipe
def iaf(
    features: int,
    steps: int = 5,
    network: MADE | None = None,
    transformer: Elementwise | None = None,
    prior: Prior | None = None,
    context_features: int = 0,
) -> Flow:
    """IAF: Units, then steps of [ActNorm, Inverse(MaskedAutoregressive), Reverse].

    Sampling takes one pass of each network, and the density of the samples comes with them; see
    `Flow.sample_and_log_prob`. The density of given rows is computed feature by feature. So an IAF is best
    trained on its own samples: as the student of another density (`npflow.training.distill`), or as a
    variational posterior.

    Training stays finite for the reasons given at `maf`, whose inverse this is.

    Parameters
    ----------
    features : int
    steps : int
    network : MADE, optional
        By default ``MADE((64, 64), squash_inputs=True)``.
    transformer : Elementwise, optional
        Maps each component of z towards x. By default `ScaleShift`.

    References
    ----------
    Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling: Improved variational inference with inverse
    autoregressive flow, 2016, section 3.
    https://arxiv.org/abs/1606.04934

    Examples
    --------
    >>> from npflow.models import iaf
    >>> len(iaf(features=6).layer.layers)
    15
    """
    features, steps = check_count(features, "features"), check_depth(steps, "steps")
    network = MADE((64, 64), squash_inputs=True) if network is None else network
    transformer = ScaleShift() if transformer is None else transformer
    step = [ActNorm(), Inverse(MaskedAutoregressive(network, transformer)), Reverse()]
    return flow_of([Units(), *(step * steps)[:-1]], features, prior, context_features)
