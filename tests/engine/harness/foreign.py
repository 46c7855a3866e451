"""Event stores of other libraries: their tables, and functions that append to each.

pyeventsourcing and Emmett append through their own libraries. The tables of Spatie, message-db and Marten, and their
ways to append, are reproduced here from their published code.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import sqlalchemy as sa

from tests.emmett import library, node
from tests.engine.harness import foreign, pyshop

Stored = dict[str, Any]
"""An event of the shop: aggregate_uuid, event_class, event_properties."""

SPATIE = {
    "postgresql": """CREATE TABLE stored_events (
        id bigserial PRIMARY KEY, aggregate_uuid uuid NULL, aggregate_version bigint NULL, event_version smallint NOT NULL DEFAULT 1,
        event_class varchar(255) NOT NULL, event_properties jsonb NOT NULL, meta_data jsonb NOT NULL, created_at timestamp(0) NOT NULL,
        UNIQUE (aggregate_uuid, aggregate_version))""",
    "mysql": """CREATE TABLE stored_events (
        id bigint unsigned AUTO_INCREMENT PRIMARY KEY, aggregate_uuid char(36) NULL, aggregate_version bigint unsigned NULL,
        event_version tinyint unsigned NOT NULL DEFAULT 1, event_class varchar(255) NOT NULL, event_properties json NOT NULL,
        meta_data json NOT NULL, created_at timestamp NOT NULL, UNIQUE (aggregate_uuid, aggregate_version), INDEX (event_class))""",
}

MESSAGE_DB = """
CREATE SCHEMA message_store;
CREATE TABLE message_store.messages (
  global_position bigserial PRIMARY KEY, position bigint NOT NULL,
  time timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
  stream_name text NOT NULL, type text NOT NULL, data jsonb, metadata jsonb, id uuid NOT NULL UNIQUE);
