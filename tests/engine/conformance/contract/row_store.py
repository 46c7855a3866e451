"""Rows, written and found by their keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.model.names import TableSet
from projection_rebuild.rows import bulk
from projection_rebuild.rows.types import row_type
from tests.engine.conformance.contract.declared import Contract, Feature
from tests.engine.conformance.contract.tables import Workshop, ask
from tests.engine.harness.databases import execute
from tests.engine.harness.things import Thing, thing

KIND = row_type(Thing)


def load(dialect: Dialect, connection: sa.Connection, table: TableSet, rows: Iterable[Thing]) -> None:
    """Writes rows as a replay does."""
    with dialect.transaction(connection):
        dialect.rows.load_rows(connection, table.schema, table.blue, KIND, [KIND.values(each) for each in rows])


def found(dialect: Dialect, connection: sa.Connection, table: TableSet, keys: Iterable[int]) -> list[Thing]:
    """The rows of these keys, in the order of their keys."""
    rows = dialect.rows.select_rows(connection, table.schema, table.blue, KIND, [(key,) for key in keys])
    return sorted((Thing(*values) for values in rows), key=lambda each: each.id)


class RowStoreContract(Contract):
    """See :class:`projection_rebuild.dialects.base.RowStore`."""

    @pytest.mark.parametrize("raw", [None, b"\x00\xff\\\t"], ids=["by text", "by the driver"])
    def test_what_is_written_in_bulk_is_read_again(
        self,
        dialect: Dialect,
        connection: sa.Connection,
        workshop: Workshop,
        raw: bytes | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(bulk, "ROWS_AT_ONCE", 250)
        table, rows = workshop.things(), [thing(number, raw) for number in range(600)]
        load(dialect, connection, table, rows)
        assert found(dialect, connection, table, range(600)) == rows

    @pytest.mark.parametrize("many", [3, 300])
    def test_few_rows_and_many_are_written_alike(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop, many: int
    ) -> None:
        """By COPY or a file, and by the driver: times with an offset, and bits."""
        table = workshop.things()
        column, number_of = self.says.bits
        if column:
            execute(application, f"ALTER TABLE {table.blue} MODIFY good {column}")
        rows = [thing(number) for number in range(1, many)]
        wanted = [replace(each) for each in rows]
        for each, right in zip(rows, wanted, strict=True):
            if each.at:
                each.at = (each.at + timedelta(hours=2)).replace(tzinfo=timezone(timedelta(hours=2)))
                right.at = right.at if self.can(Feature.NO_OFFSETS) else each.at
        load(dialect, connection, table, rows)
        moments = [each.at for each in found(dialect, connection, table, range(1, many))]
        assert moments == [each.at for each in wanted]
        assert [moment.tzinfo for moment in moments if moment] == [each.at.tzinfo for each in wanted if each.at]
        numbers = ask(connection, f"SELECT {number_of} FROM {table.blue} ORDER BY id")
        assert numbers == [(None if each.good is None else int(each.good),) for each in wanted]

    def test_a_key_that_is_there_is_an_error_and_nothing_is_inserted(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.things()
        for insert in (dialect.rows.insert_rows, dialect.rows.load_rows):
            with dialect.transaction(connection):
                dialect.rows.delete_rows(connection, table.schema, table.blue, KIND, [(1,)])
                dialect.rows.insert_rows(connection, table.schema, table.blue, KIND, [KIND.values(thing(1))])
            some = [KIND.values(thing(number)) for number in (2, 1, 3)]
            with pytest.raises(Exception) as refused, dialect.transaction(connection):
                insert(connection, table.schema, table.blue, KIND, some)
            assert dialect.kind_of(refused.value) is Kind.VALUE
            assert found(dialect, connection, table, range(4)) == [thing(1)]

    def test_values_are_given_to_columns_of_any_type(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.things()
        row = thing(6)
        names = ", ".join(map(dialect.quote, KIND.columns))
        insert = f"INSERT INTO {table.blue} ({names}) VALUES ({', '.join([dialect.mark] * len(KIND.columns))})"
        # A number for whole numbers stands where a text does, too.
        values = [dialect.rows.given(value) for value in KIND.values(replace(row, words="x"))]
        values[1] = dialect.rows.given(Decimal("1.50"))
        connection.exec_driver_sql(insert, tuple(values))
        assert found(dialect, connection, table, [6]) == [replace(row, words="1.50")]

    @pytest.mark.parametrize("many", [3, 300])
    def test_rows_that_exist_are_changed_and_counted(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop, many: int
    ) -> None:
        table = workshop.things()
        load(dialect, connection, table, [thing(number) for number in range(many)])
        for update in (dialect.rows.update_rows, dialect.rows.update_many):
            for word in ("changed %", "again"):
                rows = [replace(thing(number), words=word) for number in range(many)]
                with dialect.transaction(connection):
                    counted = update(connection, table.schema, table.blue, KIND, [KIND.values(each) for each in rows])
                assert counted >= many
                assert found(dialect, connection, table, range(many)) == rows

    @pytest.mark.parametrize("many", [3, 300])
    def test_rows_that_are_missing_are_neither_made_nor_counted(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop, many: int
    ) -> None:
        table = workshop.things()
        load(dialect, connection, table, [thing(number) for number in range(1, many)])
        rows = [KIND.values(replace(thing(number), words="changed")) for number in range(many)]
        for update in (dialect.rows.update_rows, dialect.rows.update_many):
            with dialect.transaction(connection):
                assert update(connection, table.schema, table.blue, KIND, rows) == many - 1
            assert dialect.inspector.row_count(connection, table.schema, table.blue) == many - 1

    def test_one_column_of_one_row_is_set(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        load(dialect, connection, table, [thing(1), thing(2)])
        with dialect.transaction(connection):
            dialect.rows.set_column(connection, table.schema, table.blue, KIND, (1,), "words", "set %")
            dialect.rows.set_column(connection, table.schema, table.blue, KIND, (2,), "price", None)
        assert found(dialect, connection, table, [1, 2]) == [replace(thing(1), words="set %"), replace(thing(2), price=None)]

    def test_the_highest_value(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        assert dialect.rows.highest(connection, table.schema, table.blue, "id") is None
        load(dialect, connection, table, [thing(number) for number in (3, 12, 5)])
        assert dialect.rows.highest(connection, table.schema, table.blue, "id") == 12

    def test_rows_are_deleted_and_counted(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        load(dialect, connection, table, [thing(number) for number in range(5)])
        with dialect.transaction(connection):
            assert dialect.rows.delete_rows(connection, table.schema, table.blue, KIND, [(1,), (3,), (99,)]) == 2
        assert [each.id for each in found(dialect, connection, table, range(5))] == [0, 2, 4]

    @pytest.mark.parametrize("many", [2, 600])
    def test_rows_are_found_by_columns_of_every_type(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop, many: int
    ) -> None:
        """More of them than one statement takes, and what is not there besides."""
        table, some = workshop.things(), range(1, many + 1)
        day, at = date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 678)  # noqa: DTZ001 - as tables keep it
        rows = [
            replace(
                thing(number),
                words=f"{number:04}%",
                price=Decimal(number),
                at=at + timedelta(number),
                day=day + timedelta(number),
                which=UUID(int=number),
            )
            for number in some
        ]
        load(dialect, connection, table, rows)
        assert found(dialect, connection, table, range(many + 300)) == rows
        for column in ("words", "price", "at", "day", "which"):
            values = [getattr(each, column) for each in rows]
            there = dialect.rows.select_where(connection, table.schema, table.blue, KIND, column, values)
            assert sorted((Thing(*each) for each in there), key=lambda each: each.id) == rows, column

    def test_rows_are_found_by_null(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        load(dialect, connection, table, [thing(number) for number in range(4)])

        def ids(*values: Any) -> list[int]:
            there = dialect.rows.select_where(connection, table.schema, table.blue, KIND, "words", values)
            return sorted(each[0] for each in there)

        assert (ids(None), ids("plain"), ids("plain", None), ids("not there"), ids()) == ([2], [0], [0, 2], [], [])

    def test_rows_are_locked_until_the_transaction_ends(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.things()
        load(dialect, connection, table, [thing(1), thing(2)])
        of = workshop.of(table)

        def is_free(number: int) -> bool:
            with application.connect() as other:
                try:
                    other.execute(sa.select(of.c.id).where(of.c.id == number).with_for_update(nowait=True)).all()
                except sa.exc.DBAPIError:
                    return False
                return True

        locks = self.can(Feature.ROW_LOCKS)
        with dialect.transaction(connection):
            list(dialect.rows.select_rows(connection, table.schema, table.blue, KIND, [(1,)], lock=True))
            assert (is_free(1), is_free(2)) == (not locks, True)
            list(dialect.rows.select_where(connection, table.schema, table.blue, KIND, "id", [2], lock=True))
            assert is_free(2) is not locks
        assert is_free(1) and is_free(2)

    def test_a_row_is_inserted_unless_its_key_is_there(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        table = workshop.things()
        for row in (thing(1), replace(thing(1), words="late"), thing(2)):
            with dialect.transaction(connection):
                dialect.rows.insert_if_absent(connection, table.schema, table.blue, KIND, KIND.values(row))
        assert found(dialect, connection, table, [1, 2]) == [thing(1), thing(2)]

    def test_what_is_put_off_to_the_commit_is_checked_before(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        if not self.can(Feature.DEFERRED_KEYS):
            with dialect.transaction(connection):
                dialect.rows.check_deferred(connection)
            return
        parent = workshop.words()
        key = sa.ForeignKey(f"{parent.blue}.id", deferrable=True, initially="DEFERRED")
        child = workshop.make(sa.Column("id", sa.Integer, primary_key=True), sa.Column("parent", sa.Integer, key))
        insert = f"INSERT INTO {dialect.qualified(child.schema, child.blue)} VALUES (1, 7)"
        with pytest.raises(ZeroDivisionError), dialect.transaction(connection):
            dialect.run(connection, insert)
            with pytest.raises(sa.exc.DBAPIError) as refused:
                dialect.rows.check_deferred(connection)
            raise ZeroDivisionError
        assert dialect.kind_of(refused.value) is Kind.VALUE
        assert not dialect.inspector.has_rows(connection, child.schema, child.blue)
