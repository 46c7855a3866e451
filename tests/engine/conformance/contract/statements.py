"""Names in statements, statements as people type them, and what errors mean."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors.trouble import Kind
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop, ask
from tests.engine.harness.faults import cut

AWKWARD = 'Weird "T%s ü`x'

LOOK = timedelta(milliseconds=50)
"""The wait for a lock that nobody gives; databases round it up to a second at most."""


class StatementsContract(Contract):
    """See :class:`projection_rebuild.dialects.base.Statements`."""

    def test_a_name_may_have_any_letters(self, dialect: Dialect, connection: sa.Connection, schema: str | None) -> None:
        table = dialect.qualified(schema, AWKWARD)
        dialect.run(connection, f"CREATE TABLE {table} ({dialect.quote('order')} int, {dialect.quote(AWKWARD)} int)")
        dialect.execute(connection, f"INSERT INTO {table} VALUES ({dialect.mark}, {dialect.mark})", (7, 8))
        assert dialect.inspector.columns(connection, schema, AWKWARD) == ["order", AWKWARD]
        assert ask(connection, f"SELECT {dialect.quote(AWKWARD)} FROM {table}") == [(8,)]
        dialect.run(connection, f"DROP TABLE {table}")
        assert not dialect.inspector.table_exists(connection, schema, AWKWARD)

    def test_a_statement_as_it_stands_is_what_a_shell_takes(self, dialect: Dialect, connection: sa.Connection) -> None:
        plain = f"SELECT 1 AS {dialect.quote('50%')}"
        assert "50%" in plain and "%%" not in plain
        found = dialect.execute(connection, plain)
        assert [*found.keys()] == ["50%"] and found.scalar_one() == 1

    def test_a_statement_is_executed_for_each_row_of_values(
        self, dialect: Dialect, connection: sa.Connection, schema: str | None
    ) -> None:
        table = dialect.qualified(schema, AWKWARD)
        dialect.run(connection, f"CREATE TABLE {table} (n int, word varchar(20))")
        insert = f"INSERT INTO {table} VALUES ({dialect.mark}, '50%s of %')"
        assert dialect.execute_many(connection, insert, [(1,), (2,)]).rowcount == 2
        assert ask(connection, f"SELECT n, word FROM {table} ORDER BY n") == [(1, "50%s of %"), (2, "50%s of %")]
        dialect.run(connection, f"DROP TABLE {table}")

    def test_a_missing_table_is_no_matter_of_time(self, dialect: Dialect, connection: sa.Connection, schema: str | None) -> None:
        with pytest.raises(sa.exc.DBAPIError) as missing:
            dialect.run(connection, f"DROP TABLE {dialect.qualified(schema, 'not_there')}")
        error = missing.value
        assert dialect.kind_of(error) is Kind.MISSING
        assert dialect.names_changed(error) and dialect.is_permission_error(error)
        assert not dialect.is_lock_timeout(error) and not dialect.is_disconnect(error)

    def test_an_error_of_no_database_has_no_kind(self, dialect: Dialect) -> None:
        assert dialect.kind_of(ValueError("no database")) is None and dialect.kind_of(None) is None
        assert not dialect.is_lock_timeout(None) and not dialect.names_changed(None)
        assert not dialect.is_permission_error(ValueError("no database")) and not dialect.is_disconnect(ValueError("no database"))

    def test_a_lock_that_is_refused_may_be_had_later(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        drop = f"DROP TABLE {dialect.qualified(table.schema, table.blue)}"
        dialect.limit_lock_wait(connection, LOOK)
        with application.connect() as writer:
            writer.execute(workshop.of(table).insert().values(id=1))
            with pytest.raises(sa.exc.DBAPIError) as refused:
                dialect.run(connection, drop)
            writer.rollback()
        dialect.usual_lock_wait(connection)
        assert dialect.is_lock_timeout(refused.value) and dialect.kind_of(refused.value) is Kind.BUSY
        assert not dialect.is_permission_error(refused.value) and not dialect.is_disconnect(refused.value)
        dialect.run(connection, drop)

    def test_a_value_that_is_refused_is_known_for_what_it_is(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.things()
        unknown = {}
        for what, statement in self.says.refused.items():
            with pytest.raises(sa.exc.DBAPIError) as refused:
                connection.exec_driver_sql(statement.replace("{table}", table.blue))
            if dialect.kind_of(refused.value) is not Kind.VALUE:
                unknown[what] = refused.value.orig
        assert self.says.refused and unknown == {}

    def test_a_connection_that_was_cut_has_ended(self, dialect: Dialect, shared_url: sa.URL) -> None:
        with dialect.connect() as connection:
            if not self.can(Feature.CUT):
                assert dialect.session_id(connection) is None
                return
            cut(shared_url)(connection.connection.driver_connection)
            with pytest.raises(sa.exc.DBAPIError) as lost:
                dialect.run(connection, "SELECT 1")
            assert dialect.kind_of(lost.value) is Kind.LOST
            # What a connection has left where DDL commits by itself may still be waiting to be done.
            assert dialect.is_disconnect(lost.value) or dialect.ddl_commits
