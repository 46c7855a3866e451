"""What the database itself can do: reading all events as text and throwing them away, and loading the finished rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from benchmarks import tables
from benchmarks.store import Store
from include.universal.schema import metadata

FETCH = 10_000
"""Rows a client takes at a time."""


def read(store: Store) -> float:
    """Seconds to get position, stream, type and payload of every event to the client, as text."""
    query = "SELECT id, aggregate_uuid, event_class, event_properties FROM stored_events"
    with store.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        began = time.monotonic()
        if store.kind == "postgres":
            with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
                for _ in copy:
                    pass
        else:
            for _ in connection.execution_options(stream_results=True).exec_driver_sql(query).yield_per(FETCH).partitions():
                pass
        return time.monotonic() - began


def write(store: Store, suffix: str, source: str) -> float:
    """Seconds to load the rows of the tables ``<name>_<source>`` into ``<name>_<suffix>``, indexes and statistics included."""
    with store.engine.connect() as connection:
        prepared = {name: PREPARE[store.kind](connection, f"{name}_{source}", name) for name in tables.names()}
        tables.make(connection, suffix)
        connection.commit()
        store.settle()
        began = time.monotonic()
        for name, rows in prepared.items():
            LOAD[store.kind](connection, f"{name}_{suffix}", name, rows)
            tables.finish(connection, suffix, name)
            connection.commit()
        return time.monotonic() - began


def _columns(name: str) -> str:
    return ", ".join(metadata.tables[name].columns.keys())


def _copied_out(connection: sa.Connection, table: str, name: str) -> Sequence[Any]:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({_columns(name)}) TO STDOUT") as copy:
        return [bytes(each) for each in copy]


def _copied_in(connection: sa.Connection, table: str, name: str, rows: Sequence[Any]) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({_columns(name)}) FROM STDIN") as copy:
        for start in range(0, len(rows), FETCH):
            copy.write(b"".join(rows[start : start + FETCH]))


def _selected(connection: sa.Connection, table: str, name: str) -> Sequence[Any]:
    return [tuple(row) for row in connection.exec_driver_sql(f"SELECT {_columns(name)} FROM {table}")]


def _inserted(connection: sa.Connection, table: str, name: str, rows: Sequence[Any]) -> None:
    marks = ", ".join("?" * len(metadata.tables[name].columns))
    if rows:
        connection.exec_driver_sql(f"INSERT INTO {table} ({_columns(name)}) VALUES ({marks})", list(rows))


def _lines(connection: sa.Connection, table: str, name: str) -> Sequence[Any]:
    return ["\t".join(map(_field, row)) + "\n" for row in _selected(connection, table, name)]


def _field(value: Any) -> str:
    if value is None:
        return r"\N"
    return str(value).replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n")


def _loaded(connection: sa.Connection, table: str, name: str, rows: Sequence[Any]) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.writelines(rows)
        file.flush()
        connection.exec_driver_sql(
            f"LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE {table} CHARACTER SET utf8mb4 ({_columns(name)})"
        )


Load = Callable[[sa.Connection, str, str, Sequence[Any]], None]
PREPARE: dict[str, Callable[[sa.Connection, str, str], Sequence[Any]]] = {
    "postgres": _copied_out,
    "mariadb": _lines,
    "mysql": _lines,
    "sqlite": _selected,
}
LOAD: dict[str, Load] = {"postgres": _copied_in, "mariadb": _loaded, "mysql": _loaded, "sqlite": _inserted}
