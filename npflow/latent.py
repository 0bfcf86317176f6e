"""Arithmetic on z: attribute vectors, interpolation, and translation from one data set to another.

Each is three lines: encode, add, decode. It works because a flow is invertible, so that z keeps all of x, and
because z is one round cloud, so that points between and beside samples are likely too.

A `Dequantized` flow works the same way: integers are encoded at the middle of their cells, and decoded to
integers.
"""

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import fetch
from npflow.docstrings import documented
from npflow.errors import InputError
from npflow.model import Model
from npflow.typing import Params
from npflow.validation import cast, check_array, check_number, check_rows, check_sequence

__all__ = ["add_attribute", "attribute_vector", "interpolate", "translate"]

# A decorator that adds to a docstring what the functions of this file share.
arithmetic = documented(
    """
    Parameters
    ----------
    flow : Flow or Dequantized
    params : tree of ndarray
    context : array_like, shape (n, context features), optional
        For a conditional flow, as its own methods take it: a row or a class for each row, or one for all.
    context_a, context_b : array_like, shape (n, context features), optional
        The same for the rows of `a` and of `b`.

    Returns
    -------
    ndarray, shape (n, *event)

    Raises
    ------
    InputError
        If the arguments do not fit the flow or each other.
    """
)


@arithmetic
def attribute_vector(
    flow: Model,
    params: Params,
    a: ArrayLike,
    b: ArrayLike,
    *,
    context_a: ArrayLike | None = None,
    context_b: ArrayLike | None = None,
) -> ndarray:
    r"""The vector in z from samples without an attribute to samples with it: the difference of their means.

    vector = mean(z of a) - mean(z of b)

    Parameters
    ----------
    a : ndarray, shape (n, *event)
        Samples that have the attribute.
    b : ndarray, shape (m, *event)
        Samples without it that are otherwise similar: any other difference between the two sets is in the
        vector too.

    Returns
    -------
    ndarray, shape (*event,)

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 6 (semantic
    manipulation). https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.latent import add_attribute, attribute_vector
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> a, b = rng.normal(3, 1, (100, 2)), rng.normal(0, 1, (100, 2))
    >>> params = flow.init(rng, b)
    >>> vector = attribute_vector(flow, params, a, b)
    >>> moved = add_attribute(flow, params, b, vector)
    >>> bool(np.all(np.abs(moved.mean(axis=0) - a.mean(axis=0)) < 0.1))
    True
    """
    (z_a, _), (z_b, _) = encode(flow, params, a, context_a, "a"), encode(flow, params, b, context_b, "b")
    return np.mean(z_a, axis=0) - np.mean(z_b, axis=0)


@arithmetic
def add_attribute(
    flow: Model,
    params: Params,
    x: ArrayLike,
    vector: ArrayLike,
    strength: float = 1.0,
    *,
    context: ArrayLike | None = None,
) -> ndarray:
    r"""Samples moved in z along an attribute: encode, add, decode.

    x' = f^-1(f(x) + strength * vector)

    Strength 0 leaves them as they are. Strength 1 gives them as much of the attribute as the samples have
    that the vector was taken from, a negative strength less than they had.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
    vector : ndarray, shape (*event,)
        From `attribute_vector`.
    strength : float

    Examples
    --------
    Where z and x are the same, as here, the samples move by the vector itself:

    >>> import npflow
    >>> import numpy as np
    >>> from npflow.latent import add_attribute
    >>> rng = np.random.default_rng(0)
    >>> flow, x = npflow.Flow(npflow.layers.Affine(), npflow.priors.Normal(2)), np.zeros((1, 2))
    >>> add_attribute(flow, flow.init(rng, x), x, vector=np.array([1.0, 2.0]), strength=0.5)
    array([[0.5, 1. ]])
    """
    z, context = encode(flow, params, x, context)
    vector = check_array(vector, "expected vector as an array of numbers", z.dtype)
    if vector.shape != z.shape[1:]:
        raise InputError(
            f"expected vector of shape {z.shape[1:]}, that of a row of z, got shape {vector.shape}"
        )
    vector = check_rows(vector[None], z.shape[1:], z.dtype, "vector")
    strength = check_number(strength, "strength")
    cast(strength, z.dtype, "expected strength")
    return flow.decode(params, z + strength * vector, context)


