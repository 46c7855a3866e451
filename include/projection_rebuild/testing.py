"""For the tests of an application: checks that all ways of projecting events give the same rows.

It needs no database and no spec.

.. code-block:: python

    def test_orders() -> None:
        assert_agrees(OrderProjector, [("OrderPlaced", "order-1", {"customer": 7}), ("OrderShipped", "order-1", {})])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.checking.check import Checked, Comparing, make_alike, place_name
from projection_rebuild.checking.ways import Sample, Ways
from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.dialects.base import Scratch
from projection_rebuild.rebuild import of_our_own
from projection_rebuild.rows.types import RowType
from projection_rebuild.rows.values import json_text, plain_type
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry

SQLITE = "sqlite://"
"""The URL for a test that names no database: a temporary SQLite file."""

Told = tuple[str, str | None, Mapping[str, Any] | str]
"""An event as its type, its stream and its payload. A payload that is text is JSON in its stored form."""

Tables = sa.MetaData | Sequence[str]
"""The definition of tables: a MetaData, or statements."""


class _Json(sa.types.UserDefinedType[str]):
    """A column type for JSON that takes text. It keeps the text unchanged if the database does."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


_NAME = sa.String(190)
_JSON = _Json("JSON").with_variant(_Json("JSONB"), "postgresql")
_MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

_TYPES: dict[type | None, str] = {
    str: "TEXT",
    int: "INTEGER",
    float: "REAL",
    bool: "BOOLEAN",
    Decimal: "NUMERIC",
    date: "DATE",
    datetime: "DATETIME",
    UUID: "CHAR(36)",
    bytes: "BLOB",
    dict: "JSON",
    list: "JSON",
}
"""The column types on SQLite for the types of row classes."""


def assert_agrees(
    projectors: type[Projector] | Sequence[type[Projector]],
    events: Iterable[Told | Event],
    *,
    tables: Tables | None = None,
    databases: str | Sequence[str] = SQLITE,
    spec: Mapping[str, Any] | None = None,
) -> None:
    """Projects events in every way, and compares all rows.

    The ways are: live, folded in one batch, folded without keeping rows between events, in shards, and by SQL. The
    check writes only to tables in a place of their own, and removes it afterwards. The place is a schema on PostgreSQL,
    a database on MySQL and MariaDB, and a file on SQLite.

    :param projectors: one projector, or several that read each other's rows
    :param events: the events in their order
    :param tables: a MetaData or statements that create the tables (DDL names no schema). None: tables like those of the
        database; without a database, tables from the row classes, which have no lengths and no decimal places
    :param databases: SQLAlchemy URLs
    :param spec: sections of a spec that matter, such as ``{"replay": {"on_error": "dead_letter"}}``
    :raises AssertionError: two ways differ, or no two ways could be compared; the message names projector, table, key,
        column and event
    """
    classes = [projectors] if isinstance(projectors, type) else [*projectors]
    history = [*events]
    if not history:
        raise AssertionError("no event is given, so that there is nothing to compare")
    for url in [databases] if isinstance(databases, str) else databases:
        with tables_apart(classes, tables=tables, url=url, spec=spec) as look:
            checked = look(history)
        not_compared = [projector for projector in classes if len(checked.agreed.get(projector.name(), ())) < 2]
        if not_compared or not checked.agrees:
            raise AssertionError(f"on {sa.make_url(url).get_backend_name()}, {checked.describe()}")


class Look(Protocol):
    """Projects a history in every way."""

    def __call__(self, events: Sequence[Told | Event], others: Sequence[type[Projector]] = ()) -> Checked:
        """Projects the events, and returns the result of the comparison.

        :param others: projectors to check instead; they must own the same tables
        """


@contextmanager
def tables_apart(
    projectors: Sequence[type[Projector]],
    *,
    tables: Tables | None = None,
    url: str | sa.URL = SQLITE,
    spec: Mapping[str, Any] | None = None,
) -> Iterator[Look]:
    """Creates the tables once, to check several histories with them, each as :func:`assert_agrees` does.

    :param projectors: the projectors that own the tables
    :param tables: see :func:`assert_agrees`
    :param url: the SQLAlchemy URL of the database
    :param spec: see :func:`assert_agrees`
    :returns: a function that checks one history, with these projectors or with others of the same tables
    """
    named = {projector.name(): projector for projector in projectors}
    engine = of_our_own(sa.create_engine(url))
    dialect = dialect_for(engine)
    place = place_name(engine.url, None, " ".join(named))
    try:
        with _models(dialect, f"{place}_tables", projectors, tables) as models, dialect.trials.scratch(place) as scratch:
            with models.dialect.connect() as live:
                names = [table for projector in projectors for table in projector.tables()]
                make_alike(models.dialect, live, models.schema, scratch, names)
            with scratch.dialect.connect() as connection:
                _events.create(_within_place(connection, scratch))
            whole = _whole_spec(named.values(), scratch, spec)
            store = Sample(scratch.dialect, whole.event_store)

            def look(events: Sequence[Told | Event], others: Sequence[type[Projector]] = ()) -> Checked:
                _append(scratch, [*_history(events)])
                chosen = ProjectorRegistry({projector.name(): projector for projector in others} or named)
                return Comparing(Ways(whole, scratch, store, True, chosen)).all([*chosen], store.whole())

            yield look
    finally:
        engine.dispose()


