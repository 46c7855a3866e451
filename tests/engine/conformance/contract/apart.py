"""Tables where nobody else looks."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.model.names import TargetSchema
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop


def place() -> str:
    """A name that no other run of the tests has on the same server."""
    return f"conformance_{uuid4().hex[:12]}"


class TablesApartContract(Contract):
    """See :class:`projection_rebuild.dialects.base.TablesApart`."""

    def test_a_new_structure_is_tried_and_green_gets_it(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.words()
        made = f"CREATE TABLE {table.blue} (id int NOT NULL PRIMARY KEY, word varchar(40), added int)"
        with dialect.trials.try_schema(connection, [table], [made], {}) as trial:
            assert (set(trial.definitions), trial.unchanged, trial.refusals) == ({table.blue}, set(), [])
            assert dialect.inspector.columns(trial.connection, trial.schema, table.blue) == ["id", "word", "added"]
            formed = replace(table, target_schema=TargetSchema(trial.definitions[table.blue]))
        assert dialect.inspector.columns(connection, table.schema, table.blue) == ["id", "word"]
        for statement in dialect.shadow.create_green(connection, formed):
            dialect.run(connection, statement)
        assert dialect.inspector.columns(connection, table.schema, table.green) == ["id", "word", "added"]

    def test_a_structure_that_a_table_has_is_no_new_one(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), sa.Column("word", sa.String(40))
        )
        with dialect.trials.try_schema(connection, [table], [workshop.statement(table)], {}) as trial:
            assert trial.unchanged == {table.blue}

    def test_a_place_apart_is_empty_and_goes_with_its_tables(
        self, dialect: Dialect, connection: sa.Connection, schema: str | None
    ) -> None:
        name = place()
        for _ in range(2):
            with dialect.trials.scratch(name) as scratch:
                with scratch.dialect.connect() as there:
                    there.detach()
                    scratch.dialect.trials.enter(there, scratch)
                    assert not scratch.dialect.inspector.table_exists(there, scratch.schema, "held")
                    scratch.dialect.execute(there, "CREATE TABLE held (id int)")
                    assert scratch.dialect.inspector.table_exists(there, scratch.schema, "held")
                assert not dialect.inspector.table_exists(connection, schema, "held")

    def test_a_place_apart_gets_tables_like_live_ones(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        _, child = workshop.pair()
        counted = workshop.events()
        with dialect.trials.scratch(place()) as scratch, scratch.dialect.connect() as there:
            for table in (child, counted):
                for statement in dialect.trials.apart(connection, table, scratch):
                    scratch.dialect.run(there, statement)
                made = scratch.schema, table.blue
                assert scratch.dialect.inspector.columns(there, *made) == dialect.inspector.columns(
                    connection, table.schema, table.blue
                )
                assert {"id"} in scratch.dialect.inspector.unique_keys(there, *made)
                assert not scratch.dialect.inspector.has_rows(there, *made)
            insert = f"INSERT INTO {scratch.dialect.qualified(scratch.schema, child.blue)} VALUES (1, 99)"
            scratch.dialect.run(there, insert)

    def test_sql_in_a_place_apart_finds_events(self, dialect: Dialect, schema: str | None, workshop: Workshop) -> None:
        store = workshop.events()
        workshop.fill(store, [{"type": "OrderPlaced"}] * 3)
        with dialect.trials.scratch(place()) as scratch:
            dialect.trials.bring(scratch, store.blue, "id", 2)
            with scratch.dialect.connect() as there:
                beside = self.can(Feature.LIVE_SCHEMA_BESIDE)
                assert scratch.dialect.inspector.row_count(there, schema, store.blue) == (3 if beside else 2)
