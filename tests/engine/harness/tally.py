"""An application whose event store can have columns of any types. Each event adds to the tally of its stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness.databases import flavour


@row("tallies", key="stream", stream="stream")
class Tally:
    stream: str
    events: int = 0
    last: int = 0


class TallyProjector(Projector):
    """Counts the events of each stream, and keeps the position of the last one."""

    owns = (Tally,)
    part = ByAggregate({Tally: "stream"})

    @handles("made")
    def made(self, event: Event, rows: Rows) -> None:
        tally = rows.get_or_add(Tally, "no stream" if event.stream is None else f"<{event.stream}>")
        tally.events += 1
        tally.last = event.position


class StreamProjector(TallyProjector):
    """A tally with the stream's id as key, so that shards and partial rebuilds are possible."""

    @handles("made")
    def made(self, event: Event, rows: Rows) -> None:
        tally = rows.get_or_add(Tally, event.stream)
        tally.events += 1
        tally.last = event.position


class SetProjector(StreamProjector):
    """A tally with SQL besides the handlers."""

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        grouped = (
            "INSERT INTO {tallies} (stream, events, last) SELECT e.stream, count(*), max(e.position) FROM {events} e "
            "WHERE 1 = 1 GROUP BY e.stream "
        )
        if database in ("mysql", "mariadb"):
            return [grouped + "ON DUPLICATE KEY UPDATE events = events + VALUES(events), last = VALUES(last)"]
        return [grouped + "ON CONFLICT (stream) DO UPDATE SET events = {tallies}.events + excluded.events, last = excluded.last"]


@row("payloads", key="position")
class Payload:
    position: int
    customer: str
    wei: Decimal | None = None
    amount: Decimal | None = None
    said: dict[str, Any] = field(default_factory=dict)


class PayloadProjector(Projector):
    """Stores the payload of each event."""

    owns = (Payload,)

    @handles("made")
    def made(self, event: Event, rows: Rows) -> None:
        said = {name: event[name] for name in ("wei", "amount") if name in event.payload}
        rows.add(
            Payload(
                event.position,
                str(event.get("customer", "none")),
                None if "wei" not in said else Decimal(said["wei"]),
                None if "amount" not in said else Decimal(said["amount"]),
                said,
            )
        )


@row("customers", key="customer")
class Customer:
    customer: str
    events: int = 0


class CustomerProjector(Projector):
    """Counts events by a field of the payload, so that shards need the database to read the payload."""

    owns = (Customer,)
    partition_by = "customer"

    @handles("made")
    def made(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Customer, str(event["customer"])).events += 1


@row("days", key="day")
class Day:
    day: str
    events: int = 0


class DayProjector(Projector):
    """Counts events by the day of their recording."""

    owns = (Day,)
    part = ByPeriod({Day: "day"}, of=lambda event: event.recorded_time.strftime("%Y-%m-%d"), at=lambda at: f"{at:%Y-%m-%d}")

    @handles("made")
    def made(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Day, event.recorded_time.strftime("%Y-%m-%d")).events += 1


READ_MODELS = {
    "tallies": "stream varchar(120) {bin} PRIMARY KEY, events integer NOT NULL, last bigint NOT NULL",
    "payloads": "position bigint PRIMARY KEY, customer varchar(60) NOT NULL CHECK (length(customer) <= 50), wei numeric(40,0), amount numeric(30,2), said {json} NOT NULL",
    "customers": "customer varchar(60) {bin} PRIMARY KEY, events integer NOT NULL",
    "days": "day varchar(10) PRIMARY KEY, events integer NOT NULL",
}

TYPES: dict[str, dict[str, str]] = {
    "postgresql": {"json": "jsonb", "bytes": "bytea", "bin": "", "moment": "timestamptz", "text": "text", "json_text": "text"},
    "mysql": {
        "json": "json",
        "bytes": "longblob",
        "bin": "COLLATE utf8mb4_0900_bin",
        "moment": "datetime(6)",
        "text": "longtext",
    },
    "mariadb": {
        "json": "json",
        "bytes": "longblob",
        "bin": "COLLATE utf8mb4_nopad_bin",
        "moment": "datetime(6)",
        "text": "longtext",
    },
    "sqlite": {"json": "json", "bytes": "blob", "bin": "", "moment": "datetime", "text": "text"},
}


@dataclass
class Store:
    """An event store, the table ``stored_events`` with columns of any type, beside empty read models.

    :param columns: SQL types of columns that differ from the usual ones
    :param key: the definition of the primary key; empty: none
    """

    engine: sa.Engine
    columns: Mapping[str, str] = field(default_factory=dict)
    key: str = "PRIMARY KEY (id)"

    def __post_init__(self) -> None:
        known = TYPES[flavour(self.engine)]
        usual = {
            "id": "bigint NOT NULL",
            "stream": "varchar(60)",
            "type": "varchar(60) NOT NULL",
            "data": known["json"],
            "at": known["moment"],
        }
        given = {name: kind.format_map(known) for name, kind in (usual | dict(self.columns)).items()}
        rest = [self.key] if self.key else []
        options = " ENGINE=InnoDB" if flavour(self.engine) in ("mysql", "mariadb") else ""
        body = ", ".join([*(f"{name} {kind}" for name, kind in given.items()), *rest])
        with self.engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE stored_events ({body}){options}")
            for name, definition in READ_MODELS.items():
                connection.exec_driver_sql(f"CREATE TABLE {name} ({definition.format_map(known)}){options}")

    def add(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Appends events, each given by its columns. Missing columns are NULL, except the type, which is ``made``."""
        rows = [{"type": "made", "stream": None, "data": "{}", "at": None} | dict(each) for each in events]
        names = ["id", "stream", "type", "data", "at"]
        statement = sa.text(
            f"INSERT INTO stored_events ({', '.join(names)}) VALUES ({', '.join(':' + self._bound(name) for name in names)})"
        )
        with self.engine.begin() as connection:
            for each in rows:
                connection.execute(statement, {self._bound(name): each[name] for name in names})

    @staticmethod
    def _bound(name: str) -> str:
        return f"v_{name}"

    def rebuild(self, *projectors: type[Projector], run_id: str = "run", log: Any = lambda _: None, **changes: Any) -> Rebuild:
        """A run of a spec for this store.

        :param changes: changed keys of the spec; ``store`` has changed keys of its event store
        """
        store = {
            "conn_id": "db",
            "columns": {
                "position": "id",
                "stream": "stream",
                "type": "type",
                "payload": "data",
                "recorded_at": "at",
                "version": None,
                "metadata": None,
            },
        }
        given = {
            "rebuild": "tally",
            "event_store": store | changes.pop("store", {}),
            "read_models": {"conn_id": "db"},
            "projectors": [f"{each.__module__}:{each.__name__}" for each in projectors or (TallyProjector,)],
            "live_writer": "transactional",
        }
        spec = RebuildSpec.model_validate(given | changes)
        return Rebuild(spec, run_id=run_id, event_store=self.engine, read_models=self.engine, log=log)

    def rows(self, table: str = "tallies", suffix: str = "") -> list[tuple[Any, ...]]:
        """All rows of a read model, sorted by their first column."""
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT * FROM {table}{suffix}")
            return sorted((tuple(each) for each in found), key=lambda each: repr(each[0]))


def moment(text: str) -> datetime:
    """Parses an aware time."""
    return datetime.fromisoformat(text)


def tallied(store: Store) -> list[tuple[str, int]]:
    """The streams with their numbers of events, from the read model."""
    return sorted((stream, count) for stream, count, _ in store.rows())
