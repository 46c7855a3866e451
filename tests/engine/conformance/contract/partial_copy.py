"""Copies of some rows."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.dialects.base import Dialect, KeyList
from projection_rebuild.model.names import TableSet
from tests.engine.conformance.contract.declared import Contract
from tests.engine.conformance.contract.tables import Workshop, ask

EXACT = sa.String(200).with_variant(mysql.VARCHAR(200, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


class Identifier(sa.TypeDecorator[UUID]):
    """A UUID in a column of its own type where there is one, and else its text."""

    impl = sa.String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return dialect.type_descriptor(sa.Uuid() if dialect.name in ("postgresql", "mariadb") else sa.String(36))

    def process_bind_param(self, value: UUID | None, dialect: sa.Dialect) -> Any:
        return value if dialect.name in ("postgresql", "mariadb") else str(value)


KEYS: dict[str, tuple[Any, list[Any]]] = {
    "str": (EXACT, ["a", "A", "ü%", "a'b"]),
    "int": (sa.BigInteger(), [1, -2, 30_000_000_000, 4]),
    "date": (sa.Date(), [date(2026, 1, number) for number in (1, 2, 30, 31)]),
    "UUID": (Identifier(), [UUID(int=number) for number in (1, 2, 3, 4)]),
}
"""By the type that Python has for a key, the column's type and four values."""


class PartialCopyContract(Contract):
    """See :class:`projection_rebuild.dialects.base.PartialCopy`."""

    def _filled(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop, of: str
    ) -> tuple[TableSet, list[str], KeyList]:
        """Four rows of four keys on blue, an empty green, and two of the keys listed."""
        column, values = KEYS[of]
        table = workshop.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("part", column),
            # Worked out by the database, which takes no value for it.
            sa.Column("twice", sa.Integer, sa.Computed("id * 2", persisted=True)),
        )
        workshop.fill(table, [{"id": number, "part": value} for number, value in enumerate(values)])
        for statement in dialect.shadow.create_green(connection, table):
            dialect.run(connection, statement)
        keys = workshop.make(sa.Column("part_id", EXACT, primary_key=True), sa.Column("part_key", EXACT, primary_key=True))
        workshop.fill(keys, [{"part_id": "mine", "part_key": str(value)} for value in values[:2]])
        workshop.fill(keys, [{"part_id": "other", "part_key": str(value)} for value in values[2:]])
        return table, [str(value) for value in values], KeyList(keys.schema, keys.blue, "mine")

    @pytest.mark.parametrize("of", KEYS)
    def test_rows_of_other_keys_are_copied_and_those_listed_deleted(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop, of: str
    ) -> None:
        table, values, listed = self._filled(dialect, connection, workshop, of)
        green = dialect.qualified(table.schema, table.green)
        with dialect.transaction(connection):
            dialect.partial_copy.copy_others(connection, table, "part", listed)
        assert ask(connection, f"SELECT id, twice FROM {green} ORDER BY id") == [(2, 4), (3, 6)]
        assert dialect.partial_copy.distinct(connection, table.schema, table.green, "part") == {*values[2:]}
        with dialect.transaction(connection):
            dialect.partial_copy.delete_listed(connection, table, "part", KeyList(listed.schema, listed.table, "other"))
        assert ask(connection, f"SELECT id FROM {green}") == []
        assert dialect.inspector.row_count(connection, table.schema, table.blue) == 4

    @pytest.mark.parametrize("of", KEYS)
    def test_a_column_is_the_text_that_python_makes_of_it(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop, of: str
    ) -> None:
        table, values, _ = self._filled(dialect, connection, workshop, of)
        text = dialect.partial_copy.as_text(dialect.quote("part"))
        assert ask(connection, f"SELECT {text} FROM {table.blue} ORDER BY id") == [(value,) for value in values]
        assert dialect.partial_copy.distinct(connection, table.schema, table.blue, "part") == {*values}
