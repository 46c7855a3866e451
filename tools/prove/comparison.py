"""Read models held against the event store, in one snapshot: which events were lost or doubled, which rows are wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from include.universal.independent import Table, actual_tables, expected_tables
from tools.prove.clients import SNAPSHOT


@dataclass(frozen=True)
class Rows:
    """How the rows of a table differ from what the events say."""

    missing: int = 0
    extra: int = 0
    different: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.different)

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.missing + other.missing, self.extra + other.extra, self.different + other.different)


@dataclass(frozen=True)
class Comparison:
    """What was found.

    :param events: in the store
    :param lost: events that are to be projected and were not
    :param doubled: projections too many: of one event more than once, or of an event that will be projected (again) by a
        consumer or a job
    :param rows: tables with wrong rows only
    """

    events: int
    lost: int
    doubled: int
    rows: dict[str, Rows] = field(default_factory=dict)


def compare(engine: sa.Engine, projected: str = "") -> Comparison:
    """Compares all tables, while clients go on: every read is of the same moment.

    :param projected: a WHERE clause: the events that must have been projected at this moment; all, if it is empty
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in SNAPSHOT[engine.dialect.name]:
            connection.exec_driver_sql(statement)
        wanted = set(connection.exec_driver_sql(f"SELECT id FROM stored_events {projected}").scalars())
        times = {
            int(position): int(count)
            for position, count in connection.exec_driver_sql("SELECT position, times FROM applied_events")
        }
        expected, actual = expected_tables(connection, projected), actual_tables(connection)
        connection.exec_driver_sql("COMMIT")
    return Comparison(
        events=len(wanted),
        lost=sum(not times.get(position) for position in wanted),
        doubled=sum(count - (position in wanted) for position, count in times.items() if count),
        rows={table: found for table in expected if (found := differences(expected[table], actual[table]))},
    )


def differences(expected: Table, actual: Table) -> Rows:
    """The rows of one table, by their keys."""
    both = expected.keys() & actual.keys()
    return Rows(
        missing=len(expected.keys() - both),
        extra=len(actual.keys() - both),
        different=sum(expected[key] != actual[key] for key in both),
    )
