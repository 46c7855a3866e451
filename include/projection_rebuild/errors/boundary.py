"""Turns the errors of drivers, machines, authors and libraries into errors of ours. Nobody who calls a verb meets another one.

Most of it happens at the verbs (:func:`step`). Two things happen beneath them: reading the event store raises our errors
(:func:`reading`), and so does an author's code that fails at an event (:func:`trouble_at_event`). All other code beneath a verb sees the
drivers' errors. It decides whether to try again by the kind of trouble, which both have (``trouble_of``).

A face, such as Airflow's, declares which errors of its own pass (:func:`declare_face`).
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
"""What an error means for the tables, by the step that it ends."""

FAULT = "This is a fault of the engine, or a ledger that it cannot read. A retry may pass; if not, report it with this line"
MACHINE = "See to the worker (memory, disk, network, installed packages), then retry: nothing is wrong with the event as far as is known"
CODE = "Correct that code and deploy it, then clear the task. Its own text is left out here, as it may quote a row"

LIBRARIES = frozenset(
    "MySQLdb alembic croniter eventsourcing msgspec orjson psutil psycopg psycopg_binary pydantic pydantic_core sqlalchemy tenacity yaml".split()
)
"""The packages that the engine calls. Whatever else it calls is an author's code."""

_ours = {"projection_rebuild"}
_passing: set[str] = set()

# What SQL begins with, and up to which word it says what is done. Whatever else there is may hold values.
_DOING = re.compile(
    r"\s*(?:/\*.*?\*/\s*)?(SELECT|INSERT|UPDATE|DELETE|COPY|COMMIT|ROLLBACK|BEGIN|START|SAVEPOINT|SET|SHOW|PRAGMA|ANALYZE|VACUUM|FLUSH|UNLOCK|KILL"
    r"|TRUNCATE|WITH|EXPLAIN|GRANT|DO|USE"
    r"|(?:CREATE|ALTER|DROP|RENAME|LOCK|COMMENT)(?:\s+(?:UNIQUE|TEMPORARY|OR|REPLACE|TABLES?|INDEX|VIEW|MATERIALIZED|TRIGGER|SEQUENCE|STATISTICS|DATABASE"
    r"|SCHEMA|ON|POLICY|FUNCTION))*)\b",
    re.IGNORECASE | re.DOTALL,
)


