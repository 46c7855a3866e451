"""Connections that are the engine's alone, and the application's while the engine works on them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors import ConnectionRefused, SessionError
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop, ask
from tests.engine.harness.faults import until


def nowhere(url: sa.URL) -> sa.URL:
    """Where no database is; nobody may read the password in an error."""
    if url.get_backend_name() == "sqlite":
        return sa.make_url("sqlite:////no/such/folder/s3cret.db")
    return url.set(host="127.0.0.1", port=1, username="nobody", password="s3cret", query={})  # noqa: S106 - nobody's


class SessionsContract(Contract):
    """See :class:`projection_rebuild.dialects.base.Sessions`."""

    def test_each_statement_commits_unless_it_is_in_a_transaction(
        self, dialect: Dialect, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        insert = f"INSERT INTO {dialect.qualified(table.schema, table.blue)} VALUES ({{}}, 'x')"

        def seen() -> int:
            with application.connect() as reader:
                return len(reader.execute(sa.select(workshop.of(table))).all())

        with dialect.connect() as connection:
            dialect.run(connection, insert.format(1))
            assert seen() == 1
            with dialect.transaction(connection):
                dialect.run(connection, insert.format(2))
                dialect.run(connection, insert.format(3))
                assert seen() == 1
            assert seen() == 3
            with pytest.raises(ZeroDivisionError), dialect.transaction(connection):
                dialect.run(connection, insert.format(4))
                raise ZeroDivisionError
            dialect.run(connection, insert.format(5))
        assert seen() == 4

    def test_ddl_that_fails_is_undone_where_it_can_be(self, dialect: Dialect, schema: str | None) -> None:
        table = dialect.qualified(schema, "half_made")
        with dialect.connect() as connection:
            with pytest.raises(ZeroDivisionError), dialect.ddl_transaction(connection):
                dialect.run(connection, f"CREATE TABLE {table} (id int)")
                raise ZeroDivisionError
            assert dialect.inspector.table_exists(connection, schema, "half_made") == dialect.ddl_commits
            dialect.run(connection, f"DROP TABLE IF EXISTS {table}")

    def test_a_session_is_set_up_again_whatever_was_set_since(self, dialect: Dialect, connection: sa.Connection) -> None:
        usual = ask(connection, self.says.lock_wait)
        dialect.limit_lock_wait(connection, timedelta(milliseconds=400))
        assert ask(connection, self.says.lock_wait) != usual
        dialect.set_up(connection)
        assert ask(connection, self.says.lock_wait) == usual

    def test_a_shell_makes_the_same_settings(self, dialect: Dialect, connection: sa.Connection, application: sa.Engine) -> None:
        statements = dialect.session(connection)
        assert statements
        with application.connect().execution_options(isolation_level="AUTOCOMMIT") as shell:
            for statement in statements:
                dialect.execute(shell, statement).close()
            assert ask(shell, self.says.lock_wait) == ask(connection, self.says.lock_wait)

    def test_the_server_is_known_after_a_moment(self, shared_url: sa.URL) -> None:
        dialect = dialect_for(sa.create_engine(shared_url))
        dialect.reach()
        assert dialect.engine.dialect.server_version_info
        dialect.engine.dispose()

    def test_a_driver_may_be_set_up_before_the_first_question(self, dialect: Dialect, application: sa.Engine) -> None:
        with application.connect() as connection:
            dialect.on_connect(connection.connection.driver_connection)
            assert ask(connection, "SELECT 'ü'") == [("ü",)]

    def test_why_there_is_no_connection_is_said_without_secrets(self, dialect: Dialect, shared_url: sa.URL) -> None:
        engine = sa.create_engine(nowhere(shared_url))
        with pytest.raises(sa.exc.DBAPIError) as failed, engine.connect():
            pass
        why = dialect.why_not_connected(failed.value)
        assert why.reason and why.remedy
        assert not any(secret in f"{why.reason} {why.remedy}" for secret in ("s3cret", "nobody"))

    def test_a_connection_that_cannot_be_had_is_refused_by_its_name(self, shared_url: sa.URL, dialect: Dialect) -> None:
        lost = type(dialect)(sa.create_engine(nowhere(shared_url)), "the shop's database")
        with pytest.raises(ConnectionRefused, match="the shop's database cannot be used: ") as refused, lost.connect():
            pass
        assert "s3cret" not in str(refused.value)

    def test_who_looks_whether_a_session_is_ours_leaves_it_as_it_is(self, dialect: Dialect, application: sa.Engine) -> None:
        with application.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            before = ask(connection, self.says.lock_wait)
            assert dialect.why_not_ours(connection) is None
            assert ask(connection, self.says.lock_wait) == before

    def test_another_connection_takes_the_place_of_one_that_has_ended(self, dialect: Dialect) -> None:
        with dialect.connect() as connection:
            usual, before = ask(connection, self.says.lock_wait), dialect.session_id(connection)
            dialect.renew(connection)
            assert dialect.session_id(connection) == before
            connection.invalidate()
            dialect.renew(connection)
            assert ask(connection, self.says.lock_wait) == usual
            assert before is None or dialect.session_id(connection) != before

    def test_rows_are_read_in_pages(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": number, "word": f"{number}%"} for number in range(10)])
        columns = workshop.of(table).c
        query = sa.select(columns.id, columns.word).where(columns.id.in_([*range(8)])).order_by(columns.id)
        pages = list(dialect.read(connection, query, 3))
        assert [[tuple(found) for found in page] for page in pages] == [
            [(number, f"{number}%") for number in some] for some in ([0, 1, 2], [3, 4, 5], [6, 7])
        ]
        # Whoever has seen enough leaves nothing open.
        reading = dialect.read(connection, query, 3)
        next(reading)
        reading.close()
        assert dialect.inspector.row_count(connection, table.schema, table.blue) == 10

    def test_a_statement_is_cancelled_by_its_session(self, dialect: Dialect, connection: sa.Connection) -> None:
        session = dialect.session_id(connection)
        if not self.can(Feature.CANCEL):
            assert session is None
            dialect.cancel(0)
            return
        assert session is not None
        self._ends(connection, lambda: dialect.cancel(session))

    def test_all_statements_of_ours_are_cancelled(self, dialect: Dialect, connection: sa.Connection) -> None:
        if not self.can(Feature.CANCEL):
            dialect.cancel_all()
            return
        self._ends(connection, dialect.cancel_all)

    def _ends(self, connection: sa.Connection, cancel: Callable[[], object]) -> None:
        """A statement that takes a minute ends long before."""

        def work() -> None:
            with suppress(sa.exc.DBAPIError):
                connection.exec_driver_sql(self.says.slow)

        worker = threading.Thread(target=work)
        worker.start()

        def ended() -> bool:
            cancel()
            worker.join(0.1)
            return not worker.is_alive()

        until(ended, seconds=45)
        # One that came late strikes the next statement.
        with suppress(sa.exc.DBAPIError):
            connection.exec_driver_sql("SELECT 1")

    def test_the_applications_session_is_in_utc_for_a_while(self, dialect: Dialect, shared_url: sa.URL) -> None:
        engine = sa.create_engine(shared_url, poolclass=sa.NullPool, connect_args=dict(self.says.far_away))
        with engine.connect() as connection:
            dialect.check_live(connection)
            if not self.can(Feature.TIME_ZONE):
                with dialect.times_in_utc(connection):
                    assert ask(connection, "SELECT 1") == [(1,)]
                return

            def zone() -> Any:
                return ask(connection, self.says.zone)[0][0]

            here = zone()
            with dialect.times_in_utc(connection):
                assert zone() != here
            assert zone() == here
            with pytest.raises(ZeroDivisionError), dialect.times_in_utc(connection):
                raise ZeroDivisionError
            assert zone() == here

    def test_a_session_that_would_write_other_rows_is_refused(self, dialect: Dialect, shared_url: sa.URL) -> None:
        engine = sa.create_engine(shared_url.set(query={}), poolclass=sa.NullPool, connect_args=dict(self.says.unfit))
        with engine.connect() as connection:
            if not self.can(Feature.UNFIT_SESSIONS):
                dialect.check_live(connection)
                return
            with pytest.raises(SessionError):
                dialect.check_live(connection)

    def test_an_error_within_a_transaction_is_told_where_the_connection_is_gone(self, dialect: Dialect) -> None:
        with pytest.raises(SessionError), dialect.connect() as connection, dialect.transaction(connection):
            connection.invalidate()
            raise SessionError("")
