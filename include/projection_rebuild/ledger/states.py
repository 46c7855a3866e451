"""The states of a run, their transitions, and their meaning for the steps. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum


class RunState(StrEnum):
    """The progress of a run."""

    PLANNED = "planned"
    CLONED = "cloned"
    VERIFIED = "verified"
    SWITCHING = "switching"
    SWITCHED = "switched"
    RECONCILED = "reconciled"
    FINISHED = "finished"
    ABANDONED = "abandoned"

    def may_become(self, other: RunState) -> bool:
        """Whether another state may follow this one, see :data:`TRANSITIONS`."""
        return other in TRANSITIONS[self]

    def has_reached(self, other: RunState) -> bool:
        """Whether a run in this state has reached another state. A run that was given up has reached none."""
        return self in WAY and other in WAY and WAY.index(self) >= WAY.index(other)

    @property
    def in_doubt(self) -> bool:
        """Whether the run is within its swap, or has stopped there, so that only the tables show if it has swapped."""
        return self is RunState.SWITCHING

    @property
    def has_begun_switch(self) -> bool:
        """Whether the run's swap has begun, with any outcome."""
        return self.in_doubt or self.has_switched

    @property
    def has_switched(self) -> bool:
        """Whether the new tables are live."""
        return self in {RunState.SWITCHED, RunState.RECONCILED, RunState.FINISHED}

    @property
    def is_reconciled(self) -> bool:
        """Whether the run is reconciled, so that only the drop of the old tables is left."""
        return self in {RunState.RECONCILED, RunState.FINISHED}

    @property
    def is_over(self) -> bool:
        """Whether no step works on the run's tables any more: the run is reconciled, or an operator has given it up."""
        return self.is_reconciled or self is RunState.ABANDONED

    @property
    def is_verified(self) -> bool:
        """Whether the run is verified and waits for its swap."""
        return self is RunState.VERIFIED


WAY = (
    RunState.PLANNED,
    RunState.CLONED,
    RunState.VERIFIED,
    RunState.SWITCHING,
    RunState.SWITCHED,
    RunState.RECONCILED,
    RunState.FINISHED,
)
"""The states of a run without failures, in their order."""

TRANSITIONS: Mapping[RunState, Mapping[RunState, str]] = {
    RunState.PLANNED: {
        RunState.PLANNED: "clone_tables begins",
        RunState.CLONED: "clone_tables (green is empty, checkpoints at the beginning), or bring_back in a rollback",
        RunState.ABANDONED: "given up, or taken over by another run",
    },
    RunState.CLONED: {
        RunState.PLANNED: "clone_tables begins again",
        RunState.CLONED: "verify_counts finds green wrong, or bring_back begins again",
        RunState.VERIFIED: "verify_counts, or bring_back in a rollback",
        RunState.ABANDONED: "given up, or taken over by another run",
    },
    RunState.VERIFIED: {
        RunState.PLANNED: "clone_tables begins again",
        RunState.CLONED: "green is no longer what its events make, or is replayed again",
        RunState.VERIFIED: "verify_counts again",
        RunState.SWITCHING: "atomic_swap announces what it will retire",
        RunState.ABANDONED: "given up, or taken over by another run",
    },
    RunState.SWITCHING: {
        RunState.VERIFIED: "the switch did not happen, all is as before",
        RunState.SWITCHED: "all tables renamed at once",
    },
    RunState.SWITCHED: {
        RunState.PLANNED: "clone_tables is cleared",
        RunState.SWITCHED: "atomic_swap adds how long writers were held",
        RunState.RECONCILED: "reconcile (claims are given up)",
        RunState.FINISHED: "drop_old_tables, without a reconcile",
    },
    RunState.RECONCILED: {
        RunState.PLANNED: "clone_tables is cleared",
        RunState.FINISHED: "drop_old_tables",
    },
    RunState.FINISHED: {
        RunState.PLANNED: "clone_tables is cleared",
        RunState.FINISHED: "drop_old_tables again",
    },
    RunState.ABANDONED: {},
}
"""By state, the states that may follow, each with its cause.

The step `plan` is no transition: it removes the run of its id and records a new one.
"""

INTERRUPTED_AT_SWITCH: Mapping[RunState, str] = {
    RunState.SWITCHING: "it was stopped within its switch: retry its atomic_swap",
    RunState.SWITCHED: "it has switched and was not reconciled: clear its reconcile",
}
"""The states in which a stopped run keeps its tables from other runs, each with the way to finish it."""


def diagram() -> str:
    """The states and transitions as a Mermaid diagram."""
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _arrows())])


def _arrows() -> Iterator[str]:
    yield f"[*] --> {RunState.PLANNED}: plan (claims the tables)"
    for state, followers in TRANSITIONS.items():
        for follower, reason in followers.items():
            yield f"{state} --> {follower}: {reason}"
