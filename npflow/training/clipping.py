"""The norm of a gradient, and a gradient scaled down to a norm."""

import numpy as np

from npflow.autodiff.gpu.devices import HOST, device_of


def euclidean_norm(vector):
    """The norm of a vector, also where the squares of its numbers are too large for its dtype.

    A number; on a device it stays there, as an array without axes, and nothing waits for it.
    """
    if device_of(vector) is HOST:
        norm = float(np.linalg.norm(vector))
        return norm if np.isfinite(norm) or not np.isfinite(vector).all() else float(scaled_norm(vector))
    norm = np.linalg.norm(vector).astype(np.float64)
    if not vector.size:
        return norm
    return np.where(np.isfinite(norm), norm, scaled_norm(vector))


def scaled_norm(vector):
    """The norm of a vector by way of its largest number, which is longer to compute and does not overflow."""
    largest = np.max(np.abs(vector))
    return largest.astype(np.float64) * np.linalg.norm(vector / largest).astype(np.float64)


def clip(gradient, norm, clip_norm):
    """Scale a gradient of a given norm down to `clip_norm` where it is longer, in place."""
    if device_of(gradient) is not HOST:
        gradient *= np.minimum(clip_norm / norm, 1.0).astype(gradient.dtype)
    elif norm > clip_norm:
        gradient *= clip_norm / norm
