"""What a database reports instead of doing a statement: the kind of trouble, its code, and as much of its text as holds no value.

Imports nothing of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is wrong, in words that follow "the database"."""

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
"""What is about the moment, and may be over at the next try, whatever the statement is."""


@dataclass(frozen=True)
class Trouble:
    """What a driver's error says, without any value of a row or an event.

    :param code: what the database calls the error; empty where it has no name for it
    :param text: its own words, only where these can hold no value
    """

    kind: Kind
    code: str = ""
    text: str = ""

    def gist(self) -> str:
        """What happened, without the database's own words, which may hold host names and accounts."""
        return f"the database {self.kind}" + (f" ({self.code})" if self.code else "")

    def describe(self) -> str:
        """What happened, in one line."""
        said = ": ".join(each for each in (self.code, self.text) if each)
        return f"the database {self.kind}" + (f" ({said})" if said else "")
