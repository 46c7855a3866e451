"""The event store: positions that commit out of their order are never passed, and nobody is waited for without end."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors import SettleTimeout
from projection_rebuild.model.names import TableSet
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop, append
from tests.engine.harness.databases import execute

PATIENCE = timedelta(seconds=60)


def settled(dialect: Dialect, store: TableSet, patience: timedelta = PATIENCE) -> int | None:
    """The high-water mark."""
    return dialect.events.settle(store.schema, store.blue, "id", patience)


def positions(application: sa.Engine, events: sa.Table) -> list[int]:
    """Of the events that are visible."""
    with application.connect() as connection:
        return list(connection.execute(sa.select(events.c.id).order_by(events.c.id)).scalars())


class EventLogContract(Contract):
    """See :class:`projection_rebuild.dialects.base.EventLog`."""

    def test_an_empty_store_is_settled_at_its_beginning(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        store = workshop.events()
        assert settled(dialect, store) is None
        assert dialect.events.newest_position(connection, store.schema, store.blue, "id") is None
        with application.begin() as writer:
            last = [append(writer, workshop.of(store)) for _ in range(3)][-1]
        assert settled(dialect, store) == last
        assert dialect.events.newest_position(connection, store.schema, store.blue, "id") == last

    def _is_alone(self, application: sa.Engine, events: sa.Table) -> bool:
        """Where a transaction that writes keeps all others from writing: holds that it does, so that no append can be late."""
        if self.can(Feature.TWO_WRITERS):
            return False
        impatient = sa.create_engine(application.url, poolclass=sa.NullPool, connect_args={"timeout": 0.1})
        with application.connect() as late, impatient.connect() as early:
            append(late, events)
            with pytest.raises(sa.exc.DBAPIError):
                append(early, events)
        return True

    def test_a_late_committer_is_waited_for(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        store = workshop.events()
        events = workshop.of(store)
        if self._is_alone(application, events):
            return
        with application.connect() as late:
            lower = append(late, events)
            with application.begin() as early:
                higher = append(early, events)
            assert lower < higher == dialect.events.newest_position(connection, store.schema, store.blue, "id")
            assert positions(application, events) == [higher]
            timer = threading.Timer(0.5, late.commit)
            timer.start()
            assert settled(dialect, store) == higher
            assert positions(application, events) == [lower, higher]
            timer.join()

    def test_a_rolled_back_gap_holds_nobody_up(self, dialect: Dialect, application: sa.Engine, workshop: Workshop) -> None:
        store = workshop.events()
        events = workshop.of(store)
        with application.connect() as gone:
            append(gone, events)
            gone.rollback()
        with application.begin() as writer:
            last = append(writer, events)
        assert settled(dialect, store, timedelta(seconds=5)) == last
        assert positions(application, events) == [last]

    def test_an_append_that_never_ends_is_waited_for_with_a_bound_and_named(
        self, dialect: Dialect, application: sa.Engine, workshop: Workshop
    ) -> None:
        store = workshop.events()
        events = workshop.of(store)
        if self._is_alone(application, events):
            return
        with application.connect() as endless:
            append(endless, events)
            with application.begin() as writer:
                append(writer, events)
            with pytest.raises(SettleTimeout, match=rf"{store.blue}.*long transactions"):
                settled(dialect, store, timedelta(seconds=1.5))
            with application.begin() as writer:
                append(writer, events)

    def test_a_long_transaction_that_appends_nothing_holds_nobody_up(
        self, dialect: Dialect, application: sa.Engine, workshop: Workshop
    ) -> None:
        store, elsewhere = workshop.events(), workshop.words()
        events = workshop.of(store)
        if self._is_alone(application, events):
            return
        with application.connect() as unrelated:
            unrelated.execute(workshop.of(elsewhere).insert().values(id=1))
            with application.begin() as writer:
                last = append(writer, events)
            assert settled(dialect, store, timedelta(seconds=5)) == last

    def test_a_fence_holds_appends_back(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        store = workshop.events()
        events = workshop.of(store)
        with application.begin() as writer:
            first = append(writer, events)

        def appends() -> None:
            with application.begin() as writer:
                append(writer, events)

        late = threading.Thread(target=appends)
        with dialect.events.fence(store.schema, store.blue, timedelta(seconds=1), timedelta(seconds=20)) as fence:
            late.start()
            time.sleep(0.3)
            assert fence.holds() and late.is_alive()
            assert dialect.events.newest_position(connection, store.schema, store.blue, "id") == first
        late.join(60)
        assert not late.is_alive()
        assert len(positions(application, events)) == 2

    def test_a_fence_whose_holder_hangs_is_given_up_by_the_server(
        self, dialect: Dialect, application: sa.Engine, workshop: Workshop
    ) -> None:
        store = workshop.events()
        events = workshop.of(store)
        with dialect.events.fence(store.schema, store.blue, timedelta(seconds=1), longest=timedelta(milliseconds=200)) as fence:
            assert fence.holds()
            if not self.can(Feature.FENCE_ENDS):
                time.sleep(0.4)
                assert fence.holds()
                return
            with application.begin() as writer:
                writer.exec_driver_sql(self.says.patient)
                append(writer, events)
            assert not fence.holds()

    def test_numbers_that_are_handed_out_in_advance_are_told(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        store = workshop.events()
        assert dialect.events.hands_out_ahead(connection, store.schema, store.blue, "id") is None
        if self.can(Feature.NUMBERS_AHEAD):
            execute(application, self.says.ahead.format(table=store.blue))
            assert store.blue in (dialect.events.hands_out_ahead(connection, store.schema, store.blue, "id") or "")
