"""The outcome of a verification."""

import math
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from npflow.errors import VerificationError


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes
    ----------
    name : str
    error : float
        The worst error, in the units of what is compared (nats for log-dets).
    tolerance : float
        The largest error allowed there.
    passed : bool
    sentence : str
        What is likely wrong where the check failed; otherwise empty.
    """

    name: str
    error: float
    tolerance: float
    passed: bool
    sentence: str = ""


class Jacobians(NamedTuple):
    """The Jacobians of one row, for pictures: None or nan where they could not be computed.

    Attributes
    ----------
    numerical, exact : ndarray, shape (D, D)
        By finite differences and by autograd; a row is an output, a column an input.
    log_abs_det : float
        log|det| of the numerical one, in nats.
    log_det : float
        That of the layer's closed form, in nats.
    """

    numerical: np.ndarray | None = None
    exact: np.ndarray | None = None
    log_abs_det: float = math.nan
    log_det: float = math.nan


@dataclass
class Report:
    """The checks of one layer; it prints as a table.

    Attributes
    ----------
    subject : str
        The name of the layer.
    checks : list of Check
        ``report[name]`` is the check of that name.
    jacobians : dict of str to Jacobians
        Those of "forward" and of "inverse" at one row.
    skipped : tuple of str
        The names of the checks to skip.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.layers import Reverse
    >>> rng = np.random.default_rng(0)
    >>> report = npflow.verify.check(Reverse(), rng.normal(size=(8, 4)))
    >>> report["x -> z -> x"]
    Check(name='x -> z -> x', error=0.0, tolerance=1.0002220446049251e-10, passed=True, sentence='')
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
        named = {check.name: check for check in self.checks}
        if name not in named:
            raise KeyError(f"expected one of {list(named)}, got {name!r}")
        return named[name]

    def log_det_error(self, how):
        """The larger log-det error of the two directions, in nats, by "finite differences" or "autograd"."""
        return max(self[f"log-det {direction}, {how}"].error for direction in ("forward", "inverse"))

    def raise_if_failed(self):
        """Raise `VerificationError`, an AssertionError that shows the table, unless all checks passed."""
        if not self.passed:
            raise VerificationError(f"\n{self}")

    def as_dict(self):
        """Plain data for JSON; None stands for an error that is not finite."""
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
        lines = [
            f"{self.subject}: {'passed' if self.passed else 'FAILED'}",
            f"  {'check':{width}}  {'error':>8}  {'allowed':>8}",
        ]
        for check in self.checks:
            verdict = "ok" if check.passed else "FAILED"
            lines.append(f"  {check.name:{width}}  {check.error:8.1e}  {check.tolerance:8.1e}  {verdict}")
            if check.sentence:
                lines.append(f"      {check.sentence}")
        if self.skipped:
            lines.append(f"  skipped: {', '.join(self.skipped)}")
        return "\n".join(lines)
