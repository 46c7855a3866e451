"""An application whose events, keys and rows contain a secret mark, which must appear in no message, log or record."""

from __future__ import annotations

import builtins
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import MySQLdb
import psycopg.errors
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import mysql

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.views.rebuild import rebuild_view

MARK = "PAYLOAD-MARK-7f3a"


@row("keepers", key="id")
class Keeper:
    id: str


@row("things", key="id")
class Thing:
    id: str
    keeper: str
    note: str
    code: str
    amount: int
    details: dict[str, Any]


@row("counts", key="id")
class Count:
    id: str
    things: int


class KeeperProjector(Projector):
    owns = (Keeper,)

    @handles("KeeperCame")
    def came(self, event: Event, rows: Rows) -> None:
        rows.add(Keeper(event["id"]))


class ThingProjector(Projector):
    """Adds a thing for each event, and fails at events that a test selects.

    :cvar fails: its handler calls this at an event ``ThingBroken``
    """

    owns = (Thing,)
    depends_on = (KeeperProjector,)
    partition_by = "id"
    part = ByAggregate({Thing: "id"}, of=lambda event: event["id"])
    fails: ClassVar[Callable[[Event], None]] = staticmethod(lambda event: None)

    @handles("ThingAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.add(Thing(event["id"], event["keeper"], event["note"], event["code"], event["amount"], event["details"]))

    @handles("ThingBroken")
    def broken(self, event: Event, rows: Rows) -> None:
        type(self).fails(event)


CAST = {
    "postgresql": "CAST(e.stream AS integer)",
    "mysql": "e.stream",
    "mariadb": "e.stream",
    "sqlite": "json(e.stream)",
}
"""An expression that converts a stream's name to a number; the database's error quotes the name."""


def _statements(database: str) -> Sequence[str]:
    return [f"INSERT INTO {{counts}} (id, things) SELECT e.stream, {CAST[database]} FROM {{events}} e"]


class CountProjector(Projector):
    """A projector by SQL alone. Its SQL fails at its only event."""

    owns = (Count,)
    reads_events: ClassVar[tuple[str, ...]] = ("ThingCounted",)

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return _statements(database)


class CountByBoth(Projector):
    """A projector by SQL and by handlers. The handlers accept the event at which the SQL fails."""

    owns = (Count,)

    @handles("ThingCounted")
    def counted(self, event: Event, rows: Rows) -> None:
        rows.add(Count(event["id"], 1))

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return _statements(database)


metadata = sa.MetaData()
stored_events = sa.Table(
    "stored_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("aggregate_uuid", sa.String(60)),
    sa.Column("event_class", sa.String(60), nullable=False, index=True),
    # A text column, which can hold a payload that is no JSON.
    sa.Column("event_properties", sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False),
    sa.Column("meta_data", sa.Text),
    mysql_engine="InnoDB",
)
sa.Table("keepers", metadata, sa.Column("id", sa.String(60), primary_key=True), mysql_engine="InnoDB")
things = sa.Table(
    "things",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("keeper", sa.String(60), sa.ForeignKey("keepers.id", name="things_keeper"), nullable=False),
    sa.Column("note", sa.String(60), nullable=False),
    sa.Column("code", sa.String(60), nullable=False),
    sa.Column("amount", sa.Integer, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.UniqueConstraint("code", name="things_code"),
    sa.CheckConstraint("amount >= 0", name="things_chk_1"),
    mysql_engine="InnoDB",
)
sa.Table(
    "counts",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("things", sa.Integer, nullable=False),
    mysql_engine="InnoDB",
)

SPEC: dict[str, Any] = {
    "rebuild": "marked",
    "event_store": {"conn_id": "db", "columns": {"recorded_at": None, "version": None, "type_version": None}},
    "read_models": {"conn_id": "db"},
    "projectors": ["tests.engine.harness.marked:KeeperProjector", "tests.engine.harness.marked:ThingProjector"],
    "live_writer": {"contract": "transactional"},
    "replay": {"batch_events": 100},
    "verify": {"max_count_drift_percent": 100},
}


def thing(number: int, **changed: Any) -> dict[str, Any]:
    """The columns of a thing, which are also the payload of its event."""
    said: dict[str, Any] = {
        "id": f"{MARK}-{number}",
        "keeper": f"{MARK}-keeper",
        "note": f"note {MARK}",
        "code": f"{MARK}-code-{number}",
        "amount": number,
        "details": {MARK: MARK},
    }
    return said | changed


def added(number: int, **changed: Any) -> dict[str, Any]:
    """The stored form of a thing's event."""
    return event("ThingAdded", thing(number, **changed))


def event(event_class: str, said: object) -> dict[str, Any]:
    """The stored form of an event.

    :param said: its payload, as JSON text or as an object
    """
    payload = said if isinstance(said, str) else json.dumps(said)
    return {
        "aggregate_uuid": f"{MARK}-stream",
        "event_class": event_class,
        "event_properties": payload,
        "meta_data": json.dumps({"by": MARK}),
    }


class Marked:
    """The application, with a few things that a first run has projected.

    :param url: an empty database
    :ivar log: the log lines of all runs
    :ivar events: the number of events that the first run has projected
    """

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.engine = sa.create_engine(url)
        self.log: list[str] = []
        metadata.create_all(self.engine)
        self.store(event("KeeperCame", {"id": f"{MARK}-keeper"}), *[added(number) for number in range(1, 9)])
        first = self.open_run("first")
        first.plan(RunOptions())
        first.clone_tables()
        for name in first.chosen():
            first.replay(name)
        first.verify()
        first.swap()
        first.reconcile()
        first.drop_old()
        first.close()
        self.events = 9

    def store(self, *events: dict[str, Any]) -> None:
        """Appends events."""
        with self.engine.begin() as connection:
            connection.execute(stored_events.insert(), list(events))

    def forget(self) -> None:
        """Deletes the events that were stored since the first run."""
        self.execute(f"DELETE FROM stored_events WHERE id > {self.events}")

    def begin(self, run_id: str, **changes: Any) -> Rebuild:
        """Plans and clones a new run. It treats all other runs as over."""
        made = self.open_run(run_id, **changes)
        made.plan(RunOptions(), is_over=lambda other: True)
        made.clone_tables()
        return made

    def execute(self, statement: str) -> None:
        """Executes a statement as the application's owner."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def open_run(self, run_id: str, engine: sa.Engine | None = None, **changes: Any) -> Rebuild:
        """A run of the spec.

        :param engine: the engine for its connections; None: the application's own
        """
        at = engine or self.engine
        spec = RebuildSpec.model_validate(SPEC | changes)
        return Rebuild(spec, run_id=run_id, event_store=at, read_models=at, log=self.log.append)

    def records(self) -> str:
        """All records of all runs, as text: the ledger, the reports, and the content of the page."""
        records: list[object] = []
        with self.engine.connect() as connection:
            for name in sa.inspect(connection).get_table_names():
                if name.startswith("projection_rebuild"):
                    records += [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}")]
        look = self.open_run("")
        seen = Seen(RebuildSpec.model_validate(SPEC), look.look(), look.tables(), look.history(), None, {})
        look.close()
        return f"{records!r} {rebuild_view(seen, lambda _: True)!r} {[report.as_markdown() for report in seen.past]!r}"


# Secrets that must not leak ----------------------------------------------------------------------------------------

_DRIVERS = (psycopg.errors, psycopg, MySQLdb, sqlite3, sa.exc)
# Without those that share their name with Python's own errors, and one that is a word of ours.
CLASSES = {
    name
    for module in _DRIVERS
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Exception) and not hasattr(builtins, name)
} - {"Error", "Warning", "Rollback"}
"""The names of all errors of all drivers."""

_render = structlog.tracebacks.ExceptionDictTransformer(use_rich=False, show_locals=False)
"""Renders an error as Airflow's log does (``airflow.sdk._shared.logging.structlog``)."""


def strangers(text: str) -> set[str]:
    """The secrets in a text: the mark, and names of drivers' error classes."""
    return ({MARK} if MARK in text else set()) | CLASSES & {*re.findall(r"\w+", text)}


def leaks(error: BaseException) -> set[str]:
    """The secrets in an error and in its rendered traceback."""
    stacks = _render((type(error), error, error.__traceback__))
    said = " ".join(f"{each['exc_type']} {each['exc_value']} {each.get('exc_notes', '')}" for each in stacks)
    everything = json.dumps(stacks, default=repr)
    return strangers(said) | ({MARK} if MARK in everything or MARK in repr(error) else set())


class Listener(logging.Handler):
    """Collects the messages of all log records, and the leaks of their errors.

    :ivar heard: the collected texts
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Stores the record's message, and the leaks of its error."""
        self.heard.append(record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            self.heard += sorted(leaks(record.exc_info[1]))


def listening() -> Iterator[Listener]:
    """Collects log records at INFO and above while a test runs."""
    listener, root = Listener(), logging.getLogger()
    before = root.level
    root.addHandler(listener)
    root.setLevel(logging.INFO)
    yield listener
    root.removeHandler(listener)
    root.setLevel(before)
