"""A scale and a shift for each component, or for each channel."""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff.primitives import spread_rows
from npflow.layers.layer import Layer, mean_and_std, pixels


@dataclass(frozen=True)
class Affine(Layer):
    r"""A mean and a standard deviation for each component of an event; starts as the identity.

    z = (x - mean) * exp(-log_std)          log|det J| = -sum(log_std)
    x = z * exp(log_std) + mean

    With a standard normal prior, `mean` and exp(`log_std`) are the mean and the standard deviation of x. Training
    takes them to their maximum-likelihood values.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Affine
    >>> params = {"mean": np.array([5.0, 1.0]), "log_std": np.log([2.0, 4.0])}
    >>> z, log_det = Affine().forward(params, np.array([[7.0, 1.0]]))
    >>> z.round(4), log_det.round(4)  # one std above the mean, and at the mean; -log(2 * 4)
    (array([[1., 0.]]), array([-2.0794]))
    """

    def init(self, rng, x):
        return {"mean": np.zeros(x.shape[1:], x.dtype), "log_std": np.zeros(x.shape[1:], x.dtype)}

    def forward(self, params, x):
        z = (x - params["mean"]) * np.exp(-params["log_std"])
        return z, self.log_det(params, x)

    def inverse(self, params, z):
        x = z * np.exp(params["log_std"]) + params["mean"]
        return x, -self.log_det(params, z)

    def log_det(self, params, x):
        return spread_rows(-np.sum(params["log_std"]), len(x))


@dataclass(frozen=True)
class ActNorm(Layer):
    r"""A scale and a shift for each channel; `init` chooses them so that the first batch has mean 0 and variance 1.

    z = x * exp(log_scale) + bias           log|det J| = H W sum(log_scale)
    x = (z - bias) * exp(-log_scale)

    H W is the number of pixels, 1 for rows of features. The bias is in units of z, so training does not depend on the
    units of x.

    References
    ----------
    Kingma & Dhariwal 2018, Glow, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import ActNorm
    >>> rng = np.random.default_rng(0)
    >>> layer, x = ActNorm(), rng.normal(5, 3, (100, 2))
    >>> z, log_det = layer.forward(layer.init(rng, x), x)
    >>> np.allclose(z.mean(axis=0), 0), np.allclose(z.std(axis=0), 1)
    (True, True)
    """

    def init(self, rng, x):
        mean, std = mean_and_std(x)
        return {"bias": (-mean / std).astype(x.dtype), "log_scale": -np.log(std).astype(x.dtype)}

    def forward(self, params, x):
        z = x * np.exp(params["log_scale"]) + params["bias"]
        return z, self.log_det(params, x)

    def inverse(self, params, z):
        x = (z - params["bias"]) * np.exp(-params["log_scale"])
        return x, -self.log_det(params, z)

    def log_det(self, params, x):
        return spread_rows(pixels(x) * np.sum(params["log_scale"]), len(x))


@dataclass(frozen=True)
class Scaling(Layer):
    r"""A scale for each component; starts as the identity.

    z = x * exp(log_scale)          log|det J| = sum(log_scale)
    x = z * exp(-log_scale)

    After layers that keep the volume, it tells which dimensions matter: exp(-log_scale) is the spread of the data
    along each.

    References
    ----------
    Dinh et al. 2014, NICE, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Scaling
    >>> z, log_det = Scaling().forward({"log_scale": np.log([2.0, 0.5, 3.0])}, np.ones((1, 3)))
    >>> z.round(4), log_det.round(4)  # log(2 * 0.5 * 3)
    (array([[2. , 0.5, 3. ]]), array([1.0986]))
    """

    def init(self, rng, x):
        return {"log_scale": np.zeros(x.shape[1:], x.dtype)}

    def forward(self, params, x):
        return x * np.exp(params["log_scale"]), self.log_det(params, x)

    def inverse(self, params, z):
        return z * np.exp(-params["log_scale"]), -self.log_det(params, z)

    def log_det(self, params, x):
        return spread_rows(np.sum(params["log_scale"]), len(x))
