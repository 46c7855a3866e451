"""What a table is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.model.column_kinds import ColumnKind
from projection_rebuild.rows.shapes import Holds
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop
from tests.engine.harness.databases import execute
from tests.engine.harness.things import Thing, thing

Told = tuple[str | None, str | None]


def now_of(dialect: Dialect, connection: sa.Connection, schema: str | None, name: str) -> Told:
    """The identity of a table, as it is told alone and among others."""
    return dialect.inspector.identity(connection, schema, name), dialect.inspector.identities(connection, schema, [name])[name]


class InspectorContract(Contract):
    """See :class:`projection_rebuild.dialects.base.Inspector`."""

    def test_a_table_is_told_from_a_view_and_from_nothing(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        view = f"view_of_{table.blue}"
        execute(application, f"CREATE VIEW {view} AS SELECT id FROM {table.blue}")
        found = {
            name: (
                dialect.inspector.table_exists(connection, table.schema, name),
                dialect.inspector.relation_kind(connection, table.schema, name),
            )
            for name in (table.blue, view, "not_there")
        }
        assert found == {table.blue: (True, "table"), view: (False, "view"), "not_there": (False, None)}
        execute(application, f"DROP VIEW {view}")

    def test_a_table_without_a_schema_is_in_the_one_that_a_spec_means(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.words()
        schema = dialect.inspector.default_schema(connection)
        assert dialect.inspector.table_exists(connection, schema, table.blue)
        assert dialect.inspector.columns(connection, schema, table.blue) == ["id", "word"]
        assert dialect.inspector.has_schemas or schema is None

    def test_columns_are_told_with_their_types(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        names = [*Thing.__annotations__]
        assert dialect.inspector.columns(connection, table.schema, table.blue) == names
        types = dialect.inspector.column_types(connection, table.schema, table.blue)
        assert set(types) == set(names)
        kinds = {name: types[name].kind for name in ("id", "words", "price", "at", "day", "ratio", "more", "raw")}
        assert kinds == {
            "id": ColumnKind.WHOLE,
            "words": ColumnKind.TEXT,
            "price": ColumnKind.NUMBER,
            "at": ColumnKind.TIME,
            "day": ColumnKind.TIME,
            "ratio": ColumnKind.NUMBER,
            "more": self.says.json,
            "raw": ColumnKind.BYTES,
        }
        assert [name for name in names if not types[name].nullable] == ["id"]
        assert dialect.inspector.column_types(connection, table.schema, "not_there") == {}

    def test_what_columns_can_hold(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        shapes = dialect.inspector.shapes(connection, table.schema, table.blue)
        assert set(shapes) == {*Thing.__annotations__}
        assert [name for name in Thing.__annotations__ if not shapes[name].nullable] == ["id"]
        if dialect.inspector.fixes_types:
            price, words, at = shapes["price"], shapes["words"], shapes["at"]
            assert (price.holds, price.precision, price.scale) == (Holds.DECIMAL, 12, 3)
            assert (words.holds, words.length) == (Holds.TEXT, 100)
            assert (at.holds, at.digits) == (Holds.MOMENT, 6)
        else:
            assert shapes["words"].holds is Holds.KEPT_TEXT
        assert dialect.inspector.shapes(connection, table.schema, "not_there") == {}

    def test_what_values_are_is_asked_where_a_type_does_not_say_it(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": 1, "word": "one"}, {"id": 2, "word": None}])
        found = dialect.inspector.value_kinds(connection, table.blue, "word")
        assert found == (None if dialect.inspector.fixes_types else {ColumnKind.TEXT})

    def test_an_outline_is_another_one_once_columns_have_changed(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()

        def outline() -> Any:
            return dialect.inspector.outline(connection, table.schema, table.blue)

        before = outline()
        # Often enough that a driver prepares its statements.
        assert [outline() for _ in range(8)] == [before] * 8
        execute(application, f"ALTER TABLE {table.blue} ADD COLUMN more int")
        assert outline() != before

    def test_unique_keys_are_whole_ones(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("a", sa.Integer, unique=True),
            sa.Column("b", sa.Integer, index=True),
            sa.Column("c", sa.Integer),
            sa.UniqueConstraint("b", "c"),
        )

        def keys(**among: bool) -> list[list[str]]:
            return sorted(map(sorted, dialect.inspector.unique_keys(connection, table.schema, table.blue, **among)))

        whole = [["a"], ["b", "c"], ["id"]]
        found = {str(each) for each in keys()}
        assert found == {str(each) for each in whole}
        if self.can(Feature.PARTIAL_INDEX):
            execute(application, f"CREATE UNIQUE INDEX some_of_{table.blue} ON {table.blue} (c) WHERE b > 0")
            assert {str(each) for each in keys()} == found
            whole.append(["c"])
        assert {str(each) for each in keys(among_some=True)} == {str(each) for each in whole}

    def test_rows_are_counted(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.words()
        assert not dialect.inspector.has_rows(connection, table.schema, table.blue)
        assert dialect.inspector.row_count(connection, table.schema, table.blue) == 0
        workshop.fill(table, [{"id": number} for number in range(3)])
        assert dialect.inspector.has_rows(connection, table.schema, table.blue)
        assert dialect.inspector.row_count(connection, table.schema, table.blue) == 3

    def test_how_large_a_table_is_about(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": number, "word": "w" * 40} for number in range(2_000)])
        # A run looks at green tables, right after their statistics were made.
        of_green = type(table)(table.schema, table.blue, table.blue, table.old)
        for statement in dialect.shadow.analyze(connection, of_green):
            dialect.run(connection, statement)
        rows = dialect.inspector.row_estimate(connection, table.schema, table.blue)
        assert 1_000 <= rows <= 4_000
        assert dialect.inspector.table_bytes(connection, table.schema, table.blue) >= 2_000 * 40
        table_size = dialect.inspector.table_size(connection, table.schema, table.blue)
        assert table_size is not None and 1_000 <= table_size.rows <= 4_000 and table_size.size >= 2_000 * 40
        assert dialect.inspector.table_size(connection, table.schema, "not_there") is None

    def test_a_table_keeps_its_identity_and_a_new_one_of_its_name_has_another(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table, other = workshop.words(), workshop.words()
        others = now_of(dialect, connection, table.schema, other.blue)

        def now(name: str) -> Told:
            return now_of(dialect, connection, table.schema, name)

        first = now(table.blue)
        assert None not in first and not {*first} & {*others}
        execute(application, f"ALTER TABLE {table.blue} RENAME TO {table.old}", workshop.statement(table))
        assert now(table.old) == first
        made_anew = now(table.blue)
        assert None not in made_anew and not {*first} & {*made_anew}
        assert now("not_there") == (None, None)
        names = [table.blue, "not_there", other.blue]
        told = {name: now(name)[1] for name in names}
        assert dialect.inspector.identities(connection, table.schema, names) == told
        assert dialect.inspector.identities(connection, table.schema, []) == {}

    def test_rows_do_not_change_a_tables_identity(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        before = dialect.inspector.identities(connection, table.schema, [table.blue])
        workshop.fill(table, [{"id": thing(1).id, "words": thing(1).words}])
        assert dialect.inspector.identities(connection, table.schema, [table.blue]) == before
