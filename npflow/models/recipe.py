"""What all recipes do beside their list of layers."""

from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import Chain
from npflow.priors import Normal
from npflow.validation import check_count


def check_features(features, least=2):
    """Raise unless `features` is a number of features that a recipe has layers for; return it."""
    return check_count(features, "the number of features", least=least)


def flow_of(layers, features, prior, context_features=0):
    """The flow of a recipe's layers; its prior is the standard normal where none is given.

    Raises
    ------
    InputError
        If the prior is one of other features.
    """
    if prior is not None and getattr(prior, "event_shape", (features,)) != (features,):
        raise InputError(f"expected a prior of {features} features, got one of shape {prior.event_shape}")
    return Flow(Chain(layers), Normal(features) if prior is None else prior, context_features)
