"""What the engine requires of an event store. The plan checks the types of the store's columns, and its events.

Imports the dialects and the spec, but none of the code that reads events in a replay: the check shares no fault with
that code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects import Dialect
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.positions import HIGHEST
from projection_rebuild.spec.presets import Preset
from projection_rebuild.spec.stores import EventStoreSection, StreamFormat

OPTIONAL = {f"columns.{key}" for key in ("recorded_at", "version", "type_version", "metadata")}

UUID_LENGTH = 16
"""Bytes of a UUID."""

STREAMS = {ColumnKind.TEXT, ColumnKind.PADDED, ColumnKind.ENUM, ColumnKind.UUID, ColumnKind.WHOLE, ColumnKind.BYTES}
TYPES = {ColumnKind.TEXT, ColumnKind.PADDED, ColumnKind.ENUM, ColumnKind.UUID, ColumnKind.WHOLE, ColumnKind.BYTES}
PAYLOADS = {ColumnKind.TEXT, ColumnKind.JSON, ColumnKind.BYTES}
COUNTS = {ColumnKind.WHOLE, ColumnKind.NUMBER}


class Contract:
    """The check of one store.

    :param schema: the schema of the store's table
    """

    def __init__(self, dialect: Dialect, section: EventStoreSection, schema: str | None) -> None:
        self._dialect = dialect
        self._section = section
        self._schema = schema
        self._about = f"event store {section.table}"

    def findings(self) -> list[Finding]:
        """What the store violates: requirements, which refuse the plan, and recommendations."""
        with self._dialect.connect() as connection:
            if too_old := self._dialect.too_old(connection):
                return too_old
            if finding := self._no_table(connection):
                return [finding]
            types = self._dialect.column_types(connection, self._schema, self._section.table)
            columns = self._wanted()
            present = [name for name in columns.values() if name in types]
            rights = self._dialect.preflight_events(connection, self._schema, self._section.table, present)
            missing = [self._missing(key, name) for key, name in columns.items() if name not in types]
            if missing or any(finding.refuses for finding in rights):
                return rights + missing
            return [*rights, *self._of_columns(connection, types)]

    def _of_columns(self, connection: sa.Connection, types: dict[str, ColumnType]) -> Iterator[Finding]:
        columns = self._section.columns
        yield from self._unindexed(connection)
        yield from self._position(connection, types[columns.position])
        yield from self._stream(connection, types[columns.stream])
        yield from self._plain("type", columns.type, types[columns.type], TYPES, "text")
        yield from self._type_bytes(connection, types[columns.type])
        yield from self._payload(types[columns.payload])
        if columns.recorded_at is not None and (problem := self._time_problem(connection, types[columns.recorded_at])):
            yield self._refusal(*problem, refuses=False)

    def _wanted(self) -> dict[str, str]:
        named = {f"columns.{key}": column for key, column in self._section.columns.model_dump().items() if column is not None}
        return named | {f"only.{column}": column for column in self._section.only}

    def _refusal(self, problem: str, remedy: str, *, refuses: bool = True) -> Finding:
        return Finding(about=self._about, problem=problem, remedy=remedy, refuses=refuses)

    # The table --------------------------------------------------------------------------------------------------

    def _no_table(self, connection: sa.Connection) -> Finding | None:
        table, schema = self._section.table, self._section.db_schema
        if not self._dialect.has_schemas and schema not in (None, "main"):
            problem = f"an SQLite file has no schema {schema}, and the engine's connections do not see files that the application attaches"
            return self._refusal(problem, "leave event_store.schema out, and connect to the file that holds the events")
        kind = self._dialect.relation_kind(connection, self._schema, table)
        if kind is None:
            return self._refusal(f"there is no table {table} in {self._section.conn_id}", "correct event_store.table")
        if kind == "table":
            return None
        return self._refusal(
            f"{table} is a {kind}. A rebuild has to lock the table that appends go to, and cannot know which one that is",
            "name the table itself as event_store.table; event_store.only chooses among its rows",
        )

    def _missing(self, key: str, column: str) -> Finding:
        unless = " (null if it has none)" if key in OPTIONAL else ""
        return self._refusal(f"it has no column {column}", f"correct event_store.{key}{unless}")

    def _unindexed(self, connection: sa.Connection) -> Iterator[Finding]:
        inspector, table, position = sa.inspect(connection), self._section.table, self._section.columns.position
        leading: list[Sequence[str | None]] = [
            index["column_names"][:1] for index in inspector.get_indexes(table, schema=self._schema)
        ]
        leading += [index["column_names"][:1] for index in inspector.get_unique_constraints(table, schema=self._schema)]
        leading.append(inspector.get_pk_constraint(table, schema=self._schema)["constrained_columns"][:1])
        if [position] not in leading:
            yield self._refusal(
                f"no index begins with {position}, so that each page of events reads the whole table",
                f"CREATE INDEX ON {table} ({position})",
                refuses=False,
            )

    # Positions --------------------------------------------------------------------------------------------------

    def _position(self, connection: sa.Connection, column_type: ColumnType) -> Iterator[Finding]:
        name = self._section.columns.position
        remedy = (
            f"name a column of unique whole numbers up to {HIGHEST:,} as event_store.columns.position, such as a bigint that the "
            "database counts; add one if there is none"
        )
        values = self._dialect.value_kinds(connection, self._section.table, name)
        kinds = {column_type.kind} if values is None else values
        if kinds - {ColumnKind.WHOLE} or column_type.kind is not ColumnKind.WHOLE:
            content = "" if values is None or values <= {ColumnKind.WHOLE} else f" and holds {' and '.join(sorted(kinds))}"
            yield self._refusal(
                f"its position column {name} is of the type {column_type.name}{content}, not whole numbers alone", remedy
            )
            return
        if column_type.nullable and self._any(connection, f"{self._quoted(name)} IS NULL"):
            yield self._refusal(f"its position column {name} holds NULL, so that some events have no place in the order", remedy)
            return
        highest = self._dialect.newest_position(connection, self._schema, self._section.table, name)
        if highest is not None and highest > HIGHEST:
            yield self._refusal(
                f"it holds an event at position {highest:,}, and rebuilds keep positions up to {HIGHEST:,}", remedy
            )
            return
        yield from self._doubled(connection, name, remedy)
        yield from self._ahead(connection, name)

    def _ahead(self, connection: sa.Connection, name: str) -> Iterator[Finding]:
        sequence = self._dialect.hands_out_ahead(connection, self._schema, self._section.table, name)
        if sequence is not None and self._section.wait_for_holes is None:
            yield self._refusal(
                f"the sequence {sequence} gives each session positions in advance, so that an event may appear below others that have been "
                "read. With two sessions that append, verification fails each time, and a rebuild never ends",
                f"ALTER SEQUENCE {sequence.partition(' (')[0]} CACHE 1",
                refuses=False,
            )

    def _doubled(self, connection: sa.Connection, name: str, remedy: str) -> Iterator[Finding]:
        fixed = {column for column, value in self._section.only.items() if value is not None}
        keys = self._dialect.unique_keys(connection, self._schema, self._section.table)
        if any(name in key and key <= {name, *fixed} for key in keys):
            return
        table = self._dialect.qualified(self._schema, self._section.table)
        quoted = self._dialect.quote(name)
        statement = f"SELECT {quoted}, count(*) FROM {table}{self._only()} GROUP BY {quoted} HAVING count(*) > 1 LIMIT 1"
        row = self._dialect.execute(connection, statement, self._only_values()).first()
        if row is not None:
            yield self._refusal(f"its position column {name} is not unique: {row[1]:,} events are at position {row[0]:,}", remedy)
        else:
            yield self._refusal(
                f"no key of the table keeps {name} unique. No position occurs twice today. If one does later, the replay skips an event, "
                "and then verification fails",
                f"make a unique index on {name}, or be sure that no two events get the same position",
                refuses=False,
            )

    # Streams ----------------------------------------------------------------------------------------------------

    def _stream(self, connection: sa.Connection, column_type: ColumnType) -> Iterator[Finding]:
        name, form = self._section.columns.stream, self._section.stream_format
        values = self._dialect.value_kinds(connection, self._section.table, name)
        kinds = {column_type.kind} if values is None else values
        if len(kinds) > 1:
            problem = f"its stream column {name} holds {' and '.join(sorted(kinds))}, so that two streams may look like one"
            yield self._refusal(problem, "store every stream as text")
        elif kinds - STREAMS and self._section.preset is not Preset.PYEVENTSOURCING:
            problem = f"its stream column {name} is of the type {column_type.name}; two different streams may have the same text"
            yield self._refusal(problem, "use text, a UUID, a whole number or bytes")
        elif kinds == {ColumnKind.BYTES} and form is None and self._section.preset is not Preset.PYEVENTSOURCING:
            yield self._refusal(
                f"its stream column {name} holds bytes ({column_type.name}), which may stand for a UUID, for hexadecimal digits or for text",
                "set event_store.stream_format to uuid, hex or text, as the application's handlers get it",
            )
        elif kinds and kinds != {ColumnKind.BYTES} and form is not None:
            problem = f"its stream column {name} is of the type {column_type.name}, and event_store.stream_format is for bytes"
            yield self._refusal(problem, "leave event_store.stream_format out")
        elif form is StreamFormat.UUID and self._any(connection, f"length({self._quoted(name)}) <> {UUID_LENGTH}"):
            problem = f"its stream column {name} holds values that are not {UUID_LENGTH} bytes long, so that they are no UUIDs"
            yield self._refusal(problem, "set event_store.stream_format to hex or text")

    # Types, payloads, times -------------------------------------------------------------------------------------

    def _plain(self, what: str, name: str, column_type: ColumnType, allowed: set[ColumnKind], better: str) -> Iterator[Finding]:
        if column_type.kind not in allowed and self._dialect.fixes_types:
            yield self._refusal(f"its {what} column {name} is of the type {column_type.name}", f"use {better}")

    def _type_bytes(self, connection: sa.Connection, column_type: ColumnType) -> Iterator[Finding]:
        """Types that are stored as bytes must be UTF-8: a handler names its type as text."""
        if column_type.kind is not ColumnKind.BYTES:
            return
        name, table = self._section.columns.type, self._dialect.qualified(self._schema, self._section.table)
        stored_types = self._dialect.execute(
            connection, f"SELECT DISTINCT {self._quoted(name)} FROM {table}{self._only()}", self._only_values()
        )
        if not all(map(_is_utf8, stored_types.scalars())):
            yield self._refusal(f"its type column {name} holds bytes that are no UTF-8", "store event types as text")

    def _payload(self, column_type: ColumnType) -> Iterator[Finding]:
        name = self._section.columns.payload
        yield from self._plain(
            "payload", name, column_type, PAYLOADS, "JSON, text or bytes; event_store.decoder decodes any bytes or text"
        )

    def without_times(self) -> str | None:
        """Why the store cannot select the events recorded since a moment; None: it can."""
        name = self._section.columns.recorded_at
        if name is None:
            return "it does not tell when events were recorded (event_store.columns.recorded_at is null)"
        with self._dialect.connect() as connection:
            column_type = self._dialect.column_types(connection, self._schema, self._section.table).get(name)
            if column_type is None:
                return f"it has no column {name}"
            if problem := self._time_problem(connection, column_type):
                return f"{problem[0]}: {problem[1]}"
            return None if self._section.recorded_at_unit else self._untold_times(connection, name, column_type)

    def _untold_times(self, connection: sa.Connection, name: str, column_type: ColumnType) -> str | None:
        """Why this database may misread times that are stored as text; None: it reads them all."""
        if (condition := self._dialect.no_time(self._quoted(name))) is not None:
            if self._any(connection, f"{self._quoted(name)} IS NOT NULL AND {condition}"):
                return f"its time column {name} holds texts that this database takes for no time: write them as 2026-01-31 22:00:00+01:00"
            return None
        if column_type.kind in (ColumnKind.TEXT, ColumnKind.PADDED):
            return f"its time column {name} holds text, which this database may take for other times, or for none: use a type of time"
        return None

    def _time_problem(self, connection: sa.Connection, column_type: ColumnType) -> tuple[str, str] | None:
        """What is wrong with the time column, with the remedy; None: nothing."""
        name, unit = str(self._section.columns.recorded_at), self._section.recorded_at_unit
        values = self._dialect.value_kinds(connection, self._section.table, name)
        kinds = {column_type.kind} if values is None else values
        if unit is None and kinds & COUNTS:
            problem = f"its time column {name} holds numbers ({column_type.name}), and nothing says what they count"
            return problem, "set event_store.recorded_at_unit to s, ms, us or ns, if they count from 1970 in UTC"
        if unit is not None and kinds - COUNTS:
            problem = f"its time column {name} is of the type {column_type.name}, and event_store.recorded_at_unit is for numbers"
            return problem, "leave event_store.recorded_at_unit out"
        if unit is None and kinds - {ColumnKind.TIME, ColumnKind.TEXT, ColumnKind.PADDED}:
            return f"its time column {name} is of the type {column_type.name}, which holds no time", (
                "name a column of times, or null, as event_store.columns.recorded_at"
            )
        return None

    # Queries ----------------------------------------------------------------------------------------------------

    def _quoted(self, name: str) -> str:
        return self._dialect.quote(name)

    def _any(self, connection: sa.Connection, condition: str) -> bool:
        """Whether a condition holds for any row of the store."""
        table = self._dialect.qualified(self._schema, self._section.table)
        only = self._only()
        where = f"{only} AND {condition}" if only else f" WHERE {condition}"
        statement = f"SELECT 1 FROM {table}{where} LIMIT 1"
        return self._dialect.execute(connection, statement, self._only_values()).first() is not None

    def _only(self) -> str:
        parts = [self._equal(name, value) for name, value in self._section.only.items()]
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def _equal(self, name: str, value: str | int | bool | None) -> str:
        if isinstance(value, str):
            return self._dialect.equals_bytes(self._quoted(name))
        return f"{self._quoted(name)} {'IS NULL' if value is None else f'= {self._dialect.mark}'}"

    def _only_values(self) -> tuple[Any, ...]:
        return tuple(value for value in self._section.only.values() if value is not None)


def _is_utf8(stored: Any) -> bool:
    if isinstance(stored, bytes):
        try:
            stored.decode()
        except UnicodeDecodeError:
            return False
    return True
