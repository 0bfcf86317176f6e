r"""Drawn faces with a smile that is known: pictures to encode, edit and measure, with nothing to download.

Each face is a few shapes, one over another: background, shoulders, neck, hair, head, eyes, mouth and so on. A
shape is known by its signed distance, which is negative inside. It covers of a pixel

    min(1, max(0, 1/2 - distance / pixel)),

which smooths its edge over one pixel.

Examples
--------
>>> import numpy as np
>>> from npflow.datasets import faces
>>> images, attributes = faces(5, np.random.default_rng(0))
>>> images.shape, attributes["smile"].shape
((5, 32, 32, 3), (5,))
"""

from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.errors import InputError
from npflow.validation import check_array, check_count, check_instance, check_number, check_rng

FACE_ATTRIBUTES = {
    "smile": (-1.0, 1.0),
    "glasses": (0.0, 1.0),
    "hair_length": (0.0, 1.0),
    "hair_colour": (0.0, 1.0),
    "skin": (0.0, 1.0),
    "face_width": (0.0, 1.0),
    "turn": (-1.0, 1.0),
    "tilt": (-1.0, 1.0),
    "right": (-1.0, 1.0),
    "down": (-1.0, 1.0),
    "light": (-1.0, 1.0),
    "background": (0.0, 1.0),
    "shirt": (0.0, 1.0),
}

SIZE = 32  # pixels
PIXEL = 2 / SIZE  # the picture reaches from -1 to 1
NECK = 0.35  # the point around which the head is tilted, below the middle of the picture
ROWS = 32  # faces drawn at a time, so that a shape stays in the cache

# Colours from one end of an attribute to the other: red, green, blue from 0 to 1.
HAIR = ((0.10, 0.08, 0.09), (0.33, 0.19, 0.11), (0.62, 0.31, 0.14), (0.90, 0.72, 0.36))
SKIN = ((0.94, 0.82, 0.72), (0.86, 0.66, 0.50), (0.66, 0.45, 0.31), (0.43, 0.28, 0.20))
BACKGROUND = ((0.45, 0.62, 0.80), (0.62, 0.78, 0.72), (0.88, 0.84, 0.68), (0.86, 0.70, 0.66))
BLUSH = (1.02, 0.80, 0.80)  # what it makes of the skin
SHIRT = ((0.16, 0.26, 0.48), (0.24, 0.46, 0.40), (0.72, 0.62, 0.26), (0.70, 0.24, 0.26))


def faces(
    n: int,
    rng: Generator,
    *,
    attributes: Mapping[str, ArrayLike] | None = None,
    noise: float = 5.0,
) -> tuple[ndarray, dict]:
    """Draw faces, with the attributes of each.

    Attributes are independent and uniform in their range, except for glasses: a face has them (1) or not (0), with
    equal chance. Numbers between fade them in.

    ============  =======  ================================================================
    smile         -1 to 1  -1 has the corners of the mouth down, 1 up, the mouth open, and teeth
    glasses       0 to 1   0 without, 1 with
    hair_length   0 to 1   0 is short, 1 reaches the shoulders
    hair_colour   0 to 1   black, brown, red, blond
    skin          0 to 1   light to dark
    face_width    0 to 1   narrow to wide
    turn          -1 to 1  looks to the left of the picture, to the right
    tilt          -1 to 1  8 degrees counter-clockwise, to 8 degrees clockwise
    right, down   -1 to 1  where the head is: up to one pixel from the middle
    light         -1 to 1  comes from the left, from the right
    background    0 to 1   blue, green, sand, pink
    shirt         0 to 1   blue, green, yellow, red
    ============  =======  ================================================================

    The same state of `rng` draws the same faces, whatever `attributes` sets. So it is known what a perfect edit of
    the smile makes of a face: the same face, drawn with another smile.

    Parameters
    ----------
    n : int
        The number of faces.
    rng : numpy.random.Generator
        Draws the attributes, then the noise.
    attributes : mapping of str to array_like, optional
        Attributes to set, of `FACE_ATTRIBUTES`: a number for all faces, or one for each, shape (n,).
    noise : float
        The standard deviation of the normal noise that is added to each number, in levels of 256. It bounds what
        a model can reach: `log2(noise sqrt(2 pi e))`, by default 4.37 bits/dim, are noise.

    Returns
    -------
    images : ndarray of uint8, shape (n, 32, 32, 3)
        Channels last: red, green, blue.
    attributes : dict of str to ndarray of float64, shape (n,)
        All attributes of each face, in the order of `FACE_ATTRIBUTES`.

    Raises
    ------
    InputError
        If there is no attribute of a name, or a value is out of its range.

    Examples
    --------
    The same four faces, in a bad mood and in a good one:

    >>> import numpy as np
    >>> from npflow.datasets import faces
    >>> sad, _ = faces(4, np.random.default_rng(0), attributes={"smile": -1})
    >>> glad, attributes = faces(4, np.random.default_rng(0), attributes={"smile": 1})
    >>> attributes["smile"]
    array([1., 1., 1., 1.])
    >>> changed = np.abs(glad.astype(int) - sad).max(axis=(0, 3)) > 20  # in any of the four
    >>> rows, columns = np.nonzero(changed)
    >>> bool(rows.min() > 16)  # the mouth alone, which is below the middle
    True
    """
    n = check_count(n, "the number of faces")
    check_rng(rng)
    noise = check_number(noise, "noise", least=0)
    drawn = rng.random((len(FACE_ATTRIBUTES), n))
    values = {
        name: low + (high - low) * share for (name, (low, high)), share in zip(FACE_ATTRIBUTES.items(), drawn)
    }
    values["glasses"] = np.round(values["glasses"])
    given = check_instance({} if attributes is None else attributes, Mapping, "attributes")
    values |= {name: check_attribute(name, value, n) for name, value in given.items()}
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for start in range(0, n, ROWS):
        rows = slice(start, start + ROWS)
        picture = 255 * draw({name: value[rows] for name, value in values.items()})
        picture += noise * rng.standard_normal(picture.shape, np.float32)
        images[rows] = np.clip(np.round(picture), 0, 255)
    return images, values


