"""The ids of the tasks in our DAGs.

DAGs, links and the page share them, and Airflow's records of past runs hold them. Pure.
"""

from __future__ import annotations

PLAN = "plan"
CLONE_TABLES = "clone_tables"
BRING_OLD_TABLES_UP_TO_DATE = "bring_old_tables_up_to_date"
"""A rollback has this task in place of clone, replay, verification and approval."""

VERIFY_COUNTS = "verify_counts"
APPROVE_SWAP = "approve_swap"
WAIT_FOR_LOW_TRAFFIC = "wait_for_low_traffic"
ATOMIC_SWAP = "atomic_swap"
RECONCILE = "reconcile"
WAIT_FOR_RETENTION = "wait_for_retention"
DROP_OLD_TABLES = "drop_old_tables"

REPLAY = "replay"
"""The task group of all replays."""

SHARDS = "shards"
"""Within that group: the task that is mapped over the shards of all projectors."""

REPLAY_SHARDS = f"{REPLAY}.{SHARDS}"
"""The full id of that task."""


def replay_of(projector: str) -> str:
    """The full id of the task that replays one projector."""
    return f"{REPLAY}.{projector}"


def outermost(task_id: str) -> str:
    """The task group of a task; without a group, the task itself."""
    return task_id.partition(".")[0]
