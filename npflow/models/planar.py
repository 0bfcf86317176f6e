"""Flows of planar, radial and Sylvester layers."""

from npflow.flow import Flow
from npflow.layers import ActNorm, Planar, Radial, Sylvester, Units
from npflow.models.recipe import check_depth, flow_of, recipe
from npflow.priors import Prior
from npflow.validation import check_count


@recipe
def planar(features: int, steps: int = 32, prior: Prior | None = None) -> Flow:
    """Planar flow: Units, then steps of [ActNorm, Planar].

    A step bends space at one plane, so it takes many steps where a coupling takes few. Densities have a closed form,
    and samples take the root of one number for each row and step. For a flow that is fitted to a log density it is
    the other way round: ``Flow(Inverse(flow.layer), prior)`` samples by the closed form, as in the paper.

    Parameters
    ----------
    features : int
    steps : int

    References
    ----------
    Rezende, Mohamed: Variational inference with normalizing flows, 2015, section 4.1. https://arxiv.org/abs/1505.05770

    Examples
    --------
    >>> from npflow.models import planar
    >>> len(planar(features=2, steps=8).layer.layers)
    17
    """
    features, steps = check_count(features, "features"), check_depth(steps, "steps")
    return flow_of([Units(), *([ActNorm(), Planar()] * steps)], features, prior)


@recipe
def radial(features: int, steps: int = 32, prior: Prior | None = None) -> Flow:
    """Radial flow: Units, then steps of [ActNorm, Radial].

    Each step stretches or shrinks the neighbourhood of one point. Both directions have a closed form.

    Parameters
    ----------
    features : int
    steps : int

    References
    ----------
    Rezende, Mohamed: Variational inference with normalizing flows, 2015, section 4.1. https://arxiv.org/abs/1505.05770

    Examples
    --------
    >>> from npflow.models import radial
    >>> len(radial(features=2, steps=8).layer.layers)
    17
    """
    features, steps = check_count(features, "features"), check_depth(steps, "steps")
    return flow_of([Units(), *([ActNorm(), Radial()] * steps)], features, prior)


@recipe
def sylvester(features: int, steps: int = 16, rank: int | None = None, prior: Prior | None = None) -> Flow:
    """Sylvester flow: Units, then steps of [ActNorm, Sylvester].

    Parameters
    ----------
    features : int
    steps : int
    rank : int, optional
        The dimensions in which a step moves points; by default all, up to 16.

    References
    ----------
    van den Berg, Hasenclever, Tomczak, Welling: Sylvester normalizing flows for variational inference, 2018, section
    4.2. https://arxiv.org/abs/1803.05649

    Examples
    --------
    >>> from npflow.models import sylvester
    >>> sylvester(features=6, steps=4).layer.layers[2].rank
    6
    """
    features, steps = check_count(features, "features"), check_depth(steps, "steps")
    rank = min(features, 16) if rank is None else check_count(rank, "rank", most=features)
    return flow_of([Units(), *([ActNorm(), Sylvester(rank)] * steps)], features, prior)
