"""Runs the steps of a run in the order of a DAG's tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from projection_rebuild.errors import VerificationFailed
from projection_rebuild.ledger import RunState
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions


def run_to(made: Rebuild, last: str, options: RunOptions | None = None) -> None:
    """Runs all steps of a rebuild up to and including ``last``."""
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
    """Runs all steps of a rollback up to and including ``last``."""
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
    """Finishes a run that has its green tables: replays these projectors, and runs all later steps except the drop."""
    for name in names:
        made.replay(name)
    made.verify()
    made.swap()
    made.reconcile()


def state_of(made: Rebuild) -> RunState:
    """The state of the run with the id ``run``, from the ledger."""
    with made._context.dialect.connect() as connection:
        return made._context.ledger.over(connection, "run").runs.get().state


def failures_of(made: Rebuild) -> str:
    """Runs a verification that must fail, and returns its failures as lines."""
    with pytest.raises(VerificationFailed):
        made.verify()
    verification = made.report().verification
    assert verification is not None
    return "\n".join(verification.failures)
