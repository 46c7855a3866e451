"""A read model with values whose meaning may depend on the session.

A handler reads them back and writes them as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop, values_shop
from tests.engine.harness.shop import events
from tests.engine.harness.specs import PROJECTORS, SPEC


@row("kept_values", key="id")
class Kept:
    id: int
    text: str
    blank: str | None
    number: float
    amount: Decimal
    raw: bytes
    day: date
    naive_plain: datetime
    naive_zoned: datetime
    aware_plain: datetime
    aware_zoned: datetime
    plain_text: str
    zoned_text: str
    options: dict[str, Any]
    seen: str = ""


class KeptProjector(Projector):
    owns = (Kept,)

    @handles("ValueKept")
    def kept(self, event: Event, rows: Rows) -> None:
        naive, aware = datetime.fromisoformat(event["naive"]), datetime.fromisoformat(event["aware"])
        rows.add(
            Kept(
                id=event["id"],
                text=event["text"],
                blank="",
                number=event["number"],
                amount=Decimal(event["amount"]),
                raw=bytes.fromhex(event["raw"]),
                day=date.fromisoformat(event["day"]),
                naive_plain=naive,
                naive_zoned=naive,
                aware_plain=aware,
                aware_zoned=aware,
                plain_text=event["naive"].replace("T", " "),
                zoned_text=event["naive"].replace("T", " "),
                options={"text": event["text"]},
            )
        )

    @handles("ValueSeen")
    def told(self, event: Event, rows: Rows) -> None:
        found = rows.get(Kept, event["id"])
        times = (found.naive_plain, found.naive_zoned, found.aware_plain, found.aware_zoned)
        said = [found.text, repr(found.number), str(found.amount), found.raw.hex(), found.day.isoformat()]
        found.seen = " ".join([*said, *map(_in_utc, times), found.options["text"]])


def _in_utc(moment: datetime) -> str:
    """The same text for a time that a handler has just written and for one that comes from a column."""
    return f"{(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


TYPES = {
    "sqlite": ("TEXT", "REAL", "BLOB", "TEXT", "TEXT", "TEXT"),
    "postgresql": ("text", "double precision", "bytea", "timestamp(6)", "timestamptz(6)", "jsonb"),
    "mysql": ("VARCHAR(400)", "DOUBLE", "VARBINARY(100)", "DATETIME(6)", "TIMESTAMP(6) NULL", "JSON"),
}
ID = 1_000_000


def create(engine: sa.Engine) -> None:
    """Creates the table and the event store."""
    text, number, raw, plain, zoned, json = TYPES[engine.dialect.name]
    options = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" if engine.dialect.name == "mysql" else ""
    shop.stored_events.create(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE kept_values (id BIGINT PRIMARY KEY, text {text} NOT NULL, blank {text}, number {number} NOT NULL, amount "
            f"NUMERIC(14, 2) NOT NULL, raw {raw} NOT NULL, day DATE NOT NULL, naive_plain {plain}, naive_zoned {zoned}, aware_plain {plain}, "
            f"aware_zoned {zoned}, plain_text {plain}, zoned_text {zoned}, options {json} NOT NULL, seen {text} NOT NULL){options}"
        )


def kept_events(count: int) -> list[dict[str, Any]]:
    """The events of ``count`` values: an event that stores each value, then an event that reads each back."""
    kept = []
    for number in range(count):
        said = {
            "id": ID + number,
            "text": f"ü✓😀 \\{number}\\n 'x' \"y\" %s",
            "number": 0.1 + 1 / (number + 3),
            "amount": f"{number}.07",
            "raw": f"5c00ff{number:04x}",
            "day": f"2026-02-{number % 12 + 1:02}",
            "naive": f"2026-03-{number % 12 + 1:02}T23:30:15.000250",
            "aware": f"2026-03-{number % 12 + 1:02}T23:30:15.000250-05:00",
        }
        kept.append(("ValueKept", said))
    # After the last value, the first ones are no longer in memory.
    made = [*kept, *(("ValueSeen", {"id": said["id"]}) for _, said in kept)]
    return [{"aggregate_uuid": f"value-{said['id']}", "event_class": kind, "event_properties": said} for kind, said in made]


def append(connection: sa.Connection, stored: Sequence[dict[str, Any]], *, project: bool) -> None:
    """Stores events, and projects them in the application's session if ``project`` is set."""
    for each in stored:
        made = connection.execute(shop.stored_events.insert().values(**each))
        event = Event(
            position=made.inserted_primary_key[0],  # type: ignore[index]
            stream=each["aggregate_uuid"],
            type=each["event_class"],
            payload=each["event_properties"],
        )
        if project:
            project_live(connection, KeptProjector, event)


def project_all(engine: sa.Engine, count: int) -> None:
    """Appends and projects all events as the application does, each in a transaction."""
    for each in kept_events(count):
        with unit_of_work(engine) as connection:
            append(connection, [each], project=True)


