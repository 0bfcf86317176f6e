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
    r"""A layer whose gradient takes memory that does not grow with the number of layers in it.

    z = f_K(... f_2(f_1(x)))        the same map, log-det and parameters

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
        if trace is None:
            return self._apply(params, x, direction, context)
        way = WayBack(self.layer, direction, *off_tape((params, context), trace))

        def apply(step, params):
            mine, total = step.params(params), None
            if not isinstance(step.layer, Composite):
                return way.go(step, mine, trace)
            step.layer.check_params(mine)

            @follows_steps
            def take(step):
                nonlocal total
                output, log_det = apply(step, mine)
                total = log_det if total is None else total + log_det
                return output

            output = follow(step.layer, step.x, step.direction, step.context, take)
            return output, zeros_per_row(step.x) if total is None else total

        output, log_det = apply(Step(None, self, x, direction, context), params)
        way.end = off_tape(output, trace)
        return output, log_det


class WayBack:
    """The inputs of the layers of a pass, found again from its end: the last one first."""

    def __init__(self, layer, direction, params, context):
        self.layer, self.direction, self.params, self.context = layer, direction, params, context
        self.count, self.end, self.visits = 0, None, None
        self.kept, self.found = {}, {}

    def go(self, step, params, trace):
        """The output and the log-det of the next step."""
        number, self.count = self.count, self.count + 1
        method = getattr(step.layer, step.direction)
        x, others = step.x, {"params": params, "context": step.context}
        plain_x, plain = off_tape(x, trace), off_tape(others, trace)
        if plain_x is x or (step.direction == "forward" and getattr(step.layer, "keeps_input", False)):
            self.kept[number] = plain_x
        del plain_x

        def run(inputs):
            return tuple(
                pair_of(method, method(inputs["params"], inputs["x"], **given(step.layer, inputs["context"])))
            )

        def again():
            return plain | {"x": self.input_of(number)}

        return recomputed(run, others | {"x": x}, trace, again)

    def input_of(self, number):
        """The input of the layer of a number; each is asked for once, the last layer's first."""
        if self.visits is None:
            self.visits = walk(self.layer, self.params, self.end, OPPOSITE[self.direction], self.context)
            self.end = None
        while number not in self.found:
            visit = next(self.visits)
            self.count -= 1
            if self.count in self.kept:
                visit.result = (self.kept.pop(self.count),)
            self.found[self.count] = visit.result[0]
        return self.found.pop(number)
