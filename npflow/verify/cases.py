"""The registry: every layer of the library with a small case to check it on.

The tests and ``npflow verify`` run over `CASES`: a new layer is tested and verified once it is listed.
"""

from dataclasses import dataclass

import numpy as np

from npflow.errors import InputError
from npflow.layers import (
    ActNorm,
    AdditiveCoupling,
    Affine,
    AffineCoupling,
    AffineInjector,
    BlockMeans,
    Chain,
    Continuous,
    Conv1x1,
    ElementwiseCoupling,
    Fold,
    Gaussianize,
    Given,
    Inverse,
    Layer,
    Logit,
    MaskedAutoregressive,
    MaskedConvolution,
    Permutation,
    Planar,
    Radial,
    Residual,
    Reverse,
    Reversible,
    Rotation,
    ScaleShift,
    Scaling,
    Shift,
    Spline,
    SplineCoupling,
    Split,
    Squeeze,
    Sylvester,
    Units,
    Unsqueeze,
)
from npflow.layers.layer import domain_of
from npflow.models import (
    continuous_flow,
    gaussianization,
    glow,
    iaf,
    image_glow,
    image_nice,
    image_real_nvp,
    image_residual_flow,
    inpainting,
    maf,
    mintnet,
    neural_spline,
    nice,
    planar,
    radial,
    real_nvp,
    residual_flow,
    super_resolution,
    sylvester,
)
from npflow.networks import MADE, MLP, Beside, ConvNet, ResNet


@dataclass(frozen=True)
class Case:
    """A layer and the shape of its data.

    Attributes
    ----------
    layer : Layer
    event_shape : tuple of int
        The shape of a row.
    smooth : bool
        Whether the layer has derivatives of all orders everywhere, so that finite differences converge at
        their full order. Layers with a leaky ReLU or a spline do not.
    """

    layer: Layer
    event_shape: tuple
    smooth: bool = True

    def batch(self, rng, rows=16, dtype=np.float64):
        """Rows for the layer: uniform in a bounded domain, otherwise normal (mean 0.5, deviation 1.5)."""
        shape, domain = (rows, *self.event_shape), domain_of(self.layer)
        bounded = np.isfinite(domain).all()
        return (rng.uniform(*domain, shape) if bounded else rng.normal(0.5, 1.5, shape)).astype(dtype)


small = MLP((16, 16), "tanh")
convolutions = ConvNet((6, 6), (3, 1, 3), "tanh")
picture = ((0.3, -1.2), (0.8, 0.1)), ((2.0, 0.5), (-0.4, 1.0))  # a context of 2 x 2 pixels
second_scale = [Squeeze(), ActNorm(), AffineCoupling(small), Unsqueeze()]
two_scales = [Squeeze(), ActNorm(), AffineCoupling(small, "first"), Split(Chain(second_scale)), Unsqueeze()]