CREATE UNIQUE INDEX messages_stream ON message_store.messages (stream_name, position);
CREATE FUNCTION message_store.write_message(id varchar, stream_name varchar, type varchar, data jsonb, metadata jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE next_position bigint;
BEGIN
  -- One writer at a time in each category.
  PERFORM pg_advisory_xact_lock(hashtext(split_part(write_message.stream_name, '-', 1)));
  SELECT coalesce(max(m.position), -1) + 1 INTO next_position
    FROM message_store.messages m WHERE m.stream_name = write_message.stream_name;
  INSERT INTO message_store.messages (id, stream_name, position, type, data, metadata)
    VALUES (write_message.id::uuid, write_message.stream_name, next_position, write_message.type, write_message.data, write_message.metadata);
  RETURN next_position;
END $$;
"""

MARTEN = """
CREATE SEQUENCE mt_events_sequence;
CREATE TABLE mt_streams (
  id uuid PRIMARY KEY, type varchar NULL, version bigint NULL, timestamp timestamptz NOT NULL DEFAULT now(),
  snapshot jsonb NULL, snapshot_version integer NULL, created timestamptz NOT NULL DEFAULT now(),
  tenant_id varchar DEFAULT '*DEFAULT*', is_archived boolean DEFAULT false);
CREATE TABLE mt_events (
  seq_id bigint PRIMARY KEY, id uuid NOT NULL, stream_id uuid REFERENCES mt_streams ON DELETE CASCADE, version bigint NOT NULL,
  data jsonb NOT NULL, type varchar(500) NOT NULL, timestamp timestamptz NOT NULL DEFAULT '2026-01-01',
  tenant_id varchar DEFAULT '*DEFAULT*', mt_dotnet_type varchar NULL, is_archived boolean DEFAULT false);
CREATE UNIQUE INDEX pk_mt_events_stream_and_version ON mt_events (stream_id, version);
"""


def stream_id(name: str) -> str:
    """The id of an aggregate in stores that use UUIDs."""
    return str(uuid5(NAMESPACE_URL, name))


Clients = sa.Engine | sa.Connection
"""On an engine, each append is a transaction; on a connection, all appends belong to its transaction."""


def spatie(clients: Clients, event: Stored) -> None:
    """Appends by one INSERT, as Spatie's Eloquent model does."""
    statement = """INSERT INTO stored_events (aggregate_uuid, aggregate_version, event_class, event_properties, meta_data, created_at)
        SELECT :stream, coalesce(max(aggregate_version), 0) + 1, :type, :data, '{}', '2026-01-01 00:00:00'
          FROM stored_events WHERE aggregate_uuid = :stream"""
    _insert(
        clients,
        statement.replace(":stream", ":stream::uuid").replace(":data", ":data::jsonb") if _pg(clients) else statement,
        event,
    )


def message_db(clients: Clients, event: Stored) -> None:
    """Appends by the store's function, as all of its clients do."""
    statement = (
        "SELECT message_store.write_message(:id, 'order-' || :stream, :type, CAST(:data AS jsonb), CAST('{\"n\": 1}' AS jsonb))"
    )
    _insert(clients, statement, event)


def marten(clients: Clients, event: Stored, pause: float = 0.0) -> None:
    """Appends as Marten does when it reads ahead: it takes the number, then stores the event in a new transaction.

    :param pause: seconds between the two transactions
    """
    with _transaction(clients) as connection:
        number = connection.exec_driver_sql("SELECT nextval('mt_events_sequence')").scalar_one()
    time.sleep(pause)
    statement = f"""WITH stream AS (
          INSERT INTO mt_streams (id, version) VALUES (:stream, 1) ON CONFLICT (id) DO UPDATE SET version = mt_streams.version + 1
          RETURNING id, version)
        INSERT INTO mt_events (seq_id, id, stream_id, version, data, type, mt_dotnet_type)
        SELECT {number}, CAST(:id AS uuid), id, version, CAST(:data AS jsonb), CAST(:type AS varchar), 'Shop.Order, Shop' FROM stream"""
    _insert(clients, statement, event)


@contextmanager
def _transaction(clients: Clients) -> Iterator[sa.Connection]:
    if isinstance(clients, sa.Connection):
        yield clients
        return
    with clients.begin() as connection:
        yield connection


def _insert(clients: Clients, statement: str, event: Stored) -> None:
    values = {
        "id": str(uuid4()),
        "stream": stream_id(event["aggregate_uuid"]),
        "type": event["event_class"],
        "data": json.dumps(event["event_properties"]),
    }
    with _transaction(clients) as connection:
        connection.execute(
            sa.text(statement.replace("::", r"\:\:")), {key: values[key] for key in values if f":{key}" in statement}
        )


def _pg(clients: Clients) -> bool:
    return clients.dialect.name == "postgresql"


def python_application(url: sa.URL) -> pyshop.Shop:
    """The library's own application on PostgreSQL, which creates its own table."""
    return pyshop.compressed(
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(url.database),
            "POSTGRES_HOST": str(url.host),
            "POSTGRES_PORT": str(url.port),
            "POSTGRES_USER": str(url.username),
            "POSTGRES_PASSWORD": str(url.password or "none"),
        }
    )


# Emmett -------------------------------------------------------------------------------------------------------------

APPEND = Path(__file__).parents[2] / "emmett" / "append.mjs"


def emmett(url: sa.URL, events: Sequence[Stored]) -> None:
    """Appends through Emmett's own library, which creates its own tables."""
    streams: dict[str, list[Any]] = {}
    for event in events:
        said = {"type": event["event_class"], "data": event["event_properties"]}
        streams.setdefault(event["aggregate_uuid"], []).append(said)
    lines = "\n".join(json.dumps({"stream": name, "events": each}) for name, each in streams.items())
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run([node(), library(APPEND), plain], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def through_emmetts_function(engine: sa.Engine, event: Stored) -> None:
    """Appends to a new stream by the database function that the library uses."""
    statement = """SELECT emt_append_to_stream(ARRAY[CAST(gen_random_uuid() AS text)], ARRAY[CAST('{}' AS jsonb)], ARRAY[CAST('{}' AS jsonb)],
        ARRAY['1'], ARRAY['OrderPlaced'], ARRAY['E'], :stream, 'order', NULL, 'emt:default')"""
    with engine.begin() as connection:
        connection.execute(sa.text(statement), {"stream": f"{event['aggregate_uuid']}-{event['event_properties']['number']}"})


Append = Callable[[sa.Engine, Stored], None]


def make_tables(engine: sa.Engine, preset: str) -> None:
    """Creates a store's tables as its library does; nothing for a store whose library creates them itself."""
    scripts = {"spatie": foreign.SPATIE.get(engine.dialect.name, ""), "message_db": foreign.MESSAGE_DB, "marten": foreign.MARTEN}
    with engine.begin() as connection:
        connection.exec_driver_sql(scripts.get(preset) or "SELECT 1")
