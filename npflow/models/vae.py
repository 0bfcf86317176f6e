"""A variational autoencoder: a latent-variable model beside the flows, trained by the same loop."""

import math
from dataclasses import dataclass
from functools import lru_cache

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.autodiff.primitives import concatenate_last, logsumexp_last, split_last, sum_event, tanh
from npflow.autodiff.program.chunks import map_rows
from npflow.errors import InputError
from npflow.layers import ActNorm
from npflow.model import Model
from npflow.networks import MLP
from npflow.priors import LOG_2PI
from npflow.validation import check_count, check_number, check_rng, check_rows

AT_ONCE = 2**14  # draws of z that a likelihood is estimated by at a time
START = -2.0  # of the decoder's log std


@dataclass(frozen=True)
class VAE(Model):
    r"""A variational autoencoder with Gaussians: z is normal, and x is normal around what a network makes of z.

    p(z) = N(0, I)          p(x | z) = N(mean(z), std(z)^2)         the decoder gives mean and log std
                            q(z | x) = N(mean(x), std(x)^2)         the encoder gives mean and log std

    ELBO(x) = E_q[log p(x | z)] - KL(q(z | x) || p(z)) <= log p(x)

    Training makes the mean ELBO large, by one z = mean(x) + std(x) epsilon for each row and step; the divergence is
    in closed form, 1/2 sum(mean^2 + std^2 - 2 log std - 1). A flow's log p(x) is exact where this is a bound, and its z
    has as many components as x where these may be fewer.

    What keeps training finite, on heavy tails too: an `ActNorm` in front takes the units out of the data, its log-det
    counted in every likelihood; and log std = L tanh(raw / L) stays in (-L, L), so that neither a far value nor an
    unlucky step makes exp overflow, nor takes a std of y, which is x behind the norm, far below one. The tanh goes
    there smoothly: no gradient is cut off.

    Parameters
    ----------
    features : int
        The number of features of x.
    latent : int
        The number of components of z.
    encoder, decoder : MLP
    log_std_limit : float
        L: no std of y, which is x behind the norm, is below exp(-L) or above exp(L).

    References
    ----------
    Kingma, Welling: Auto-encoding variational Bayes, 2014, section 3. https://arxiv.org/abs/1312.6114

    Burda, Grosse, Salakhutdinov: Importance weighted autoencoders, 2016, section 3. https://arxiv.org/abs/1509.00519

    Examples
    --------
    >>> x = rng.normal(5, 3, (300, 4))
    >>> vae = VAE(features=4, latent=2, encoder=MLP((16,)), decoder=MLP((16,)))
    >>> params = vae.init(rng, x)
    >>> params, history = npflow.fit(vae, params, x, rng=rng, steps=20, progress=False)
    >>> vae.sample(params, rng, 7).shape, vae.log_prob(params, rng, x, samples=50).shape
    ((7, 4), (300,))
    """

    features: int
    latent: int = 2
    encoder: MLP = MLP((64, 64))  # noqa: RUF009 (frozen)
    decoder: MLP = MLP((64, 64))  # noqa: RUF009 (frozen)
    log_std_limit: float = 5.0

    noisy = True
    norm = ActNorm()

    def __post_init__(self):
        for name in ("features", "latent"):
            object.__setattr__(self, name, check_count(getattr(self, name), f"a VAE's {name}"))
        for name in ("encoder", "decoder"):
            if not isinstance(getattr(self, name), MLP):
                raise InputError(f"expected a VAE's {name} to be an MLP, got {getattr(self, name)!r}")
        limit = check_number(self.log_std_limit, "a VAE's log_std_limit", above=0)
        object.__setattr__(self, "log_std_limit", limit)

    def init(self, rng, x):
        """Parameters in the dtype of `x`, drawn from `rng`, started on the batch `x`, shape (n, features).

        They are worked out on the host, and live where `x` lives.
        """
        check_rng(rng)
        check_rows(x, (self.features,))
        return to_device(self._init(rng, to_host(x)), device_of(x).name)

    def _init(self, rng, x):
        norm = self.norm.init(rng, x)
        y, _ = self.norm.forward(norm, x)
        z = onp.zeros((len(x), self.latent), x.dtype)
        encoder = self.encoder.init(rng, y, outputs=2 * self.latent)
        decoder = self.decoder.init(rng, z, outputs=2 * self.features)
        # A new network gives zeros. Were both to, q(z | x) would be the prior and x independent of z: a point where
        # the gradient is zero in the mean. So z starts as a random function of x, of about unit variance.
        weight = encoder[-1]["weight"]
        weight[:, : self.latent] = rng.standard_normal((len(weight), self.latent)) / math.sqrt(len(weight))
        # And p(x | z) starts much narrower than the data: a wide one takes x for noise before z says anything of it,
        # the divergence then draws components of z to the prior, and there they stay.
        decoder[-1]["bias"][self.features :] = START
        return {"decoder": decoder, "encoder": encoder, "norm": norm}

    def check(self, params, x=None, name="x", context=None):
        """Raise `InputError` unless `params` are this model's, and `x` rows of their dtype."""
        self._check(params, x, (self.features,), name)
        if context is not None:
            raise InputError("expected no context for a VAE, got one")

    def _check(self, params, rows, shape, name):
        layout = Layout(params)
        difference = expected_layout(self).difference(layout)
        if difference:
            raise InputError(f"expected the parameters of this VAE, got another architecture's: {difference}")
        if rows is not None:
            check_rows(rows, shape, layout.dtype, name)

    def noise(self, rng, rows, dtype):
        """epsilon of so many draws of z, shape (rows, latent)."""
        return (rng.standard_normal((rows, self.latent), dtype),)

    def row_losses(self, params, x, epsilon):
        """-ELBO(x) by one draw of z for each row, in nats, shape (n,)."""
        y, log_det = self.norm.forward(params["norm"], x)
        mean, log_std = self._posterior(params, y)
        z = mean + np.exp(log_std) * epsilon
        divergence = 0.5 * sum_event(mean * mean + np.exp(2 * log_std) - 2 * log_std - 1)
        return divergence - log_normal(y, *self._likelihood(params, z)) - log_det

    def _log_weights(self, params, x, epsilon):
        """log p(x, z) - log q(z | x) of one draw of z for each row: exp of it is p(x), in the mean over z."""
        y, log_det = self.norm.forward(params["norm"], x)
        mean, log_std = self._posterior(params, y)
        z = mean + np.exp(log_std) * epsilon
        log_prior_over_q = 0.5 * sum_event(epsilon * epsilon - z * z + 2 * log_std)
        return log_normal(y, *self._likelihood(params, z)) + log_det + log_prior_over_q

    def _posterior(self, params, y):
        """Mean and log std of q(z | x), for an x that the norm made y."""
        mean, raw = split_last(self.encoder.apply(params["encoder"], y), self.latent)
        return mean, self._bounded(raw)

    def _likelihood(self, params, z):
        """Mean and log std of y, which the norm makes x, given z."""
        mean, raw = split_last(self.decoder.apply(params["decoder"], z), self.features)
        return mean, self._bounded(raw)

    def _bounded(self, raw):
        return self.log_std_limit * tanh(raw / self.log_std_limit)

    def elbo(self, params, rng, x, samples=1):
        """ELBO(x) in nats, shape (n,), by `samples` draws of z for each row."""
        samples, total = check_count(samples, "samples"), 0.0
        for rows, epsilon, _ in self._draws(params, rng, x, samples):
            losses = self.losses(params, rows, epsilon)
            total = total - np.sum(np.reshape(losses, (len(x), -1)), axis=1)
        return total / samples

    def log_prob(self, params, rng, x, samples=100):
        r"""log p(x) in nats, shape (n,), estimated by importance weighting; more samples cost as much more.

        log p(x) ~ log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x),        z_k ~ q(z | x)

        In the mean it lies between the ELBO, where K is 1, and log p(x), the closer to it the more `samples` there
        are. Memory does not grow with K.
        """
        samples, total = check_count(samples, "samples"), None
        for rows, epsilon, count in self._draws(params, rng, x, samples):
            log_weights = map_rows(self._log_weights, params, rows, epsilon)
            part = logsumexp_last(np.reshape(log_weights, (len(x), count)))
            total = part if total is None else np.logaddexp(total, part)
        return total - math.log(samples)

    def _draws(self, params, rng, x, samples):
        """Each row of `x` repeated, with an epsilon for each: in parts, until a row has had `samples`."""
        check_rng(rng)
        self.check(params, x)
        there, at_once = device_of(params).generator(rng), max(1, AT_ONCE // len(x))
        for start in range(0, samples, at_once):
            count = min(at_once, samples - start)
            rows = x if count == 1 else np.repeat(x, count, axis=0)
            yield rows, *self.noise(there, len(rows), x.dtype), count

    def sample(self, params, rng, n):
        """`n` draws of x, shape (n, features): z from the prior, then x from p(x | z)."""
        check_count(n, "the number of samples")
        check_rng(rng)
        self.check(params)
        there, dtype = device_of(params).generator(rng), Layout(params).dtype
        z = there.standard_normal((n, self.latent), dtype)
        return map_rows(self._sample, params, z, there.standard_normal((n, self.features), dtype))

    def _sample(self, params, z, noise):
        mean, log_std = self._likelihood(params, z)
        return self.norm.inverse(params["norm"], mean + np.exp(log_std) * noise)[0]

    def encode(self, params, x):
        """Mean and log std of q(z | x), both of shape (n, latent)."""
        self.check(params, x)
        return split_last(map_rows(self._encode, params, x), self.latent)

    def _encode(self, params, x):
        y, _ = self.norm.forward(params["norm"], x)
        return concatenate_last(*self._posterior(params, y))

    def decode(self, params, z):
        """Mean and log std of p(x | z), both of shape (n, features)."""
        self._check(params, z, (self.latent,), "z")
        return split_last(map_rows(self._decode, params, z), self.features)

    def _decode(self, params, z):
        mean, log_std = self._likelihood(params, z)
        x, _ = self.norm.inverse(params["norm"], mean)
        return concatenate_last(x, log_std - params["norm"]["log_scale"])

    def explain(self, params, x, epsilon):
        """What is the first to be not finite where a loss is not, as the end of a sentence."""
        y, _ = self.norm.forward(params["norm"], x)
        mean, log_std = self._posterior(params, y)
        z = mean + np.exp(log_std) * epsilon
        for name, arrays in (("norm", [y]), ("encoder", [z]), ("decoder", self._likelihood(params, z))):
            if not all(bool(np.isfinite(array).all()) for array in arrays):
                return f"the first output not finite is that of the {name}"
        return "the networks' outputs are finite, the ELBO is not"


def log_normal(x, mean, log_std):
    """log N(x; mean, std^2) of each row, summed over its components, in nats."""
    offset = (x - mean) * np.exp(-log_std)
    return -0.5 * sum_event(offset * offset + 2 * log_std + LOG_2PI)


@lru_cache(maxsize=64)
def expected_layout(vae):
    """The layout of a VAE's parameters, from initializing it on noise."""
    rng = onp.random.default_rng(0)
    return Layout(vae._init(rng, rng.standard_normal((4, vae.features))))
