"""Adam, on one flat vector."""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from npflow.autodiff.gpu.devices import device_of
from npflow.autodiff.program.chunks import in_chunks
from npflow.description import Described, checked, number
from npflow.training.schedules import Constant
from npflow.validation import check_number

CLEAR_EVERY = 64  # steps; with beta1 = 0.9 they shrink m by a factor of a thousand


def check_schedule(rate, name):
    """Raise `InputError` unless `rate` is callable or a positive number; return a schedule."""
    return rate if callable(rate) else Constant(check_number(rate, name, above=0))


@dataclass(frozen=True)
class Adam(Described):
    r"""Gradient steps scaled by running averages of the gradient and of its square.

    m <- beta1 m + g                        v <- beta2 v + g^2
    p <- p - rate * m_hat / (sqrt(v_hat) + epsilon)
    m_hat = (1 - beta1) / (1 - beta1^k) m   v_hat = (1 - beta2) / (1 - beta2^k) v       at step k = 1, 2, ...

    m and v start at zero; dividing by 1 - beta^k removes the bias of that start. The paper applies the
    factors 1 - beta where m and v are accumulated. Here m_hat and v_hat apply them, which saves a pass over
    the vector.

    Parameters
    ----------
    learning_rate : float or callable
        A number, or a schedule such as `WarmupCosine`: a function of the step 1, 2, ...
    beta1, beta2 : float
        The decay rates of the averages of g and g^2, at least 0 and below 1.
    epsilon : float
        Keeps the step bounded where v is zero; positive.

    References
    ----------
    Kingma, Ba: Adam: A method for stochastic optimization, 2015, algorithm 1. https://arxiv.org/abs/1412.6980

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.training import Adam
    >>> adam = Adam(learning_rate=0.1)
    >>> vector = np.array([1.0, 2.0])
    >>> state = adam.init(vector)
    >>> adam.update(state, vector, gradient=np.array([5.0, -0.01]), step=1)
    0.1
    >>> vector.round(3)
    array([0.9, 2.1])
    """

    learning_rate: object = checked(check_schedule, 1e-3)
    beta1: float = number(0.9, least=0, below=1)
    beta2: float = number(0.999, least=0, below=1)
    epsilon: float = number(1e-8, above=0)

    def init(self, vector: ndarray) -> dict:
        """Return the state before the first step.

        Parameters
        ----------
        vector : ndarray, shape (d,)
            The parameters.

        Returns
        -------
        dict
            m and v: vectors of zeros like it.
        """
        # `np.zeros` takes no memory until the first step, unlike `np.zeros_like`.
        zeros = device_of(vector).module.zeros
        return {name: zeros(vector.shape, vector.dtype) for name in ("m", "v")}

    def update(self, state: dict, vector: ndarray, gradient: ndarray, step: int) -> float:
        """Make one step, in place.

        Parameters
        ----------
        state : dict
            m and v from `init`; changed in place.
        vector : ndarray, shape (d,)
            The parameters; changed in place.
        gradient : ndarray, shape (d,)
            Overwritten: it serves as scratch space, so that nothing is allocated.
        step : int
            The number of this step, from 1.

        Returns
        -------
        rate : float
            The learning rate of the step.
        """
        rate = self.learning_rate(step)
        of_m = (1 - self.beta1) / (1 - self.beta1**step)
        of_root = math.sqrt((1 - self.beta2) / (1 - self.beta2**step))

        def move(m, v, p, g):
            # m <- beta1 m + g
            m *= self.beta1
            m += g

            # v <- beta2 v + g^2
            np.multiply(g, g, out=g)
            v *= self.beta2
            v += g

            # p <- p - rate * m_hat / (sqrt(v_hat) + epsilon), where the scalar factors are taken out:
            # sqrt(v_hat) + epsilon = of_root * (sqrt(v) + epsilon / of_root)
            np.sqrt(v, out=g)
            g += self.epsilon / of_root
            np.divide(m, g, out=g)
            g *= rate * of_m / of_root
            p -= g

        in_chunks(move, state["m"], state["v"], vector, gradient)
        if step % CLEAR_EVERY == 0:
            in_chunks(clear_faded, state["m"], state["v"])
        return rate


def clear_faded(*moments):
    """Round numbers below tiny^0.7 to multiples of eps tiny^0.7, in place: the smallest become zero.

    A parameter whose gradient stays 0, such as a weight of a dead ReLU, has an m that decays until it is a
    denormal number. Arithmetic with denormal numbers is so slow that a step takes twice as long if one number
    in fifty is one.
    """
    for moment in moments:
        faded = float(np.finfo(moment.dtype).tiny) ** 0.7
        moment += faded
        moment -= faded
