"""Arithmetic on z: the vector of an attribute, what lies between two samples, one data set's samples in another.

All of it is three lines: encode, add, decode. What makes it mean something is that a flow is invertible, so that
nothing of x is lost in z, and that all of z is one round cloud, so that what lies between and beside samples is
likely too.

It is the same for a `Dequantized` flow: integers are encoded at the middle of their cells, and decoded to integers.
"""

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import fetch
from npflow.dequantization import Dequantized
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.validation import check_integers, check_number, check_rows, check_sequence


def attribute_vector(flow, params, a, b, *, context_a=None, context_b=None):
    r"""The way in z from samples without an attribute to samples with it: the difference of their means.

    vector = mean(z of a) - mean(z of b)

    Parameters
    ----------
    flow : Flow or Dequantized
    params : tree of ndarray
    a : ndarray, shape (n, *event)
        Samples that have the attribute.
    b : ndarray, shape (m, *event)
        Samples that have it not, and are otherwise alike: whatever else tells the two sets apart is in the vector too.
    context_a, context_b : ndarray, shape (context features,) or (n, context features), optional
        Where the flow is conditional: one for all rows, or one for each.

    Returns
    -------
    ndarray, shape (*event,)

    Raises
    ------
    InputError
        If the samples or contexts are not the flow's.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 6 (semantic manipulation).
    https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> a, b = rng.normal(3, 1, (100, 2)), rng.normal(0, 1, (100, 2))
    >>> params = flow.init(rng, b)
    >>> vector = attribute_vector(flow, params, a, b)
    >>> moved = add_attribute(flow, params, b, vector)
    >>> bool(np.all(np.abs(moved.mean(axis=0) - a.mean(axis=0)) < 0.1))
    True
    """
    z_a, z_b = encode(flow, params, a, context_a, "a"), encode(flow, params, b, context_b, "b")
    return np.mean(z_a, axis=0) - np.mean(z_b, axis=0)


def add_attribute(flow, params, x, vector, strength=1.0, *, context=None):
    r"""Samples moved in z along an attribute: encode, add, decode.

    x' = f^-1(f(x) + strength * vector)

    At strength 0 they are what they were, at 1 they have as much of the attribute as those have that it was taken
    from, below 0 less of it than they had.

    Parameters
    ----------
    flow : Flow or Dequantized
    params : tree of ndarray
    x : ndarray, shape (n, *event)
    vector : ndarray, shape (*event,)
        From `attribute_vector`.
    strength : float
    context : ndarray, shape (context features,) or (n, context features), optional
        Where the flow is conditional: one for all rows, or one for each.

    Returns
    -------
    ndarray, shape (n, *event)

    Raises
    ------
    InputError
        If the samples, the vector or the context are not the flow's, or the strength is not a finite number.
    """
    z = encode(flow, params, x, context)
    if not hasattr(vector, "__array_function__") or vector.shape != z.shape[1:]:
        got = f"shape {vector.shape}" if hasattr(vector, "shape") else f"a {type(vector).__name__}"
        raise InputError(f"expected vector as an array of shape {z.shape[1:]}, that of a row of z, got {got}")
    check_rows(vector[None], z.shape[1:], z.dtype, "vector")
    moved = z + check_number(strength, "strength") * vector
    return flow.decode(params, moved, context_rows(context, len(x)))


def interpolate(flow, params, a, b, shares, *, context_a=None, context_b=None):
    r"""What lies between samples: on the straight line from the z of one to the z of the other.

    x = f^-1((1 - share) f(a) + share f(b))

    (A straight line between far points of a cloud in many dimensions passes nearer to its middle than samples lie.)

    Parameters
    ----------
    flow : Flow or Dequantized
    params : tree of ndarray
    a, b : ndarray, shape (n, *event)
        Pairs of samples, a row of one and a row of the other.
    shares : sequence of float
        How much of b: 0 is a, 1 is b.
    context_a, context_b : ndarray, shape (context features,) or (n, context features), optional
        Where the flow is conditional: one for all rows, or one for each; they are mixed as z is.

    Returns
    -------
    ndarray, shape (len(shares), n, *event)

    Raises
    ------
    InputError
        If the samples or contexts are not the flow's, or there are not as many in `b` as in `a`.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 6 (synthesis and
    interpolation). https://arxiv.org/abs/1807.03039
    """
    shares = [check_number(share, "each of shares") for share in check_sequence(shares, "shares")]
    if not shares:
        raise InputError("expected at least one share, got none")
    z_a, z_b = encode(flow, params, a, context_a, "a"), encode(flow, params, b, context_b, "b")
    if len(z_a) != len(z_b):
        raise InputError(f"expected a row of b for each of {len(z_a)} rows of a, got {len(z_b)}")
    context_a, context_b = context_rows(context_a, len(a)), context_rows(context_b, len(b))

    def at(share):
        context = None if context_a is None else (1 - share) * context_a + share * context_b
        return flow.decode(params, (1 - share) * z_a + share * z_b, context)

    return np.stack([at(share) for share in shares])


