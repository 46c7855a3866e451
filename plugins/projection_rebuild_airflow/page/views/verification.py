"""The view of a verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from projection_rebuild.api import TableComparison, Verification
from projection_rebuild_airflow.page.words import count

_DIFFERENCES = {"differing": "differ", "only_blue": "only before", "only_green": "only after"}
"""The kinds of differences between two rows, each with its name on the page."""


@dataclass(frozen=True)
class ComparisonView:
    """The comparison of one table.

    :param too_far: whether the row counts are further apart than allowed
    :param samples: keys of some rows, by the kind of their difference
    """

    table: str
    before: str
    after: str
    drift: str
    allowed: str
    too_far: bool
    identical: str
    differing: str
    only_before: str
    only_after: str
    samples: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class VerificationView:
    """A verification: whether green may replace blue, and each table's comparison."""

    passed: bool
    failures: Sequence[str]
    tables: Sequence[ComparisonView]


def verification_view(verification: Verification | None) -> VerificationView | None:
    """The view of a verification; None: the run has none yet."""
    if verification is None:
        return None
    comparisons = [_comparison_view(comparison) for comparison in verification.tables]
    return VerificationView(verification.passed, verification.failures, comparisons)


def _comparison_view(comparison: TableComparison) -> ComparisonView:
    is_empty = bool(comparison.blue_rows and not comparison.green_rows)
    return ComparisonView(
        table=comparison.table,
        before=count(comparison.blue_rows),
        after=count(comparison.green_rows),
        drift=f"{comparison.drift_percent:.2f} %",
        allowed=f"{comparison.tolerance_percent:g} %",
        too_far=comparison.drift_percent > comparison.tolerance_percent or is_empty,
        identical=count(comparison.identical),
        differing=count(comparison.differing),
        only_before=count(comparison.only_blue),
        only_after=count(comparison.only_green),
        samples={_DIFFERENCES[difference]: keys for difference, keys in comparison.samples.items()},
    )
