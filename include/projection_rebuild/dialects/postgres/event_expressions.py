"""SQL expressions for the columns of an event store on PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON

from projection_rebuild.dialects.base import EventExpressions
from projection_rebuild.model.column_kinds import ColumnKind

_UTF8 = (
    "^(0[1-9a-f]|[1-7].|(c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|e[1-9abcef][89ab].[89ab].|ed[89].[89ab].|f0[9ab].[89ab].[89ab]."
    "|f[123][89ab].[89ab].[89ab].|f48.[89ab].[89ab].)*$"
)
"""Matches the hexadecimal digits of bytes that a text can hold: UTF-8 without NUL."""

_NUL = r"'(\\\\)|\\u0000'"
"""An escaped NUL, which no text can hold. The pattern takes an escaped backslash first, so that what follows it is no escape."""

_PAIR, _LONE = r"'\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..'", r"'\\u[dD][89a-fA-F]'"
"""An escaped backslash or a pair of escaped surrogates; and, once those are removed, a surrogate without its pair."""


class PostgresEventExpressions(EventExpressions):
    """See :class:`EventExpressions`."""

    def reads_json(self, kind: ColumnKind) -> bool:
        # Before version 16 the server has no IS JSON, and any other text would fail the whole statement.
        return kind is ColumnKind.JSON or (self.engine.dialect.server_version_info or ()) >= (16,)

    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        text: sa.ColumnElement[Any] = sa.cast(payload, sa.Text)
        if kind is ColumnKind.BYTES:
            text = self.utf8(payload)
        if kind is not ColumnKind.JSON:
            text = sa.case((text.op("IS", is_comparison=True)(sa.literal_column("JSON")), text))
        return sa.func.pg_catalog.json_extract_path_text(sa.cast(_without_strange_escapes(text), JSON), field, type_=sa.Text)

    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.collate(sa.cast(text, sa.Text), "C")

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return self.exact(text)

    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        valid = self.hexadecimal(column).regexp_match(sa.literal_column(f"'{_UTF8}'"))
        return sa.case((valid, sa.func.pg_catalog.convert_from(column, sa.literal_column("'UTF8'"), type_=sa.Text)))

    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.pg_catalog.encode(column, sa.literal_column("'hex'"), type_=sa.Text)

    def equals_bytes(self, quoted: str) -> str:
        return f'{quoted}::text COLLATE "C" = %s'

    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        # The hash of hash partitions, which never changes between versions.
        hashed = sa.func.pg_catalog.hashtextextended(sa.collate(text, "C"), 0, type_=sa.BigInteger)
        return hashed.op("&")(sa.literal(2**31 - 1, sa.BigInteger)) % count

    def is_in_shard(self, text: sa.ColumnElement[str], number: int, count: int) -> sa.ColumnElement[bool]:
        # The planner estimates that a plain comparison matches one row in 200, and would read and sort the whole table for each
        # page. For this CASE it estimates one row in two.
        return sa.case((super().is_in_shard(text, number, count), sa.true()), else_=sa.false())

    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        kind = sa.DateTime(timezone=True)
        return sa.cast(column, kind) < sa.literal(moment, kind)


def _without_strange_escapes(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """JSON that the server can parse; NULL for an event with half a surrogate pair, which no handler can read."""
    replace = sa.func.pg_catalog.regexp_replace
    everywhere: sa.ColumnElement[str] = sa.literal_column("'g'", sa.Text)
    without_pairs = replace(text, sa.literal_column(_PAIR), sa.literal_column("''"), everywhere, type_=sa.Text)
    cleaned = replace(text, sa.literal_column(_NUL), sa.literal_column(r"'\1'"), everywhere, type_=sa.Text)
    has_lone = without_pairs.regexp_match(sa.literal_column(_LONE))
    no_escapes = sa.func.strpos(text, sa.literal_column(r"'\u'")) == 0
    return sa.case((no_escapes, text), (has_lone, sa.null()), else_=cleaned)
