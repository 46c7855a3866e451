"""Seams: moments within a step at which a test can act, and measures of the engine that a test can switch off.

Tests patch private names of the engine only here and in :mod:`.faults`, so that a renaming in the engine changes one
place. Each seam lasts as long as its ``MonkeyPatch``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild import __main__ as command
from projection_rebuild.cutover import left_overs, preparation, waits
from projection_rebuild.cutover.attempt import Attempt
from projection_rebuild.cutover.contracts import Drain
from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Dialect
from projection_rebuild.dialects.mysql import dialect as mysql
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.postgres import connection as postgres_connection
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.replay import catch_up, partial_copy
from projection_rebuild.shadow import retire
from tests.engine.harness.clients import append

Action = Callable[[], object]

# The switch -------------------------------------------------------------------------------------------------------


def before_the_drain(patch: pytest.MonkeyPatch, action: Action) -> None:
    """Calls ``action`` at each attempt of the cutover, right before it drains: it has its locks, and no job is left."""
    apply = Drain.apply

    def drained(drain: Drain, *given: Any) -> Any:
        action()
        return apply(drain, *given)

    patch.setattr(Drain, "apply", drained)


def around_the_drain(patch: pytest.MonkeyPatch, within: Callable[[], AbstractContextManager[object]]) -> None:
    """Enters a context around each drain; see :func:`before_the_drain`."""
    apply = Drain.apply

    def drained(drain: Drain, *given: Any) -> Any:
        with within():
            return apply(drain, *given)

    patch.setattr(Drain, "apply", drained)


def before_the_hold(patch: pytest.MonkeyPatch, action: Action) -> None:
    """Calls ``action`` right before an attempt of the cutover takes its locks."""
    _around_the_hold(patch, before=action)


def after_the_hold(patch: pytest.MonkeyPatch, action: Action) -> None:
    """Calls ``action`` right after an attempt of the cutover has taken its locks."""
    _around_the_hold(patch, after=action)


def _around_the_hold(patch: pytest.MonkeyPatch, before: Action = lambda: None, after: Action = lambda: None) -> None:
    hold = Attempt._hold

    def held(attempt: Attempt, *given: Any) -> Any:
        before()
        held_locks = hold(attempt, *given)
        after()
        return held_locks

    patch.setattr(Attempt, "_hold", held)


def instead_of_waiting_for_snapshots(patch: pytest.MonkeyPatch, action: Action) -> None:
    """Calls ``action`` in place of the wait for open snapshots, right before the cutover takes its locks."""
    patch.setattr(waits, "wait_for_snapshots", lambda *_: action())


def instead_of_finishing_the_switch(patch: pytest.MonkeyPatch, action: Action) -> None:
    """Calls ``action`` in place of the work right after the rename."""
    patch.setattr(left_overs, "finish_at_once", lambda *_: action())


def without_the_last_look_for_orphans(patch: pytest.MonkeyPatch) -> None:
    """Switches off the cutover's last check for rows that violate a foreign key since the verification."""
    patch.setattr(preparation, "refuse_orphans", lambda *_: None)


def without_folding(patch: pytest.MonkeyPatch) -> None:
    """Lets a catch-up read events without applying them to green."""
    patch.setattr(catch_up.CatchUp, "_fold", lambda self, bound, among=None: {})


def without_carrying_counters_on(patch: pytest.MonkeyPatch) -> None:
    """MySQL: switches off the statement by which green continues blue's generated ids."""
    patch.setattr(MySQLFamily, "_counter", lambda *_: "SELECT 1")


def old_tables_are_dropped_by(patch: pytest.MonkeyPatch, drop: Callable[..., object]) -> None:
    """Calls ``drop`` in place of the engine's own drop of a retired table."""
    patch.setattr(retire, "_drop", drop)


# Dialects ---------------------------------------------------------------------------------------------------------


def just_before(
    patch: pytest.MonkeyPatch, engine: sa.Engine, verb: str, *statements: str, late: list[dict[str, Any]] | None = None
) -> None:
    """Appends events and executes statements right before the first call of a method of the dialect or of its cutover.

    :param verb: the name of the method
    :param late: the events to append
    """
    made = dialect_for(engine)
    owner = type(made) if hasattr(made, verb) else type(made.cutover)
    original, done = getattr(owner, verb), []

    def asked_late(*arguments: Any) -> Any:
        if not done:
            done.append(True)
            append(engine, late or [])
            with engine.begin() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
        return original(*arguments)

    patch.setattr(owner, verb, asked_late)


def before_each_statement(patch: pytest.MonkeyPatch, dialect: Dialect, action: Callable[[str], object]) -> None:
    """Calls ``action`` with each statement that one dialect executes with values, before it does."""
    execute = dialect._execute

    def late(connection: sa.Connection, statement: str, *values: Any) -> Any:
        action(statement)
        return execute(connection, statement, *values)

    patch.setattr(dialect, "_execute", late)


def server_lists_no_locks(patch: pytest.MonkeyPatch) -> None:
    """MySQL: simulates an account that may not see the server's locks."""
    patch.setattr(mysql, "_LISTS_LOCKS", "SELECT 0")


def second_session_is_waited_for(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """PostgreSQL: sets for how many seconds the check for a pooler waits for a second session."""
    patch.setattr(postgres_connection._Session.ask, "__defaults__", (seconds,))


# A part's copy ----------------------------------------------------------------------------------------------------


def at_each_moment_of_a_copy(patch: pytest.MonkeyPatch, visit: Callable[[str], object]) -> None:
    """Calls ``visit`` with the name of each moment of a copy.

    The moments are: after the engine knows blue's position (``held``), before and after each table's copy (``before the
    copy``, ``after the copy``), after all copies (``copied``), and after the high-water mark was found again
    (``settled``).
    """
    held, copy, settled = partial_copy.PartialCopy._held_by_blue, Dialect.copy_others, EventStore.settled_head
    copying = threading.local()

    def held_by_blue(self: Any) -> Any:
        position = held(self)
        visit("held")
        copying.on = True
        return position

    def copy_others(self: Dialect, *given: Any) -> None:
        if self.one_writer:
            copy(self, *given)
            return
        visit("before the copy")
        copy(self, *given)
        visit("after the copy")

    def settled_head(self: EventStore, *given: Any) -> Any:
        if getattr(copying, "on", False):
            copying.on = False
            visit("copied")
            mark = settled(self, *given)
            visit("settled")
            return mark
        return settled(self, *given)

    patch.setattr(partial_copy.PartialCopy, "_held_by_blue", held_by_blue)
    patch.setattr(Dialect, "copy_others", copy_others)
    patch.setattr(EventStore, "settled_head", settled_head)


def without_what_changed_during_the_copy(patch: pytest.MonkeyPatch) -> None:
    """Lets the copy of a part ignore rows that changed during the copy."""
    between = partial_copy.PartialCopy._keys_between
    patch.setattr(
        partial_copy.PartialCopy, "_keys_between", lambda self, after, *given: set() if after else between(self, after, *given)
    )


# The command line -------------------------------------------------------------------------------------------------


def command_does(patch: pytest.MonkeyPatch, action: Callable[[object], Any]) -> None:
    """Lets the command call ``action`` in place of its own work."""
    patch.setattr(command, "_do", action)