def translate(x, source, target):
    r"""Samples of one data set as samples of another: encoded by one flow, decoded by another.

    y = f_target^-1(f_source(x))

    Each flow maps its own data to z of one and the same prior. So where x is distributed as the source's data, z is as
    the prior, and y as the target's data: by two flows that were never shown a pair. Which y an x becomes is the
    flows' choice; two that are alike, started from the same numbers, tend to keep what the two data sets
    share.

    One conditional flow at two contexts is two flows, such as one for each class of digits.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
        Samples of the source's data.
    source, target : tuple
        ``(flow, params)``, or ``(flow, params, context)`` where the flow is conditional: a context of shape (context
        features,) for all rows, or (n, context features), one for each.

    Returns
    -------
    ndarray, shape (n, *event)

    Raises
    ------
    InputError
        If the two have not one prior, or the samples or contexts are not theirs.

    References
    ----------
    Grover, Chute, Shu, Cao, Ermon: AlignFlow: Cycle consistent learning from multiple domains via normalizing flows,
    2020, section 3. https://arxiv.org/abs/1905.12892

    Examples
    --------
    >>> flow = npflow.models.real_nvp(features=2, couplings=2, context_features=1)
    >>> x, context = rng.normal(size=(100, 2)), rng.integers(0, 2, (100, 1)).astype(float)
    >>> params = flow.init(rng, x, context)
    >>> translate(x, source=(flow, params, np.zeros(1)), target=(flow, params, np.ones(1))).shape
    (100, 2)
    """
    flow_a, params_a, context_a = parts_of(source, "source")
    flow_b, params_b, context_b = parts_of(target, "target")
    z = encode(flow_a, params_a, x, context_a)
    flow_b.check(params_b)
    prior_a, prior_b = prior_of(flow_a), prior_of(flow_b)
    if prior_a != prior_b:
        raise InputError(
            "expected a source and a target with one prior, so that what is likely for one is likely for the other, "
            f"got {prior_a!r} and {prior_b!r}"
        )
    trained = [[fetch(leaf) for _, leaf in tree.items(params["prior"])] for params in (params_a, params_b)]
    if not all(np.array_equal(mine, theirs) for mine, theirs in zip(*trained)):
        raise InputError(
            "expected a source and a target with one prior, got priors whose trained parameters are not the same: "
            "train both with a fixed one"
        )
    return flow_b.decode(params_b, z, context_rows(context_b, len(x)))


def encode(flow, params, x, context, name="x"):
    """z of `x`, which the caller calls `name`."""
    if not isinstance(flow, (Flow, Dequantized)):
        raise InputError(f"expected a Flow or a Dequantized, got {flow!r}")
    layout, event_shape = flow.check(params), prior_of(flow).event_shape
    if isinstance(flow, Dequantized):
        check_integers(x, flow.levels, event_shape, name)
    else:
        check_rows(x, event_shape, layout.dtype if layout.size else None, name)
    return flow.encode(params, x, context_rows(context, len(x)))


def prior_of(flow):
    """The prior of a flow, which may be a `Dequantized` one."""
    return flow.flow.prior if isinstance(flow, Dequantized) else flow.prior


def context_rows(context, rows):
    """A context for each row, where one for all is given: shape (features,) gives (rows, features)."""
    return np.repeat(context[None], rows, axis=0) if getattr(context, "ndim", None) == 1 else context


def parts_of(side, name):
    """A flow, its parameters, and its context or None."""
    parts = check_sequence(side, f"the {name}")
    if len(parts) not in (2, 3) or not isinstance(parts[0], (Flow, Dequantized)):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise InputError(f"expected the {name} as (flow, params) or (flow, params, context), got ({kinds})")
    return (*parts, None)[:3]
