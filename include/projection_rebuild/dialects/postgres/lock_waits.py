"""Limits on PostgreSQL for the engine's waits for locks, and for idle transactions of the engine."""

from __future__ import annotations

from datetime import timedelta

LONGEST_LOCK_WAIT = timedelta(milliseconds=500)
"""Less than deadlock_timeout (1 s): a deadlock then ends with the engine's lock_timeout, never with an error of the application."""


def milliseconds(timeout: timedelta) -> int:
    """The longest wait for a lock in milliseconds: the timeout, at most :data:`LONGEST_LOCK_WAIT`."""
    return max(1, round(min(timeout, LONGEST_LOCK_WAIT).total_seconds() * 1000))


def longest_silence(longest: timedelta) -> str:
    """A statement that makes the server end this transaction once it is idle this long, for example because the engine hangs."""
    return f"SET LOCAL idle_in_transaction_session_timeout = {max(1, round(longest.total_seconds() * 1000))}"
