"""The error of a database for a failed statement: its kind, its code, and its text if that contains no value.

Imports nothing of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kind of trouble, in words that follow "the database"."""

    LOST = "has ended the connection, or cannot be reached"
    DENIED = "does not let our user do this"
    READ_ONLY = "is read-only"
    MISSING = "does not find something that the statement names"
    FULL = "is out of room: disk, memory or connections"
    BUSY = "did not give a lock in time"
    CANCELLED = "has cancelled the statement"
    VALUE = "refuses a value"
    SQL = "cannot do this statement"
    UNKNOWN = "reports an error"


MAY_PASS = frozenset({Kind.LOST, Kind.FULL, Kind.BUSY, Kind.CANCELLED})
"""Kinds that are temporary: the same statement may succeed later."""


@dataclass(frozen=True)
class Trouble:
    """A driver's error, without any value of a row or an event.

    :param code: the database's code for the error; empty if it has none
    :param text: the database's own text, if it cannot contain a value; otherwise empty
    """

    kind: Kind
    code: str = ""
    text: str = ""

    def gist(self) -> str:
        """The trouble without the database's own text, which may contain host names and accounts."""
        return f"the database {self.kind}" + (f" ({self.code})" if self.code else "")

    def describe(self) -> str:
        """The trouble as one line."""
        details = ": ".join(detail for detail in (self.code, self.text) if detail)
        return f"the database {self.kind}" + (f" ({details})" if details else "")
