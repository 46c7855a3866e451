"""Columns and texts as they are stored."""

from __future__ import annotations

import json

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.model.column_kinds import ColumnKind
from tests.engine.conformance.contract.declared import Contract
from tests.engine.conformance.contract.tables import Workshop, ask
from tests.engine.harness.things import thing

ALIKE = ["a", "A", "a ", "á", "b"]
"""Texts that are one to many a collation."""


class ComparingContract(Contract):
    """See :class:`projection_rebuild.dialects.base.Comparing`."""

    def test_columns_differ_and_null_equals_null(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        columns = [sa.Column(name, sa.String(9)) for name in ("one", "two")]
        table = workshop.make(sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), *columns)
        pairs = {1: ("x", "x"), 2: ("x", "y"), 3: (None, None), 4: (None, "x"), 5: ("x", None)}
        workshop.fill(table, [{"id": number, "one": one, "two": two} for number, (one, two) in pairs.items()])
        sides = dialect.quote("one"), dialect.quote("two")

        def ids(condition: str) -> list[int]:
            return [number for (number,) in ask(connection, f"SELECT id FROM {table.blue} WHERE {condition} ORDER BY id")]

        assert ids(dialect.rows.differs(*sides)) == [2, 4, 5]
        assert ids(dialect.rows.same(*sides)) == [1]

    def test_columns_of_unlike_types_are_compared(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.make(sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), sa.Column("word", sa.String(9)))
        workshop.fill(table, [{"id": 1, "word": "1"}, {"id": 2, "word": "1"}])
        same = dialect.rows.same(dialect.quote("id"), dialect.quote("word"))
        assert ask(connection, f"SELECT id FROM {table.blue} WHERE {same}") == [(1,)]

    def test_no_two_texts_have_the_same_bytes(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": number, "word": word} for number, word in enumerate(ALIKE)])
        exact = dialect.rows.exact_bytes(dialect.quote("word"), ColumnKind.TEXT)
        read = [value for (value,) in ask(connection, f"SELECT {exact} FROM {table.blue} ORDER BY id")]
        assert [value.encode() if isinstance(value, str) else bytes(value) for value in read] == [word.encode() for word in ALIKE]
        assert ask(connection, f"SELECT count(DISTINCT {exact}) FROM {table.blue}") == [(len(ALIKE),)]

    def test_the_driver_makes_nothing_of_what_is_stored(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table, row = workshop.things(), thing(1)
        workshop.fill(table, [{"id": 1, "more": {"b": 1.10}, "at": row.at}])
        stored = [
            dialect.rows.as_stored(dialect.quote(name), kind)
            for name, kind in (("more", ColumnKind.JSON), ("at", ColumnKind.TIME))
        ]
        ((more, at),) = ask(connection, f"SELECT {', '.join(stored)} FROM {table.blue}")
        assert isinstance(more, str | bytes) and json.loads(more) == {"b": 1.10}
        assert isinstance(at, str | bytes)
        assert (at if isinstance(at, str) else at.decode()).startswith("2026-01-01 00:00:01")

    def test_a_temporary_table_takes_values_and_nobody_else_sees_it(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table, name = workshop.words(), 'Held "%s"'
        seen = sa.inspect(application).get_table_names()
        for statement in dialect.rows.make_temporary(connection, table.schema, table.blue, ["word", "id"], name):
            dialect.run(connection, statement)
        made = dialect.rows.temporary(table.schema, name)
        assert dialect.quote(name) in made
        # The columns may repeat, and may be NULL; the number finds a row.
        for number in (1, 2):
            dialect.run(connection, f"INSERT INTO {made} (projection_rebuild_row, word, id) VALUES ({number}, 'x', NULL)")
        assert ask(connection, f"SELECT projection_rebuild_row, word, id FROM {made} ORDER BY 1") == [
            (1, "x", None),
            (2, "x", None),
        ]
        assert sa.inspect(application).get_table_names() == seen
        for _ in range(2):
            dialect.run(connection, dialect.rows.drop_temporary(table.schema, name))
        for statement in dialect.rows.make_temporary(connection, table.schema, table.blue, ["word"], name):
            dialect.run(connection, statement)
        assert ask(connection, f"SELECT count(*) FROM {made}") == [(0,)]
        dialect.run(connection, dialect.rows.drop_temporary(table.schema, name))

    def test_a_plain_field_is_the_last_of_its_name(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("text", sa.Text),
            sa.Column("raw", sa.LargeBinary),
        )
        bodies = ['{"it\'s 5%": "first", "it\'s 5%": "läst"}', '{"it\'s 5%": 7}', "{}"]
        workshop.fill(table, [{"id": number, "text": body, "raw": body.encode()} for number, body in enumerate(bodies)])
        for column, kind in (("text", ColumnKind.TEXT), ("raw", ColumnKind.BYTES)):
            field = dialect.rows.plain_field(dialect.quote(column), kind, "it's 5%")
            assert ask(connection, f"SELECT {field} FROM {table.blue} ORDER BY id") == [("läst",), ("7",), (None,)], column
