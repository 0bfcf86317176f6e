"""Probability density distillation: a flow that samples fast learns the density of one that is evaluated fast."""

from dataclasses import dataclass, field

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import device_of, fetch, find_device, to_device
from npflow.culprit import first_non_finite, host_bound
from npflow.description import describe
from npflow.errors import InputError
from npflow.flow import Flow, dtype_of
from npflow.layers.layer import given
from npflow.model import Model
from npflow.training.loop import train
from npflow.training.run import fingerprint
from npflow.validation import check_count, check_rng, check_rows


@dataclass(frozen=True, eq=False)
class Distillation(Model):
    r"""The Kullback-Leibler divergence of a student's density from a teacher's, on the student's own samples.

    KL(student || teacher) = E_z[log p_S(x) - log p_T(x)],      x = student(z),  z ~ the student's prior

    log p_S(x) = log prior(z) - log|det dx/dz| comes by way of the z that x was made of, so that no x goes back
    through the student; and x is a differentiable function of the student's parameters, so that the gradient goes
    through both terms. The teacher's parameters are fixed: they are no parameters of this model.

    A batch is (z,), or (context, z) where the two flows are conditional.

    Parameters
    ----------
    student : Flow
        Of a prior that has no parameters: z is noise, drawn before the gradient is taken.
    teacher : Flow
        On rows of the same shape, with as many context features.
    teacher_params : tree of ndarray

    Source: van den Oord et al. 2017, Parallel WaveNet, section 4.
    """

    student: Flow
    teacher: Flow
    teacher_params: dict = field(repr=False)

    noisy = True

    def __post_init__(self):
        for name in ("student", "teacher"):
            if not isinstance(getattr(self, name), Flow):
                raise InputError(f"expected a Flow as the {name}, got {getattr(self, name)!r}")
        self.teacher.check(self.teacher_params)
        check_alike("student", self.student, "teacher", self.teacher)

    def check(self, params, x=None, name="x", context=None):
        """Raise `InputError` unless `params` are the student's, and `x` and `context` rows for it."""
        if x is not None:
            raise InputError(
                "expected no rows to distill from, as a student learns from its own samples, got some"
            )
        self.student.check(params)
        if any(tree.items(params["prior"])):
            raise InputError(
                f"expected a student whose prior is fixed, as z is drawn before the gradient is taken, got "
                f"{self.student.prior!r}; an Affine as the last of its layers does what a trained mean and "
                "standard deviation of z do"
            )
        check_same_dtype("student", params, "teacher", self.teacher_params)

    def noise(self, rng, rows, dtype):
        """z of the student's prior, for so many samples."""
        return (self.student.prior.sample({}, rng, rows, dtype),)

    def row_losses(self, params, *batch):
        """log p_S(x) - log p_T(x) of each of the student's samples x, in nats, shape (n,)."""
        z, context = self._parts(batch)
        layer, prior = self.student.layer, self.student.prior
        x, log_det = layer.inverse(params["layer"], z, **given(layer, context))
        log_student = prior.log_prob(params["prior"], z) - log_det
        return log_student + self.teacher.row_losses(self.teacher_params, x, context)

    def explain(self, params, *batch):
        """What is the first to be not finite where a loss is not, as the end of a sentence."""
        z, context = self._parts(batch)
        layer = self.student.layer
        culprit = first_non_finite(layer, params["layer"], z, "student/layer", "inverse", context)
        if culprit is None:
            x, _ = layer.inverse(params["layer"], z, **given(layer, context))
            inner = self.teacher_params["layer"]
            culprit = first_non_finite(self.teacher.layer, inner, x, "teacher/layer", context=context)
        if culprit is None:
            return "every layer's output is finite, a prior's is not"
        return f"the first output not finite is that of {culprit}"

    def host_bound(self, error, params, *batch):
        """The error that names what cannot compute on a device, where an error came; None if it is another."""
        z, context = self._parts(batch)
        layer = self.student.layer
        named = host_bound(error, self.student, params, z, "inverse", context)
        if named is not None:
            return named.inside("student")
        try:
            x, _ = layer.inverse(params["layer"], z, **given(layer, context))
        except Exception:  # the student's own
            return None
        named = host_bound(error, self.teacher, self.teacher_params, x, context=context)
        return named and named.inside("teacher")

    def settings(self):
        """What a run has to share with a checkpoint to go on from it, as plain data."""
        weights = tree.Layout(self.teacher_params).pack(self.teacher_params)
        return {
            "student": describe(self.student),
            "teacher": describe(self.teacher),
            "teacher_params": fingerprint(weights),
        }

    @property
    def learned(self):
        """Whose the parameters are, which a checkpoint therefore holds: the student."""
        return self.student

    @staticmethod
    def _parts(batch):
        """z and the context of a batch, None where there is none."""
        *context, z = batch
        return z, context[0] if context else None


