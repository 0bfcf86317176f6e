"""Clipping: scale a gradient down where its norm is too large.

References
----------
Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks, 2013, section 3.2.
https://arxiv.org/abs/1211.5063
"""

import numpy as np

from npflow.autodiff.gpu.devices import HOST, device_of


def euclidean_norm(vector):
    """Compute the Euclidean norm, also where squares of components overflow the dtype.

    Parameters
    ----------
    vector : ndarray, shape (d,)

    Returns
    -------
    norm : float, or array of shape () on the vector's device
        On a device the norm stays there, so that nothing waits for it.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.training.clipping import euclidean_norm
    >>> euclidean_norm(np.array([3.0, 4.0]))
    5.0
    """
    if device_of(vector) is HOST:
        norm = float(np.linalg.norm(vector))
        return norm if np.isfinite(norm) or not np.isfinite(vector).all() else float(scaled_norm(vector))
    norm = np.linalg.norm(vector).astype(np.float64)
    if not vector.size:
        return norm
    return np.where(np.isfinite(norm), norm, scaled_norm(vector))


def scaled_norm(vector):
    """The norm by way of the largest component: it does not overflow, but takes longer."""
    largest = np.max(np.abs(vector))
    return largest.astype(np.float64) * np.linalg.norm(vector / largest).astype(np.float64)


def clip(gradient, norm, clip_norm):
    """Multiply `gradient` by min(1, clip_norm / norm), in place.

    Parameters
    ----------
    gradient : ndarray, shape (d,)
    norm : float or array of shape ()
        The gradient's `euclidean_norm`.
    clip_norm : float
        The largest norm allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.training.clipping import clip, euclidean_norm
    >>> gradient = np.array([3.0, 4.0])
    >>> clip(gradient, euclidean_norm(gradient), clip_norm=1.0)
    >>> gradient
    array([0.6, 0.8])
    """
    if device_of(gradient) is not HOST:
        gradient *= np.minimum(clip_norm / norm, 1.0).astype(gradient.dtype)
    elif norm > clip_norm:
        gradient *= clip_norm / norm
