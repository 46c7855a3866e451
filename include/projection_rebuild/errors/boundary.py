"""Converts the errors of drivers, machines, authors and libraries to errors of the engine; callers see no others.

A verb is a function that people and schedulers call; :func:`step` converts its errors. Two kinds of code convert errors
within a verb: reads of the event store (:func:`reading`), and author's code at an event (:func:`trouble_at_event`). All
other code within a verb sees the drivers' errors. It decides about a retry by the kind of trouble (``trouble_of``),
which both kinds of errors have.

An integration, such as the one for Airflow, declares which of its own errors pass (:func:`declare_face`).
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import wraps
from gzip import BadGzipFile
from inspect import signature
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

import sqlalchemy as sa

from projection_rebuild.errors import (
    CodeError,
    DatabaseTrouble,
    EngineFault,
    MachineTrouble,
    RebuildError,
    RowError,
    Troubled,
    UnfitValue,
)
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.outcomes import FenceDied, TablesBusy
from projection_rebuild.errors.trouble import Kind, Trouble

P = ParamSpec("P")
T = TypeVar("T")

NOTHING = "Nothing has been changed"
UNTOUCHED = "The live tables are untouched"
GREEN_KEPT = f"{UNTOUCHED}; green has what was committed, and a retry goes on from there"
OLD_KEPT = f"{UNTOUCHED}; the old tables have what was committed, and a retry goes on from there"
ONE_SIDE = "The tables are on one side of the switch or on the other, never between: retry atomic_swap, which finds out"
SWITCHED = "The new tables are live"
AS_IT_WAS = "The tables are as they were; whether this was noted is not known: look, and do it again"
"""The state of the tables after an error, by step."""

FAULT = "This is a fault of the engine, or a ledger that it cannot read. A retry may pass; if not, report it with this line"
MACHINE = "See to the worker (memory, disk, network, installed packages), then retry: nothing is wrong with the event as far as is known"
CODE = "Correct that code and deploy it, then clear the task. Its own text is left out here, as it may quote a row"

LIBRARIES = frozenset(
    "MySQLdb alembic croniter eventsourcing msgspec orjson psutil psycopg psycopg_binary pydantic pydantic_core sqlalchemy tenacity yaml".split()
)
"""The libraries that the engine calls. All other packages are an author's code."""

_ours = {"projection_rebuild"}
_passing: set[str] = set()

# The first words of a statement, which name its action; the rest may contain values.
_DOING = re.compile(
    r"\s*(?:/\*.*?\*/\s*)?(SELECT|INSERT|UPDATE|DELETE|COPY|COMMIT|ROLLBACK|BEGIN|START|SAVEPOINT|SET|SHOW|PRAGMA|ANALYZE|VACUUM|FLUSH|UNLOCK|KILL"
    r"|TRUNCATE|WITH|EXPLAIN|GRANT|DO|USE"
    r"|(?:CREATE|ALTER|DROP|RENAME|LOCK|COMMENT)(?:\s+(?:UNIQUE|TEMPORARY|OR|REPLACE|TABLES?|INDEX|VIEW|MATERIALIZED|TRIGGER|SEQUENCE|STATISTICS|DATABASE"
    r"|SCHEMA|ON|POLICY|FUNCTION))*)\b",
    re.IGNORECASE | re.DOTALL,
)