@arithmetic
def interpolate(
    flow: Model,
    params: Params,
    a: ArrayLike,
    b: ArrayLike,
    shares: ArrayLike,
    *,
    context_a: ArrayLike | None = None,
    context_b: ArrayLike | None = None,
) -> ndarray:
    r"""Samples between samples: on the straight line from the z of one to the z of the other.

    x = f^-1((1 - share) f(a) + share f(b))

    The contexts of a conditional flow are mixed as z is. (In many dimensions a straight line between two
    points of a cloud passes nearer to its centre than samples lie.)

    Parameters
    ----------
    a, b : ndarray, shape (n, *event)
        Pairs of samples, row by row.
    shares : sequence of float
        The share of b: 0 is a, 1 is b.

    Returns
    -------
    ndarray, shape (len(shares), n, *event)

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 6 (synthesis and
    interpolation). https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.latent import interpolate
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> a, b = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    >>> x = interpolate(flow, flow.init(rng, a), a, b, shares=[0, 0.5, 1])
    >>> x.shape, np.allclose(x[0], a), np.allclose(x[-1], b)
    ((3, 5, 2), True, True)
    """
    shares = [check_number(share, "each of shares") for share in check_sequence(shares, "shares")]
    if not shares:
        raise InputError("expected at least one share, got none")
    z_a, context_a = encode(flow, params, a, context_a, "a")
    z_b, context_b = encode(flow, params, b, context_b, "b")
    if len(z_a) != len(z_b):
        raise InputError(f"expected a row of b for each of {len(z_a)} rows of a, got {len(z_b)}")

    def at(share):
        context = None if context_a is None else (1 - share) * context_a + share * context_b
        return flow.decode(params, (1 - share) * z_a + share * z_b, context)

    return np.stack([at(share) for share in shares])


@arithmetic
def translate(x: ArrayLike, source: tuple, target: tuple) -> ndarray:
    r"""Translate samples of one data set to another: encode them by one flow, decode them by another.

    y = f_target^-1(f_source(x))

    Each flow maps its own data to z of the same prior. So where x is distributed as the data of the source, z
    is distributed as the prior, and y as the data of the target, although the flows were never shown a pair.
    Which y an x becomes is not determined. Two flows that start from the parameters of one, trained on both
    data sets, tend to keep what the two share; flows that were trained apart need not.

    One conditional flow at two contexts serves as two flows, such as one for each class of digits. It tends to
    keep what does not depend on the context. `demos/translate.py` measures all three.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
        Samples of the data of the source.
    source, target : tuple
        ``(flow, params)``, or ``(flow, params, context)`` for a conditional flow.

    References
    ----------
    Grover, Chute, Shu, Cao, Ermon: AlignFlow: Cycle consistent learning from multiple domains via normalizing
    flows, 2020, section 3. https://arxiv.org/abs/1905.12892

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.latent import translate
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2, context_features=1)
    >>> x, context = rng.normal(size=(100, 2)), rng.integers(0, 2, (100, 1)).astype(float)
    >>> params = flow.init(rng, x, context)
    >>> translate(x, source=(flow, params, np.zeros(1)), target=(flow, params, np.ones(1))).shape
    (100, 2)
    """
    flow_a, params_a, context_a = parts_of(source, "source")
    flow_b, params_b, context_b = parts_of(target, "target")
    z, _ = encode(flow_a, params_a, x, context_a)
    flow_b.check(params_b)
    if flow_a.prior != flow_b.prior:
        raise InputError(
            "expected a source and a target with one prior, so that what is likely for one is likely for "
            f"the other, got {flow_a.prior!r} and {flow_b.prior!r}"
        )
    trained = [[fetch(leaf) for _, leaf in tree.items(params["prior"])] for params in (params_a, params_b)]
    if not all(np.array_equal(mine, theirs) for mine, theirs in zip(*trained)):
        raise InputError(
            "expected a source and a target with one prior, got priors whose trained parameters are not the "
            "same: train both with a fixed one"
        )
    return flow_b.decode(params_b, z, context_b)


def encode(flow, params, x, context, name="x"):
    """z of `x`, which the caller calls `name`, and the context of each row."""
    check_invertible(flow, "the flow")
    _, x, context = flow.checked(params, x, context, name)
    return flow.encode(params, x, context), context


def check_invertible(model, name):
    """Raise unless a model takes x to z and back; return it."""
    if not isinstance(model, Model) or not model.invertible:
        raise InputError(f"expected {name} to be a Flow or a Dequantized flow, got {model!r}")
    return model


def parts_of(side, name):
    """A flow, its parameters, and its context or None."""
    parts = check_sequence(side, f"the {name}")
    if len(parts) not in (2, 3):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise InputError(f"expected the {name} as (flow, params) or (flow, params, context), got ({kinds})")
    check_invertible(parts[0], f"the flow of the {name}")
    return (*parts, None)[:3]
