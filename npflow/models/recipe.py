"""What the recipes share: checks, a default prior, and the multi-scale architecture."""

from npflow.docstrings import documented
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import AffineCoupling, Chain, Split, Squeeze, Unsqueeze
from npflow.networks import ConvNet
from npflow.priors import Normal
from npflow.validation import check_count, check_sequence

DEEPEST = 10_000  # layers: a recipe makes them all before anything else could say that they are too many

# A decorator that adds to the docstring of a recipe what all recipes share.
recipe = documented(
    """
    Parameters
    ----------
    prior : Prior, optional
        By default the standard normal.
    context_features : int
        The number of context features that condition every network; 0 for none.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        If an argument is invalid, or the prior has another shape.
    """
)


def check_depth(value, name):
    """Raise unless `value` is a number of layers that a recipe can make; return it."""
    return check_count(value, name, most=DEEPEST)


def check_image_shape(shape, name="shape", halvings=0):
    """Raise unless `shape` is (height, width, channels); return it as a tuple of int.

    Height and width must be multiples of 2^halvings. A message calls the shape `name`.
    """
    sizes = check_sequence(shape, name)
    if len(sizes) != 3:
        raise InputError(f"expected {name} to be (height, width, channels), got {shape!r}")
    height, width, channels = (check_count(size, f"each number in {name}") for size in sizes)
    # 2**halvings may be a number of any length.
    if halvings >= (height | width).bit_length() or (height | width) % 2**halvings:
        wanted = "even" if halvings == 1 else f"multiples of 2^{halvings}"
        times = "" if halvings == 1 else f" {halvings} times"
        of = "" if name == "shape" else f" of {name}"
        raise InputError(
            f"expected height and width{of} to be {wanted}, so that they can be halved{times}, got {height} x {width}"
        )
    return height, width, channels


def flow_of(layers, shape, prior, context_features=0):
    """Make a flow of a recipe's layers; `shape` is that of an image, or the number of features."""
    event_shape = shape if isinstance(shape, tuple) else (shape,)
    if prior is not None and getattr(prior, "event_shape", event_shape) != event_shape:
        wanted = f"shape {shape}" if isinstance(shape, tuple) else f"{shape} features"
        raise InputError(f"expected a prior of {wanted}, got one of shape {prior.event_shape}")
    return Flow(Chain(layers), Normal(shape) if prior is None else prior, context_features)


def multi_scale(levels):
    """Make one layer of lists of layers, one list per level; it keeps the shape of the images.

    Each level squeezes 2 x 2 pixels into one pixel and applies its layers. Half of the channels then leave:
    they get a learned prior, a normal distribution whose mean and scale are a convolution of the other half
    (see `Split`). The next level goes on with the other half.
    """
    inner = None
    for layers in reversed(levels):
        beyond = [AffineCoupling(ConvNet((), (3,)), "first"), Split(inner)] if inner else []
        inner = Chain([Squeeze(), *layers, *beyond, Unsqueeze()])
    return inner
