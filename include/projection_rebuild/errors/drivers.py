"""Reads what the drivers' errors say; the codes of each database are in a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module

import sqlalchemy as sa

from projection_rebuild.errors import DatabaseTrouble
from projection_rebuild.errors.trouble import Kind, Trouble

_DRIVERS = {"psycopg": "postgres", "MySQLdb": "mysql", "sqlite3": "sqlite"}
"""By the package of a driver's errors, the module that reads them; imported when it is needed."""


def trouble_of(error: BaseException) -> Trouble | None:
    """What an error of a driver or of SQLAlchemy says, without any value; None: it is neither's."""
    if isinstance(error, DatabaseTrouble):
        return error.trouble
    cause = error.orig if isinstance(error, sa.exc.StatementError) and error.orig is not None else error
    if (module := _reader(cause)) is not None:
        trouble: Trouble = import_module(f"{__package__}.{module}").of_driver(cause)
        return _at_invalidated(trouble, error)
    return _of_sqlalchemy(error) if isinstance(error, sa.exc.SQLAlchemyError) else None


def _reader(cause: BaseException) -> str | None:
    roots = (each.__module__.partition(".")[0] for each in type(cause).__mro__)
    return next((_DRIVERS[root] for root in roots if root in _DRIVERS), None)


def by_code(code: str, kinds: Mapping[Kind, Iterable[str]]) -> Kind | None:
    """The kind that names this code, or the longest beginning of it."""
    found = [(len(begin), kind) for kind, begins in kinds.items() for begin in begins if code.startswith(begin)]
    return max(found)[1] if found else None


def one_line(text: str, most: int = 300) -> str:
    """The first line of a text, and not too much of it."""
    lines = text.strip().splitlines()
    return lines[0].strip()[:most] if lines else ""


def _of_sqlalchemy(error: sa.exc.SQLAlchemyError) -> Trouble:
    """An error that SQLAlchemy raises by itself, without one of the driver's behind it."""
    match error:
        case sa.exc.TimeoutError():
            return Trouble(Kind.FULL, text="no connection of the pool became free in time")
        case sa.exc.ResourceClosedError() | sa.exc.PendingRollbackError():
            return Trouble(Kind.LOST)
        case sa.exc.NoSuchTableError():
            return Trouble(Kind.MISSING, text=one_line(str(error)))
        case sa.exc.OperationalError() | sa.exc.InterfaceError():
            return Trouble(Kind.LOST)
        case sa.exc.StatementError():
            # A value could not be made into what the driver takes.
            return Trouble(Kind.VALUE)
        case sa.exc.ArgumentError():
            return Trouble(Kind.UNKNOWN, text="the connection's URL or its options cannot be used")
    return Trouble(Kind.UNKNOWN)


def _at_invalidated(trouble: Trouble, error: BaseException) -> Trouble:
    """The same; where nobody knows better, a connection that SQLAlchemy has given up was lost."""
    given_up = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    return replace(trouble, kind=Kind.LOST) if given_up and trouble.kind is Kind.UNKNOWN else trouble
