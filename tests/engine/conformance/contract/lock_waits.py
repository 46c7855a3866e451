"""What a statement takes of the server, and for how long it waits for a lock."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors import SessionError
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop, ask

SHORT = timedelta(milliseconds=500)


class LockWaitsContract(Contract):
    """See :class:`projection_rebuild.dialects.base.LockWaits`."""

    def test_a_short_wait_for_locks_ends_with_what_it_is_for(self, dialect: Dialect, connection: sa.Connection) -> None:
        """A drop waits for half a second; the ledger's transaction after it as long as any."""
        usual = ask(connection, self.says.lock_wait)
        with suppress(SessionError), dialect.short_lock_wait(connection, SHORT):
            assert ask(connection, self.says.lock_wait) != usual
            raise SessionError("")
        assert ask(connection, self.says.lock_wait) == usual

    def test_a_short_wait_for_locks_hides_no_error_where_the_connection_is_gone(self, dialect: Dialect) -> None:
        with (
            pytest.raises(SessionError),
            dialect.connect() as connection,
            dialect.transaction(connection),
            dialect.short_lock_wait(connection, SHORT),
        ):
            connection.invalidate()
            raise SessionError("")

    def test_a_limit_lasts_until_it_is_taken_back(self, dialect: Dialect, connection: sa.Connection) -> None:
        usual = ask(connection, self.says.lock_wait)
        dialect.limit_lock_wait(connection, SHORT)
        dialect.run(connection, "SELECT 1")
        assert ask(connection, self.says.lock_wait) != usual
        dialect.usual_lock_wait(connection)
        assert ask(connection, self.says.lock_wait) == usual

    def test_memory_may_be_allowed_to_a_transaction(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": number, "word": f"{9 - number}"} for number in range(10)])
        allowed = ask(connection, self.says.memory) if self.can(Feature.MEMORY) else None
        with dialect.transaction(connection):
            dialect.allow_memory(connection, 16)
            if self.can(Feature.MEMORY):
                assert ask(connection, self.says.memory) != allowed
            sort = f"SELECT word FROM {dialect.qualified(table.schema, table.blue)} ORDER BY word"
            assert [word for (word,) in ask(connection, sort)] == [str(number) for number in range(10)]
        assert allowed is None or ask(connection, self.says.memory) == allowed
