"""Neural spline flows: couplings or autoregressive layers of rational-quadratic splines."""

from npflow.flow import Flow
from npflow.layers import ActNorm, Conv1x1, MaskedAutoregressive, Reverse, Spline, SplineCoupling, Units
from npflow.models.recipe import check_depth, flow_of, recipe
from npflow.networks import MADE, MLP, Network
from npflow.priors import Prior
from npflow.validation import check_choice, check_count


@recipe
def neural_spline(
    features: int,
    steps: int = 5,
    kind: str = "coupling",
    network: Network | MADE | None = None,
    spline: Spline | None = None,
    prior: Prior | None = None,
    context_features: int = 0,
) -> Flow:
    """A neural spline flow, of couplings or autoregressive layers.

    Units, then steps of [ActNorm, SplineCoupling, Conv1x1], or of [ActNorm, MaskedAutoregressive, Reverse].

    Training stays finite on heavy-tailed data: a spline is the identity outside its bound, so it leaves
    outliers alone, and its slopes are bounded; `Units` and `ActNorm` remove the units of the data; and the networks see
    arcsinh(x).

    Parameters
    ----------
    features : int
        At least 2 for couplings.
    steps : int
    kind : {"coupling", "autoregressive"}
        A coupling conditions half of the features on the other half, and samples in one pass. An
        autoregressive layer conditions each feature on those before it, and samples feature by feature.
    network : Network or MADE, optional
        By default ``MLP((64, 64), squash_inputs=True)``, or ``MADE((64, 64), squash_inputs=True)``.
    spline : Spline, optional
        By default ``Spline(bins=8, bound=5.0)``.

    References
    ----------
    Durkan, Bekasov, Murray, Papamakarios: Neural spline flows, 2019. https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> from npflow.models import neural_spline
    >>> len(neural_spline(features=6).layer.layers), len(neural_spline(6, kind="autoregressive").layer.layers)
    (16, 15)
    """
    check_choice(kind, ("coupling", "autoregressive"), "kind")
    features = check_count(features, "features", least=2 if kind == "coupling" else 1)
    steps = check_depth(steps, "steps")
    spline = Spline() if spline is None else spline
    if kind == "coupling":
        network = MLP((64, 64), squash_inputs=True) if network is None else network
        layers = [ActNorm(), SplineCoupling(network, transformer=spline), Conv1x1()] * steps
    else:
        network = MADE((64, 64), squash_inputs=True) if network is None else network
        layers = ([ActNorm(), MaskedAutoregressive(network, spline), Reverse()] * steps)[:-1]
    return flow_of([Units(), *layers], features, prior, context_features)
