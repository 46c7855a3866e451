"""Why an attempt at the swap is undone, and whether another one can help."""

from __future__ import annotations

from projection_rebuild.dialects.base import FenceDied, PauseTooLong, TablesBusy, TablesChanged
from projection_rebuild.run.context import Context


class JobGotIn(Exception):
    """A job has come to its end while the tables were held against it; this attempt is undone."""


class ProgramsBehind(Exception):
    """A projector that is a program has events left, and cannot be called while the tables are held; this attempt
    is undone."""


class JobsLeft(Exception):
    """Jobs of the application did not end within this attempt; it is undone."""


class QueueTooLong(Exception):
    """Jobs of the application are so far behind that the drain would take too long; nobody has been held."""


class JobCameBack(Exception):
    """A job is left for an event that green holds already; this attempt is undone."""


_REASONS: dict[type[Exception], str] = {
    JobsLeft: "live_writer.drain_check never gave 0. A queue that is never empty needs live_writer.jobs_left in its place, which tells the "
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
"""Why an attempt is undone, but for locks."""


def can_be_retried(context: Context, error: BaseException) -> bool:
    """Whether an error ends only this attempt: everything is as it was, or the tables tell on which side they are."""
    return (
        isinstance(error, (*_REASONS, PauseTooLong, TablesBusy))
        or context.dialect.is_lock_timeout(error)
        or context.dialect.is_disconnect(error)
    )


def reason(context: Context, cause: BaseException | None) -> str:
    """Why an attempt has failed."""
    if isinstance(cause, PauseTooLong):
        return f"the pause grew too long (ms: {cause})"
    if cause is not None and context.dialect.is_disconnect(cause):
        return "the connection that held the tables was cut, by the server if nothing was heard of it for swap.max_pause"
    if isinstance(cause, JobsLeft) and context.spec.live_writer.jobs_left is not None:
        return "live_writer.jobs_left gave events, and the tables could not be held against their jobs"
    return next((why for kind, why in _REASONS.items() if isinstance(cause, kind)), "the tables could not be locked in time")
