"""The longest pause of the cutover."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check


@check(Scope.EXISTING_TABLES, "swap.max_pause", unless_refused=True)
def pause(planned: PreflightInput) -> Iterator[Finding]:
    """Whether a swap that cannot be undone keeps the longest pause, measured on empty tables."""
    longest = planned.context.spec.swap.max_pause.total_seconds()
    expected = planned.dialect.estimate_swap(planned.connection, planned.existing)
    if expected is not None and expected > longest / 2:
        yield Finding(
            about="swap.max_pause",
            problem=f"by what empty tables take here, the RENAME of {len(planned.existing)} tables holds the writers for about {expected:.1f} s, "
            f"and they may be held for {longest:g} s; it cannot be undone half-way",
            remedy="rebuild fewer tables in one run (`projectors`), or raise swap.max_pause",
            refuses=expected > longest,
        )
