"""Interleaved rounds: each round runs every way once, and holds the tables that it leaves against the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa

from benchmarks import floor, tables
from benchmarks.results import Results, Run
from benchmarks.store import Store
from benchmarks.ways import Measured, Scope, Stage, Way
from include.universal.schema import stored_events


class Wrong(Exception):
    """A way left other rows than the hand-written SQL; its speed says nothing."""


def prepare(stage: Stage, scopes: Iterable[Scope] = Scope) -> None:
    """Computes the answers that every way is compared with."""
    for scope in scopes:
        floor.run(stage.store, scope, upto=stage.upto(scope))


def describe_store(store: Store) -> str:
    """``1,000,000 events of 124,800 aggregates, payloads of 231 bytes``."""
    aggregates = sa.func.count(stored_events.c.aggregate_uuid.distinct())
    length = sa.func.avg(sa.func.length(sa.cast(stored_events.c.event_properties, sa.Text)))
    with store.engine.connect() as connection:
        found, size = connection.execute(sa.select(aggregates, length)).one()
    return f"{store.count:,} events of {found:,} aggregates, payloads of {size:,.0f} bytes on average"


def run_round(stage: Stage, number: int, ways: Sequence[Way], results: Results, say: Callable[[str], None]) -> None:
    """Every way once.

    :raises Wrong: tables differ that must not
    """
    store = stage.store
    for way in ways:
        store.settle()
        done = way.run(stage)
        rows, differing = _check(stage, way) if way.suffix else (0, {})
        run = Run(
            engine=store.kind,
            way=way.name,
            round=number,
            events=_handled(stage, way),
            size=store.count,
            seconds=done.seconds,
            peak_mib=done.peak_mib,
            rows=rows,
            equal=not differing if way.suffix else None,
            parts=done.parts,
        )
        results.add(run)
        say(f"{store.kind}, round {number}, {way.title}: {describe(run, done)}")


def describe(run: Run, done: Measured) -> str:
    """``12.30 s, 81,300 events/s, 110 MiB; 639,000 rows, equal``."""
    memory = f", {done.peak_mib:,.0f} MiB" if done.peak_mib is not None else ""
    rows = f"; {run.rows:,} rows, {'equal' if run.equal else 'NOT EQUAL'}" if run.equal is not None else ""
    return f"{run.seconds:.2f} s, {run.rate:,.0f} events/s{memory}{rows}"


def _check(stage: Stage, way: Way) -> tuple[int, dict[str, int]]:
    """How many rows it left, and how many of each table are wrong."""
    with stage.store.engine.connect() as connection:
        differing = tables.differing(connection, way.scope, way.suffix, way.projectors)
        if differing and way.strict:
            raise Wrong(f"{stage.store.kind}, {way.title}: rows that differ from the hand-written SQL: {differing}")
        rows = tables.row_count(connection, way.suffix, way.projectors)
        tables.drop(connection, way.suffix, way.projectors)
        connection.commit()
    return rows, differing


def _handled(stage: Stage, way: Way) -> int:
    types = {each for projector in way.projectors for each in projector.event_types()}
    upto = stage.upto(way.scope)
    query = sa.select(sa.func.count()).where(stored_events.c.id <= upto, stored_events.c.event_class.in_(types))
    with stage.store.engine.connect() as connection:
        return int(connection.execute(query).scalar_one())
