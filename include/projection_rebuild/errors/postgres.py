"""Classifies the errors of PostgreSQL and psycopg by SQLSTATE.

See https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

import re
from typing import Any

from projection_rebuild.errors.drivers import by_code, one_line
from projection_rebuild.errors.trouble import Kind, Trouble

KINDS = {
    Kind.LOST: ("08", "57P", "25P03", "25P04"),
    Kind.DENIED: ("28", "42501", "0L", "0P"),
    Kind.READ_ONLY: ("25006",),
    Kind.MISSING: ("3D", "3F", "42P01", "42703", "42704", "42P02"),
    Kind.FULL: ("53",),
    Kind.BUSY: ("40", "55P03", "55006"),
    Kind.CANCELLED: ("57014",),
    Kind.VALUE: ("21", "22", "23", "27", "44", "54"),
    Kind.SQL: ("0A", "42"),
}
"""The prefixes of codes by kind; the longest prefix counts."""

PLAIN = (
    *("08", "28", "3D", "3F", "40", "42501", "42703", "42704", "42P01", "42P07", "42P16", "42710", "42804", "42809"),
    *("42883", "25006", "25P03", "25P04", "53", "55006", "55P03", "57", "58"),
)
"""Codes whose primary message names objects of the catalog, files, accounts and sessions, and never quotes a row."""

_NAMED = r'"[^"]*"'
PLAIN_TEXTS = {
    "22001": re.compile(r"value too long for type [a-z ]+\(\d+\)"),
    "22012": re.compile("division by zero"),
    "23502": re.compile(rf"null value in column {_NAMED} (of relation {_NAMED} )?violates not-null constraint"),
    "23503": re.compile(
        rf"(insert or )?update( or delete)? on table {_NAMED} violates .*foreign key constraint {_NAMED}( on table {_NAMED})?"
    ),
    "23505": re.compile(rf"duplicate key value violates unique constraint {_NAMED}"),
    "23514": re.compile(rf"new row for relation {_NAMED} violates check constraint {_NAMED}"),
    "23P01": re.compile(rf"conflicting key value violates exclusion constraint {_NAMED}"),
    # An error of the operating system without its own SQLSTATE, such as a limit on the size of files.
    "XX000": re.compile(rf"could not (extend|write to|create|open|read) [a-z ]*file {_NAMED}.*: [A-Z][a-z ]+"),
}
"""By code, the server's messages that name columns and constraints alone.

A function may raise the same code with any other text.
"""

_RAISED = ("pl_exec.c", "plpy_plpymodule.c", "plpy_elog.c", "plperl.c", "pltcl.c")
"""The source files from which the server raises the errors of functions, with any code."""

_COPIED = re.compile(r"COPY ([^,\n]+), line \d+, column ([^:\n]+)(?::|$)")
"""The context of an error of COPY, up to the value."""

_NO_ROOM = ("No space left on device", "File too large", "Disk quota exceeded")


def of_driver(cause: BaseException) -> Trouble:
    """The trouble of an error of psycopg."""
    state = getattr(cause, "sqlstate", None)
    if state is None:
        return _of_client(cause)
    message = _text(state, cause)
    kind = by_code(state, KINDS) or (Kind.FULL if message.endswith(_NO_ROOM) else Kind.UNKNOWN)
    return Trouble(kind, f"SQLSTATE {state}", message)


def _text(state: str, cause: Any) -> str:
    """The primary message alone, since detail and context quote rows."""
    diagnosis = getattr(cause, "diag", None)
    # Without the server's diagnosis the engine cannot tell where detail and context begin.
    if diagnosis is None or diagnosis.source_file is None or diagnosis.source_file.endswith(_RAISED):
        return ""
    message = one_line(diagnosis.message_primary or "")
    pattern = PLAIN_TEXTS.get(state)
    if state.startswith(PLAIN) or (pattern and pattern.fullmatch(message)):
        return message
    copied = _COPIED.match(diagnosis.context or "")
    named = (
        [*zip(("column", "of"), copied.groups()[::-1], strict=True)]
        if copied
        else [("column", diagnosis.column_name), ("of", diagnosis.table_name)]
    )
    return " ".join(f"{what} {name}" for what, name in [*named, ("constraint", diagnosis.constraint_name)] if name)


def _of_client(cause: BaseException) -> Trouble:
    match type(cause).__name__:
        # The text quotes no statement: psycopg could not connect, or the connection has ended.
        case "OperationalError" | "ConnectionTimeout":
            return Trouble(Kind.LOST, text=one_line(str(cause)))
        case "InterfaceError" | "InternalError" | "PipelineAborted":
            return Trouble(Kind.LOST)
        case "DataError" | "NotSupportedError" | "ProgrammingError" | "IntegrityError":
            return Trouble(Kind.VALUE)
    return Trouble(Kind.UNKNOWN)
