"""Distillation: the divergence of a student's density from a teacher's, as a model to train."""

from dataclasses import dataclass, field, replace

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import device_of, to_device
from npflow.description import describe, fingerprint, instance
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers.composite import Visit, name_of
from npflow.model import Model
from npflow.priors import check_drawn


@dataclass(frozen=True, eq=False)
class Distillation(Model):
    r"""The Kullback-Leibler divergence of a student's density from a teacher's, on samples of the student.

    KL(student || teacher) = E_z[log p_S(x) - log p_T(x)],      x = student(z),  z ~ the student's prior

    log p_S(x) = log prior(z) - log|det dx/dz| comes from the z that x was made of, so that no x goes back through the
    student. x is a differentiable function of the student's parameters, so the gradient goes through both terms. The
    teacher's parameters are fixed; they are no parameters of this model.

    A batch is (z,), or (context, z) where the two flows are conditional.

    Parameters
    ----------
    student : Flow
        With a prior that has no parameters: z is noise, drawn before the gradient is taken.
    teacher : Flow
        On rows of the same shape, with as many context features.
    teacher_params : tree of ndarray

    References
    ----------
    Van den Oord et al. 2017, Parallel WaveNet, section 4.
    """

    student: Flow = instance(Flow)
    teacher: Flow = instance(Flow)
    teacher_params: dict = field(repr=False)

    noisy = True
    takes_rows = False

    def __post_init__(self):
        super().__post_init__()
        self.teacher.check(self.teacher_params)
        check_alike("student", self.student, "teacher", self.teacher)

    def check(self, params):
        layout = self.student.check(params)
        if any(tree.items(params["prior"])):
            raise InputError(
                "expected a student with a fixed prior, as z is drawn before the gradient is taken, got "
                f"{self.student.prior!r}; an Affine as the last layer does what a trained mean and standard deviation of "
                "z do"
            )
        check_same_dtype("student", params, "teacher", self.teacher_params)
        return layout

    def check_batch(self, x, context=None, dtype=None, name="x"):
        if x is not None:
            raise InputError(
                "expected no rows to distill from, as a student learns from its own samples, got some"
            )
        return x, self.student.check_context(context, None, dtype)

    def noise(self, rng, rows, dtype):
        """z of the student's prior."""
        prior = self.student.prior
        z = prior.sample({}, rng, rows, dtype)
        check_drawn(prior, z, (rows, *self.student.event_shape), dtype)
        return (z,)

    def losses(self, params, *batch):
        """log p_S(x) - log p_T(x) of each of the student's samples x in nats, shape (n,)."""
        z, context = _parts(batch)
        x, log_student = self.student.decode_with_log_prob(params, z, context)
        return log_student + self.teacher.losses(self.teacher_params, x, context)

    def reversible(self):
        return replace(self, student=self.student.reversible(), teacher=self.teacher.reversible())

    def visits(self, params, *batch):
        """Each layer of the student on the way to x, its prior, and the teacher on x."""
        z, context = _parts(batch)
        x = yield from self.student.visits(params, z, context, "inverse", "student/")
        prior = self.student.prior
        yield Visit(name_of("student/prior", prior), prior.log_prob, (params["prior"], z))
        teacher_params = to_device(self.teacher_params, device_of(x).name)
        yield from self.teacher.visits(teacher_params, x, context, path="teacher/")

    def settings(self):
        weights = tree.Layout(self.teacher_params).pack(self.teacher_params)
        return {
            "student": describe(self.student),
            "teacher": describe(self.teacher),
            "teacher_params": fingerprint(weights),
        }

    @property
    def learned(self):
        """The student."""
        return self.student


def _parts(batch):
    """z and the context of a batch, None where there is none."""
    *context, z = batch
    return z, context[0] if context else None


def check_alike(name, flow, other_name, other):
    """Raise unless two flows have rows of one shape, and as many context features."""
    if flow.event_shape != other.event_shape:
        raise InputError(
            f"expected {name} and {other_name} to have rows of one shape, "
            f"got {flow.event_shape} and {other.event_shape}"
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
