"""A conditional layer at one context."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import spread_over_rows
from npflow.description import checked
from npflow.errors import InputError
from npflow.layers.composite import Composite, Step, uses_context
from npflow.layers.layer import Layer, check_layer, takes_context
from npflow.validation import cast, check_number, check_rows, check_sequence


def check_context(numbers, name):
    """Raise unless `numbers` is at least one finite number, or an image of them; return them as tuples of float."""
    numbers = check_sequence(numbers, name)
    if not numbers:
        raise InputError(f"expected {name} to have at least one number, got none")
    if not isinstance(numbers[0], (list, tuple)) and np.ndim(numbers[0]) == 0:
        return tuple(check_number(one, f"each number of {name}") for one in numbers)
    image = check_rows(numbers, name=name, any_shape=True)
    if image.ndim != 3:
        raise InputError(
            f"expected {name} as numbers or as an image (height, width, channels), got shape {image.shape}"
        )
    return tuple(tuple(map(tuple, row)) for row in image.tolist())


@dataclass(frozen=True)
class Given(Composite):
    """A conditional layer at one context, which is the same for every row.

    Parameters
    ----------
    layer : Layer
        A layer that takes a context. Its parameters are those of this layer.
    context : tuple of float, or an image as nested tuples, shape (height, width, channels)
        The numbers that the layer sees. The layer of a conditional `Flow` sees a context in units; see `in_units` of
        `npflow.layers.units`.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import AffineCoupling, Given
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Given(AffineCoupling(), context=(0.0, 1.0)), rng.normal(size=(5, 2))
    >>> params = layer.init(rng, x)
    >>> layer.forward(params, x)[0].shape
    (5, 2)
    """

    layer: Layer = checked(check_layer)
    context: ArrayLike = checked(check_context)

    def __post_init__(self):
        super().__post_init__()
        if not takes_context(type(self.layer)):
            self._refuse()

    def init(self, rng, x, context=None):
        if not uses_context(
            self.layer, x.shape[1:], np.shape(self.context)
        ):  # a chain whose layers take none
            self._refuse()
        return super().init(rng, x)

    def _refuse(self):
        raise InputError(f"expected a layer that takes a context for Given, got {self.layer!r}")

    def steps(self, x, direction, context=None):
        return (yield Step(None, self.layer, x, direction, self.rows(x)))

    def rows(self, x):
        """The context once for each row of `x`, in its dtype."""
        context = constant(cast(self.context, x.dtype, "expected Given's context"), like=x)
        return spread_over_rows(context, (len(x), *context.shape))
