"""The states of a run, which of them may follow which, and what each of them means for the steps. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum


class RunState(StrEnum):
    """How far a run has come."""

    PLANNED = "planned"
    CLONED = "cloned"
    VERIFIED = "verified"
    SWITCHING = "switching"
    SWITCHED = "switched"
    RECONCILED = "reconciled"
    FINISHED = "finished"
    ABANDONED = "abandoned"

    def may_become(self, other: RunState) -> bool:
        """Whether a run in this state may be moved to another one, see :data:`TRANSITIONS`."""
        return other in TRANSITIONS[self]

    def has_reached(self, other: RunState) -> bool:
        """Whether a run in this state has done what another state stands for. A run that was given up has reached nothing."""
        return self in WAY and other in WAY and WAY.index(self) >= WAY.index(other)

    @property
    def in_doubt(self) -> bool:
        """Whether only the tables tell if the run has switched: it is within its switch, or was stopped there."""
        return self is RunState.SWITCHING

    @property
    def has_begun_switch(self) -> bool:
        """Whether the run has come to its switch, whatever came of it."""
        return self.in_doubt or self.has_switched

    @property
    def has_switched(self) -> bool:
        """Whether the new tables are live."""
        return self in {RunState.SWITCHED, RunState.RECONCILED, RunState.FINISHED}

    @property
    def is_reconciled(self) -> bool:
        """Whether the switch is finished and nothing but its retention is left."""
        return self in {RunState.RECONCILED, RunState.FINISHED}

    @property
    def is_over(self) -> bool:
        """Whether nobody works on the run any more: it is reconciled, or was given up."""
        return self.is_reconciled or self is RunState.ABANDONED

    @property
    def is_verified(self) -> bool:
        """Whether the run waits for its switch, and nothing else is left to do before it."""
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
"""The states of a run that goes well, in their order."""

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
"""Which state may follow which, and by what. A plan is no transition: it forgets the run of its id and records a new one."""

INTERRUPTED_AT_SWITCH: Mapping[RunState, str] = {
    RunState.SWITCHING: "it was stopped within its switch: retry its atomic_swap",
    RunState.SWITCHED: "it has switched and was not reconciled: clear its reconcile",
}
"""States of a dead run in which nobody else may begin with its tables, and what brings it to its end."""


def diagram() -> str:
    """The states and their transitions, for Mermaid."""
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _arrows())])


def _arrows() -> Iterator[str]:
    yield f"[*] --> {RunState.PLANNED}: plan (claims the tables)"
    for state, followers in TRANSITIONS.items():
        for follower, reason in followers.items():
            yield f"{state} --> {follower}: {reason}"
