"""What one check finds at one point."""

from dataclasses import dataclass

import numpy as np

DIRECTIONS = ("forward", "inverse")


@dataclass(frozen=True)
class Finding:
    """An error, how much of it is allowed, and a sentence for where that is too little."""

    error: float
    tolerance: float
    sentence: str

    @property
    def passed(self):
        """Whether the error is allowed."""
        return bool(np.isfinite(self.error) and self.error <= self.tolerance)

    @property
    def severity(self):
        """How far beyond what is allowed, to find the worst of several points."""
        return np.inf if np.isnan(self.error) else self.error / max(self.tolerance, 1e-300)


def yes_or_no(complaint):
    """A finding of a check that has no size: an error of 1 with a complaint, 0 without."""
    return Finding(float(bool(complaint)), 0.0, complaint or "")


def largest(array):
    """The largest absolute value; nan and inf count as infinite."""
    array = np.abs(np.asarray(array))
    return float(np.max(np.where(np.isfinite(array), array, np.inf)))


def difference(a, b):
    """a - b, and 0 where both are the same, nan and inf included."""
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
