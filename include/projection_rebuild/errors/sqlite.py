"""Classifies the errors of SQLite by the name of the result code: https://www.sqlite.org/rescode.html"""

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
"""The prefixes of codes by kind; the longest prefix counts."""

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
"""Codes whose text is fixed, or names columns and constraints; it never quotes a row, nor RAISE in a trigger."""

_MISSING = re.compile(
    r"no such (table|column|index|view|module|collation sequence|function): \S+|table \S+ has no column named \S+"
)
_OF_DATA = re.compile("malformed JSON|integer overflow|JSON path error.*|user-defined function raised exception|bad JSON path.*")


def of_driver(cause: BaseException) -> Trouble:
    """The trouble of an error of :mod:`sqlite3`."""
    name, message = str(getattr(cause, "sqlite_errorname", "") or ""), one_line(str(cause))
    if not name:
        # The module itself has raised it: an object is closed, or it cannot bind a value.
        kind_of_module = {"OperationalError": Kind.UNKNOWN}.get(type(cause).__name__, Kind.VALUE)
        return Trouble(Kind.LOST if "closed" in message else kind_of_module)
    if name == "SQLITE_ERROR":
        return _of_many(name, message)
    kind = by_code(name, KINDS) or Kind.UNKNOWN
    return Trouble(kind, name, message if name.startswith(PLAIN) else "")


def _of_many(name: str, message: str) -> Trouble:
    """The trouble of SQLITE_ERROR, the code of all errors that have no code of their own."""
    if _MISSING.fullmatch(message):
        return Trouble(Kind.MISSING, name, message)
    return Trouble(Kind.VALUE if _OF_DATA.fullmatch(message) else Kind.SQL, name)
