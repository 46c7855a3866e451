"""Green tables."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.model.names import TableSet
from tests.engine.conformance.contract.declared import Contract
from tests.engine.conformance.contract.tables import Workshop
from tests.engine.harness.databases import execute


def run(dialect: Dialect, connection: sa.Connection, statements: Sequence[str]) -> int:
    """Executes statements as a step does.

    :returns: how many they were
    """
    for statement in statements:
        dialect.run(connection, statement)
    return len(statements)


class ShadowTablesContract(Contract):
    """See :class:`projection_rebuild.dialects.base.ShadowTables`."""

    def test_green_is_like_blue_and_empty(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        workshop.fill(table, [{"id": 1}])
        assert run(dialect, connection, dialect.shadow.create_green(connection, table))
        blue, green = (dialect.inspector.column_types(connection, table.schema, name) for name in (table.blue, table.green))
        assert blue == green and [*dialect.inspector.columns(connection, table.schema, table.green)] == [
            *workshop.of(table).c.keys()
        ]
        assert {"id"} in dialect.inspector.unique_keys(connection, table.schema, table.green)
        assert not dialect.inspector.has_rows(connection, table.schema, table.green)
        assert dialect.inspector.row_count(connection, table.schema, table.blue) == 1

    def test_a_green_name_may_be_long_and_awkward(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, schema: str | None
    ) -> None:
        table = TableSet.of('Long "T%s ü`x' + "l" * 40, schema=schema, limit=dialect.max_identifier)
        live = sa.Table(table.blue, sa.MetaData(), sa.Column("50%", sa.Integer, primary_key=True), mysql_engine="InnoDB")
        live.create(application)
        run(dialect, connection, dialect.shadow.create_green(connection, table))
        assert dialect.inspector.columns(connection, schema, table.green) == ["50%"]
        run(dialect, connection, dialect.shadow.drop_table(connection, table, table.green))
        assert not dialect.inspector.table_exists(connection, schema, table.green)
        live.drop(application)

    def test_green_gets_the_indexes_of_blue_once(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        execute(application, f"CREATE UNIQUE INDEX uq_{table.blue} ON {table.blue} (word, id)")

        def indexes(name: str) -> list[tuple[bool, list[str | None]]]:
            return sorted((bool(each["unique"]), each["column_names"]) for each in sa.inspect(application).get_indexes(name))

        run(dialect, connection, dialect.shadow.create_green(connection, table))
        assert run(dialect, connection, dialect.shadow.index_green(connection, table))
        assert indexes(table.green) == indexes(table.blue) == [(False, ["word"]), (True, ["word", "id"])]
        assert dialect.shadow.index_green(connection, table) == []
        # Blue is the application's, which changes it when it likes.
        gone = f"DROP INDEX ix_{table.blue}_word" + (f" ON {table.blue}" if dialect.ddl_commits else "")
        execute(application, f"CREATE INDEX more_{table.blue} ON {table.blue} (id, word)", gone)
        run(dialect, connection, dialect.shadow.index_green(connection, table))
        assert indexes(table.green) == indexes(table.blue) == [(False, ["id", "word"]), (True, ["word", "id"])]
        assert dialect.shadow.index_green(connection, table) == []

    def test_green_gets_the_foreign_keys_among_greens_once(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        pair = workshop.pair()
        parent, child = pair
        for table in pair:
            run(dialect, connection, dialect.shadow.create_green(connection, table))
            run(dialect, connection, dialect.shadow.index_green(connection, table))
        for table in pair:
            run(dialect, connection, dialect.shadow.constrain_green(connection, table, pair))
        assert dialect.dependents.parents(connection, child.schema, child.green) == {parent.green}
        assert [dialect.shadow.constrain_green(connection, table, pair) for table in pair] == [[], []]

    def test_rows_without_a_parent_are_told(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        parent, child = workshop.pair()
        workshop.fill(parent, [{"id": 1}])
        run(dialect, connection, dialect.shadow.create_green(connection, child))
        insert = f"INSERT INTO {dialect.qualified(child.schema, child.green)} VALUES ({{}})"
        dialect.run(connection, insert.format("1, 1"))
        dialect.run(connection, insert.format("2, NULL"))
        assert dialect.shadow.orphans(connection, child, [child]) == []
        dialect.run(connection, insert.format("3, 7"))
        (orphans,) = dialect.shadow.orphans(connection, child, [child])
        assert parent.blue in orphans

    def test_green_gets_statistics_as_blue_has_them(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        execute(application, f"ANALYZE {'TABLE ' if dialect.ddl_commits else ''}{table.blue}")
        run(dialect, connection, dialect.shadow.create_green(connection, table))
        # They may be made again.
        for _ in range(2):
            assert run(dialect, connection, dialect.shadow.analyze(connection, table))

    def test_a_table_is_dropped_with_nothing_of_anybody_else(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": 1}])
        run(dialect, connection, dialect.shadow.create_green(connection, table))
        run(dialect, connection, dialect.shadow.index_green(connection, table))
        assert run(dialect, connection, dialect.shadow.drop_table(connection, table, table.green))
        assert not dialect.inspector.table_exists(connection, table.schema, table.green)
        assert dialect.inspector.row_count(connection, table.schema, table.blue) == 1
        assert len(workshop.of(table).indexes) == 1
