"""The models of images that ``npflow train`` trains, and their data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npflow import models
from npflow.datasets import CIFAR10_CLASSES, image_data
from npflow.dequantization import Dequantized
from npflow.errors import InputError
from npflow.networks import ConvNet, MaskedConvNet, ResNet


class Size(NamedTuple):
    """A hyper-parameter of a model that the command line can set: its default and its meaning."""

    default: int
    meaning: str


class ImageModel(NamedTuple):
    """A model of images, with its sizes by name and the default peak of its learning rate.

    ``make(shape, pixel_levels, context_features, **sizes)`` returns the model.
    """

    paper: str
    make: Callable
    sizes: dict
    rate: float = 1e-2

    def build(self, data, context_features, **sizes):
        """The model for an `ImageData`."""
        return self.make(data.train.shape[1:], data.levels, context_features, **sizes)


def dequantized(recipe):
    """A function that makes the `Dequantized` flow of a recipe."""
    return lambda shape, pixel_levels, context_features, **sizes: Dequantized(
        recipe(shape, context_features=context_features, **sizes), pixel_levels
    )


def glow(shape, levels, steps_per_level, channels, **context):
    """`image_glow` with a `ConvNet`."""
    network = ConvNet((channels, channels), (3, 1, 3))
    return models.image_glow(shape, levels, steps_per_level, network, **context)


def real_nvp(shape, levels, channels, blocks, **context):
    """`image_real_nvp` with a `ResNet`."""
    return models.image_real_nvp(shape, levels, ResNet(channels, blocks), **context)


def nice(shape, couplings, channels, blocks, **context):
    """`image_nice` with a `ResNet`."""
    return models.image_nice(shape, couplings, ResNet(channels, blocks), **context)


def mintnet(shape, levels, steps_per_level, filters, context_features):
    """`mintnet`, which takes no classes."""
    check_no_classes(context_features, "mintnet")
    return models.mintnet(shape, levels, steps_per_level, filters)


def residual_flow(shape, levels, steps_per_level, channels, context_features):
    """`image_residual_flow` with estimated log-dets, which takes no classes."""
    check_no_classes(context_features, "residual_flow")
    flow = models.image_residual_flow(shape, levels, steps_per_level, (channels, channels))
    return models.EstimatedLogDet(flow, exact=2)


def upscale(shape, pixel_levels, context_features, halvings, steps_per_halving, channels):
    """`super_resolution` with a `ConvNet`."""
    check_no_classes(context_features, "upscale")
    network = ConvNet((channels, channels), (3, 3, 3))
    return models.super_resolution(shape, pixel_levels, halvings, steps_per_halving, network)


def complete(shape, pixel_levels, context_features, levels, steps_per_level, channels):
    """`inpainting` of the lower half with a `ConvNet`."""
    check_no_classes(context_features, "complete")
    network = ConvNet((channels, channels), (3, 3, 3))
    return models.inpainting(shape, pixel_levels, "lower", levels, steps_per_level, network)


def pixelcnn(shape, pixel_levels, context_features, **sizes):
    """`PixelCNN` with a `MaskedConvNet`."""
    return models.PixelCNN(shape, pixel_levels, MaskedConvNet(**sizes), context_features)


def check_no_classes(context_features, name):
    """Raise `InputError` if a model that takes no class of an image is asked for with classes."""
    if context_features:
        raise InputError(
            f"expected a model that takes classes for --conditional, got {name}, which takes none"
        )


CHANNELS = "channels in each coupling's network"
BLOCKS = "residual blocks in each coupling's network"
MODELS = {
    "glow": ImageModel(
        "Glow (Kingma, Dhariwal 2018)",
        dequantized(glow),
        {
            "levels": Size(
                2, "levels, each with half the height and width of the one before; the paper has 3"
            ),
            "steps_per_level": Size(8, "steps of ActNorm, Conv1x1, AffineCoupling; the paper has 32"),
            "channels": Size(64, f"{CHANNELS}; the paper has 512"),
        },
    ),
    "real_nvp": ImageModel(
        "RealNVP (Dinh, Sohl-Dickstein, Bengio 2017)",
        dequantized(real_nvp),
        {
            "levels": Size(2, "levels, including the last"),
            "channels": Size(32, f"{CHANNELS}; the paper has 64"),
            "blocks": Size(2, f"{BLOCKS}; the paper has 8"),
        },
    ),
    "nice": ImageModel(
        "NICE (Dinh, Krueger, Bengio 2014)",
        dequantized(nice),
        {
            "couplings": Size(6, "additive couplings"),
            "channels": Size(32, CHANNELS),
            "blocks": Size(2, BLOCKS),
        },
    ),
    "mintnet": ImageModel(
        "MintNet (Song, Meng, Ermon 2019)",
        dequantized(mintnet),
        {
            "levels": Size(2, "levels, including the last; the paper has 3"),
            "steps_per_level": Size(2, "pairs of masked convolutions in each level"),
            "filters": Size(12, "hidden channels per channel; the paper has 85 for CIFAR-10"),
        },
        rate=3e-3,  # at a higher one the inverse of what is learned on the way overflows float32
    ),
    "residual_flow": ImageModel(
        "Residual flow (Chen, Behrmann, Duvenaud, Jacobsen 2019)",
        dequantized(residual_flow),
        {
            "levels": Size(
                2, "levels, each with half the height and width of the one before; the paper has 3"
            ),
            "steps_per_level": Size(4, "residual layers in each level; the paper has 16"),
            "channels": Size(32, "channels in each layer's network; the paper has 512"),
        },
    ),
    "upscale": ImageModel(
        "Super-resolution by flows, after SRFlow (Lugmayr et al. 2020) and Wavelet Flow (Yu et al. 2020)",
        upscale,
        {
            "halvings": Size(
                1, "how often the height and width of an image are halved: once from 8 x 8 to 4 x 4"
            ),
            "steps_per_halving": Size(8, "steps of ActNorm, Conv1x1, AffineCoupling"),
            "channels": Size(64, CHANNELS),
        },
    ),
    "complete": ImageModel(
        "The lower half of images given the upper half, by a conditional Glow",
        complete,
        {
            "levels": Size(2, "levels, each with half the height and width of the one before"),
            "steps_per_level": Size(8, "steps of ActNorm, Conv1x1, AffineCoupling"),
            "channels": Size(64, CHANNELS),
        },
    ),
    "pixelcnn": ImageModel(
        "PixelCNN (van den Oord, Kalchbrenner, Kavukcuoglu 2016), not a flow",
        pixelcnn,
        {
            "features": Size(32, "features of each 3 x 3 convolution; the paper has 128"),
            "blocks": Size(4, "residual blocks; the paper has 15"),
        },
    ),
}
CLASSES = {
    "digits": tuple("0123456789"),
    "patches": (),
    "faces": ("plain", "glasses"),
    "cifar10": CIFAR10_CLASSES,
}


def load_data(name, path=None, part=False, seed=0, download=False):
    """A data set of images by its name; `seed` draws patches and faces."""
    if name != "cifar10" and (path is not None or part or download):
        given = "--path" if path is not None else "--part" if part else "--download"
        raise InputError(f"expected {given} with cifar10 only, got it with {name}")
    return image_data(name, path, np.random.default_rng(seed), complete=not part, download=download)
