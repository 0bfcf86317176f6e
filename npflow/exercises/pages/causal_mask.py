"""Exercise causal_mask: which weights of a convolution look at pixels that come later?

An autoregressive model of images orders the pixels row by row, and the channels within a pixel. A pixel's
output must not depend on what comes later. So a 3 x 3 kernel keeps five places: the three above, the one on
the left, and the middle one, in this order. A mask of ones and zeros decides the rest:

- At the first four places everything comes before: all ones.
- At the middle place, the last of the five, output channel j sees input channel i with mask "A" where i < j,
  and with mask "B" where i <= j.

Return the mask, shape (places, channels, channels), with the places first, then the input channel, then the
output channel.

Hints:

1. ``np.arange(channels)[:, None]`` is a column, one number for each input channel. ``np.arange(channels)`` is
   a row, one number for each output channel. A comparison of the two has shape (channels, channels).
2. Begin with ``np.ones((places, channels, channels))``, and write to ``mask[-1]``.

Mark it: ``npflow exercise causal_mask causal_mask.py``. Book: demos/book/11_masked_convolutions.py. The
library's own: causal_mask in npflow/networks/masked.py.
"""

import numpy as np


def causal_mask(kind, places, channels):
    """Mask "A" or "B" of a kernel: ones and zeros, shape (places, channels, channels)."""
    mask = ...
    return mask
