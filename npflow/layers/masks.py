"""Masks: the part of its input that a layer transforms, some of the channels or every other pixel.

A mask takes an array apart into the part that stays and the part that is transformed, puts the two together again,
and adds up the log-slopes of what is transformed.
"""

from dataclasses import dataclass

import numpy as np

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import concatenate_last, permute, split_last, sum_event, where
from npflow.errors import InputError
from npflow.layers.layer import pixels
from npflow.validation import check_sequence

CHANNELS = ("first", "second", "odd", "even")
CHECKERBOARDS = ("checkerboard-odd", "checkerboard-even")


@dataclass(frozen=True)
class ChannelMask:
    """Some of the channels are transformed: each part has all pixels and some of the channels.

    Parameters
    ----------
    transformed : {"first", "second", "odd", "even"} or tuple of bool
    """

    transformed: str | tuple

    def parts(self, x):
        """The channels that stay, and those that are transformed."""
        order, at = self.order(x.shape[-1])
        if order is not None:
            x = permute(x, constant(order, like=x))
        elif self.transformed == "first":
            changed, kept = split_last(x, at)
            return kept, changed
        kept, changed = split_last(x, at)
        return kept, changed

    def join(self, kept, changed):
        """Both parts in their places again."""
        if self.transformed == "first":
            return concatenate_last(changed, kept)
        joined = concatenate_last(kept, changed)
        order, _ = self.order(joined.shape[-1])
        return joined if order is None else permute(joined, constant(np.argsort(order), like=joined))

    def log_det(self, log_slope):
        """The sum of the log-slopes of the transformed channels of a row, shape (n,)."""
        return sum_event(log_slope)

    def order(self, channels):
        """The places of the channels, those that stay first (None for halves), and where to cut."""
        if channels < 2:
            raise InputError(f"expected at least two channels to take parts of, got {channels}")
        if self.transformed in ("first", "second"):
            return None, channels - channels // 2
        place = np.arange(channels)
        mask = (
            np.array(self.transformed)
            if isinstance(self.transformed, tuple)
            else place % 2 == (self.transformed == "odd")
        )
        if len(mask) != channels:
            raise InputError(f"expected {len(mask)} channels, one for each place of the mask, got {channels}")
        return np.concatenate([place[~mask], place[mask]]), int(np.sum(~mask))


@dataclass(frozen=True)
class Checkerboard:
    """Every other pixel is transformed, with all its channels: both parts are whole images.

    The part that stays has zeros at the transformed pixels, so that a network's output has a number for each of
    them. The values of the other part at pixels that stay are not used.

    Parameters
    ----------
    transformed : {"checkerboard-odd", "checkerboard-even"}
        The pixels where row + column, counted from 0, is odd or even.
    """

    transformed: str

    def parts(self, x):
        """The image with zeros at the transformed pixels, and the image."""
        return where(self.places(x), 0, x), x

    def join(self, kept, changed):
        """Both parts in their places again."""
        return where(self.places(kept), changed, kept)

    def log_det(self, log_slope):
        """The sum of the log-slopes of the transformed pixels of a row, shape (n,)."""
        return sum_event(where(self.places(log_slope), log_slope, 0))

    def places(self, x):
        """Where a row of `x` is transformed, shape (height, width, channels); broadcasting channels is slow."""
        if x.ndim != 4 or pixels(x) < 2:
            raise InputError(
                "expected images (n, height, width, channels) of at least two pixels for a checkerboard, "
                f"got shape {x.shape}"
            )
        row, column, _ = np.indices(x.shape[1:], sparse=True)
        parity = int(self.transformed == "checkerboard-odd")
        return constant(np.broadcast_to((row + column) % 2 == parity, x.shape[1:]).copy(), like=x)


def mask_of(transformed):
    """The mask of a value of `transformed`."""
    return Checkerboard(transformed) if transformed in CHECKERBOARDS else ChannelMask(transformed)


def check_transformed(transformed, name):
    """Raise unless `transformed` says which part to transform; return it, a mask as a tuple of bool."""
    if isinstance(transformed, str) and transformed in (*CHANNELS, *CHECKERBOARDS):
        return transformed
    named = ", ".join(map(repr, (*CHANNELS, *CHECKERBOARDS)))
    expected = f"expected {name} to be {named} or a mask"
    if isinstance(transformed, (str, type(None))):
        raise InputError(f"{expected}, got {transformed!r}")
    mask = check_sequence(transformed, name)
    if any(np.ndim(one) or one not in (0, 1) for one in mask) or len(set(mask)) < 2:
        raise InputError(f"{expected}, true for some channels and false for others, got {mask!r}")
    return tuple(map(bool, mask))