def check_attribute(name, value, n):
    """Raise `InputError` unless a value fits an attribute; return one for each of `n` faces."""
    if name not in FACE_ATTRIBUTES:
        raise InputError(f"expected attributes among {', '.join(FACE_ATTRIBUTES)}, got {name!r}")
    low, high = FACE_ATTRIBUTES[name]
    value = check_array(value, f"expected {name} as numbers", np.float64)
    if value.dtype.kind not in "biuf":
        raise InputError(f"expected {name} as real numbers, got {value.dtype}")
    if value.shape not in ((), (n,)):
        raise InputError(
            f"expected {name} as a number, or one for each of {n} faces, got shape {value.shape}"
        )
    outside = value[~((low <= value) & (value <= high))]
    if outside.size:
        raise InputError(f"expected {name} from {low:g} to {high:g}, got {outside[0]:g}")
    return np.broadcast_to(value, n).astype(np.float64)


def draw(values):
    """Pictures of faces, from the attributes of each; shape (n, 32, 32, 3), numbers from 0 to 1."""
    smile, glasses, length, hair, skin, wide, turn, tilt, right, down, light, behind, shirt = (
        values[name].astype(np.float32)[:, None, None] for name in FACE_ATTRIBUTES
    )
    hair, skin, shirt = blend(HAIR, hair), blend(SKIN, skin), blend(SHIRT, shirt)
    middles = (np.arange(SIZE, dtype=np.float32) + 0.5) * PIXEL - 1
    column, row = middles[None, None, :], middles[None, :, None]

    # Coordinates of the head, which is moved and tilted: x to the right, y downwards.
    angle = np.radians(8) * tilt
    cos, sin = np.cos(angle), np.sin(angle)
    across, below = column - 0.06 * right, row - 0.06 * down - NECK  # from the point it is tilted around
    x = cos * across + sin * below
    y = cos * below - sin * across + NECK
    side = 0.92 + 0.20 * light * np.clip(x / 0.6, -1, 1)  # the lit side and the other
    half = 0.50 + 0.08 * wide  # of the width of the head
    ahead = x - 0.09 * turn  # from the middle of the face, which a turn moves
    width = 0.45 + 0.06 * wide  # of the features, in relation to half

    picture = np.empty(
        (3, len(turn), SIZE, SIZE), np.float32
    )  # channels first: red, green and blue are planes
    picture[:] = blend(BACKGROUND, behind) * (0.98 - 0.10 * row)

    def paint(distance, colour, strength=1.0, shade=1):
        """Cover the picture with a shape of a colour, strength from 0 to 1."""
        cover = strength * np.clip(0.5 - distance / PIXEL, 0, 1)
        colour = np.reshape(np.asarray(colour, np.float32), (3, -1, 1, 1)) * shade
        picture[:] += cover * (colour - picture)

    # Behind the head: hair that falls to both sides, shoulders, neck.
    fall = 0.025 + 0.40 * length
    paint(box(x, y - fall + 0.18, half + 0.12, fall + 0.18, 0.22), 0.8 * hair, shade=side)
    paint(ellipse(column - 0.05 * right, row - 1.16, 0.80, 0.42), shirt)
    paint(box(column - 0.06 * right, row - 0.68, 0.19, 0.24, 0.08), 0.82 * skin)

    # The head, lit from one side, with ears and cheeks.
    for ear in (-1, 1):
        paint(ellipse(x - ear * (half + 0.02) + 0.05 * turn, y - 0.06, 0.09, 0.13), 0.92 * skin, shade=side)
    paint(ellipse(x, y - 0.02, half, 0.68), skin, shade=side)
    for cheek in (-1, 1):
        paint(
            ellipse(ahead - cheek * 0.6 * width, y - 0.27, 0.11, 0.08),
            skin * np.reshape(BLUSH, (3, 1, 1, 1)).astype(np.float32),
            0.5,
            side,
        )

    # Eyes that look where the head turns, and eyebrows.
    for eye in (-1, 1):
        at = ahead - eye * width / 2
        paint(ellipse(at, y + 0.02, 0.135, 0.095), (0.95, 0.95, 0.93))
        paint(ellipse(at - 0.03 * turn, y + 0.02, 0.075, 0.09), (0.13, 0.10, 0.10))
        paint(bar(at, y + 0.20 - 1.2 * at**2, 0.14, 0.032), 0.6 * hair)
    paint(ellipse(ahead - 0.04 * turn, y - 0.17, 0.05, 0.06), 0.80 * skin, shade=side)

    # Hair over the forehead: what the head leaves of a larger ellipse, above a line.
    cap = ellipse(x, y + 0.10, half + 0.09, 0.70)
    fringe = y + 0.36 + 0.10 * np.cos(5 * (x - 0.18)) - 0.5 * np.maximum(np.abs(x) - 0.28, 0)
    paint(np.maximum(cap, fringe), hair, shade=side)
    temple = np.maximum(cap, np.maximum(half - 0.06 - np.abs(x), y - 0.02 - 0.6 * length))
    paint(temple, hair, shade=side)

    # The mouth lies between two parabolas; a smile lifts the corners and opens it.
    reach = 0.26 + 0.06 * smile
    bend = (ahead / reach) ** 2
    opening = 0.045 + 0.15 * np.maximum(smile, 0) ** 1.5
    upper = 0.40 + 0.16 * smile * (0.5 - bend)
    lower = upper + opening * np.maximum(1 - bend, 0)
    inside = np.maximum(np.maximum(upper - 0.03 - y, y - lower - 0.03), np.abs(ahead) - reach)
    paint(inside, (0.55, 0.12, 0.14))
    teeth = np.maximum(np.maximum(upper - y, y - upper - 0.55 * (lower - upper)), np.abs(ahead) - 0.8 * reach)
    paint(teeth, (0.96, 0.95, 0.92), np.clip(2 * smile, 0, 1))

    # Glasses: two rings, a bridge, and arms to the ears.
    rim = (0.08, 0.08, 0.12)
    for eye in (-1, 1):
        at = ahead - eye * width / 2
        lens = ellipse(at, y + 0.01, 0.205, 0.185)
        paint(lens, (0.80, 0.90, 0.96), 0.15 * glasses)
        paint(np.abs(lens) - 0.028, rim, glasses)
        inner, outer = 0.20 + width / 2, half + 0.02  # ends of the arm
        paint(bar(eye * ahead - (outer + inner) / 2, y + 0.05, (outer - inner) / 2, 0.03), rim, glasses)
    paint(bar(ahead, y + 0.03, width / 2 - 0.19, 0.03), rim, glasses)
    return np.moveaxis(np.clip(picture, 0, 1), 0, -1)


def blend(colours, tone):
    """The colour at each tone from 0 to 1 of a scale of colours; shape (3, n, 1, 1)."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(tone, stops, channel) for channel in np.transpose(colours)]).astype(np.float32)


def ellipse(x, y, a, b):
    """The signed distance to an ellipse of half axes `a` and `b`, to first order."""
    x, y = x / a, y / b
    near = np.sqrt(x * x + y * y)
    return near * (near - 1) / np.sqrt((x / a) ** 2 + (y / b) ** 2 + 1e-6)


def bar(x, y, a, b):
    """A distance to the rectangle of half sides `a` and `b`, the larger of those along x and y."""
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def box(x, y, a, b, corner):
    """The signed distance to a rectangle of half sides `a` and `b`, with round corners."""
    x, y = np.abs(x) - a + corner, np.abs(y) - b + corner
    return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - corner