def distill(
    student,
    student_params,
    teacher,
    teacher_params,
    context=None,
    *,
    rng,
    steps=1000,
    batch_size=256,
    optimizer=None,
    clip_norm=None,
    average=None,
    checkpoint=None,
    checkpoint_every=100,
    device=None,
    record=True,
    threads=None,
    progress=True,
):
    r"""Minimize KL(student || teacher), in nats, on the student's own samples: it needs no data.

    KL(student || teacher) = E_z[log p_S(x) - log p_T(x)],      x = student(z)

    An autoregressive flow is fast one way: a `maf` gives the density of any x in one pass and samples feature by
    feature, an `iaf` samples in one pass, its own samples' density with them, and is slow on any other x. Fitting an
    `iaf` to data takes its slow way; here each step is one pass of the student to x and one of the teacher, both
    fast. What comes out samples in one pass what the teacher learned.

    This divergence punishes samples where the teacher has no density, and not what of the teacher's is missed: a
    student too small for the teacher covers part of it well. `kl_divergence`, the other way round, measures
    what is missed.

    Parameters
    ----------
    student : Flow
        One whose inverse is fast, with a prior that has no parameters.
    student_params : tree of ndarray
        Where to start, left as it is. The best start is on some of the teacher's samples, which say where x
        lies: ``student.init(rng, teacher.sample(teacher_params, rng, 256))``.
    teacher : Flow
        One whose forward is fast.
    teacher_params : tree of ndarray
        Its parameters, in the student's dtype; they stay as they are.
    context : ndarray, shape (n, context features), optional
        Where both flows are conditional: the contexts that the student is to learn the teacher's density at. Each
        step takes `batch_size` of them, one sample at each, and an epoch goes through all.
    rng : numpy.random.Generator
        Draws z; a checkpoint that is continued sets its state.
    steps : int
        How many steps the whole run has.
    batch_size : int
        Samples a step; at most n where there are contexts.
    optimizer, clip_norm, average, checkpoint, checkpoint_every, device, record, threads, progress
        As for `fit`: the loop is the same. A checkpoint holds the student.

    Returns
    -------
    params : tree of ndarray
        The student's: the average, else the last.
    history : History
        Its loss is the divergence on each step's samples, nats: it is exact but for the choice of samples, so 0 is
        where the two densities are one.

    Raises
    ------
    InputError
        Before any work, where an argument cannot be used: flows of other rows or contexts, a student whose prior is
        trained, two dtypes.
    NonFiniteError
        When a loss or a gradient is not finite; see `fit`.

    References
    ----------
    van den Oord et al.: Parallel WaveNet: Fast high-fidelity speech synthesis, 2017, section 4.
    https://arxiv.org/abs/1711.10433

    Examples
    --------
    >>> from npflow.models import iaf, maf
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
    there = device_of(student_params) if device is None else find_device(device)
    teacher_params = to_device(teacher_params, there.name)
    model = Distillation(student, teacher, teacher_params)
    model.check(student_params)
    if context is not None or student.context_features:
        check_context(student, context, dtype_of(student_params))
    return train(
        model,
        student_params,
        () if context is None else (context,),
        rng=rng,
        steps=steps,
        batch_size=batch_size,
        optimizer=optimizer,
        clip_norm=clip_norm,
        average=average,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        device=device,
        record=record,
        threads=threads,
        progress=progress,
    )


def kl_divergence(p, p_params, q, q_params, rng, n, context=None):
    r"""KL(p || q) in nats by `n` samples of p: the mean of log p(x) - log q(x), and its standard error.

    It is 0 where the two densities are one, and otherwise above, in the mean: an estimate may fall below by its
    standard error. log p(x) comes with the samples (`Flow.sample_and_log_prob`), log q(x) by q's forward.

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
        How many samples, at least two.
    context : ndarray, shape (n, context features), optional
        A row for each sample, where the two flows are conditional: the divergence is the mean over them.

    Returns
    -------
    mean : float
    standard_error : float
        The standard deviation of log p(x) - log q(x) by the root of `n`.

    Raises
    ------
    InputError
        If the flows are of other rows or contexts, or their parameters of two dtypes.

    Examples
    --------
    >>> from npflow.layers import Affine
    >>> from npflow.priors import Normal
    >>> flow = npflow.Flow(Affine(), Normal(1))
    >>> params = {"layer": {"mean": np.zeros(1), "log_std": np.zeros(1)}, "prior": {}}
    >>> moved = {"layer": {"mean": np.ones(1), "log_std": np.zeros(1)}, "prior": {}}
    >>> mean, error = kl_divergence(flow, params, flow, moved, rng, 10_000)     # exactly: 1/2
    >>> abs(mean - 0.5) < 4 * error
    True
    """
    for name, flow in (("p", p), ("q", q)):
        if not isinstance(flow, Flow):
            raise InputError(f"expected a Flow as {name}, got {flow!r}")
    check_count(n, "the number of samples", least=2)
    check_alike("p", p, "q", q)
    check_same_dtype("p", p_params, "q", q_params)
    x, log_p = p.sample_and_log_prob(p_params, rng, n, context)
    ratio = np.asarray(fetch(log_p - q.log_prob(q_params, x, context)), np.float64)
    return float(np.mean(ratio)), float(np.std(ratio, ddof=1) / np.sqrt(n))


def check_alike(name, flow, other_name, other):
    """Raise unless two flows have rows of one shape, and as many context features."""
    if flow.prior.event_shape != other.prior.event_shape:
        raise InputError(
            f"expected {name} and {other_name} to have rows of one shape, "
            f"got {flow.prior.event_shape} and {other.prior.event_shape}"
        )
    if flow.context_features != other.context_features:
        raise InputError(
            f"expected {name} and {other_name} to take one kind of context, "
            f"got context_features={flow.context_features} and {other.context_features}"
        )


def check_same_dtype(name, params, other_name, other_params):
    """Raise unless the parameters of two flows, where they have any, are in one dtype."""
    layouts = tree.Layout(params), tree.Layout(other_params)
    dtypes = [layout.dtype for layout in layouts if layout.size]
    if len(set(dtypes)) > 1:
        raise InputError(
            f"expected the parameters of {name} and {other_name} in one dtype, got {dtypes[0]} and {dtypes[1]}"
        )


def check_context(student, context, dtype):
    """Raise unless `context` has rows for a student."""
    if context is None:
        raise InputError(
            f"expected contexts of {student.context_features} features for the student, got none"
        )
    if not student.context_features:
        raise InputError("expected no context for a student with context_features=0, got one")
    check_rows(context, (student.context_features,), dtype, "context")
