"""How long PostgreSQL lets us wait for a lock, and lets a transaction of ours be silent."""

from __future__ import annotations

from datetime import timedelta

LONGEST_LOCK_WAIT = timedelta(milliseconds=500)
"""Below deadlock_timeout (1 s): then a deadlock ends with our lock_timeout, never with the application's error."""


def milliseconds(timeout: timedelta) -> int:
    """What is waited for a lock at most."""
    return max(1, round(min(timeout, LONGEST_LOCK_WAIT).total_seconds() * 1000))


def longest_silence(longest: timedelta) -> str:
    """The statement after which the server ends this transaction, should we hang or be gone without a word."""
    return f"SET LOCAL idle_in_transaction_session_timeout = {max(1, round(longest.total_seconds() * 1000))}"
