"""Probability density distillation: a flow that samples fast learns the density of one that is evaluated fast."""

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import device_of, fetch, find_device, to_device
from npflow.flow import Flow
from npflow.models.distillation import Distillation, check_alike, check_same_dtype
from npflow.training.fit import fit
from npflow.training.history import History
from npflow.training.options import takes_options
from npflow.typing import Params
from npflow.validation import check_count, check_instance, check_rng


@takes_options
def distill(
    student: Flow,
    student_params: Params,
    teacher: Flow,
    teacher_params: Params,
    context: ArrayLike | None = None,
    *,
    rng: Generator,
    **options,
) -> tuple[Params, History]:
    r"""Minimize KL(student || teacher), in nats, on the student's own samples; no data is needed.

    KL(student || teacher) = E_z[log p_S(x) - log p_T(x)],      x = student(z)

    An autoregressive flow is fast in one direction. A `maf` gives the density of any x in one pass and samples feature
    by feature. An `iaf` samples in one pass, with the density of its own samples, and is slow for any other x. Fitting
    an `iaf` to data takes the slow direction. Here a step is one pass of the student to x and one of the teacher, both
    fast. The trained student samples in one pass what the teacher learned.

    This divergence is large where the student has samples and the teacher has no density, not where the student misses
    a part of the teacher. A student that is too small covers a part of the teacher well. `kl_divergence` in the other
    direction measures what is missed.

    Parameters
    ----------
    student : Flow
        One whose inverse is fast, with a prior that has no parameters.
    student_params : tree of ndarray
        Where to start; not changed. A good start is ``student.init(rng, teacher.sample(teacher_params, rng, 256))``,
        as the samples of the teacher tell where x lies.
    teacher : Flow
        One whose forward is fast.
    teacher_params : tree of ndarray
        Its parameters, in the dtype of the student's; not changed.
    context : ndarray, shape (n, context features), optional
        For two conditional flows, the contexts at which the student learns the density. A step takes `batch_size` of
        them, with one sample at each, and an epoch goes through all.
    rng : numpy.random.Generator
        Draws z. Resuming a checkpoint sets its state.
    **options
        As for `fit`. `batch_size` is the number of samples in a step, 256 by default and at most n where there are
        contexts. A checkpoint holds the student.

    Returns
    -------
    params : tree of ndarray
        The student's: the average, else the last.
    history : History
        Its loss is the divergence on the samples of each step in nats. It is 0 where the two densities are the same,
        up to the choice of samples.

    Raises
    ------
    InputError
        Before any work, if an argument cannot be used: flows with other rows or contexts, a student with a trained
        prior, two dtypes.
    NonFiniteError
        If a loss or a gradient is not finite; see `fit`.

    References
    ----------
    van den Oord et al.: Parallel WaveNet: Fast high-fidelity speech synthesis, 2017, section 4.
    https://arxiv.org/abs/1711.10433

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.training import distill
    >>> from npflow.models import iaf, maf
    >>> rng = np.random.default_rng(0)
    >>> teacher, student = maf(features=3, steps=2), iaf(features=3, steps=2)
    >>> x = rng.normal(size=(200, 3))
    >>> teacher_params = teacher.init(rng, x)
    >>> params = student.init(rng, teacher.sample(teacher_params, rng, 100))
    >>> options = {"rng": rng, "steps": 5, "batch_size": 32, "progress": False}
    >>> params, history = distill(student, params, teacher, teacher_params, **options)
    >>> len(history.loss)
    5
    """
    check_rng(rng)
    device = options.get("device")
    there = device_of(student_params) if device is None else find_device(device)
    model = Distillation(student, teacher, to_device(teacher_params, there.name))
    return fit(model, student_params, None, context, rng=rng, **options)


def kl_divergence(
    p: Flow,
    p_params: Params,
    q: Flow,
    q_params: Params,
    rng: Generator,
    n: int,
    context: ArrayLike | None = None,
) -> tuple[float, float]:
    r"""KL(p || q) in nats from `n` samples of p: the mean of log p(x) - log q(x), and its standard error.

    It is 0 where the two densities are the same and positive otherwise. An estimate may be below 0 by about its
    standard error. log p(x) comes with the samples (`Flow.sample_and_log_prob`), log q(x) from q's forward.

    Parameters
    ----------
    p : Flow
    p_params : tree of ndarray
    q : Flow
        On rows of the same shape.
    q_params : tree of ndarray
        In the dtype of `p_params`.
    rng : numpy.random.Generator
    n : int
        The number of samples, at least two.
    context : ndarray, shape (n, context features), optional
        For two conditional flows, a context for each sample; the divergence is the mean over them.

    Returns
    -------
    mean : float
    standard_error : float
        The standard deviation of log p(x) - log q(x), divided by the square root of `n`.

    Raises
    ------
    InputError
        If the flows have other rows or contexts, or their parameters two dtypes.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.training import kl_divergence
    >>> from npflow.layers import Affine
    >>> from npflow.priors import Normal
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.Flow(Affine(), Normal(1))
    >>> params = {"layer": {"mean": np.zeros(1), "log_std": np.zeros(1)}, "prior": {}}
    >>> moved = {"layer": {"mean": np.ones(1), "log_std": np.zeros(1)}, "prior": {}}
    >>> mean, error = kl_divergence(flow, params, flow, moved, rng, 10_000)     # exactly: 1/2
    >>> abs(mean - 0.5) < 4 * error
    True
    """
    for name, flow in (("p", p), ("q", q)):
        check_instance(flow, Flow, name)
    check_count(n, "the number of samples", least=2)
    check_alike("p", p, "q", q)
    check_same_dtype("p", p_params, "q", q_params)
    x, log_p = p.sample_and_log_prob(p_params, rng, n, context)
    ratio = np.asarray(fetch(log_p - q.log_prob(q_params, x, context)), np.float64)
    return float(np.mean(ratio)), float(np.std(ratio, ddof=1) / np.sqrt(n))
