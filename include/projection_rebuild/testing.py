"""For the tests of an application: a projector's events, projected in every way, must give the same rows. Needs no database and no spec.

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
"""A file of SQLite's own, for whoever names no database."""

Told = tuple[str, str | None, Mapping[str, Any] | str]
"""An event by its type, its stream and its payload; a payload that is text is JSON as it is stored."""

Tables = sa.MetaData | Sequence[str]


class _Json(sa.types.UserDefinedType[str]):
    """A column of JSON that is given text, and keeps it as it is where the database does."""

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
"""What SQLite takes the types of row classes for."""


def assert_agrees(
    projectors: type[Projector] | Sequence[type[Projector]],
    events: Iterable[Told | Event],
    *,
    tables: Tables | None = None,
    databases: str | Sequence[str] = SQLITE,
    spec: Mapping[str, Any] | None = None,
) -> None:
    """Projects events live, folded in one batch, forgetting after every event, in shards and by SQL, and compares all rows.

    Nothing but tables apart is written: a schema of their own on PostgreSQL, a database on MySQL and MariaDB, a file on SQLite. They
    are gone afterwards.

    :param projectors: one, or several where they read each other's rows
    :param events: in their order
    :param tables: what makes the tables: a MetaData, or statements (DDL names no schema). None: they are like those of the database; on
        SQLite without a database they are made from the row classes, which know no lengths and no decimals
    :param databases: SQLAlchemy URLs
    :param spec: sections of a spec that matter, such as ``{"replay": {"on_error": "dead_letter"}}``
    :raises AssertionError: two ways differ, or there was nothing to compare; names projector, table, key, column, and the event
    """
    classes = [projectors] if isinstance(projectors, type) else [*projectors]
    history = [*events]
    if not history:
        raise AssertionError("no event is given, so that there is nothing to compare")
    for url in [databases] if isinstance(databases, str) else databases:
        with tables_apart(classes, tables=tables, url=url, spec=spec) as look:
            found = look(history)
        nothing = [each.name() for each in classes if len(found.agreed.get(each.name(), ())) < 2]
        if nothing or not found.agrees:
            raise AssertionError(f"on {sa.make_url(url).get_backend_name()}, {found.describe()}")


class Look(Protocol):
    """Projects a history in every way."""

    def __call__(self, events: Sequence[Told | Event], others: Sequence[type[Projector]] = ()) -> Checked:
        """What the ways have given."""


@contextmanager
def tables_apart(
    projectors: Sequence[type[Projector]],
    *,
    tables: Tables | None = None,
    url: str | sa.URL = SQLITE,
    spec: Mapping[str, Any] | None = None,
) -> Iterator[Look]:
    """Makes the tables once, for several histories; what :func:`assert_agrees` does for one.

    :returns: looks at a history, with these projectors or with others of the same tables
    """
    named = {each.name(): each for each in projectors}
    engine = of_our_own(sa.create_engine(url))
    dialect = dialect_for(engine)
    place = place_name(engine.url, None, " ".join(named))
    try:
        with _models(dialect, f"{place}_tables", projectors, tables) as models, dialect.trials.scratch(place) as scratch:
            with models.dialect.connect() as live:
                make_alike(
                    models.dialect, live, models.schema, scratch, [table for each in projectors for table in each.tables()]
                )
            with scratch.dialect.connect() as connection:
                _events.create(_there(connection, scratch))
            whole = _whole_spec(named.values(), scratch, spec)
            store = Sample(scratch.dialect, whole.event_store)

            def look(events: Sequence[Told | Event], others: Sequence[type[Projector]] = ()) -> Checked:
                _append(scratch, [*_history(events)])
                chosen = ProjectorRegistry({each.name(): each for each in others} or named)
                return Comparing(Ways(whole, scratch, store, True, chosen)).all([*chosen], store.whole())

            yield look
    finally:
        engine.dispose()


def _history(events: Iterable[Told | Event]) -> Iterator[Event]:
    for position, each in enumerate(events, start=1):
        yield each if isinstance(each, Event) else Event(position, each[1], each[0], each[2])  # type: ignore[arg-type]


def _there(connection: sa.Connection, scratch: Scratch) -> sa.Connection:
    return connection.execution_options(schema_translate_map={None: scratch.schema})


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
            "projectors": [f"{each.__module__}:{each.__name__}" for each in projectors],
            "live_writer": "transactional",
            **(given or {}),
            "event_store": store | dict((given or {}).get("event_store", {})),
        }
    )


# Tables -----------------------------------------------------------------------------------------------------------


@contextmanager
def _models(dialect: Dialect, name: str, projectors: Sequence[type[Projector]], tables: Tables | None) -> Iterator[Scratch]:
    """Where there are tables like those that are wanted: what is given is made in a place of its own first."""
    if tables is None and str(dialect.engine.url) == SQLITE:
        tables = [_definition(dialect, kind) for each in projectors for kind in each.kinds()]
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
            tables.create_all(_there(connection, place))
            return
        for statement in [tables] if isinstance(tables, str) else tables:
            place.dialect.execute(connection, statement)


def _definition(dialect: Dialect, kind: RowType) -> str:
    columns = [f"{dialect.quote(name)} {_TYPES.get(plain_type(each), 'TEXT')}" for name, each in kind.types.items()]
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
    """Puts these events, and no others, into the event store."""
    stored = [
        {
            "position": each.position,
            "stream": each.stream,
            "type": each.type,
            "payload": each.payload if isinstance(each.payload, str) else json_text(dict(each.payload)),
            "recorded_at": each.recorded_time.astimezone(UTC) if each.recorded_at else None,
            "version": each.version,
            "type_version": each.type_version,
            "metadata": json_text(dict(each.metadata)),
        }
        for each in events
    ]
    with scratch.dialect.connect() as connection:
        there = _there(connection, scratch)
        there.execute(_events.delete())
        if stored:
            there.execute(_events.insert(), stored)
