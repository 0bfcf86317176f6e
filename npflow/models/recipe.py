"""What all recipes do beside their list of layers."""

from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import AffineCoupling, Chain, Split, Squeeze, Unsqueeze
from npflow.networks import ConvNet
from npflow.priors import Normal
from npflow.validation import check_count, check_sequence


def check_features(features, least=2):
    """Raise unless `features` is a number of features that a recipe has layers for; return it."""
    return check_count(features, "the number of features", least=least)


def check_image_shape(shape, levels=0):
    """Raise unless `shape` is that of images that can be halved `levels` times; return it as a tuple of int."""
    sizes = check_sequence(shape, "the shape of images")
    if len(sizes) != 3:
        raise InputError(
            f"expected the shape of images as (height, width, channels), got {len(sizes)} numbers"
        )
    height, width, channels = (check_count(size, "each number in the shape of images") for size in sizes)
    levels = check_count(levels, "the number of levels", least=0)
    if height % 2**levels or width % 2**levels:
        raise InputError(
            f"expected images whose height and width are multiples of {2**levels}, so that {levels} levels can halve "
            f"them, got {height} x {width}"
        )
    return height, width, channels


def flow_of(layers, shape, prior, context_features=0):
    """The flow of a recipe's layers over rows of a shape, a number of features or a tuple.

    Its prior is the standard normal where none is given.

    Raises
    ------
    InputError
        If the prior is one of another shape.
    """
    event_shape = shape if isinstance(shape, tuple) else (shape,)
    if prior is not None and getattr(prior, "event_shape", event_shape) != event_shape:
        wanted = f"shape {shape}" if isinstance(shape, tuple) else f"{shape} features"
        raise InputError(f"expected a prior of {wanted}, got one of shape {prior.event_shape}")
    return Flow(Chain(layers), Normal(shape) if prior is None else prior, context_features)


def multi_scale(levels):
    """Lists of layers, one for each level, as one layer that keeps its shape.

    Each level works on the blocks of 2 x 2 pixels that the one before it made pixels of. After it half of the
    channels stay as they are, and the next level goes on with the rest; what stays has a learned prior, a normal
    distribution around what a convolution of the rest says (see `Split`).
    """
    inner = None
    for layers in reversed(levels):
        beyond = [AffineCoupling(ConvNet((), (3,)), "first"), Split(inner)] if inner else []
        inner = Chain([Squeeze(), *layers, *beyond, Unsqueeze()])
    return inner
