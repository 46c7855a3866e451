"""Projectors that give SQL for a range of events: whether it can be used, over which ranges, and running it.

What a statement sees of the events is one relation that holds each of them exactly once; which events those are (positions, types,
what green holds already) is decided here and never by the author.
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
"""Events in the first transaction; how many the next ones hold is learned from what it took."""

FEWEST = 1_000
"""Events of a transaction below which its length is not theirs."""

SHORT = 0.1
"""Seconds of a transaction where it keeps all other writers waiting."""


class SetError(ProjectorError):
    """A projector's SQL failed on what the events hold; names projector and range, never a value."""

    code = "PR-SET-01"


def ineligible_because(context: Context, projector: type[Projector]) -> str | None:
    """Why a projector is not replayed by its SQL; empty: it has none. None: it is."""
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
    """The SQL of a projector.

    :raises ProjectorError: it gives something else than texts
    """
    given: object = projector.statements(database)
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in given):
        raise ProjectorError(f"{projector.name()}: its `statements` give no list of texts; put even one statement into a list")
    return list(given)


class SetBasedReplay:
    """The SQL of one projector for one worker, and how large the ranges are for which it runs.

    :param applied_above: positions whose events green holds
    """

    def __init__(self, context: Context, projector: type[Projector], applied_above: Collection[int]) -> None:
        self._context = context
        self._projector = projector
        self._applied_above = applied_above
        self._statements = statements_of(projector, context.dialect.database)
        self._most = context.spec.replay.batch_events
        self._range = min(FIRST_RANGE, self._most)
        self._wanted = context.spec.replay.commit_every.total_seconds()
        if context.dialect.one_writer:
            self._wanted = min(self._wanted, SHORT)

    def next_range(self, after: Place, head: Place) -> tuple[Place, int]:
        """Up to where the next range goes, and how many events it holds: no more than a transaction has the time for."""
        return self._context.store.range_of(self._range, after, head, self._projector.stored_types(), self._applied_above)

    def took(self, events: int, seconds: float) -> None:
        """Told how long a range took; the next one is made to take as long as a transaction should, at most twenty times as large."""
        if events >= min(FEWEST, self._range):
            factor = max(0.25, min(20.0, self._wanted / seconds if seconds else 20.0))
            self._range = max(1, min(round(events * factor), self._most))

    def run(self, connection: sa.Connection, after: Place, upto: Place, among: Collection[int] | None = None) -> None:
        """Executes the statements for the events above one place and up to another, in the caller's transaction.

        :param among: only those at these positions
        :raises SetError: the events hold something that the SQL cannot take; nothing is left of it after a roll-back
        :raises ProjectorError: a statement is none that this database knows, or names what is not there
        """
        for number, statement in enumerate(self._filled(self._events(after, upto, among)), 1):
            try:
                self._context.dialect.execute(connection, statement)
            except sa.exc.DBAPIError as error:
                trouble = trouble_of(error)
                if trouble is not None and trouble.kind in (Kind.SQL, Kind.MISSING):
                    raise ProjectorError(
                        f"{self._projector.name()}: {number} of the {len(self._statements)} texts in its `statements` for "
                        f"{self._context.dialect.database} cannot be executed: {trouble.describe()}. Correct it; or bring back what somebody has "
                        "taken away from the database"
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
        without = [each for each in self._applied_above if is_before(after, each) and not is_before(upto, each)]
        return self._context.store.relation(after, upto, types, without=without, among=among)

    def _filled(self, events: str) -> Iterable[str]:
        names = {table: self._context.table_set(table).green for table in self._projector.tables()}
        for statement in self._statements:
            filled = statement.replace("{events}", events)
            for table, green in names.items():
                filled = filled.replace("{" + table + "}", self._context.dialect.qualified(self._context.schema, green))
            yield filled
