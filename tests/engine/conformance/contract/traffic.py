"""Who uses the database now."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop
from tests.engine.harness.faults import until


class TrafficProbeContract(Contract):
    """See :class:`projection_rebuild.dialects.base.TrafficProbe`."""

    def test_sessions_of_others_at_work_are_counted(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine
    ) -> None:
        if not self.can(Feature.COUNT_SESSIONS):
            assert dialect.traffic.active_sessions(connection) is None
            return
        # None is left of the cases before this one.
        until(lambda: dialect.traffic.active_sessions(connection) == 0, seconds=60)
        with application.connect() as client:
            session = dialect.session_id(client)
            assert session is not None

            def work() -> None:
                with suppress(sa.exc.DBAPIError):
                    client.exec_driver_sql(self.says.slow)

            worker = threading.Thread(target=work)
            worker.start()
            until(lambda: dialect.traffic.active_sessions(connection) == 1, seconds=45)
            dialect.cancel(session)
            worker.join()
            client.invalidate()

    def test_reads_of_a_table_are_counted(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": number} for number in range(10)])
        if not self.can(Feature.COUNT_READS):
            assert dialect.traffic.table_reads(connection, [table]) is None
            return
        before = dialect.traffic.table_reads(connection, [table]) or 0
        with application.connect() as reader:
            reader.execute(sa.select(workshop.of(table))).all()
        # Some servers count a while later.
        until(lambda: (dialect.traffic.table_reads(connection, [table]) or 0) > before, seconds=60)

    def test_a_transaction_that_has_touched_a_table_grows_old(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        if not self.can(Feature.TRANSACTION_AGE):
            assert dialect.traffic.transaction_age(connection, [table]) is None
            return

        def age() -> float | None:
            # InnoDB tells what it has told within the last tenth of a second once more.
            time.sleep(0.2)
            return dialect.traffic.transaction_age(connection, [table])

        until(lambda: age() == 0, seconds=60)
        with application.connect() as writer:
            writer.execute(workshop.of(table).insert().values(id=1))
            until(lambda: 0 < (age() or 0) < 3_600, seconds=60)
            writer.rollback()
        until(lambda: age() == 0, seconds=60)

    def test_a_server_without_replicas_has_none_behind(self, dialect: Dialect, connection: sa.Connection) -> None:
        assert dialect.traffic.replica_lag(connection) == (0 if self.can(Feature.REPLICA_LAG) else None)
