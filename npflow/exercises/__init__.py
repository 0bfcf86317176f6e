"""Exercises that mark themselves: pages to complete, and marks that say what is wrong.

``npflow exercise`` lists them, ``npflow exercise coupling`` writes a page, ``npflow exercise coupling FILE``
marks it. In Python, `mark` takes the class or function itself. The library's own files are the solutions.
"""

from npflow.exercises.catalogue import EXERCISES, find
from npflow.exercises.marking import Mark

__all__ = ["EXERCISES", "Mark", "find", "mark", "page"]


def page(name: str) -> str:
    """Return the page of an exercise: a Python file to complete.

    Parameters
    ----------
    name : str
        One of `EXERCISES`.

    Returns
    -------
    str

    Raises
    ------
    InputError
        If there is no exercise of that name.

    Examples
    --------
    >>> from npflow import exercises
    >>> exercises.page("affine").splitlines()[2].strip()
    'z = (x - mean) * exp(-log_std)          log|det J| = -sum(log_std)'
    """
    return find(name).page


def mark(name: str, subject: object) -> Mark:
    """Mark an answer to an exercise.

    Parameters
    ----------
    name : str
        One of `EXERCISES`.
    subject : class, object or callable
        The class or function that the page asks for, or an object of the class.

    Returns
    -------
    Mark
        Whether the answer is right, otherwise what is wrong and a hint. It prints as that.

    Raises
    ------
    InputError
        If there is no exercise of that name.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow import exercises
    >>> exercises.mark("volume", lambda A: np.log(np.abs(np.linalg.det(A)))).passed
    True
    >>> print(exercises.mark("volume", lambda A: np.log(np.linalg.det(A))))
    volume: not yet. log_volume gives result[3] = nan, expected -2.20177.
    Hint: Half of all determinants are negative. A volume has no sign: take np.abs before the logarithm.
    """
    return find(name).mark(subject)
