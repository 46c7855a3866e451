"""The reasons why an attempt at the swap is undone, and whether another attempt can help."""

from __future__ import annotations

from projection_rebuild.dialects.base import FenceDied, PauseTooLong, TablesBusy, TablesChanged
from projection_rebuild.run.context import Context


class JobGotIn(Exception):
    """A job has ended although the attempt had locked the tables; the attempt is undone."""


class ProgramsBehind(Exception):
    """A projector that is a program has events left, and the engine cannot call it while the tables are locked; the
    attempt is undone."""


class JobsLeft(Exception):
    """Jobs of the application did not end within the attempt; the attempt is undone."""


class QueueTooLong(Exception):
    """Jobs of the application are so far behind that the drain would take too long; no writer has waited."""


class JobCameBack(Exception):
    """A job is left for an event that green holds already; the attempt is undone."""


_REASONS: dict[type[Exception], str] = {
    JobsLeft: "live_writer.drain_check never gave 0. A queue that is never empty needs live_writer.jobs_left in its place, which gives the "
    "events of its jobs",
    QueueTooLong: "more than swap.small_backlog events had come since the first one whose job is left (live_writer.jobs_left): look for a job "
    "that hangs, or raise it",
    JobCameBack: "a job was left for an event that green holds (live_writer.jobs_left). If it is one that had failed and is tried again, "
    "clear clone_tables and what follows",
    JobGotIn: "a job had come to the tables before they were renamed",
    ProgramsBehind: "events were appended faster than a program that has to handle them can be called",
    FenceDied: "the connection that holds appends back was cut",
    TablesChanged: "the tables, or what hangs on them, had been changed since they were looked at",
}
"""The reason for each error that ends an attempt, except errors about locks and connections."""


def can_be_retried(context: Context, error: BaseException) -> bool:
    """Whether another attempt may follow an error.

    After these errors nothing has changed, or the tables show whether the swap has happened.
    """
    return (
        isinstance(error, (*_REASONS, PauseTooLong, TablesBusy))
        or context.dialect.is_lock_timeout(error)
        or context.dialect.is_disconnect(error)
    )


def reason(context: Context, cause: BaseException | None) -> str:
    """Why an attempt was undone, for logs and errors.

    :param cause: the error that ended it
    """
    if isinstance(cause, PauseTooLong):
        return f"the pause grew too long (ms: {cause})"
    if cause is not None and context.dialect.is_disconnect(cause):
        return "the connection that held the tables was cut; the server cuts one that is silent for swap.max_pause"
    if isinstance(cause, JobsLeft) and context.spec.live_writer.jobs_left is not None:
        return "live_writer.jobs_left gave events, and the tables could not be held against their jobs"
    return next((why for kind, why in _REASONS.items() if isinstance(cause, kind)), "the tables could not be locked in time")
