"""MintNet: masked convolutions with triangular Jacobians, on images."""

from npflow.layers import ActNorm, Logit, MaskedConvolution, Squeeze, Unsqueeze
from npflow.models.recipe import check_image_shape, flow_of
from npflow.validation import check_count


def mintnet(shape, levels=3, steps=4, filters=16, prior=None):
    """MintNet: `levels` levels of `steps` steps of [ActNorm, MaskedConvolution, MaskedConvolution in the reversed order].

    Of such a pair of convolutions the first lets a component see those before it, the second those after it. Between
    levels blocks of 2 x 2 pixels become pixels of four times as many channels, all of which go on. Images are taken as
    numbers in [0, 1], as `Dequantized` makes them; `Logit` makes them real numbers.

    The density takes one pass, and so does its gradient. Sampling takes one pass of each layer for each step of its
    inverse: some ten or twenty for digits, up to a hundred for images of 32 x 32, and on a GPU always hundreds, as it is not
    waited for to ask whether fewer are enough.

    What keeps training finite: t and what is on the diagonals is positive whatever is learned, a new layer is near
    the identity, and `ActNorm` (which the paper does without) starts each pair on values of unit variance. ELUs grow no
    faster than their inputs, so that an outlier is moved in proportion.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^(levels - 1).
    levels : int
        How many levels, the last one included; the paper has 3.
    steps : int
        The number of pairs in each level; the paper has 20 in all for MNIST, 16 for CIFAR-10.
    filters : int
        How many hidden channels each channel has; the paper has 45 for MNIST, 85 for CIFAR-10.
    prior : Prior, optional
        By default the standard normal.

    Returns
    -------
    Flow

    References
    ----------
    Song, Meng, Ermon: MintNet: Building invertible neural networks with masked convolutions, 2019.
    https://arxiv.org/abs/1907.07945

    Examples
    --------
    >>> flow = mintnet((8, 8, 1), levels=2, steps=2)
    >>> [type(layer).__name__ for layer in flow.layer.layers][6:]
    ['MaskedConvolution', 'Squeeze', 'ActNorm', 'MaskedConvolution', 'MaskedConvolution', 'ActNorm', 'MaskedConvolution', 'MaskedConvolution', 'Unsqueeze']
    """
    levels = check_count(levels, "the number of levels")
    shape = check_image_shape(shape, levels - 1)
    check_count(steps, "the number of steps")
    step = [ActNorm(), MaskedConvolution(filters, "raster"), MaskedConvolution(filters, "reversed")]
    layers = [Logit(), *(step * steps)]
    for _ in range(levels - 1):
        layers += [Squeeze(), *(step * steps)]
    return flow_of([*layers, *[Unsqueeze()] * (levels - 1)], shape, prior)
