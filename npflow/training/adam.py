"""Adam, on one flat vector."""

import math
from dataclasses import dataclass

import numpy as np

from npflow.autodiff.program.chunks import in_chunks
from npflow.description import Described
from npflow.training.schedules import Constant
from npflow.validation import check_number

CLEAR_EVERY = 64  # steps, in which m comes to 0.9^64 of what it was: a thousandth


@dataclass(frozen=True)
class Adam(Described):
    r"""Gradient steps scaled by running averages of the gradient and of its square.

    m <- beta1 m + g                        v <- beta2 v + g^2
    p <- p - rate * m_hat / (sqrt(v_hat) + epsilon)
    m_hat = (1 - beta1) / (1 - beta1^k) m   v_hat = (1 - beta2) / (1 - beta2^k) v       at step k = 1, 2, ...

    m and v start at zero; dividing by 1 - beta^k takes away the bias of that start. The paper has the factors
    1 - beta where m and v are added up; here they wait for m_hat and v_hat, where they cost no pass over
    the vector.

    Parameters
    ----------
    learning_rate : float or schedule
        A number, or a schedule such as `WarmupCosine`: a callable of the step.
    beta1, beta2 : float
        How slowly the averages of g and g^2 forget, at least 0 and below 1.
    epsilon : float
        Keeps the step bounded where v is zero.

    Source: Kingma & Ba 2015, Adam: A method for stochastic optimization, algorithm 1.
    """

    learning_rate: object = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self):
        if not callable(self.learning_rate):
            object.__setattr__(self, "learning_rate", Constant(self.learning_rate))
        bounds = {
            "beta1": {"least": 0, "below": 1},
            "beta2": {"least": 0, "below": 1},
            "epsilon": {"above": 0},
        }
        for name, bound in bounds.items():  # as Python's floats, which JSON can hold
            object.__setattr__(self, name, check_number(getattr(self, name), f"Adam's {name}", **bound))

    def init(self, vector):
        """m and v for a parameter vector: two vectors of zeros like it."""
        return {"m": np.zeros_like(vector), "v": np.zeros_like(vector)}

    def update(self, state, vector, gradient, step):
        """Move `vector` one step, in place; return the learning rate.

        Parameters
        ----------
        state : dict
            m and v, from `init`; changed in place.
        vector : ndarray, shape (d,)
            The parameters; changed in place.
        gradient : ndarray, shape (d,)
            The gradient. It serves as scratch space: nothing else is allocated, and it is overwritten.
        step : int
            1 at the first step.
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

            # p <- p - rate * m_hat / (sqrt(v_hat) + epsilon), with the factors of both taken out of the vectors:
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
    """Make what has faded away zero: what is below tiny^0.7 is rounded, in place, to multiples of eps tiny^0.7.

    A parameter whose gradient stays 0, such as a weight of a ReLU that is never on, has an m that shrinks until it is a
    denormal number, below the smallest of full precision. Arithmetic with these is so slow that a step takes twice as
    long where one number in fifty is one.
    """
    for moment in moments:
        faded = float(np.finfo(moment.dtype).tiny) ** 0.7
        moment += faded
        moment -= faded
