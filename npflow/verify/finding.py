"""What one check finds at one point."""

from dataclasses import dataclass

import numpy as np

DIRECTIONS = ("forward", "inverse")
OPPOSITE = dict(zip(DIRECTIONS, DIRECTIONS[::-1]))
ENOUGH = 4  # rows that a check has to decide before it passes


class CannotRun(Exception):
    """A check has no meaning for this layer as it is; the message says why."""


class NotDecided(Exception):
    """A check cannot tell right from wrong here; the message says why."""


@dataclass(frozen=True)
class Finding:
    """An error, its tolerance, and what to say of it.

    Attributes
    ----------
    error, tolerance : float
    sentence : str
        What is likely wrong, where the error exceeds its tolerance.
    note : str
        What a reader should know where it does not.
    rows : int
        How many rows were decided. Without `ENOUGH` of them at all points together a check does not pass.
    decided : bool
    """

    error: float
    tolerance: float
    sentence: str = ""
    note: str = ""
    rows: int = ENOUGH
    decided: bool = True

    @property
    def passed(self):
        """Whether the error is finite and within its tolerance."""
        return bool(self.decided and np.isfinite(self.error) and self.error <= self.tolerance)

    @property
    def failed(self):
        return self.decided and not self.passed

    @property
    def severity(self):
        """The error in units of its tolerance, infinite for nan; an error that is not decided is the least."""
        if not self.decided:
            return -1.0
        return np.inf if np.isnan(self.error) else self.error / max(self.tolerance, 1e-300)


def undecided(reason):
    """The finding of a check that cannot tell."""
    return Finding(np.nan, np.nan, reason, decided=False)


def finding_of(result):
    """What a check returned as a finding: a complaint is an error of 1 without tolerance, None one of 0."""
    return result if isinstance(result, Finding) else Finding(float(bool(result)), 0.0, result or "")


def worst(findings):
    """The most severe of several findings, the first of them where they tie."""
    return max(findings, key=lambda finding: finding.severity)


def together(findings):
    """One finding for all points: the first that failed, otherwise the worst.

    It is not decided where the first point, that of the user's rows, is not, or too few rows are.
    """
    found = next((finding for finding in findings if finding.failed), worst(findings))
    reasons = [finding.sentence for finding in findings if not finding.decided]
    if found.passed and not findings[0].decided:
        return findings[0]
    if found.passed and sum(finding.rows for finding in findings if finding.decided) < ENOUGH:
        return undecided(reasons[0] if reasons else f"fewer than {ENOUGH} rows could be decided")
    return found


def largest(array):
    """The largest absolute value; nan and inf count as infinite."""
    array = np.abs(np.asarray(array))
    return float(np.max(np.where(np.isfinite(array), array, np.inf), initial=0.0))


def difference(a, b, unit=None):
    """The largest difference of two arrays of rows in a unit, by default 1 and the size of `b`.

    Equal entries, nan too, differ by 0.
    """
    with np.errstate(all="ignore"):
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
        return largest(off / (1 + largest(b) if unit is None else unit))


def in_words(error):
    """The kind of an exception, and the beginning of what it says."""
    return f"{type(error).__name__}: {str(error).strip()[:200]}"
