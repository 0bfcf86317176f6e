"""Neural spline flows: couplings, or autoregressive layers, of rational-quadratic splines."""

from npflow.errors import InputError
from npflow.layers import ActNorm, Conv1x1, MaskedAutoregressive, Reverse, Spline, SplineCoupling
from npflow.models.recipe import check_features, flow_of
from npflow.networks import MADE, MLP
from npflow.validation import check_count


def neural_spline(
    features, steps=5, kind="coupling", network=None, spline=None, prior=None, context_features=0
):
    """A neural spline flow, of couplings or autoregressive.

    Steps of [ActNorm, SplineCoupling, Conv1x1], or of [ActNorm, MaskedAutoregressive, Reverse].

    What keeps training finite, on heavy tails too: a spline is the identity outside its bound, so an outlier passes
    it as it is, and its slopes are bounded; `ActNorm` takes the units out of the data; and the networks see arcsinh(x).

    Parameters
    ----------
    features : int
        The number of features; at least two, for couplings.
    steps : int
        The number of steps.
    kind : {"coupling", "autoregressive"}
        Whether a network sees one half of the features for the other half, or for each feature those before it. A
        coupling samples in one pass, an autoregressive layer feature by feature.
    network : Network or MADE, optional
        By default ``MLP((64, 64), squash_inputs=True)``, or ``MADE((64, 64), squash_inputs=True)``.
    spline : Spline, optional
        By default ``Spline(bins=8, bound=5.0)``.
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        How many numbers a row of context has, which every network sees; by default there is none.

    Returns
    -------
    Flow

    References
    ----------
    Durkan, Bekasov, Murray, Papamakarios: Neural spline flows, 2019. https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> len(neural_spline(features=6).layer.layers), len(neural_spline(6, kind="autoregressive").layer.layers)
    (15, 14)
    """
    if kind not in ("coupling", "autoregressive"):
        raise InputError(f"expected kind to be 'coupling' or 'autoregressive', got {kind!r}")
    check_features(features, least=2 if kind == "coupling" else 1)
    check_count(steps, "the number of steps")
    spline = Spline() if spline is None else spline
    if kind == "coupling":
        network = MLP((64, 64), squash_inputs=True) if network is None else network
        layers = [ActNorm(), SplineCoupling(network, transformer=spline), Conv1x1()] * steps
    else:
        network = MADE((64, 64), squash_inputs=True) if network is None else network
        layers = ([ActNorm(), MaskedAutoregressive(network, spline), Reverse()] * steps)[:-1]
    return flow_of(layers, features, prior, context_features)
