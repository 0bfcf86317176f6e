"""What a verification found."""

import math
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from npflow.errors import VerificationError


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes
    ----------
    name : str
    error : float
        The largest error met, in the units of what is compared (nats for log-dets).
    tolerance : float
        The largest error allowed where it was met.
    passed : bool
    sentence : str
        Where it failed, what is likely wrong; otherwise empty.
    """

    name: str
    error: float
    tolerance: float
    passed: bool
    sentence: str = ""


class Jacobians(NamedTuple):
    """The Jacobians of one row, for pictures; what could not be computed is None or nan.

    Attributes
    ----------
    numerical, exact : ndarray, shape (D, D)
        By finite differences and by autograd; a row is an output, a column an input.
    log_abs_det : float
        log|det| of the numerical one, in nats.
    log_det : float
        What the layer's closed form says, in nats.
    """

    numerical: np.ndarray | None = None
    exact: np.ndarray | None = None
    log_abs_det: float = math.nan
    log_det: float = math.nan


@dataclass
class Report:
    """The checks of one layer; prints as a table.

    Attributes
    ----------
    subject : str
        What was checked.
    checks : list of Check
    jacobians : dict of str to Jacobians
        For "forward" and "inverse", the Jacobians at one row.
    skipped : tuple of str
        The checks that were not asked for.
    """

    subject: str
    checks: list = field(default_factory=list)
    jacobians: dict = field(default_factory=dict)
    skipped: tuple = ()

    @property
    def passed(self):
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self):
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    def __getitem__(self, name):
        """The check of that name."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"expected one of {[check.name for check in self.checks]}, got {name!r}")

    def log_det_error(self, how):
        """The larger log-det error of both directions, in nats, by "finite differences" or "autograd"."""
        return max(self[f"log-det {direction}, {how}"].error for direction in ("forward", "inverse"))

    def raise_if_failed(self):
        """Raise `VerificationError`, an AssertionError, with the table as its message, unless all passed."""
        if not self.passed:
            raise VerificationError(f"\n{self}")

    def as_dict(self):
        """Plain data, for JSON; an error that is not finite is None, which JSON has a word for."""
        checks = [asdict(check) for check in self.checks]
        for check in checks:
            check |= {key: None for key in ("error", "tolerance") if not math.isfinite(check[key])}
        return {
            "subject": self.subject,
            "passed": self.passed,
            "checks": checks,
            "skipped": list(self.skipped),
        }

    def __str__(self):
        width = max([len(check.name) for check in self.checks], default=0)
        lines = [f"{self.subject}: {'passed' if self.passed else 'FAILED'}"]
        lines.append(f"  {'check':{width}}  {'error':>8}  {'allowed':>8}")
        for check in self.checks:
            verdict = "ok" if check.passed else "FAILED"
            lines.append(f"  {check.name:{width}}  {check.error:8.1e}  {check.tolerance:8.1e}  {verdict}")
            if check.sentence:
                lines.append(f"      {check.sentence}")
        if self.skipped:
            lines.append(f"  skipped: {', '.join(self.skipped)}")
        return "\n".join(lines)
