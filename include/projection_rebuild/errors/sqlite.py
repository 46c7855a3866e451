"""What SQLite reports, by the name of its result code: https://www.sqlite.org/rescode.html"""

from __future__ import annotations

import re

from projection_rebuild.errors.drivers import by_code, one_line
from projection_rebuild.errors.trouble import Kind, Trouble

KINDS = {
    Kind.LOST: ("SQLITE_CANTOPEN",),
    Kind.DENIED: ("SQLITE_AUTH", "SQLITE_PERM"),
    Kind.READ_ONLY: ("SQLITE_READONLY",),
    Kind.FULL: ("SQLITE_FULL", "SQLITE_NOMEM"),
    Kind.BUSY: ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"),
    Kind.CANCELLED: ("SQLITE_INTERRUPT",),
    Kind.VALUE: ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_TOOBIG"),
    Kind.SQL: ("SQLITE_ERROR", "SQLITE_SCHEMA"),
}
"""Codes by their beginning; the longest one counts."""

PLAIN = (
    *("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_CORRUPT", "SQLITE_FULL", "SQLITE_INTERRUPT", "SQLITE_IOERR"),
    *("SQLITE_LOCKED", "SQLITE_AUTH", "SQLITE_MISMATCH", "SQLITE_NOMEM", "SQLITE_NOTADB", "SQLITE_PERM"),
    *(
        "SQLITE_PROTOCOL",
        "SQLITE_READONLY",
        "SQLITE_CONSTRAINT_CHECK",
        "SQLITE_CONSTRAINT_FOREIGNKEY",
        "SQLITE_CONSTRAINT_NOTNULL",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
    ),
    *("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_ROWID", "SQLITE_SCHEMA", "SQLITE_TOOBIG"),
)
"""Codes whose text is fixed, or names columns and constraints: never what a row holds, nor what RAISE says in a trigger."""

_MISSING = re.compile(
    r"no such (table|column|index|view|module|collation sequence|function): \S+|table \S+ has no column named \S+"
)
_OF_DATA = re.compile("malformed JSON|integer overflow|JSON path error.*|user-defined function raised exception|bad JSON path.*")


def of_driver(cause: BaseException) -> Trouble:
    """What an error of :mod:`sqlite3` says."""
    name, said = str(getattr(cause, "sqlite_errorname", "") or ""), one_line(str(cause))
    if not name:
        # The module's own: an object that is closed, a value that it cannot bind.
        known = {"OperationalError": Kind.UNKNOWN}.get(type(cause).__name__, Kind.VALUE)
        return Trouble(Kind.LOST if "closed" in said else known)
    if name == "SQLITE_ERROR":
        return _of_many(name, said)
    kind = by_code(name, KINDS) or Kind.UNKNOWN
    return Trouble(kind, name, said if name.startswith(PLAIN) else "")


def _of_many(name: str, said: str) -> Trouble:
    """The code that SQLite gives to whatever has none of its own."""
    if _MISSING.fullmatch(said):
        return Trouble(Kind.MISSING, name, said)
    return Trouble(Kind.VALUE if _OF_DATA.fullmatch(said) else Kind.SQL, name)