CASES = {
    "Affine": Case(Affine(), (5,)),
    "Affine/image": Case(Affine(), (2, 3, 2)),
    "ActNorm": Case(ActNorm(), (5,)),
    "ActNorm/image": Case(ActNorm(), (2, 3, 4)),
    "AdditiveCoupling": Case(AdditiveCoupling(small, "odd"), (5,)),
    "AdditiveCoupling/image": Case(AdditiveCoupling(small, "even"), (2, 2, 3)),
    "AffineCoupling": Case(AffineCoupling(small), (6,)),
    "AffineCoupling/first": Case(AffineCoupling(small, transformed="first"), (6,)),
    "AffineCoupling/beside": Case(AffineCoupling(Beside(small, MLP((16,), "softplus"))), (4,)),
    "AffineCoupling/kinks": Case(AffineCoupling(MLP((16, 16), "leaky_relu")), (6,), smooth=False),
    "AffineCoupling/relu": Case(AffineCoupling(MLP((16, 16), "relu")), (6,), smooth=False),
    "AffineCoupling/image": Case(AffineCoupling(small), (2, 2, 4)),
    "AffineCoupling/convolutions": Case(AffineCoupling(convolutions), (3, 2, 3)),
    "AffineCoupling/mask": Case(AffineCoupling(small, (True, False, False, True, False)), (5,)),
    "AdditiveCoupling/checkerboard": Case(AdditiveCoupling(small, "checkerboard-even"), (3, 2, 2)),
    "AffineCoupling/checkerboard": Case(AffineCoupling(small, "checkerboard-odd"), (2, 3, 2)),
    "AffineCoupling/checkerboard-even": Case(AffineCoupling(small, "checkerboard-even"), (3, 3, 1)),
    "AffineCoupling/48": Case(AffineCoupling(MLP((64, 64), "tanh")), (48,)),
    "AffineInjector": Case(Given(AffineInjector(small), context=(0.5, -1.0)), (5,)),
    "AffineInjector/picture": Case(Given(AffineInjector(convolutions), context=picture), (4, 4, 1)),
    "MaskedAutoregressive": Case(MaskedAutoregressive(MADE((16, 16), "tanh")), (5,)),
    "MaskedAutoregressive/order": Case(
        MaskedAutoregressive(MADE((9,), "tanh", (2, 0, 3, 1), squash_inputs=True)), (4,)
    ),
    "MaskedAutoregressive/given": Case(
        Given(MaskedAutoregressive(MADE((12,), "tanh", "reversed")), context=(0.5, -1.0)), (3,)
    ),
    "MaskedAutoregressive/one": Case(MaskedAutoregressive(MADE((4,), "tanh")), (1,)),
    "Inverse/MaskedAutoregressive": Case(Inverse(MaskedAutoregressive(MADE((16, 16), "tanh"))), (4,)),
    "MaskedConvolution": Case(MaskedConvolution(filters=2), (2, 3, 1), smooth=False),
    "MaskedConvolution/reversed": Case(MaskedConvolution(2, "reversed"), (2, 2, 2), smooth=False),
    "Scaling": Case(Scaling(), (2, 3, 2)),
    "Units": Case(Units(), (5,)),
    "Units/image": Case(Units(), (2, 2, 3)),
    "Continuous": Case(Continuous((6, 6), steps=1), (3,)),
    "Continuous/linear": Case(Continuous((), steps=1), (2,)),
    "Conv1x1": Case(Conv1x1(), (5,)),
    "Conv1x1/image": Case(Conv1x1(), (2, 2, 3)),
    "Rotation": Case(Rotation(), (5,)),
    "Rotation/pca": Case(Rotation(reflections=2, start="pca"), (5,)),
    "Rotation/image": Case(Rotation(), (2, 2, 3)),
    "Gaussianize": Case(Gaussianize(components=3), (4,), smooth=False),
    "Gaussianize/image": Case(Gaussianize(components=2), (2, 2, 2), smooth=False),
    "Logit": Case(Logit(), (5,)),
    "Logit/image": Case(Chain([Logit(alpha=0.01), Affine()]), (2, 2, 3)),
    "Squeeze": Case(Squeeze(), (4, 2, 3)),
    "Unsqueeze": Case(Unsqueeze(), (1, 2, 8)),
    "Split": Case(Split(Conv1x1()), (2, 2, 5)),
    "Split/two scales": Case(Chain(two_scales), (4, 4, 1)),
    "BlockMeans": Case(BlockMeans(), (2, 4, 2)),
    "Fold": Case(Fold(), (4, 2, 2)),
    "Fold/left": Case(Fold("left"), (2, 4, 1)),
    "Permutation": Case(Permutation(), (5,)),
    "Permutation/image": Case(Permutation(), (2, 2, 3)),
    "Planar": Case(Planar(), (4,)),
    "Planar/one": Case(Planar(), (1,)),
    "Planar/given": Case(Given(Planar(), context=(0.3, -1.2)), (3,)),
    "Radial": Case(Radial(), (4,)),
    "Radial/one": Case(Radial(), (1,)),
    "Sylvester": Case(Sylvester(rank=3), (5,)),
    "Sylvester/full": Case(Sylvester(rank=4), (4,)),
    "Residual": Case(Residual((8, 8)), (3,)),
    "Residual/one": Case(Residual((4,), lipschitz=0.5), (1,)),
    "Residual/image": Case(Residual((4, 4)), (3, 2, 2)),
    "Reverse": Case(Reverse(), (5,)),
    "Reverse/image": Case(Reverse(), (2, 2, 3)),
    "Reversible": Case(Reversible(Chain([ActNorm(), AffineCoupling(small), Conv1x1()])), (4,)),
    "Reversible/two scales": Case(Reversible(Chain(two_scales)), (4, 4, 1)),
    "Reversible/kept": Case(
        Reversible(Chain([MaskedAutoregressive(MADE((12,), "tanh")), Inverse(AffineCoupling(small))])), (4,)
    ),
    "Shift": Case(Shift(), (5,)),
    "Shift/image": Case(Shift(), (2, 2, 3)),
    "ScaleShift": Case(ScaleShift(), (5,)),
    "ScaleShift/image": Case(ScaleShift(), (2, 2, 3)),
    "Spline": Case(Spline(), (5,), smooth=False),
    "Spline/5": Case(Spline(bins=5, bound=2.0), (4,), smooth=False),
    "Spline/image": Case(Spline(), (2, 2, 3), smooth=False),
    "Inverse": Case(Inverse(AffineCoupling(small)), (4,)),
    "Given": Case(Given(AffineCoupling(small), context=(0.3, -1.2)), (4,)),
    "Given/image": Case(Given(AffineCoupling(small), context=(0.3, -1.2)), (2, 2, 2)),
    "Given/picture": Case(Given(AffineCoupling(convolutions), context=picture), (4, 4, 2)),
    "Given/picture, squeezed": Case(Given(AffineCoupling(convolutions), context=picture), (1, 1, 4)),
    "Chain": Case(Chain([ActNorm(), AffineCoupling(small), Reverse(), Affine()]), (4,)),
    "Chain/image": Case(Chain([ActNorm(), Conv1x1(), AffineCoupling(small)]), (2, 2, 2)),
    "ElementwiseCoupling": Case(ElementwiseCoupling(small, "odd", ScaleShift()), (5,)),
    "ElementwiseCoupling/shift": Case(ElementwiseCoupling(small, "checkerboard-even", Shift()), (2, 2, 2)),
    "ElementwiseCoupling/spline": Case(
        ElementwiseCoupling(small, "first", Spline(bins=3)), (3,), smooth=False
    ),
    "ElementwiseCoupling/checkerboard": Case(
        ElementwiseCoupling(small, "checkerboard-odd", ScaleShift()), (2, 3, 1)
    ),
    "SplineCoupling": Case(SplineCoupling(small, "even", Spline(bins=5)), (4,), smooth=False),
    "SplineCoupling/checkerboard": Case(
        SplineCoupling(small, "checkerboard-odd", Spline(bins=3)), (2, 2, 2), smooth=False
    ),
    "MaskedAutoregressive/spline": Case(
        MaskedAutoregressive(MADE((12,), "tanh"), Spline(bins=4)), (3,), smooth=False
    ),
    "neural_spline": Case(
        neural_spline(features=3, steps=1, network=small, spline=Spline(bins=3)).layer, (3,), smooth=False
    ),
    "nice": Case(nice(features=5, couplings=2, network=small).layer, (5,)),
    "real_nvp": Case(real_nvp(features=5, couplings=3, network=small).layer, (5,)),
    "real_nvp/masks": Case(
        real_nvp(features=4, couplings=2, network=small, masks=("odd", "even")).layer, (4,)
    ),
    "continuous_flow": Case(continuous_flow(features=2, hidden=(4,), steps=2).layer, (2,)),
    "planar": Case(planar(features=3, steps=2).layer, (3,)),
    "radial": Case(radial(features=3, steps=2).layer, (3,)),
    "image_residual_flow": Case(
        image_residual_flow((2, 2, 1), levels=1, steps=1, hidden=(3,)).layer, (2, 2, 1)
    ),
    "residual_flow": Case(residual_flow(features=3, steps=2, hidden=(8,)).layer, (3,)),
    "sylvester": Case(sylvester(features=3, steps=2).layer, (3,)),
    "maf": Case(maf(features=4, steps=2, network=MADE((12,), "tanh")).layer, (4,)),
    "iaf": Case(iaf(features=3, steps=2, network=MADE((12,), "tanh")).layer, (3,)),
    "gaussianization": Case(gaussianization(features=2, steps=1, components=3).layer, (2,), smooth=False),
    "mintnet": Case(mintnet((1, 2, 1), levels=1, steps=1, filters=2).layer, (1, 2, 1), smooth=False),
    "glow": Case(glow(features=4, steps=2, network=small).layer, (4,)),
    "image_glow": Case(image_glow((4, 4, 1), levels=2, steps=1, network=convolutions).layer, (4, 4, 1)),
    "image_glow/picture": Case(
        Given(
            image_glow((4, 4, 2), 2, 1, convolutions, context_features=(2, 2, 2), logit=False).layer, picture
        ),
        (4, 4, 2),
    ),
    "super_resolution": Case(
        Given(super_resolution((4, 4, 2), 17, 1, 1, convolutions).flows[0].layer, picture), (2, 2, 6)
    ),
    "inpainting": Case(
        Given(inpainting((4, 2, 2), 17, "lower", 1, 1, convolutions).flows[0].layer, picture), (2, 2, 2)
    ),
    "image_nice": Case(image_nice((3, 3, 1), couplings=2, network=convolutions).layer, (3, 3, 1)),
    "image_real_nvp": Case(image_real_nvp((3, 2, 1), 1, ResNet(4, 1, 3, "tanh")).layer, (3, 2, 1)),
    "glow/kinks": Case(glow(features=2, steps=3).layer, (2,), smooth=False),
}


def select(names):
    """The cases of some names; all cases where there are none.

    Parameters
    ----------
    names : sequence of str
        Names of cases, in capitals or not. The name of a layer stands for all of its cases.

    Returns
    -------
    dict of str to Case

    Raises
    ------
    InputError
        If a name is not in the registry.

    Examples
    --------
    >>> from npflow.verify.cases import select
    >>> list(select(["conv1x1"]))
    ['Conv1x1', 'Conv1x1/image']
    """
    chosen = {}
    for name in names:
        found = {key for key in CASES if name.lower() in (key.lower(), key.lower().split("/")[0])}
        if not found:
            raise InputError(f"expected names of layers among {', '.join(CASES)}; got {name!r}")
        chosen |= {key: case for key, case in CASES.items() if key in found}
    return chosen or dict(CASES)