def _history(events: Iterable[Told | Event]) -> Iterator[Event]:
    for position, event in enumerate(events, start=1):
        yield event if isinstance(event, Event) else Event(position, event[1], event[0], event[2])  # type: ignore[arg-type]


def _within_place(connection: sa.Connection, place: Scratch) -> sa.Connection:
    """The connection, with the schema of the place for tables without a schema."""
    return connection.execution_options(schema_translate_map={None: place.schema})


def _whole_spec(projectors: Iterable[type[Projector]], scratch: Scratch, given: Mapping[str, Any] | None) -> RebuildSpec:
    store = {
        "conn_id": "events",
        "table": _events.name,
        "schema": scratch.schema,
        "columns": {
            name: name for name in ("position", "stream", "type", "payload", "recorded_at", "version", "type_version", "metadata")
        },
    }
    return RebuildSpec.model_validate(
        {
            "rebuild": "check",
            "read_models": {"conn_id": "tables"},
            "projectors": [f"{projector.__module__}:{projector.__name__}" for projector in projectors],
            "live_writer": "transactional",
            **(given or {}),
            "event_store": store | dict((given or {}).get("event_store", {})),
        }
    )


# Tables -----------------------------------------------------------------------------------------------------------


@contextmanager
def _models(dialect: Dialect, name: str, projectors: Sequence[type[Projector]], tables: Tables | None) -> Iterator[Scratch]:
    """The place of the tables that the check copies: the live schema, or one in which it first creates the given tables."""
    if tables is None and str(dialect.engine.url) == SQLITE:
        tables = [_definition(dialect, kind) for projector in projectors for kind in projector.kinds()]
    if tables is None:
        with dialect.connect() as live:
            schema = dialect.inspector.default_schema(live)
        yield Scratch(dialect, schema)
        return
    with dialect.trials.scratch(name) as place:
        _make_tables(place, tables)
        yield place


def _make_tables(place: Scratch, tables: Tables) -> None:
    with place.dialect.connect() as connection:
        connection.detach()
        place.dialect.trials.enter(connection, place)
        if isinstance(tables, sa.MetaData):
            tables.create_all(_within_place(connection, place))
            return
        for statement in [tables] if isinstance(tables, str) else tables:
            place.dialect.execute(connection, statement)


def _definition(dialect: Dialect, kind: RowType) -> str:
    columns = [f"{dialect.quote(name)} {_TYPES.get(plain_type(declared), 'TEXT')}" for name, declared in kind.types.items()]
    key = ", ".join(map(dialect.quote, kind.key))
    return f"CREATE TABLE {dialect.quote(kind.table)} ({', '.join(columns)}, PRIMARY KEY ({key}))"


_events = sa.Table(
    "projection_rebuild_events",
    sa.MetaData(),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stream", _NAME),
    sa.Column("type", _NAME, nullable=False),
    sa.Column("payload", _JSON, nullable=False),
    sa.Column("recorded_at", _MOMENT),
    sa.Column("version", sa.BigInteger),
    sa.Column("type_version", sa.Integer, nullable=False),
    sa.Column("metadata", _JSON, nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mariadb_engine="InnoDB",
    mariadb_charset="utf8mb4",
)


def _append(scratch: Scratch, events: Sequence[Event]) -> None:
    """Replaces the contents of the event store by these events."""
    rows = [
        {
            "position": event.position,
            "stream": event.stream,
            "type": event.type,
            "payload": event.payload if isinstance(event.payload, str) else json_text(dict(event.payload)),
            "recorded_at": event.recorded_time.astimezone(UTC) if event.recorded_at else None,
            "version": event.version,
            "type_version": event.type_version,
            "metadata": json_text(dict(event.metadata)),
        }
        for event in events
    ]
    with scratch.dialect.connect() as opened:
        connection = _within_place(opened, scratch)
        connection.execute(_events.delete())
        if rows:
            connection.execute(_events.insert(), rows)
