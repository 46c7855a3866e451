"""What stands in queries for the columns of an event store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.model.column_kinds import ColumnKind
from tests.engine.conformance.contract.declared import Contract
from tests.engine.conformance.contract.tables import Workshop, ask
from tests.engine.harness.things import MOMENT

ALIKE = ["a", "A", "a ", "á", "b"]
"""Texts that are one to many a collation."""

EAST = timezone(timedelta(hours=5))


def values(connection: sa.Connection, query: sa.Select[Any]) -> list[Any]:
    """The one column of a query."""
    return list(connection.execute(query).scalars())


class EventExpressionsContract(Contract):
    """See :class:`projection_rebuild.dialects.base.EventExpressions`."""

    def _texts(self, workshop: Workshop) -> sa.Table:
        """A table of texts that are nearly alike."""
        table = workshop.words()
        workshop.fill(table, [{"id": number, "word": word} for number, word in enumerate(ALIKE)])
        return workshop.of(table)

    def test_a_field_of_json_is_its_last_value_as_text(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        of = workshop.of(
            table := workshop.make(
                sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
                sa.Column("document", sa.JSON),
                sa.Column("text", sa.Text),
                sa.Column("raw", sa.LargeBinary),
            )
        )
        documents = [{"it's 5%": "läst"}, {"it's 5%": 7}, {"it's 5%": None}, {"other": 1}, [1]]
        texts = [*map(json.dumps, documents), '{"it\'s 5%": 1, "it\'s 5%": 2}', "no JSON"]
        workshop.fill(
            table,
            [
                {
                    "id": number,
                    "document": documents[number] if number < len(documents) else {},
                    "text": text,
                    "raw": text.encode(),
                }
                for number, text in enumerate(texts)
            ],
        )
        expected = ["läst", "7", None, None, None]

        def found(column: str, kind: ColumnKind) -> list[Any]:
            return values(connection, sa.select(dialect.expressions.json_field(of.c[column], kind, "it's 5%")).order_by(of.c.id))

        assert dialect.expressions.reads_json(ColumnKind.JSON)
        assert _without_null(found("document", ColumnKind.JSON)) == [*expected, None, None]
        for column, kind in (("text", ColumnKind.TEXT), ("raw", ColumnKind.BYTES)):
            if dialect.expressions.reads_json(kind):
                assert _without_null(found(column, kind)) == [*expected, "2", None], column

    def test_a_payload_comes_as_text_or_bytes(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        workshop.fill(table, [{"id": 1, "more": {"ü": 1}, "raw": b'{"\xc3\xbc": 1}'}])
        of = workshop.of(table)
        for column, kind in ((of.c.more, ColumnKind.JSON), (of.c.raw, ColumnKind.BYTES)):
            # The driver's own value: SQLAlchemy would make an object of a column of JSON.
            query = sa.select(dialect.expressions.payload(column, kind))
            (found,) = [rows[0][0] for rows in dialect.read(connection, query, 10)]
            assert isinstance(found, str | bytes | memoryview), kind
            assert json.loads(found if isinstance(found, str) else bytes(found)) == {"ü": 1}

    def test_texts_are_equal_only_if_their_bytes_are(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        of = self._texts(workshop)
        counted = sa.select(sa.func.count(sa.distinct(dialect.expressions.exact(of.c.word))))
        assert values(connection, counted) == [len(ALIKE)]
        for number, word in enumerate(ALIKE):
            alike = sa.select(of.c.id).where(dialect.expressions.exact(of.c.word) == dialect.expressions.exact(sa.literal(word)))
            assert values(connection, alike) == [number]

    def test_exact_texts_are_grouped_and_compared(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        of = self._texts(workshop)
        inner = sa.select(dialect.expressions.exact_text(of.c.word).label("word")).subquery()
        groups = sa.select(inner.c.word).group_by(inner.c.word)
        assert sorted(values(connection, groups)) == sorted(ALIKE)

    def test_bytes_that_hold_utf8_become_text(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.things()
        workshop.fill(table, [{"id": 1, "raw": "ü🛒".encode()}, {"id": 2, "raw": b"\xff\xfe"}])
        of = workshop.of(table)
        assert values(connection, sa.select(dialect.expressions.utf8(of.c.raw)).where(of.c.id == 1)) == ["ü🛒"]
        # What becomes of the others differs, and is no error.
        assert len(values(connection, sa.select(dialect.expressions.as_bytes(dialect.expressions.utf8(of.c.raw))))) == 2
        assert values(connection, sa.select(dialect.expressions.hexadecimal(of.c.raw)).order_by(of.c.id)) == [
            "c3bcf09f9b92",
            "fffe",
        ]

    def test_a_text_may_be_read_as_bytes(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        of = self._texts(workshop)
        read = values(connection, sa.select(dialect.expressions.as_bytes(of.c.word)).order_by(of.c.id))
        assert [found if isinstance(found, str) else bytes(found).decode() for found in read] == ALIKE

    def test_a_column_has_the_bytes_of_a_text(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        of = self._texts(workshop)
        query = f"SELECT id FROM {of.name} WHERE {dialect.expressions.equals_bytes(dialect.quote('word'))}"
        assert [ask(connection, query, word) for word in ALIKE] == [[(number,)] for number in range(len(ALIKE))]

    def test_each_text_is_in_one_shard_for_ever(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.words()
        workshop.fill(table, [{"id": number, "word": f"stream-{number}"} for number in range(60)])
        word, count = workshop.of(table).c.word, 4
        query = sa.select(dialect.expressions.shard_number(word, count)).order_by(workshop.of(table).c.id)
        numbers = values(connection, query)
        assert {int(number) for number in numbers} == {*range(count)}
        assert values(connection, query) == numbers
        for shard in range(count):
            inside = sa.select(workshop.of(table).c.id).where(dialect.expressions.is_in_shard(word, shard, count))
            assert sorted(values(connection, inside)) == [at for at, number in enumerate(numbers) if number == shard]
        alike = sa.select(dialect.expressions.shard_number(sa.literal("stream-7"), count))
        assert values(connection, alike) == [numbers[7]]

    def test_times_lie_before_a_moment(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("at", MOMENT),
            sa.Column("said", sa.String(40)),
        )
        noon = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
        step = timedelta(seconds=1)
        assert dialect.expressions.time_grain < step
        moments = [noon - step, noon, noon + step]
        workshop.fill(
            table,
            [{"id": at, "at": each.replace(tzinfo=None), "said": f"{each:%Y-%m-%d %H:%M:%S}"} for at, each in enumerate(moments)],
        )
        of = workshop.of(table)
        for column in (of.c.at, of.c.said):
            # The same moment in another zone.
            for moment in (noon, noon.astimezone(EAST)):
                assert values(connection, sa.select(of.c.id).where(dialect.expressions.before(column, moment))) == [0]

    def test_a_text_that_is_no_time_is_known(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        condition = dialect.expressions.no_time(dialect.quote("word"))
        if condition is None:
            assert dialect.inspector.fixes_types
            return
        table = workshop.words()
        workshop.fill(table, [{"id": at, "word": word} for at, word in enumerate(["2026-03-04 12:00:00", "now", "12:00", "x"])])
        assert ask(connection, f"SELECT id FROM {table.blue} WHERE {condition} ORDER BY id") == [(1,), (2,), (3,)]


def _without_null(found: list[Any]) -> list[Any]:
    """Some databases tell a null of JSON as a text."""
    return [None if each == "null" else each for each in found]
