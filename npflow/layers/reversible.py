"""A layer that keeps nothing for the gradient: the backward pass goes back through its inverse."""

from dataclasses import dataclass

from npflow.autodiff.gradient import off_tape, recomputed, tape_of
from npflow.autodiff.mistakes import pair_of
from npflow.autodiff.program.frames import follows_steps
from npflow.description import checked
from npflow.layers.composite import Composite, Step, follow, walk
from npflow.layers.layer import Layer, check_layer, given, zeros_per_row

OPPOSITE = {"forward": "inverse", "inverse": "forward"}


@dataclass(frozen=True)
class Reversible(Composite):
    r"""A layer, often a `Chain`, whose gradient takes no more memory for more layers; ``fit(reversible=True)`` puts it in.

    z = f_K(... f_1(x))             the same map, log|det J|, parameters and bits as without it

    for k = K ... 1:                the gradient, where x_K = z
        x_{k-1} = f_k^-1(x_k)
        from the gradient in x_k and in the log-det, by f_k at x_{k-1}: that in its parameters and in x_{k-1}

    Ordinarily every intermediate result of the forward pass is kept until the gradient is taken. Here only z is. The
    backward pass computes the input of each inner layer from its output, runs the layer once more, and takes its
    gradient; then all of that is forgotten. A layer with ``keeps_input = True``, whose inverse is slow, keeps its input
    and nothing else. Containers such as `Split` are followed to the layers inside, and layers of your own need no
    change. A training step takes about a third longer where the inverse of a coupling runs its network on the same
    channels as `forward`, as this is computed once; otherwise two thirds.

    The inputs are found again up to rounding. For a Glow of three levels of 16 steps on images of 32 x 32 (144 layers
    with parameters), in float32, the input of the first layer is off by 2e-6 as the flow starts, and the gradient differs
    from the ordinary one by 4e-6 of its length. That is half of the difference between the ordinary gradients in float32
    and float64, 9e-6. In float64 the differences are 4e-15 and 7e-15. They grow where the layers stretch much: to 2e-4
    and 3e-4 in float32 (6e-13 and 5e-14 in float64) for parameters that take such images to numbers of up to 120.

    Parameters
    ----------
    layer : Layer
        Its parameters are those of this layer.

    References
    ----------
    Gomez, Ren, Urtasun, Grosse: The reversible residual network: Backpropagation without storing activations, 2017,
    section 3. https://arxiv.org/abs/1707.04585

    Examples
    --------
    The workspace of a program does not grow with the number of layers:

    >>> import numpy as np
    >>> from npflow import Flow
    >>> from npflow.autodiff import record
    >>> from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Reversible
    >>> from npflow.priors import Normal
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> def workspace(steps):
    ...     chain = Chain([ActNorm(), AffineCoupling(), Conv1x1()] * steps)
    ...     flow = Flow(Reversible(chain), Normal(4))
    ...     return record(flow.loss, flow.init(np.random.default_rng(0), x), x).peak_bytes
    >>> workspace(8) == workspace(4)
    True
    """

    layer: Layer = checked(check_layer)

    def steps(self, x, direction, context=None):
        return (yield Step(None, self.layer, x, direction, context))

    def forward(self, params, x, context=None):
        return self._apply_and_forget(params, x, "forward", context)

    def inverse(self, params, z, context=None):
        return self._apply_and_forget(params, z, "inverse", context)

    def _apply_and_forget(self, params, x, direction, context):
        trace = tape_of(params, x, context)
        if trace is None:  # no gradient is taken
            return self._apply(params, x, direction, context)
        way = WayBack(self, direction, *off_tape((params, context), trace))

        output, log_det = through(Step(None, self, x, direction, context), params, way, trace)
        way.end = off_tape(output, trace)
        return output, log_det


def through(step, params, way, trace):
    """The output and the log-det of a layer, where the layers inside it leave nothing on the tape."""
    mine, total = step.params(params), None
    if not isinstance(step.layer, Composite):
        return way.go(step, mine, trace)
    step.layer.check_params(mine)

    @follows_steps
    def take(step):
        nonlocal total
        output, log_det = through(step, mine, way, trace)
        total = log_det if total is None else total + log_det
        return output

    output = follow(step.layer, step.x, step.direction, step.context, take)
    return output, zeros_per_row(step.x) if total is None else total


class WayBack:
    """The inputs of the inner layers of a pass, found again from its `end`, the last layer's first.

    The layers are numbered in the order of the pass, up to `count`. `kept` has the inputs that were kept, by these
    numbers, and `found` those that have been found and not been asked for; those from number `reached` on have been.
    """

    def __init__(self, layer, direction, params, context):
        self.layer, self.direction, self.params, self.context = layer, direction, params, context
        self.count, self.end, self.kept = 0, None, {}
        self.visits, self.reached, self.found = None, 0, {}

    def go(self, step, params, trace):
        """The output and the log-det of the next layer of the pass, of which nothing stays on the tape."""
        number, self.count = self.count, self.count + 1
        inputs = {"params": params, "x": step.x, "context": step.context}
        plain = off_tape(inputs, trace)
        x, method = plain.pop("x"), getattr(step.layer, step.direction)
        # Data that no parameter has changed yet are there anyway.
        if x is step.x or (step.direction == "forward" and getattr(step.layer, "keeps_input", False)):
            self.kept[number] = x

        def run(inputs):
            beside = given(step.layer, inputs["context"])
            return tuple(pair_of(method, method(inputs["params"], inputs["x"], **beside)))

        return recomputed(run, inputs, trace, again=lambda: plain | {"x": self.input_of(number)})

    def input_of(self, number):
        """The input of a layer; asking for one again, as for each row of a Jacobian, begins anew."""
        if number not in self.found and number >= self.reached:
            self.visits = walk(self.layer, self.params, self.end, OPPOSITE[self.direction], self.context)
            self.reached, self.found = self.count, {}
        while number < self.reached:
            visit = next(self.visits)
            self.reached -= 1
            if self.reached in self.kept:
                visit.result = (self.kept[self.reached],)
            self.found[self.reached] = visit.result[0]
        return self.found.pop(number)
