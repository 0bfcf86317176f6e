"""MintNet: masked convolutions with triangular Jacobians, on images."""

from npflow.flow import Flow
from npflow.layers import ActNorm, Logit, MaskedConvolution, Squeeze, Units, Unsqueeze
from npflow.models.recipe import check_depth, check_image_shape, flow_of, recipe
from npflow.priors import Prior
from npflow.validation import check_count


@recipe
def mintnet(
    shape: tuple[int, int, int],
    levels: int = 3,
    steps: int = 4,
    filters: int = 16,
    prior: Prior | None = None,
) -> Flow:
    """MintNet: Logit, Units, then levels of steps of [ActNorm, MaskedConvolution, MaskedConvolution].

    The first convolution of a step is in raster order, where a component depends on those before it; the
    second is in reversed order. Between levels 2 x 2 pixels are squeezed into one, and all channels go on.
    Pixels are numbers in [0, 1], as `Dequantized` makes them; `Logit` maps them to real numbers.

    The density takes one pass, and so does its gradient. Sampling takes one pass of a layer for each
    iteration of its inverse: ten or twenty for digits and up to a hundred for images of 32 x 32. On a GPU it
    always takes hundreds, since asking whether fewer are enough would stall the device.

    Training stays finite: the diagonals of the Jacobians are positive for all parameters, a new layer is near
    the identity, and `ActNorm`, which the paper does without, gives each step inputs of unit variance. ELUs
    grow no faster than their inputs, so outliers are moved in proportion.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^(levels - 1).
    levels : int
        The number of levels; the paper has 3.
    steps : int
        The number of steps in each level; the paper has 20 in all for MNIST, 16 for CIFAR-10.
    filters : int
        The number of hidden channels for each channel; the paper has 45 for MNIST, 85 for CIFAR-10.

    References
    ----------
    Song, Meng, Ermon: MintNet: Building invertible neural networks with masked convolutions, 2019.
    https://arxiv.org/abs/1907.07945

    Examples
    --------
    >>> from npflow.models import mintnet
    >>> flow = mintnet((8, 8, 1), levels=2, steps=1)
    >>> [type(layer).__name__ for layer in flow.layer.layers][5:]
    ['Squeeze', 'ActNorm', 'MaskedConvolution', 'MaskedConvolution', 'Unsqueeze']
    """
    levels, steps = check_count(levels, "levels"), check_depth(steps, "steps")
    shape = check_image_shape(shape, halvings=levels - 1)
    step = [ActNorm(), MaskedConvolution(filters, "raster"), MaskedConvolution(filters, "reversed")]
    layers = [Logit(), Units(), *(step * steps)]
    for _ in range(levels - 1):
        layers += [Squeeze(), *(step * steps)]
    return flow_of([*layers, *[Unsqueeze()] * (levels - 1)], shape, prior)
