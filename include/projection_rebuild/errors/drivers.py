"""Classifies the drivers' errors; each database has a module with its codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module

import sqlalchemy as sa

from projection_rebuild.errors import DatabaseTrouble
from projection_rebuild.errors.trouble import Kind, Trouble

_DRIVERS = {"psycopg": "postgres", "MySQLdb": "mysql", "sqlite3": "sqlite"}
"""By the package of a driver, the module that classifies its errors; imported when needed."""


def trouble_of(error: BaseException) -> Trouble | None:
    """The trouble of a driver's or SQLAlchemy's error, without values; None: the error comes from neither."""
    if isinstance(error, DatabaseTrouble):
        return error.trouble
    cause = error.orig if isinstance(error, sa.exc.StatementError) and error.orig is not None else error
    if (module := _reader(cause)) is not None:
        trouble: Trouble = import_module(f"{__package__}.{module}").of_driver(cause)
        return _at_invalidated(trouble, error)
    return _of_sqlalchemy(error) if isinstance(error, sa.exc.SQLAlchemyError) else None


def _reader(cause: BaseException) -> str | None:
    roots = (base.__module__.partition(".")[0] for base in type(cause).__mro__)
    return next((_DRIVERS[root] for root in roots if root in _DRIVERS), None)


def by_code(code: str, kinds: Mapping[Kind, Iterable[str]]) -> Kind | None:
    """The kind whose codes have this code or its longest prefix; None: no kind has one."""
    matches = [(len(prefix), kind) for kind, prefixes in kinds.items() for prefix in prefixes if code.startswith(prefix)]
    return max(matches)[1] if matches else None


def one_line(text: str, most: int = 300) -> str:
    """The first line of a text, at most ``most`` characters."""
    lines = text.strip().splitlines()
    return lines[0].strip()[:most] if lines else ""


def _of_sqlalchemy(error: sa.exc.SQLAlchemyError) -> Trouble:
    """The trouble of an error that SQLAlchemy raises itself, without a driver's error behind it."""
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
            # SQLAlchemy could not convert a value for the driver.
            return Trouble(Kind.VALUE)
        case sa.exc.ArgumentError():
            return Trouble(Kind.UNKNOWN, text="the connection's URL or its options cannot be used")
    return Trouble(Kind.UNKNOWN)


def _at_invalidated(trouble: Trouble, error: BaseException) -> Trouble:
    """The same trouble; its kind is LOST if it was unknown and SQLAlchemy has invalidated the connection."""
    invalidated = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    return replace(trouble, kind=Kind.LOST) if invalidated and trouble.kind is Kind.UNKNOWN else trouble
