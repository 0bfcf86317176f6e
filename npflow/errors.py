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

    Examples
    --------
    >>> import npflow
    >>> try:
    ...     npflow.models.glow(features=2, steps=0)
    ... except npflow.InputError as error:
    ...     print(error)
    expected steps to be at least 1, got 0
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
    """A data set that was not found. One that was found and cannot be read raises a plain `InputError`.

    Examples
    --------
    >>> import npflow
    >>> try:
    ...     images, labels = npflow.datasets.cifar10("no-such-folder", "test")
    ... except npflow.MissingDataError as error:
    ...     print(str(error).split(":")[0])
    expected CIFAR-10 at no-such-folder, got nothing there
    """


class NonFiniteError(ArithmeticError):
    """Training met a value that is not finite. The message names the first parameter or layer that has one.

    Attributes
    ----------
    params : tree of ndarray
        The parameters that `fit` would have returned before that step.
    history : npflow.training.History
        The steps made until then.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.Flow(npflow.layers.Affine(), npflow.priors.Normal(2))
    >>> x = np.full((4, 2), 1e200)  # its square overflows
    >>> try:
    ...     npflow.fit(flow, flow.init(rng, x), x, rng=rng, steps=1, progress=False)
    ... except npflow.NonFiniteError as error:
    ...     print(error)
    expected a finite loss, got inf after step 0: the first output not finite is that of prior (Normal)
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

    Examples
    --------
    Here the folder is lost after the first checkpoint; what was trained is not:

    >>> import npflow
    >>> import numpy as np
    >>> import shutil, tempfile
    >>> rng, folder = np.random.default_rng(0), tempfile.mkdtemp()
    >>> flow, x = npflow.Flow(npflow.layers.Affine(), npflow.priors.Normal(2)), rng.normal(size=(4, 2))
    >>> checkpoints = {"checkpoint": f"{folder}/run.npz", "checkpoint_every": 2}
    >>> lose = lambda params, history: shutil.rmtree(folder)
    >>> try:
    ...     npflow.fit(
    ...         flow, flow.init(rng, x), x, rng=rng, steps=4, progress=False, **checkpoints, on_checkpoint=lose
    ...     )
    ... except npflow.CheckpointError as error:
    ...     print(error.history.steps)
    4
    """

    def __init__(self, message, params=None, history=None):
        super().__init__(message)
        self.params, self.history = params, history


class ConvergenceError(ArithmeticError):
    """An iteration did not converge. The message states its largest residual.

    Examples
    --------
    In float32 a slope of e^-60 beside terms of order one is lost to rounding:

    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> layer, x = npflow.layers.MaskedConvolution(2), rng.normal(size=(2, 3, 3, 1)).astype(np.float32)
    >>> params = layer.init(rng, x)
    >>> params["log_scale"] -= 60
    >>> try:
    ...     layer.inverse(params, 1e30 * x)
    ... except npflow.ConvergenceError as error:
    ...     print(str(error).split(",")[0])
    expected the inverse of a triangular map to converge
    """


class VerificationError(AssertionError):
    """A layer failed `npflow.verify.check`. The message is the report.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> import npflow
    >>> class Double:
    ...     def init(self, rng, x):
    ...         return {}
    ...
    ...     def forward(self, params, x):
    ...         return 2 * x, np.zeros_like(x[:, 0])  # the log-det of a map that keeps volume
    ...
    ...     def inverse(self, params, z):
    ...         return z / 2, np.zeros_like(z[:, 0])
    >>> report = npflow.verify.check(Double(), np.array([[1.0, 2.0], [3.0, 5.0], [-1.0, 2.0], [0.5, -2.0]]))
    >>> try:
    ...     report.raise_if_failed()
    ... except npflow.VerificationError:
    ...     print(report.cause.split(":")[0])
    log-det forward, finite differences
    """


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
