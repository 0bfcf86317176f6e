"""The outcome of a verification."""

import math
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from npflow.errors import VerificationError
from npflow.tables import Table


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes
    ----------
    name : str
    error : float
        The worst error: of log-dets in nats, of arrays in units of their spread. nan where there is none.
    tolerance : float
        The largest error allowed there.
    status : {"passed", "failed", "not decided", "not run"}
        A check that could not tell right from wrong is not decided; one that means nothing because another one failed
        is not run.
    sentence : str
        What is likely wrong where the check failed, why it is not decided or not run, or what else is to be known.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.layers import Reverse
    >>> x = np.random.default_rng(0).normal(size=(8, 4))
    >>> one = npflow.verify.check(Reverse(), x)["rows independent"]
    >>> one.name, one.status, one.error <= one.tolerance
    ('rows independent', 'passed', True)
    """

    name: str
    error: float
    tolerance: float
    status: str
    sentence: str = ""

    @property
    def passed(self):
        """Whether the check ran, decided, and found nothing."""
        return self.status == "passed"

    @property
    def failed(self):
        """Whether the check found an error."""
        return self.status == "failed"


class Jacobians(NamedTuple):
    """The Jacobians of one row, for pictures: None or nan where they could not be computed.

    Attributes
    ----------
    numerical, exact : ndarray, shape (D, D)
        By finite differences, and by autograd or as handed over; a row is an output, a column an input.
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
    """The checks of one layer; it prints as its first cause and a table.

    Attributes
    ----------
    subject : str
        The name of the layer.
    checks : list of Check
        ``report[name]`` is the check of that name. They stand in the order of causes.
    jacobians : dict of str to Jacobians
        Those of "forward" and of "inverse" at one row.
    skipped : tuple of str
        The names of the checks to skip.
    notes : tuple of str
        What was understood of the layer, such as a convention of its log-dets.
    essential : tuple of tuple of str
        Names of checks: of each tuple one has to be decided, otherwise nothing is.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.layers import Reverse
    >>> rng = np.random.default_rng(0)
    >>> report = npflow.verify.check(Reverse(), rng.normal(size=(8, 4)))
    >>> report.verdict, report["x -> z -> x"].error
    ('passed', 0.0)
    """

    subject: str
    checks: list = field(default_factory=list)
    jacobians: dict = field(default_factory=dict)
    skipped: tuple = ()
    notes: tuple = ()
    essential: tuple = ()

    @property
    def verdict(self):
        """The outcome of the whole, "passed", "failed" or "not decided".

        A pass needs the log-det and the round trip decided on at least four rows.
        """
        if self.failures:
            return "failed"
        passed = {check.name for check in self.checks if check.passed} | set(self.skipped)
        return "passed" if all(passed & set(names) for names in self.essential) else "not decided"

    @property
    def passed(self):
        """Whether no check failed, and enough was decided."""
        return self.verdict == "passed"

    @property
    def failures(self):
        """The checks that failed."""
        return [check for check in self.checks if check.failed]

    @property
    def cause(self):
        """The first cause of a verdict in one sentence; empty where all is well."""
        if self.failures:
            first = self.failures[0]
            return f"{first.name}: {first.sentence}" if first.sentence else first.name
        if self.passed:
            return ""
        named = {check.name: check for check in self.checks}
        essential = [[named[name] for name in names if name in named] for names in self.essential]
        missing = [
            check for checks in essential if not any(check.passed for check in checks) for check in checks
        ]
        reasons = (check.sentence for check in missing if check.sentence)
        return f"nothing decided: {next(reasons, 'too few rows')}"

    def __getitem__(self, name):
        """The check of that name."""
        named = {check.name: check for check in self.checks}
        if name not in named:
            raise KeyError(f"expected one of {list(named)}, got {name!r}")
        return named[name]

    def log_det_error(self, how: str) -> float:
        """Return the larger log-det error of the two directions.

        Parameters
        ----------
        how : {"finite differences", "autograd"}

        Returns
        -------
        float
            In nats.
        """
        return max(self[f"log-det {direction}, {how}"].error for direction in ("forward", "inverse"))

    def raise_if_failed(self) -> None:
        """Raise `VerificationError`, an AssertionError that shows the report, unless the verdict is "passed"."""
        if not self.passed:
            raise VerificationError(f"\n{self}")

    def as_dict(self) -> dict:
        """Plain data for JSON; None stands for an error that is not finite."""
        checks = [asdict(check) for check in self.checks]
        for check in checks:
            check |= {key: None for key in ("error", "tolerance") if not math.isfinite(check[key])}
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "passed": self.passed,
            "cause": self.cause,
            "checks": checks,
            "skipped": list(self.skipped),
            "notes": list(self.notes),
        }

    def _repr_html_(self):
        rows = [(check.name, *_written(check), _word(check), check.sentence) for check in self.checks]
        columns = ("check", "error", "allowed", "", "")
        return Table(self._head(), columns, tuple(rows))._repr_html_()

    def _head(self):
        head = self.verdict if self.passed else f"{self.verdict.upper()}. {self.cause}"
        return "\n".join([f"{self.subject}: {head}", *(f"  {note}" for note in self.notes)])

    def __str__(self):
        width = max([len(check.name) for check in self.checks], default=0)
        lines = [self._head(), f"  {'check':{width}}  {'error':>8}  {'allowed':>8}"]
        for check in self.checks:
            numbers = "  ".join(f"{number:>8}" for number in _written(check))
            lines.append(f"  {check.name:{width}}  {numbers}  {_word(check)}")
            if check.sentence and check.status != "not run":
                lines.append(f"      {check.sentence}")
        if self.skipped:
            lines.append(f"  skipped: {', '.join(self.skipped)}")
        return "\n".join(lines)


def _written(check):
    """The error and the tolerance of a check as text; empty where there is none."""
    return ["" if math.isnan(number) else f"{number:.1e}" for number in (check.error, check.tolerance)]


def _word(check):
    return {"passed": "ok", "failed": "FAILED"}.get(check.status, check.status)
