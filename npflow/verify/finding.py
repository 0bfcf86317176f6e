"""What one check finds at one point."""

from dataclasses import dataclass

import numpy as np

DIRECTIONS = ("forward", "inverse")


@dataclass(frozen=True)
class Finding:
    """An error, its tolerance, and the sentence to print where the error exceeds it."""

    error: float
    tolerance: float
    sentence: str = ""

    @property
    def passed(self):
        """Whether the error is finite and within its tolerance."""
        return bool(np.isfinite(self.error) and self.error <= self.tolerance)

    @property
    def severity(self):
        """The error in units of its tolerance; infinite for nan."""
        return np.inf if np.isnan(self.error) else self.error / max(self.tolerance, 1e-300)


def finding_of(result):
    """What a check returned as a finding: a complaint is an error of 1 without tolerance, None one of 0."""
    return result if isinstance(result, Finding) else Finding(float(bool(result)), 0.0, result or "")


def worst(findings):
    """The most severe of several findings, the first of them where they tie."""
    return max(findings, key=lambda finding: finding.severity)


def largest(array):
    """The largest absolute value; nan and inf count as infinite."""
    array = np.abs(np.asarray(array))
    return float(np.max(np.where(np.isfinite(array), array, np.inf)))


def relative_difference(a, b):
    """The largest difference from `b`, relative to the size of `b`; equal entries, nan too, differ by 0."""
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, a - b)
    return largest(difference) / (1 + largest(b))