def rebuild_of(engine: sa.Engine, run_id: str = "values", **changes: Any) -> Rebuild:
    """A rebuild of the table, in small batches, so that the engine must read rows back."""
    own = {
        "projectors": ["tests.engine.harness.values_shop:KeptProjector"],
        "replay": {"batch_events": 7, "max_rows_in_memory": 3},
    }
    spec = RebuildSpec.model_validate(SPEC | own | changes)
    return Rebuild(spec, run_id=run_id, event_store=engine, read_models=engine, log=lambda _: None)


PLAIN = {
    "sqlite": """SELECT id, text, blank, number, amount, raw, day, naive_plain, naive_zoned, aware_plain, aware_zoned, plain_text, zoned_text,
        seen FROM kept_values ORDER BY id""",
    "postgresql": """SELECT id, text, blank, number::text, amount, encode(raw, 'hex'), day::text, naive_plain::text,
        (naive_zoned AT TIME ZONE 'UTC')::text, aware_plain::text, (aware_zoned AT TIME ZONE 'UTC')::text, plain_text::text,
        (zoned_text AT TIME ZONE 'UTC')::text, seen FROM kept_values ORDER BY id""",
    "mysql": """SELECT id, text, blank, number, amount, HEX(raw), CAST(day AS CHAR), CAST(naive_plain AS CHAR), UNIX_TIMESTAMP(naive_zoned),
        CAST(aware_plain AS CHAR), UNIX_TIMESTAMP(aware_zoned), CAST(plain_text AS CHAR), UNIX_TIMESTAMP(zoned_text),
        seen FROM kept_values ORDER BY id""",
}
USUAL = {
    "sqlite": {},
    "postgresql": {
        "options": "-c DateStyle=ISO,MDY -c TimeZone=UTC -c extra_float_digits=1 -c client_encoding=UTF8 -c statement_timeout=0 "
        "-c transform_null_equals=off -c standard_conforming_strings=on -c idle_session_timeout=0"
    },
    "mysql": {
        "init_command": "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', sql_select_limit = DEFAULT",
        "autocommit": True,
    },
}
"""Arguments of the drivers for a session that does not depend on the server's defaults."""


def usual(url: sa.URL) -> sa.Engine:
    """An engine with the usual session settings, whatever the server's defaults are."""
    return sa.create_engine(url, connect_args=USUAL[url.get_backend_name()], poolclass=sa.NullPool)


def table(url: sa.URL) -> list[tuple[Any, ...]]:
    """The rows of the table, in an unambiguous form."""
    engine = usual(url)
    with engine.connect() as connection:
        if engine.dialect.name == "mysql":
            connection.exec_driver_sql("SET SESSION sql_select_limit = 18446744073709551615")
        return [tuple(each) for each in connection.exec_driver_sql(PLAIN[engine.dialect.name])]


def wanted(backend: str, count: int, *, empty: str | None = "") -> list[tuple[Any, ...]]:
    """The rows that the table must have, computed without the projector's code."""
    return [_wanted_row(backend, number, empty) for number in range(count)]


def _wanted_row(backend: str, number: int, empty: str | None) -> tuple[Any, ...]:
    day = number % 12 + 1
    local, utc = f"2026-03-{day:02} 23:30:15.000250", f"2026-03-{day + 1:02} 04:30:15.000250"
    text, double, amount = f"ü✓😀 \\{number}\\n 'x' \"y\" %s", 0.1 + 1 / (number + 3), f"{number}.07"
    raw, on = bytes.fromhex(f"5c00ff{number:04x}"), f"2026-02-{day:02}"
    head = (ID + number, text, empty)
    told = " ".join([text, repr(double), amount, raw.hex(), on, local, local, utc, utc, text])
    match backend:
        case "sqlite":
            aware = f"{local}-05:00"
            return (*head, double, float(amount), raw, on, local, local, aware, aware, local, local, told)
        case "postgresql":
            times = tuple(each.rstrip("0") for each in (local, local, utc, utc))
            return (*head, repr(double), Decimal(amount), raw.hex(), on, *times, *times[:2], told)
        case _:
            early, late = _epoch(local), _epoch(utc)
            return (*head, double, Decimal(amount), raw.hex().upper(), on, local, early, utc, late, local, early, told)


def _epoch(moment: str) -> Decimal:
    return Decimal(int(datetime.fromisoformat(f"{moment}+00:00").timestamp())) + Decimal("0.000250")


KEPT = 20


BOTH = [f"tests.engine.harness.shop:{name}" for name in PROJECTORS] + ["tests.engine.harness.values_shop:KeptProjector"]


MANY = 600


def filled(url: sa.URL, *, kept: int = KEPT, project: bool = False) -> None:
    """Creates the tables of both shops and stores their events, in sessions with the usual settings."""
    engine = usual(url)
    values_shop.create(engine)
    shop.metadata.create_all(engine)
    with engine.begin() as connection:
        values_shop.append(connection, kept_events(kept), project=project)
        connection.execute(shop.stored_events.insert(), events(MANY))


def fresh(url: sa.URL, **arguments: Any) -> sa.Engine:
    """An engine that opens a new session for each use."""
    return sa.create_engine(url, poolclass=sa.NullPool, **arguments)