def step(name: str, state: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a verb: it raises only errors of the engine, with this step and the state of the tables.

    :param name: the name of the step for users
    :param state: the state of the tables after an error
    """

    def marked(verb: Callable[P, T]) -> Callable[P, T]:
        has_projector = "projector" in signature(verb).parameters

        @wraps(verb)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return verb(*args, **kwargs)
            except Exception as error:
                positional = args[1] if has_projector and len(args) > 1 else None
                projector = kwargs.get("projector", positional) if has_projector else None
                converted = named(error, name if projector is None else f"{name} of {projector}", state, _tables(args[0]))
            # Raise outside of `except`: the driver's error quotes values, and Python would print it as the context.
            raise converted

        bounded.step = name  # type: ignore[attr-defined]
        return bounded

    return marked


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Converts the errors of code that only reads, also for callers outside of a verb.

    :param what: the table that the code reads
    """
    caught: Exception | None = None
    try:
        yield
    except Exception as error:
        caught = error
    if caught is not None:
        converted = named(caught, "", NOTHING, [what])
        if isinstance(converted, Troubled) and not converted.at:
            converted.at = f", reading {what}"
        raise converted from None


def declare_face(package: str, *, passes: str) -> None:
    """Registers an integration of the engine, such as the one for Airflow; it calls this once, at its import.

    :param package: its own package; an error there is a fault of the engine, not of an author
    :param passes: the package whose errors every verb raises unchanged, since its callbacks end a step with them
    """
    _ours.add(package)
    _passing.add(passes)


def named(error: Exception, step: str, state: str, tables: Collection[str] = ()) -> Exception:
    """Converts any error to an error of the engine, without a chain of foreign errors.

    :param tables: the names of tables that the message may quote from a statement
    :returns: the error itself, if it is one of the engine, or one that an integration lets pass
    """
    converted: Exception = error if _passes(error) else _converted(error, tables)
    if isinstance(converted, Troubled):
        converted.within(step, state)
    return _without_strangers(converted)


def _passes(error: BaseException) -> bool:
    return any(base.__module__.partition(".")[0] in _passing for base in type(error).__mro__)


def _converted(error: Exception, tables: Collection[str]) -> RebuildError:
    if isinstance(error, RebuildError):
        return error
    converted: Troubled
    if (trouble := _trouble(error)) is not None:
        converted = database_trouble(trouble)
        converted.at = _statement(error, tables)
    elif is_of_the_machine(error):
        converted = machine_trouble(error)
    elif (author_code := _author_code(error)) is not None:
        converted = CodeError(f"{author_code} failed with {type(error).__name__}", CODE)
    else:
        converted = EngineFault(f"unexpected {type(error).__name__} at {_place(error)}", FAULT)
    return converted.with_traceback(error.__traceback__)


def _trouble(error: Exception) -> Trouble | None:
    """The trouble of a driver's error, or of one of the outcomes of the engine that mean the same."""
    match error:
        case TablesBusy():
            return Trouble(Kind.BUSY, text="other sessions use the tables")
        case FenceDied():
            return Trouble(Kind.LOST, text="the connection that held appends back was cut")
    return trouble_of(error)


def database_trouble(trouble: Trouble) -> DatabaseTrouble:
    """The engine's error for a database's trouble."""
    kinds: dict[Kind, type[DatabaseTrouble]] = {subclass.kind: subclass for subclass in DatabaseTrouble.__subclasses__()}
    return kinds.get(trouble.kind, DatabaseTrouble)(trouble)


def machine_trouble(error: BaseException, at: str = "") -> MachineTrouble:
    """The engine's error for a failure of the machine.

    :param at: the place of the failure, as the rest of a sentence
    """
    trouble = MachineTrouble(f"the worker's machine failed: {machine_words(error)}", MACHINE)
    trouble.at = at
    return trouble


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error in an author's code comes from the machine, the network or a database, and not from the event.

    A retry may help with such an error, even if the event has contributed to it (a nesting that is too deep).
    """
    if (trouble := trouble_of(error)) is not None:
        # The kinds VALUE and SQL are faults of the author's statement.
        return trouble.kind not in (Kind.VALUE, Kind.SQL)
    if isinstance(error, OSError):
        # Decompression raises these for invalid bytes.
        return not (isinstance(error, BadGzipFile) or (error.errno is None and str(error) == "Invalid data stream"))
    of_threads = isinstance(error, RuntimeError) and str(error) == "can't start new thread"
    return of_threads or isinstance(error, MemoryError | RecursionError | ImportError | SystemError | BrokenExecutor)


def machine_words(error: BaseException) -> str:
    """The words for an error of the machine: its class and the system's message for its number.

    Never its own text, which may quote a name or a value.
    """
    if (trouble := trouble_of(error)) is not None:
        return trouble.describe()
    number = error.errno if isinstance(error, OSError) else None
    known = errno.errorcode.get(number) if number is not None else None
    return type(error).__name__ + (f" ({known}: {os.strerror(number)})" if number is not None and known else "")


def trouble_at_event(error: Exception, projector: str, event_type: str, position: int) -> Troubled | None:
    """Converts an error in an author's code at an event, if it comes from the machine or a database.

    :returns: None if the error is a fault of the author's code or of the event
    """
    if isinstance(error, Troubled):
        converted = error
    elif not is_of_the_machine(error):
        return None
    elif (trouble := trouble_of(error)) is not None:
        converted = database_trouble(trouble)
    else:
        converted = machine_trouble(error)
    converted.about(event_type, position, projector)
    return converted


def word_for(error: BaseException) -> str:
    """The word for an error in an author's code: its class, or a database's code; its text only if it is the engine's."""
    if isinstance(error, UnfitValue):
        return error.message
    if isinstance(error, RowError) and _is_raised_by_us(error):
        return f"{type(error).__name__}, {error.message}"
    trouble = trouble_of(error)
    return type(error).__name__ if trouble is None else trouble.code or "a refused value"


def _is_raised_by_us(error: BaseException) -> bool:
    """Whether the engine's code has raised an error: an author may raise the engine's errors, too, with any text."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and _is_ours(frames[-1])


def _without_strangers(error: Exception) -> Exception:
    """The same error without foreign errors in its chain: their texts quote values, and logs print the whole chain."""
    at: BaseException = error
    while True:
        cause = at.__context__ if at.__cause__ is None and not at.__suppress_context__ else at.__cause__
        # The context may be a foreign error even if the cause is the engine's, or if Python does not print the context.
        at.__context__ = None
        if cause is None:
            break
        if not (isinstance(cause, RebuildError) or _passes(cause)):
            at.__cause__ = None
            break
        at.__cause__ = at = cause
    return error


def _statement(error: Exception, tables: Collection[str]) -> str:
    """The action and the tables of a failed statement; never the statement itself, which may contain values."""
    statement = (error.statement or "") if isinstance(error, sa.exc.StatementError) else ""
    action = _DOING.match(statement)
    if action is None:
        return ""
    words = set(re.findall(r"\w+", statement))
    used = sorted(table for table in tables if table in words or (not re.fullmatch(r"\w+", table) and table in statement))
    return f", at {' '.join(action[1].upper().split())}" + (f" of {', '.join(used[:3])}" if used else "")


def failure_of(error: BaseException) -> str:
    """The words for an error in an author's module: its class, file and line.

    Never its text, which may quote a row or a URL.
    """
    word = word_for(error)
    if type(error) is ModuleNotFoundError and re.fullmatch(r"[\w.]{1,100}", error.name or ""):
        word += f" of {error.name}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{word} at {Path(error.filename).name}:{error.lineno}"
    called = _called(error)
    return f"{word} at {_file(called[-1])}" if called else word


def _author_code(error: BaseException) -> str | None:
    """The innermost function of an author that the engine has called, with file and line; None: there is none."""
    called = _called(error)
    return f"{called[-1][0].f_code.co_qualname} ({_file(called[-1])})" if called else None


_Place = tuple[FrameType, int]


def _called(error: BaseException) -> list[_Place]:
    """The frames of the author's package that the engine's code has called, outermost first; empty for a library."""
    places = list(traceback.walk_tb(error.__traceback__))
    last = max((number for number, (frame, _) in enumerate(places) if _is_ours(frame)), default=-1)
    inner = [place for place in places[last + 1 :] if _root(place[0]) != "importlib"]
    root = _root(inner[0][0]) if inner else None
    if root is None or root in LIBRARIES or root in _passing or root in sys.stdlib_module_names - {"__main__"}:
        return []
    return [place for place in inner if _root(place[0]) == root]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _root(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


def _is_ours(frame: FrameType) -> bool:
    return any(f"{_module(frame)}.".startswith(f"{package}.") for package in _ours)


def _file(place: _Place) -> str:
    frame, line = place
    return f"{Path(frame.f_code.co_filename).name}:{line}"


def _place(error: BaseException) -> str:
    """File, line and function of the innermost code of the engine."""
    places = list(traceback.walk_tb(error.__traceback__))
    ours = [place for place in places if _is_ours(place[0])] or places
    return f"{_file(ours[-1])}, in {ours[-1][0].f_code.co_name}" if ours else "an unknown place"


def _tables(owner: object) -> Collection[str]:
    """The tables that a message may name: those of the spec, of the event store and of the ledger.

    :param owner: the object of the verb
    """
    context = getattr(owner, "_context", None)
    if context is None:
        return ()
    sets = [context.table_set(table) for projector in context.projectors.values() for table in projector.tables()]
    names = {name for table in sets for name in (table.blue, table.green, table.old)}
    return names | {context.spec.event_store.table, *context.ledger.tables}