def step(name: str, state: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Marks a verb that people and schedulers call: what it raises is one of ours, and says that it was in this step.

    :param name: the step, as people know it
    :param state: what an error in it means for the tables
    """

    def marked(verb: Callable[P, T]) -> Callable[P, T]:
        of = "projector" in signature(verb).parameters

        @wraps(verb)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return verb(*args, **kwargs)
            except Exception as error:
                projector = kwargs.get("projector", args[1] if of and len(args) > 1 else None) if of else None
                told = named(error, name if projector is None else f"{name} of {projector}", state, _tables(args[0]))
            # Here, where nothing is being handled: the driver's error quotes values, and would be printed as what this one came from.
            raise told

        bounded.step = name  # type: ignore[attr-defined]
        return bounded

    return marked


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around something that only reads; for those who call it by itself.

    :param what: the table that is read
    """
    found: Exception | None = None
    try:
        yield
    except Exception as error:
        found = error
    if found is not None:
        told = named(found, "", NOTHING, [what])
        if isinstance(told, Troubled) and not told.at:
            told.at = f", reading {what}"
        raise told from None


def declare_face(package: str, *, passes: str) -> None:
    """Told by a face of the engine, once, when it is imported.

    :param package: its own package; what fails there is a fault of ours, and no author's
    :param passes: the package whose errors pass every verb as they are: its callbacks end a step by them
    """
    _ours.add(package)
    _passing.add(passes)


def named(error: Exception, step: str, state: str, tables: Collection[str] = ()) -> Exception:
    """The error of ours that stands for any error, without the errors of others that it came from.

    :param tables: the names that may be said of what a statement speaks of
    :returns: the error itself, if it is one of ours or one that a face lets pass
    """
    told: Exception = error if _passes(error) else _stands_for(error, tables)
    if isinstance(told, Troubled):
        told.within(step, state)
    return _without_strangers(told)


def _passes(error: BaseException) -> bool:
    return any(each.__module__.partition(".")[0] in _passing for each in type(error).__mro__)


def _stands_for(error: Exception, tables: Collection[str]) -> RebuildError:
    if isinstance(error, RebuildError):
        return error
    made: Troubled
    if (trouble := _trouble(error)) is not None:
        made = database_trouble(trouble)
        made.at = _statement(error, tables)
    elif is_of_the_machine(error):
        made = machine_trouble(error)
    elif (theirs := _theirs(error)) is not None:
        made = CodeError(f"{theirs} failed with {type(error).__name__}", CODE)
    else:
        made = EngineFault(f"unexpected {type(error).__name__} at {_place(error)}", FAULT)
    return made.with_traceback(error.__traceback__)


def _trouble(error: Exception) -> Trouble | None:
    """What a driver's error says, or one of our own that stands for one."""
    match error:
        case TablesBusy():
            return Trouble(Kind.BUSY, text="somebody uses the tables")
        case FenceDied():
            return Trouble(Kind.LOST, text="the connection that held appends back was cut")
    return trouble_of(error)


def database_trouble(trouble: Trouble) -> DatabaseTrouble:
    """The error of ours for what a database says."""
    kinds: dict[Kind, type[DatabaseTrouble]] = {each.kind: each for each in DatabaseTrouble.__subclasses__()}
    return kinds.get(trouble.kind, DatabaseTrouble)(trouble)


def machine_trouble(error: BaseException, at: str = "") -> MachineTrouble:
    """The error of ours for one of the machine.

    :param at: where, as the rest of a sentence
    """
    made = MachineTrouble(f"the worker's machine failed: {machine_words(error)}", MACHINE)
    made.at = at
    return made


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error in an author's code is one of the machine, the network or a database, and not of the event that it was at.

    Such an error may be over at the next try, also where the event may have its part in it (a nesting that is too deep).
    """
    if (trouble := trouble_of(error)) is not None:
        # What the author asked for cannot be done, or something around it went wrong.
        return trouble.kind not in (Kind.VALUE, Kind.SQL)
    if isinstance(error, OSError):
        # Decompression says so of bytes.
        return not (isinstance(error, BadGzipFile) or (error.errno is None and str(error) == "Invalid data stream"))
    of_threads = isinstance(error, RuntimeError) and str(error) == "can't start new thread"
    return of_threads or isinstance(error, MemoryError | RecursionError | ImportError | SystemError | BrokenExecutor)


def machine_words(error: BaseException) -> str:
    """What may be said of an error of the machine: its kind and the system's own words; never its text, which may quote a name or a value."""
    if (trouble := trouble_of(error)) is not None:
        return trouble.describe()
    number = error.errno if isinstance(error, OSError) else None
    known = errno.errorcode.get(number) if number is not None else None
    return type(error).__name__ + (f" ({known}: {os.strerror(number)})" if number is not None and known else "")


def trouble_at_event(error: Exception, projector: str, event_type: str, position: int) -> Troubled | None:
    """What stands for an error in an author's code that is the machine's, with the event that it was at; None: it is the author's or the
    event's."""
    if isinstance(error, Troubled):
        made = error
    elif not is_of_the_machine(error):
        return None
    elif (trouble := trouble_of(error)) is not None:
        made = database_trouble(trouble)
    else:
        made = machine_trouble(error)
    made.about(event_type, position, projector)
    return made


def word_for(error: BaseException) -> str:
    """What an error in an author's code is called: its class, or what a database calls it; never its text, unless that is ours."""
    if isinstance(error, UnfitValue):
        return error.message
    if isinstance(error, RowError) and _is_raised_by_us(error):
        return f"{type(error).__name__}, {error.message}"
    trouble = trouble_of(error)
    return type(error).__name__ if trouble is None else trouble.code or "a refused value"


def _is_raised_by_us(error: BaseException) -> bool:
    """Whether it comes from our code: an author may raise errors of ours, too, with any text."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and _is_ours(frames[-1])


def _without_strangers(told: Exception) -> Exception:
    """The same, without the errors of others that it came from: their texts quote values, and logs print them all."""
    at: BaseException = told
    while True:
        came_from = at.__context__ if at.__cause__ is None and not at.__suppress_context__ else at.__cause__
        # A context may be another's also where the cause is ours, or where it is not to be shown.
        at.__context__ = None
        if came_from is None:
            break
        if not (isinstance(came_from, RebuildError) or _passes(came_from)):
            at.__cause__ = None
            break
        at.__cause__ = at = came_from
    return told


def _statement(error: Exception, tables: Collection[str]) -> str:
    """What was done to which table; never the statement, which may hold values."""
    statement = (error.statement or "") if isinstance(error, sa.exc.StatementError) else ""
    found = _DOING.match(statement)
    if found is None:
        return ""
    words = set(re.findall(r"\w+", statement))
    of = sorted(each for each in tables if each in words or (not re.fullmatch(r"\w+", each) and each in statement))
    return f", at {' '.join(found[1].upper().split())}" + (f" of {', '.join(of[:3])}" if of else "")


def failure_of(error: BaseException) -> str:
    """What may be said of an error in an author's module: its kind, file and line; never its text, which may quote a row or a URL."""
    word = word_for(error)
    if type(error) is ModuleNotFoundError and re.fullmatch(r"[\w.]{1,100}", error.name or ""):
        word += f" of {error.name}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{word} at {Path(error.filename).name}:{error.lineno}"
    called = _called(error)
    return f"{word} at {_file(called[-1])}" if called else word


def _theirs(error: BaseException) -> str | None:
    """The innermost code of the author's whom ours has called, with file and line; None: it has called none, or a library."""
    called = _called(error)
    return f"{called[-1][0].f_code.co_qualname} ({_file(called[-1])})" if called else None


_Place = tuple[FrameType, int]


def _called(error: BaseException) -> list[_Place]:
    """The frames and lines of the package that our code has called, from outside to inside; empty for a library."""
    places = list(traceback.walk_tb(error.__traceback__))
    last = max((number for number, (frame, _) in enumerate(places) if _is_ours(frame)), default=-1)
    inner = [each for each in places[last + 1 :] if _root(each[0]) != "importlib"]
    root = _root(inner[0][0]) if inner else None
    if root is None or root in LIBRARIES or root in _passing or root in sys.stdlib_module_names - {"__main__"}:
        return []
    return [each for each in inner if _root(each[0]) == root]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _root(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


def _is_ours(frame: FrameType) -> bool:
    return any(f"{_module(frame)}.".startswith(f"{each}.") for each in _ours)


def _file(place: _Place) -> str:
    frame, line = place
    return f"{Path(frame.f_code.co_filename).name}:{line}"


def _place(error: BaseException) -> str:
    """File, line and function of the innermost code of ours."""
    places = list(traceback.walk_tb(error.__traceback__))
    ours = [each for each in places if _is_ours(each[0])] or places
    return f"{_file(ours[-1])}, in {ours[-1][0].f_code.co_name}" if ours else "an unknown place"


def _tables(of: object) -> Collection[str]:
    """The names that a step may say: those of the spec's tables, of the event store and of the ledger."""
    context = getattr(of, "_context", None)
    if context is None:
        return ()
    sets = [context.table_set(table) for each in context.projectors.values() for table in each.tables()]
    names = {name for each in sets for name in (each.blue, each.green, each.old)}
    return names | {context.spec.event_store.table, *context.ledger.tables}
