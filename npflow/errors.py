"""The errors that npflow raises."""


class InputError(ValueError):
    """Input that cannot be used. The message is one sentence: what was expected, what came, and where.

    It is a `ValueError`, so code that catches the errors of NumPy or scikit-learn catches it too.

    Parameters
    ----------
    sentence : str
    place : str
        The path of the layer that the sentence is about, such as ``layer/1 (AffineCoupling)``. The message starts
        with it.
    """

    def __init__(self, sentence, place=""):
        super().__init__(f"{place}: {sentence}" if place else sentence)
        self.sentence, self.place = sentence, place

    def inside(self, outer, layer=None):
        """The same error with `outer` in front of its place; an error without a place is that of `layer`."""
        if self.place:
            place = f"{outer}/{self.place}"
        else:
            place = str(outer) if layer is None else f"{outer} ({type(layer).__name__})"
        return type(self)(self.sentence, place)


class MissingDataError(InputError):
    """A data set that was not found. One that was found and cannot be read raises a plain `InputError`."""


class NonFiniteError(ArithmeticError):
    """Training met a value that is not finite. The message names the first parameter or layer that has one.

    Attributes
    ----------
    params : tree of ndarray
        The parameters that `fit` would have returned before that step.
    history : npflow.training.History
        The steps made until then.
    """

    def __init__(self, message, params=None, history=None):
        super().__init__(message)
        self.params, self.history = params, history


class CheckpointError(OSError):
    """The last checkpoint of a run could not be written. The checkpoint before stays.

    Attributes
    ----------
    params : tree of ndarray
        The parameters that `fit` would have returned.
    history : npflow.training.History
        The steps made.
    """

    def __init__(self, message, params=None, history=None):
        super().__init__(message)
        self.params, self.history = params, history


class ConvergenceError(ArithmeticError):
    """An iteration did not converge. The message states its largest residual."""


class VerificationError(AssertionError):
    """A layer failed `npflow.verify.check`. The message is the report."""


def kind_of(value):
    """The class of a value with its article, such as ``an int``."""
    name = type(value).__name__
    return f"{'an' if name.lower().startswith(('a', 'e', 'i', 'o', 'nd')) else 'a'} {name}"


def in_short(value):
    """A value as an error shows it: its repr where that is short and one line, otherwise its class and shape."""
    text, shape = repr(value), getattr(value, "shape", None)
    if len(text) <= 100 and "\n" not in text:
        return text
    return f"{kind_of(value)} of shape {shape}" if shape else kind_of(value)
