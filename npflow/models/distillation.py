"""Distillation: the divergence of a student's density from a teacher's, as a model to train."""

from dataclasses import dataclass, field, replace

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import device_of, to_device
from npflow.description import describe, fingerprint, instance
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.models.reverse_kl import OwnSamples


@dataclass(frozen=True, eq=False)
class Distillation(OwnSamples):
    r"""The Kullback-Leibler divergence of a student's density from a teacher's, on samples of the student.

    KL(student || teacher) = E_z[log p_S(x) - log p_T(x)],      x = student(z),  z ~ the student's prior

    This is `ReverseKL` with the teacher's density, which is known with its constant. The teacher's parameters are fixed;
    they are no parameters of this model.

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

    role, path = "student", "student/"

    def __post_init__(self):
        super().__post_init__()
        self.teacher.check(self.teacher_params)
        check_alike("student", self.student, "teacher", self.teacher)

    @property
    def flow(self):
        """The student."""
        return self.student

    def log_target(self, x, context):
        """log p_T(x), by the teacher's forward."""
        return -self.teacher.losses(self.teacher_params, x, context)

    def check(self, params):
        layout = super().check(params)
        check_same_dtype("student", params, "teacher", self.teacher_params)
        return layout

    def reversible(self):
        return replace(self, student=self.student.reversible(), teacher=self.teacher.reversible())

    def visits(self, params, *batch):
        """Each layer of the student on the way to x, its prior, and the teacher on x."""
        x, context = yield from super().visits(params, *batch)
        teacher_params = to_device(self.teacher_params, device_of(x).name)
        yield from self.teacher.visits(teacher_params, x, context, path="teacher/")

    def settings(self):
        weights = tree.Layout(self.teacher_params).pack(self.teacher_params)
        return {
            "student": describe(self.student),
            "teacher": describe(self.teacher),
            "teacher_params": fingerprint(weights),
        }


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
