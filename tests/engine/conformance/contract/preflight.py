"""What may be in the way of a rebuild."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect, RunTables
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop

OURS = ["projection_rebuild_runs"]
"""A table of the ledger, which is not there yet."""


class PreflightProbeContract(Contract):
    """See :class:`projection_rebuild.dialects.base.PreflightProbe`."""

    def test_a_server_that_is_too_old_is_refused(
        self, dialect: Dialect, connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert dialect.probe.too_old(connection) == []
        monkeypatch.setattr(connection.dialect, "server_version_info", (0, 9))
        (finding,) = dialect.probe.too_old(connection)
        assert finding.refuses and "version 0.9" in finding.problem and finding.remedy

    def test_nothing_is_in_the_way_of_a_plain_table(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.words()
        found = dialect.probe.preflight(connection, RunTables(table.schema, [table], OURS))
        assert [str(each) for each in found if each.refuses] == []
        assert all(each.problem for each in found)

    def test_a_table_without_a_primary_key_is_told(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.make(sa.Column("id", sa.Integer, nullable=False), sa.UniqueConstraint("id"))
        found = dialect.probe.preflight(connection, RunTables(table.schema, [table], OURS))
        (finding,) = [each for each in found if each.about == table.blue]
        assert "no primary key" in finding.problem and finding.remedy and not finding.refuses

    def test_nothing_is_in_the_way_of_a_plain_event_store(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        store = workshop.events()
        found = dialect.probe.preflight_events(connection, store.schema, store.blue, ["id", "type"])
        assert [str(each) for each in found if each.refuses] == []

    def test_how_much_room_is_left(self, dialect: Dialect, connection: sa.Connection) -> None:
        left = dialect.probe.free_bytes(connection)
        assert (left or 0) > 1_000 if self.can(Feature.FREE_BYTES) else left is None
