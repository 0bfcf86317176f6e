"""What npflow raises when it is given something it cannot use."""


class InputError(ValueError):
    """Input that cannot be used: the message is one sentence, what was expected, what came, and where.

    It is a `ValueError`, so code that guards NumPy or scikit-learn calls guards these too.

    Parameters
    ----------
    sentence : str
    place : str
        The path of the layer that is meant, such as ``layer/1 (AffineCoupling)``; it comes first.
    """

    def __init__(self, sentence, place=""):
        super().__init__(f"{place}: {sentence}" if place else sentence)
        self.sentence, self.place = sentence, place

    def inside(self, outer, layer=None):
        """The same error, told from one level further out; `layer` is named where it is the innermost."""
        if self.place:
            place = f"{outer}/{self.place}"
        else:
            place = str(outer) if layer is None else f"{outer} ({type(layer).__name__})"
        return type(self)(self.sentence, place)


class MissingDataError(InputError):
    """A data set that is not where it was looked for; one that is there and cannot be read is a plain `InputError`."""


class NonFiniteError(ArithmeticError):
    """Training met a value that is not finite; the message names the first layer that gave one.

    Attributes
    ----------
    params : tree of ndarray
        What had been learned until then: what `fit` would have returned.
    history : npflow.training.History
    """

    def __init__(self, message, params=None, history=None):
        super().__init__(message)
        self.params, self.history = params, history


class ConvergenceError(ArithmeticError):
    """An iteration came to no end; the message has the largest residual that it left."""


class VerificationError(AssertionError):
    """A layer failed `npflow.verify.check`; the message is the report."""
