"""The steps of a run, one after the other, as a DAG's tasks would have them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from projection_rebuild.errors import VerificationFailed
from projection_rebuild.ledger import RunState
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions


def run_to(made: Rebuild, last: str, options: RunOptions | None = None) -> None:
    """All steps of a rebuild up to and including one."""
    _go(
        last,
        {
            "plan": lambda: made.plan(options or RunOptions()),
            "clone": made.clone_tables,
            "replay": lambda: [made.replay(name) for name in made.chosen()],
            "verify": made.verify,
            "swap": made.swap,
            "reconcile": made.reconcile,
            "drop": made.drop_old,
        },
    )


def roll_back_to(made: Rebuild, last: str, options: RunOptions | None = None) -> None:
    """All steps of a rollback up to and including one."""
    _go(
        last,
        {
            "plan": lambda: made.plan_rollback(options or RunOptions()),
            "back": made.bring_back,
            "swap": made.swap,
            "reconcile": made.reconcile,
            "drop": made.drop_old,
        },
    )


def _go(last: str, steps: dict[str, Callable[[], object]]) -> None:
    assert last in steps, f"{last} is none of {', '.join(steps)}"
    for name, step in steps.items():
        step()
        if name == last:
            return


def run_to_end(made: Rebuild, names: list[str]) -> None:
    """What is left of a run that has its green tables: replays of these projectors, and all that follows but the drop."""
    for name in names:
        made.replay(name)
    made.verify()
    made.swap()
    made.reconcile()


def state_of(made: Rebuild) -> RunState:
    """How far the run has come, by its ledger."""
    with made._context.dialect.connect() as connection:
        return made._context.ledger.over(connection, "run").runs.get().state


def failures_of(made: Rebuild) -> str:
    """The failures of a verification."""
    with pytest.raises(VerificationFailed):
        made.verify()
    found = made.report().verification
    assert found is not None
    return "\n".join(found.failures)
