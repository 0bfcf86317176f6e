"""Images given a part of them: super-resolution, and the missing half."""

from npflow.completion import Completion
from npflow.layers import ActNorm, AffineCoupling, AffineInjector, BlockMeans, Conv1x1, Fold, Units
from npflow.models.glow import image_glow
from npflow.models.recipe import check_depth, check_image_shape, flow_of
from npflow.networks import ConvNet, Network
from npflow.validation import check_count


def super_resolution(
    shape: tuple[int, int, int],
    levels: int = 256,
    halvings: int = 1,
    steps: int = 8,
    network: Network | None = None,
) -> Completion:
    """Flows of the details of images given the means of their blocks, one for each halving of height and width.

    A flow is Units, steps of [ActNorm, Conv1x1, AffineCoupling], AffineInjector. The networks of its couplings see the
    smaller image beside the details. The injector gives the prior a mean and a scale that depend on it. One flow for
    each scale of a Haar transform is Wavelet Flow's idea, and a conditional Glow is SRFlow's. SRFlow encodes the small
    image first; here each coupling sees the image itself.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels) of the large images; height and width are multiples of 2^halvings.
    levels : int
        The number of integers that a pixel can be.
    halvings : int
        1 from 4 x 4 to 8 x 8 pixels, 2 from 8 x 8 to 32 x 32.
    steps : int
        Of each flow.
    network : Network, optional
        Computes the scale and shift of each coupling. By default ``ConvNet((64, 64), (3, 1, 3))``.

    Returns
    -------
    Completion

    Raises
    ------
    InputError
        If an argument is invalid.

    References
    ----------
    Lugmayr, Danelljan, Van Gool, Timofte: SRFlow: Learning the super-resolution space with normalizing flow, 2020,
    section 3. https://arxiv.org/abs/2006.14200

    Yu, Derpanis, Brubaker: Wavelet Flow: Fast training of high resolution normalizing flows, 2020, section 3.
    https://arxiv.org/abs/2010.13821

    Examples
    --------
    >>> from npflow.models import super_resolution
    >>> model = super_resolution((32, 32, 3), halvings=2)
    >>> [flow.event_shape for flow in model.flows], model.known_shape
    ([(8, 8, 9), (16, 16, 9)], (8, 8, 3))
    """
    halvings, steps = check_count(halvings, "halvings"), check_depth(steps, "steps")
    height, width, channels = check_image_shape(shape, halvings=halvings)
    network = ConvNet((64, 64), (3, 1, 3)) if network is None else network
    layers = [
        Units(),
        *[ActNorm(), Conv1x1(), AffineCoupling(network)] * steps,
        AffineInjector(ConvNet((), (3,))),
    ]
    sizes = [(height // 2**halving, width // 2**halving) for halving in range(halvings, 0, -1)]
    flows = [flow_of(layers, (*size, 3 * channels), None, (*size, channels)) for size in sizes]
    return Completion(flows, BlockMeans(), levels)


def inpainting(
    shape: tuple[int, int, int],
    levels: int = 256,
    missing: str = "lower",
    scales: int = 2,
    steps: int = 8,
    network: Network | None = None,
) -> Completion:
    """A Glow of one half of images given the other half.

    The images are folded, so that the networks of the couplings see the known half beside the missing one; see `Fold`.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels) of the images; those of a half are multiples of 2^scales.
    levels : int
        The number of integers that a pixel can be.
    missing : {"lower", "upper", "left", "right"}
        The half that the flow draws.
    scales : int
        The levels of the Glow.
    steps : int
        Of each scale.
    network : Network, optional
        Computes the scale and shift of each coupling. By default ``ConvNet((64, 64), (3, 1, 3))``.

    Returns
    -------
    Completion

    Raises
    ------
    InputError
        If an argument is invalid.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3.
    https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> from npflow.models import inpainting
    >>> inpainting((8, 8, 1), levels=17, missing="left").flows[0].event_shape
    (8, 4, 1)
    """
    parting = Fold(missing)
    shape = check_image_shape(shape, halvings=1)
    height, width, channels = parting.output_shape(shape)
    network = ConvNet((64, 64), (3, 1, 3)) if network is None else network
    half = check_image_shape((height, width, channels // 2), "a half", check_count(scales, "scales"))
    return Completion(
        [image_glow(half, scales, steps, network, context_features=half, logit=False)], parting, levels
    )
