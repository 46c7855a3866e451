"""Compares read models with the event store in one snapshot: counts lost and doubled events, and wrong rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from include.universal.independent import Table, actual_tables, expected_tables
from tools.prove.clients import SNAPSHOT


@dataclass(frozen=True)
class Rows:
    """Counts of the rows of a table that differ from the rows computed from the events."""

    missing: int = 0
    extra: int = 0
    different: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.different)

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.missing + other.missing, self.extra + other.extra, self.different + other.different)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    :param events: the number of events that must be projected
    :param lost: how many of these events were not projected
    :param doubled: the number of surplus projections: of an event that was projected more than once, or of an event
        that a consumer or a job has yet to project
    :param rows: the wrong rows by table, only for tables that have some
    """

    events: int
    lost: int
    doubled: int
    rows: dict[str, Rows] = field(default_factory=dict)


def compare(engine: sa.Engine, projected: str = "") -> Comparison:
    """Compares all tables while clients work. All reads share one snapshot.

    :param projected: a ``WHERE`` clause that selects the events that must be projected at this moment; empty: all
        events
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in SNAPSHOT[engine.dialect.name]:
            connection.exec_driver_sql(statement)
        required = set(connection.exec_driver_sql(f"SELECT id FROM stored_events {projected}").scalars())
        times = {
            int(position): int(count)
            for position, count in connection.exec_driver_sql("SELECT position, times FROM applied_events")
        }
        expected, actual = expected_tables(connection, projected), actual_tables(connection)
        connection.exec_driver_sql("COMMIT")
    return Comparison(
        events=len(required),
        lost=sum(not times.get(position) for position in required),
        doubled=sum(count - (position in required) for position, count in times.items() if count),
        rows={table: rows for table in expected if (rows := differences(expected[table], actual[table]))},
    )


def differences(expected: Table, actual: Table) -> Rows:
    """Counts the differing rows of one table, by their keys."""
    both = expected.keys() & actual.keys()
    return Rows(
        missing=len(expected.keys() - both),
        extra=len(actual.keys() - both),
        different=sum(expected[key] != actual[key] for key in both),
    )
