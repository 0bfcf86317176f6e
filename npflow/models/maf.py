"""MAF: autoregressive layers, which compute densities in one pass."""

from npflow.flow import Flow
from npflow.layers import ActNorm, Elementwise, MaskedAutoregressive, Reverse, ScaleShift, Units
from npflow.models.recipe import check_depth, flow_of, recipe
from npflow.networks import MADE
from npflow.priors import Prior
from npflow.validation import check_count


@recipe
def maf(
    features: int,
    steps: int = 5,
    network: MADE | None = None,
    transformer: Elementwise | None = None,
    prior: Prior | None = None,
    context_features: int = 0,
) -> Flow:
    """MAF: Units, then steps of [ActNorm, MaskedAutoregressive, Reverse].

    Each step takes the features in the reverse order of the one before. The density takes one pass of each
    network; sampling goes feature by feature.

    Training stays finite on heavy-tailed data for the reasons given at `glow`; `ActNorm` replaces the paper's
    batch norm.

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

    References
    ----------
    Papamakarios, Pavlakou, Murray: Masked autoregressive flow for density estimation, 2017, section 3.
    https://arxiv.org/abs/1705.07057

    Examples
    --------
    >>> from npflow.models import maf
    >>> len(maf(features=6).layer.layers)
    15
    """
    features, steps = check_count(features, "features"), check_depth(steps, "steps")
    network = MADE((64, 64), squash_inputs=True) if network is None else network
    transformer = ScaleShift() if transformer is None else transformer
    step = [ActNorm(), MaskedAutoregressive(network, transformer), Reverse()]
    return flow_of([Units(), *(step * steps)[:-1]], features, prior, context_features)
