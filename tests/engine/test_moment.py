"""The moment at which a switch takes its tables on MySQL and MariaDB: no client is the victim of a deadlock with it."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import HeldTables, LockOrder, LockPolicy, TablesBusy
from projection_rebuild.rebuild import Rebuild
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild


def _verified(url: sa.URL) -> tuple[sa.Engine, Rebuild]:
    """A database whose run could switch."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    shop.fill(engine, events(100))
    run_to(rebuild(engine, "fill"), "drop")
    made = rebuild(engine)
    run_to(made, "verify")
    return engine, made


def _at_work(engine: sa.Engine, statement: str) -> bool:
    with engine.connect() as connection:
        return any(row[7] == statement for row in connection.exec_driver_sql("SHOW FULL PROCESSLIST"))


class _Client(threading.Thread):
    """Keeps what it failed with."""

    failure: Exception | None = None

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self.failure = error


def _held(made: Rebuild, connection: sa.Connection, **policy: Any) -> AbstractContextManager[HeldTables]:
    context = made._context
    tables = context.switched_sets(context.plan_of(context.ledger.over(connection, "run").runs.get()))
    chosen = LockPolicy(timeout=timedelta(seconds=5), **policy)
    return context.dialect.cutover.lock_tables(connection, tables, chosen, context.ledger.tables)


@pytest.mark.mysql
@pytest.mark.parametrize("nowait", [True, False])
def test_who_comes_between_look_and_lock_is_not_waited_for(mysql_url: sa.URL, nowait: bool) -> None:
    """He has read a table, and would be the victim of a deadlock if he wrote to it while somebody waits for it."""
    engine, made = _verified(mysql_url)
    dialect = made._context.dialect
    came: list[threading.Thread] = []

    def writes(client: sa.Connection) -> None:
        # Whoever waits for the table now makes a circle of it.
        time.sleep(0.1)
        client.exec_driver_sql("UPDATE orders SET status = status")
        client.rollback()

    def comes(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if "metadata_locks" in statement and not came:
            client = engine.connect()
            client.exec_driver_sql("SELECT count(*) FROM orders")
            came.append(_Client(target=writes, args=[client]))
            came[0].start()

    with dialect.connect() as connection:
        sa.event.listen(dialect.engine, "after_cursor_execute", comes)
        unfenced: dict[str, Any] = {"longest": timedelta(seconds=20), "lock_order": LockOrder.TABLES_ONLY}
        with suppress(TablesBusy), _held(made, connection, nowait=nowait, **unfenced):
            pass
        sa.event.remove(dialect.engine, "after_cursor_execute", comes)
    came[0].join()
    assert came[0].failure is None
    engine.dispose()


@pytest.mark.mysql
def test_only_single_statements_are_waited_for_in_the_queue(mysql_url: sa.URL) -> None:
    engine, made = _verified(mysql_url)
    slow = "SELECT SLEEP(1) FROM orders LIMIT 1"
    alone = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    reader = threading.Thread(target=lambda: alone.exec_driver_sql(slow))
    with alone, engine.connect() as client, made._context.dialect.connect() as connection:
        client.exec_driver_sql("SELECT count(*) FROM orders")
        with pytest.raises(TablesBusy), _held(made, connection, nowait=False):
            pass
        client.rollback()
        reader.start()
        until(lambda: _at_work(engine, slow))
        with pytest.raises(TablesBusy), _held(made, connection, longest=timedelta(0), lock_order=LockOrder.TABLES_ONLY):
            pass
        began: list[bool] = []
        with _held(made, connection, nowait=False, begins=lambda: began.append(reader.is_alive())):
            reader.join()
        # The clock runs while others may wait behind the reader.
        assert began == [True]
    engine.dispose()


@pytest.mark.mariadb
def test_mariadb_waits_in_the_queue_for_no_transaction(mariadb_url: sa.URL) -> None:
    engine, made = _verified(mariadb_url)
    dialect = made._context.dialect
    slow = "SELECT SLEEP(1) FROM orders LIMIT 1"
    alone = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    reader = threading.Thread(target=lambda: alone.exec_driver_sql(slow))
    with alone, engine.connect() as client, dialect.connect() as connection:
        tables = made._context.switched_sets(made._context.plan_of(made._context.ledger.over(connection, "run").runs.get()))
        statements = dialect.swap_statements(connection, tables).statements
        policy = LockPolicy(timedelta(seconds=5), nowait=False)
        client.exec_driver_sql("SELECT count(*) FROM orders")
        with dialect.cutover.lock_tables(connection, tables, policy, []) as held:
            with pytest.raises(TablesBusy):
                held.run_swap(statements, policy)
            client.rollback()
            reader.start()
            until(lambda: _at_work(engine, slow))
            held.run_swap(statements, policy)
        reader.join()
    engine.dispose()
