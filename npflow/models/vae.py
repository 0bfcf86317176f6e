"""The variational autoencoder, with flows in its posterior and its prior where wanted."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import autograd.numpy as np
import numpy as onp
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.autodiff.primitives import concatenate_last, logsumexp_last, split_last, sum_event, tanh
from npflow.autodiff.program.chunks import map_rows
from npflow.description import checked, count, instance, number
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import ActNorm, Chain, Layer, Units
from npflow.layers.composite import Visit, dry_run, uses_context, walk
from npflow.layers.layer import check_keeps_shape, check_layer, domain_of, given, start_layer
from npflow.model import Model, overflow_ignored, without_nan
from npflow.networks import MLP
from npflow.priors import LOG_2PI, Normal
from npflow.rations import SMALL, Rationed, ration_for
from npflow.typing import Params
from npflow.validation import cast, check_count, check_dtype, check_number, check_rng, check_rows

AT_ONCE = 2**14  # draws of z that are evaluated at a time
START = -2.0  # the decoder's initial log std
NARROW = -1.5  # that of the encoder, where there are flows


@dataclass(frozen=True)
class VAE(Model):
    r"""A variational autoencoder with Gaussians: z is normal, and x is normal given z; or z has the density of a flow.

    p(z) = N(0, I)          p(x | z) = N(mean(z), std(z)^2)         the decoder gives mean and log std
                            q(z | x) = N(mean(x), std(x)^2)         the encoder gives mean and log std

    ELBO(x) = E_q[log p(x | z)] - KL(q(z | x) || p(z)) <= log p(x)

    Training maximizes the mean ELBO, with one draw z = mean(x) + std(x) epsilon per row and step. The
    divergence has a closed form, 1/2 sum(mean^2 + std^2 - 2 log std - 1). Where a flow computes log p(x)
    exactly, a VAE computes a bound; but its z may have fewer components than x.

    A `posterior` is a layer f between the encoder and z, so that q(z | x) need not be normal. Each row may have an f
    of its own, by further outputs h(x) of the encoder. A `prior` is a flow, so that p(z) need not be normal.

    z_0 = mean(x) + std(x) epsilon          z = f(z_0; h(x))        log q(z | x) = log q(z_0 | x) - log|det dz/dz_0|

    The divergence has no closed form then: it is log q(z | x) - log p(z) of the same draw.

    Training stays finite on heavy-tailed data. `Units` and `ActNorm` map x to y before the encoder and remove
    the units of the data; every likelihood includes their log-det. And log std = L tanh(raw / L) lies in (-L, L),
    so that neither an outlier nor a bad step makes exp overflow. The tanh is smooth, so that no gradient is
    cut off.

    Parameters
    ----------
    features : int
        The number of features of x.
    latent : int
        The number of components of z.
    encoder, decoder : MLP
    log_std_limit : float
        L, positive: every std of y is between exp(-L) and exp(L).
    posterior : Layer, optional
        f; its `forward` maps z_0 to z, and its inverse is not needed. Layers that take a context see h(x): a
        `MaskedAutoregressive` gives the inverse autoregressive flow of Kingma et al., and a `Planar` the planar flow of
        Rezende and Mohamed, each row with a plane of its own. Where there is a flow, q(z | x) starts narrower.
    prior : Flow, optional
        p(z), such as ``real_nvp(latent)``; ``Flow(Affine(), prior)`` for a `Prior` such as a mixture. By default N(0, I).
    context_features : int
        The number of components of h(x).
    draws : int
        K. Above 1, training maximizes the importance-weighted bound of K draws in place of the ELBO; see `log_prob`.
        A step then takes K times as long.

    References
    ----------
    Kingma, Welling: Auto-encoding variational Bayes, 2014, section 3. https://arxiv.org/abs/1312.6114

    Rezende, Mohamed: Variational inference with normalizing flows, 2015, section 4, for a flow as the posterior.
    https://arxiv.org/abs/1505.05770

    Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling: Improved variational inference with inverse autoregressive
    flow, 2016, sections 3 and 4. https://arxiv.org/abs/1606.04934

    Chen, Kingma, Salimans et al.: Variational lossy autoencoder, 2017, section 3.2, for a flow as the prior.
    https://arxiv.org/abs/1611.02731

    Burda, Grosse, Salakhutdinov: Importance weighted autoencoders, 2016, section 3.
    https://arxiv.org/abs/1509.00519

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import VAE
    >>> from npflow.networks import MLP
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(5, 3, (300, 4))
    >>> vae = VAE(features=4, latent=2, encoder=MLP((16,)), decoder=MLP((16,)))
    >>> params = vae.init(rng, x)
    >>> params, history = npflow.fit(vae, params, x, rng=rng, steps=20, progress=False)
    >>> vae.sample(params, rng, 7).shape, vae.log_prob(params, x, rng=rng, draws=50).shape
    ((7, 4), (300,))

    With flows:

    >>> from npflow.layers import Chain, MaskedAutoregressive, Reverse
    >>> from npflow.models import real_nvp
    >>> posterior = Chain([MaskedAutoregressive(), Reverse(), MaskedAutoregressive()])
    >>> vae = VAE(features=4, latent=2, posterior=posterior, prior=real_nvp(2), context_features=8)
    >>> sorted(vae.init(rng, x))
    ['decoder', 'encoder', 'norm', 'posterior', 'prior']
    """

    features: int = count()
    latent: int = count(2)
    encoder: MLP = instance(MLP, MLP((64, 64)))
    decoder: MLP = instance(MLP, MLP((64, 64)))
    log_std_limit: float = number(5.0, above=0)
    posterior: Layer | None = checked(check_layer, None)
    prior: Flow | None = instance(Flow, None)
    context_features: int = count(0, least=0)
    draws: int = count(1)

    noisy = True
    norm = Chain([Units(), ActNorm()])

    def __post_init__(self):
        super().__post_init__()
        if self.prior is not None and (
            self.prior.context_features or self.prior.event_shape != (self.latent,)
        ):
            raise InputError(
                f"expected VAE's prior to be a flow of {self.latent} features, those of z, and without a context, got "
                f"{'one with a context' if self.prior.context_features else f'event_shape={self.prior.event_shape}'}"
            )
        if self.posterior is not None and domain_of(self.posterior) != Layer.domain:
            raise InputError(
                f"expected VAE's posterior to take any real numbers, as z_0 is normal, got {self.posterior!r}"
            )
        seen = self.posterior is not None and uses_context(self.posterior, (self.latent,))
        if self.context_features and not seen:
            raise InputError(
                f"expected VAE's posterior to be a layer that takes a context, as context_features is "
                f"{self.context_features}, got {self.posterior!r}"
            )

    def init(self, rng: Generator, x: ArrayLike) -> Params:
        """Draw parameters, and start them on a batch.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        x : array_like, shape (n, features)

        Returns
        -------
        tree of ndarray
            In the dtype and on the device of `x`.

        Raises
        ------
        InputError
            If `x` has rows of another length, or is not finite.
        """
        check_rng(rng)
        x, _ = self.check_batch(x)
        return to_device(self._init(rng, to_host(x)), device_of(x).name)

    def _init(self, rng, x):
        norm = self.norm.init(rng, x)
        y, _ = self.norm.forward(norm, x)
        params = self._with_networks(rng, norm, y)
        return self._with_flows(rng, params, y) if self.has_flows else params

    @property
    def has_flows(self):
        """Whether there is a flow in the posterior or in the prior."""
        return self.posterior is not None or self.prior is not None

    def _with_networks(self, rng, norm, y):
        z = onp.zeros((len(y), self.latent), y.dtype)
        encoder = self.encoder.init(rng, y, outputs=2 * self.latent + self.context_features)
        decoder = self.decoder.init(rng, z, outputs=2 * self.features)
        # If both new networks gave zeros, q(z | x) would be the prior and x independent of z, where the mean
        # gradient is zero. So the mean of z starts as a random function of x, of about unit variance.
        weight = encoder[-1]["weight"]
        weight[:, : self.latent] = rng.standard_normal((len(weight), self.latent)) / math.sqrt(len(weight))
        # p(x | z) starts much narrower than the data. A wide one would explain x as noise before z is
        # informative; the divergence would then pull components of z to the prior, and they would stay there.
        decoder[-1]["bias"][self.features :] = START
        if self.has_flows:
            # A flow soon makes q(z | x) the prior for a component of z that says little yet, which then stays so. A
            # narrow q says more from the start.
            encoder[-1]["bias"][self.latent : 2 * self.latent] = NARROW
        if self.context_features:  # h too starts as a random function of x
            h = weight[:, 2 * self.latent :]
            h[...] = rng.standard_normal(h.shape) / math.sqrt(len(weight))
        return {"decoder": decoder, "encoder": encoder, "norm": norm}

    def _with_flows(self, rng, params, y):
        """The parameters of the posterior and of the prior too; they start on a draw of z_0, and of z."""
        mean, log_std, *h = self._posterior(params, y)
        z = mean + onp.exp(log_std) * rng.standard_normal(mean.shape).astype(y.dtype)
        if self.posterior is not None:
            params["posterior"], out = start_layer(self.posterior, rng, z, *h)
            check_keeps_shape("the posterior of a VAE", z, out)
            z = out
        if self.prior is not None:
            params["prior"] = self.prior.init(rng, z)
        return params

    def check(self, params):
        layout = Layout(params)
        check_dtype(layout.dtype)
        difference = expected_layout(self, ration_for(self, layout)).difference(layout)
        if difference:
            raise InputError(f"expected the parameters of this VAE, got another architecture's: {difference}")
        return layout

    def check_batch(self, x, context=None, dtype=None, name="x"):
        check_no_context(context)
        return check_rows(x, (self.features,), dtype, name), None

    def noise(self, rng, rows, dtype):
        """Draw epsilon, shape (rows, latent), as a tuple of one array; shape (rows, draws, latent) for several draws."""
        several = (self.draws,) if self.draws > 1 else ()
        return (rng.standard_normal((rows, *several, self.latent), dtype),)

    def losses(self, params, x, epsilon):
        """Estimate -ELBO(x) of each row from one draw of z. It is pure arithmetic and checks nothing.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, features)
        epsilon : ndarray, shape (n, latent)
            From `noise`. With several draws, shape (n, draws, latent), minus the importance-weighted bound is estimated.

        Returns
        -------
        ndarray, shape (n,)
            In nats.
        """
        if self.draws > 1:
            log_weights = self._log_weights(params, *self._repeated(x, epsilon))
            return math.log(self.draws) - logsumexp_last(np.reshape(log_weights, (-1, self.draws)))
        if self.has_flows:
            return -self._log_weights(params, x, epsilon)
        y, log_det = self.norm.forward(params["norm"], x)
        mean, log_std = self._posterior(params, y)
        z = mean + np.exp(log_std) * epsilon
        divergence = 0.5 * sum_event(mean * mean + np.exp(2 * log_std) - 2 * log_std - 1)
        return divergence - log_normal(y, *self._likelihood(params, z)) - log_det

    def _elbo(self, params, x, epsilon):
        return -self.losses(params, x, epsilon)

    def _repeated(self, x, epsilon):
        """x once for each draw of epsilon."""
        return np.repeat(x, self.draws, axis=0), np.reshape(epsilon, (-1, self.latent))

    def _log_weights(self, params, x, epsilon):
        """log p(x, z) - log q(z | x) for one draw of z per row; the mean of its exp over z is p(x)."""
        y, log_det = self.norm.forward(params["norm"], x)
        mean, log_std, *h = self._posterior(params, y)
        z = mean + np.exp(log_std) * epsilon
        if self.has_flows:
            z, log_stretch = self._through_posterior(params, z, *h)
            log_q = Normal(self.latent).log_prob({}, epsilon) - sum_event(log_std) - log_stretch
            log_prior_over_q = self._log_prior(params, z) - log_q
        else:
            log_prior_over_q = 0.5 * sum_event(epsilon * epsilon - z * z + 2 * log_std)
        return log_normal(y, *self._likelihood(params, z)) + log_det + log_prior_over_q

    def _posterior(self, params, y):
        """Mean and log std of q(z_0 | x), and h(x) where there is one, given y = norm(x)."""
        mean, raw = split_last(self.encoder.apply(params["encoder"], y), self.latent)
        if not self.context_features:
            return mean, self._bounded(raw)
        raw, h = split_last(raw, self.latent)
        return mean, self._bounded(raw), h

    def _through_posterior(self, params, z_0, h=None):
        """z, and log|det dz/dz_0|."""
        if self.posterior is None:
            return z_0, 0.0
        return self.posterior.forward(params["posterior"], z_0, **given(self.posterior, h))

    def _log_prior(self, params, z):
        """log p(z) of each row."""
        if self.prior is None:
            return Normal(self.latent).log_prob({}, z)
        return -self.prior.losses(params["prior"], z)

    def _likelihood(self, params, z):
        """Mean and log std of y = norm(x), given z."""
        mean, raw = split_last(self.decoder.apply(params["decoder"], z), self.features)
        return mean, self._bounded(raw)

    def _bounded(self, raw):
        return self.log_std_limit * tanh(raw / self.log_std_limit)

    def elbo(
        self,
        params: Params,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        rng: Generator,
        draws: int = 1,
    ) -> ndarray:
        """Estimate ELBO(x) of each row: the mean over several draws of z.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, features)
        context : None
            A VAE takes no context.
        rng : numpy.random.Generator
            Draws z.
        draws : int
            Draws of z for each row.

        Returns
        -------
        ndarray, shape (n,)
            In nats.

        Raises
        ------
        InputError
            If an argument cannot be used, or does not fit the VAE.
        """
        draws, total = check_count(draws, "draws"), 0.0
        for elbos in self._estimates(replace(self, draws=1)._elbo, params, x, context, rng, draws):
            total = total + np.sum(elbos, axis=1)
        return total / draws

    def log_prob(
        self,
        params: Params,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        rng: Generator,
        draws: int = 100,
    ) -> ndarray:
        """Estimate log p(x) of each row by importance sampling.

        log p(x) ~ log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x),        z_k ~ q(z | x)

        In expectation the estimate is the ELBO for K = 1, and rises to log p(x) as K grows. The time is proportional to
        K; the memory does not depend on it.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, features)
        context : None
            A VAE takes no context.
        rng : numpy.random.Generator
            Draws z.
        draws : int
            K.

        Returns
        -------
        ndarray, shape (n,)
            In nats.

        Raises
        ------
        InputError
            If an argument cannot be used, or does not fit the VAE.
        """
        draws, total = check_count(draws, "draws"), None
        for log_weights in self._estimates(self._log_weights, params, x, context, rng, draws):
            part = logsumexp_last(log_weights)
            total = part if total is None else np.logaddexp(total, part)
        return total - math.log(draws)

    def _estimates(self, method, params, x, context, rng, draws):
        """Yield what `method` gives for a few draws of z per row, shape (n, few); all of them are `draws`."""
        check_rng(rng)
        layout, x, _ = self.checked(params, x, context)
        there, at_once = device_of(params).generator(rng), max(1, AT_ONCE // len(x))
        for start in range(0, draws, at_once):
            few = min(at_once, draws - start)
            rows = x if few == 1 else np.repeat(x, few, axis=0)
            with overflow_ignored():
                found = map_rows(
                    method, params, rows, there.standard_normal((len(rows), self.latent), x.dtype)
                )
            yield np.reshape(without_nan(found, layout, params), (len(x), few))

    def sample(
        self,
        params: Params,
        rng: Generator,
        n: int,
        context: ArrayLike | None = None,
        temperature: float = 1.0,
    ) -> ndarray:
        """Draw rows of x: z from the prior, then x from p(x | z).

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
            The number of rows.
        context : None
            A VAE takes no context.
        temperature : float
            At least 0; multiplies z and the deviation of x from its mean.

        Returns
        -------
        ndarray, shape (n, features)

        Raises
        ------
        InputError
            If an argument cannot be used, or `params` are another model's.
        """
        n = check_count(n, "the number of samples")
        check_rng(rng)
        check_no_context(context)
        temperature = check_number(temperature, "temperature", least=0)
        dtype = self.check(params).dtype
        cast(temperature, dtype, "expected temperature")
        there = device_of(params).generator(rng)
        if self.prior is None:
            z = temperature * there.standard_normal((n, self.latent), dtype)
        else:
            z = self.prior.sample(params["prior"], rng, n, temperature=temperature)
        return map_rows(
            self._sample, params, z, temperature * there.standard_normal((n, self.features), dtype)
        )

    def _sample(self, params, z, noise):
        mean, log_std = self._likelihood(params, z)
        return self.norm.inverse(params["norm"], mean + np.exp(log_std) * noise)[0]

    def encode(self, params: Params, x: ArrayLike) -> tuple[ndarray, ndarray]:
        """Compute the normal distribution q(z | x) of each row; that of z_0 where there is a posterior flow.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, features)

        Returns
        -------
        mean, log_std : ndarray, shape (n, latent)

        Raises
        ------
        InputError
            If `params` or `x` does not fit the VAE.
        """
        _, x, _ = self.checked(params, x)
        return split_last(map_rows(self._encode, params, x), self.latent)

    def _encode(self, params, x):
        y, _ = self.norm.forward(params["norm"], x)
        return concatenate_last(*self._posterior(params, y)[:2])

    def sample_posterior(self, params: Params, rng: Generator, x: ArrayLike) -> ndarray:
        """Draw one z from q(z | x) for each row of x.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        x : array_like, shape (n, features)

        Returns
        -------
        ndarray, shape (n, latent)

        Raises
        ------
        InputError
            If `params` or `x` does not fit the VAE.
        """
        check_rng(rng)
        _, x, _ = self.checked(params, x)
        epsilon = device_of(params).generator(rng).standard_normal((len(x), self.latent), x.dtype)
        return map_rows(self._sample_posterior, params, x, epsilon)

    def _sample_posterior(self, params, x, epsilon):
        y, _ = self.norm.forward(params["norm"], x)
        mean, log_std, *h = self._posterior(params, y)
        z = mean + np.exp(log_std) * epsilon
        return self._through_posterior(params, z, *h)[0]

    def decode(self, params: Params, z: ArrayLike) -> tuple[ndarray, ndarray]:
        """Compute the normal distribution p(x | z) of each row.

        Parameters
        ----------
        params : tree of ndarray
        z : array_like, shape (n, latent)

        Returns
        -------
        mean, log_std : ndarray, shape (n, features)

        Raises
        ------
        InputError
            If `params` or `z` does not fit the VAE.
        """
        z = check_rows(z, (self.latent,), self.check(params).dtype, "z")
        return split_last(map_rows(self._decode, params, z), self.features)

    def _decode(self, params, z):
        mean, log_std = self._likelihood(params, z)
        x, _ = self.norm.inverse(params["norm"], mean)
        units, norm = params["norm"]
        log_scale = np.log(Units().scale(units, mean)) + norm["log_scale"]
        return concatenate_last(x, log_std - log_scale)

    def visits(self, params, x, epsilon):
        """The norm, the encoder, the layers of the flows, and the decoder, one after the other."""
        if self.draws > 1:
            x, epsilon = self._repeated(x, epsilon)
        norm = Visit("the norm", self.norm.forward, (params["norm"], x))
        yield norm
        encoder = Visit("the encoder", self._posterior, (params, norm.result[0]))
        yield encoder
        mean, log_std, *h = encoder.result
        z = mean + np.exp(log_std) * epsilon
        if self.posterior is not None:
            z = yield from walk(
                self.posterior, params["posterior"], z, "forward", *(h or [None]), "the posterior"
            )
        if self.prior is not None:
            yield from self.prior.visits(params["prior"], z, path="the prior/")
        yield Visit("the decoder", self._likelihood, (params, z))


def check_no_context(context):
    """Raise unless there is no context."""
    if context is not None:
        raise InputError("expected no context for a VAE, got one")


def log_normal(x, mean, log_std):
    """log N(x; mean, std^2) in nats, summed over the components of each row, shape (n,)."""
    offset = (x - mean) * np.exp(-log_std)
    return -0.5 * sum_event(offset * offset + 2 * log_std + LOG_2PI)


@lru_cache(maxsize=64)
def expected_layout(vae, ration=SMALL):
    """The layout of a VAE's parameters, from initializing it on noise."""
    x = onp.random.default_rng(0).standard_normal((4, vae.features))
    rng = Rationed(ration)
    norm = [layer.init(rng, x) for layer in vae.norm.layers]  # without a pass
    params = vae._with_networks(rng, norm, x)
    init = lambda layer, z, h, _: layer.init(rng, z, **given(layer, h))
    z, h = (x[:, :1] * onp.ones((1, width)) for width in (vae.latent, vae.context_features))
    if vae.posterior is not None:
        params["posterior"], _ = dry_run(vae.posterior, z, init, context=h if vae.context_features else None)
    if vae.prior is not None:
        layer, _ = dry_run(vae.prior.layer, z, init)
        params["prior"] = {"layer": layer, "prior": vae.prior.prior.init(rng, z)}
    return Layout(params)
