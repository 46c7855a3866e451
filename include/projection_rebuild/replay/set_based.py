"""Replays projectors by their own SQL for a range of events: whether that SQL is eligible, the ranges, and running it.

A statement sees the events as one relation that holds each of them exactly once. The engine, never the author, decides
which events those are, by position, by type, and by what green already holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import sqlalchemy as sa

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import ProjectorError
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.model.positions import Place, is_before, said
from projection_rebuild.run.context import Context

FIRST_RANGE = 50_000
"""Events in the first transaction; the engine sizes the next ones by its duration."""

FEWEST = 1_000
"""The fewest events of a transaction from whose duration the engine learns: smaller ones show only fixed costs."""

SHORT = 0.1
"""The target duration of a transaction, in seconds, on a database where all other writers wait for it."""


class SetError(ProjectorError):
    """A projector's SQL failed on a value of the events. The message names projector and range, never a value."""

    code = "PR-SET-01"


def ineligible_because(context: Context, projector: type[Projector]) -> str | None:
    """Why the engine does not use a projector's SQL; empty: it has none. None: the engine uses it."""
    if not statements_of(projector, context.dialect.database):
        return ""
    if not context.one_database:
        return "events and read models are in two databases"
    if not context.store.has_json:
        return "its events are stored in a form that SQL cannot look into"
    if projector.reads:
        return "it looks at rows of other projectors"
    if projector.upcasters.concern(projector.stored_types()):
        return "its events are brought up to date by upcasters, which SQL does not see"
    if not context.spec.replay.set_based and projector.has_handlers():
        return "replay.set_based is off"
    return None


def statements_of(projector: type[Projector], database: str) -> list[str]:
    """The SQL of a projector for a database.

    :raises ProjectorError: its ``statements`` return anything but a list of texts
    """
    statements: object = projector.statements(database)
    if not isinstance(statements, (list, tuple)) or not all(isinstance(statement, str) for statement in statements):
        raise ProjectorError(f"{projector.name()}: its `statements` give no list of texts; put even one statement into a list")
    return list(statements)


class SetBasedReplay:
    """Runs the SQL of one projector in one worker, over ranges whose size it adapts.

    :param applied_above: positions whose events green already holds
    """

    def __init__(self, context: Context, projector: type[Projector], applied_above: Collection[int]) -> None:
        self._context = context
        self._projector = projector
        self._applied_above = applied_above
        self._statements = statements_of(projector, context.dialect.database)
        self._most = context.spec.replay.batch_events
        self._range = min(FIRST_RANGE, self._most)
        self._target_seconds = context.spec.replay.commit_every.total_seconds()
        if context.dialect.one_writer:
            self._target_seconds = min(self._target_seconds, SHORT)

    def next_range(self, after: Place, head: Place) -> tuple[Place, int]:
        """The end of the next range, and how many events it holds: as many as a transaction has time for."""
        return self._context.store.range_of(self._range, after, head, self._projector.stored_types(), self._applied_above)

    def took(self, events: int, seconds: float) -> None:
        """Adapts the size of the next range to the target duration, at most by a factor of twenty.

        :param events: of the last range
        :param seconds: that the last range took
        """
        if events >= min(FEWEST, self._range):
            factor = max(0.25, min(20.0, self._target_seconds / seconds if seconds else 20.0))
            self._range = max(1, min(round(events * factor), self._most))

    def run(self, connection: sa.Connection, after: Place, upto: Place, among: Collection[int] | None = None) -> None:
        """Executes the statements for the events above one place and up to another, in the caller's transaction.

        :param among: only the events at these positions
        :raises SetError: the events hold a value that the SQL cannot process; the caller rolls back
        :raises ProjectorError: the database cannot execute a statement, or does not find a name in it
        """
        for number, statement in enumerate(self._filled(self._events(after, upto, among)), 1):
            try:
                self._context.dialect.execute(connection, statement)
            except sa.exc.DBAPIError as error:
                trouble = trouble_of(error)
                if trouble is not None and trouble.kind in (Kind.SQL, Kind.MISSING):
                    raise ProjectorError(
                        f"{self._projector.name()}: {number} of the {len(self._statements)} texts in its `statements` for "
                        f"{self._context.dialect.database} cannot be executed: {trouble.describe()}. Correct it, or restore what is missing in "
                        "the database"
                    ) from None
                if trouble is None or trouble.kind is not Kind.VALUE:
                    raise
                # Without the driver's text and without the chain: both quote values.
                raise SetError(
                    f"{self._projector.name()}: its SQL fails on the events above {said(after)} and up to {said(upto)}: "
                    f"{trouble.describe()}. Correct its `statements`, or the events, and retry the task"
                ) from None

    def _events(self, after: Place, upto: Place, among: Collection[int] | None) -> str:
        types = self._projector.stored_types()
        without = [position for position in self._applied_above if is_before(after, position) and not is_before(upto, position)]
        return self._context.store.relation(after, upto, types, without=without, among=among)

    def _filled(self, events: str) -> Iterable[str]:
        """The statements, with the relation of events and the green names filled in."""
        names = {table: self._context.table_set(table).green for table in self._projector.tables()}
        for statement in self._statements:
            filled = statement.replace("{events}", events)
            for table, green in names.items():
                filled = filled.replace("{" + table + "}", self._context.dialect.qualified(self._context.schema, green))
            yield filled
