"""Whether every event of the store is in green: the store counted by a plain statement, held against the ledger.

It shares no query and no bound with the replay. What the replay passes over, because of a wrong bound, a wrong comparison of types, or a
position that it never saw, shows here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from projection_rebuild.dialects.base import EventExpressions
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place
from projection_rebuild.model.refusals import miscount
from projection_rebuild.run.context import Context
from projection_rebuild.spec.stores import EventStoreSection


@dataclass(frozen=True)
class Stored:
    """What the store holds up to a position.

    :param by_type: how many events of each type
    :param without_type: events whose type is NULL
    :param without_position: rows whose position is NULL, wherever they belong
    """

    by_type: Mapping[str, int] = field(default_factory=dict)
    without_type: int = 0
    without_position: int = 0


@dataclass(frozen=True)
class Opinion:
    """What a count says.

    :param failures: why green must not replace blue
    :param notes: what a person should know, and what is no reason
    """

    failures: list[str]
    notes: list[str]


def count(context: Context, connection: sa.Connection, plan: Plan) -> Opinion:
    """Holds the store against what each projector has handled and set aside, each up to the position of its checkpoint.

    It reads the type and the position of every event, once for each position at which checkpoints stand, which is one after a catch-up.

    :param connection: to the read models
    """
    checkpoints = context.ledger.checkpoints.of_projectors(connection, context.run_id)
    stored = {
        place: stored_up_to(context, place, plan.already or ())
        for place in {checkpoints[name].position for name in plan.projectors}
    }
    failures, notes = [], []
    for name in plan.projectors:
        checkpoint, types = checkpoints[name], context.projector(name).stored_types()
        aside = len(context.ledger.dead_letters.of_run(connection, context.run_id, name))
        there = sum(stored[checkpoint.position].by_type.get(each, 0) for each in types)
        if there != checkpoint.events + aside:
            failures.append(miscount(name, checkpoint.events, aside, there, checkpoint.position))
    last = max(stored.values(), key=lambda each: sum(each.by_type.values()), default=Stored())
    table = context.spec.event_store.table
    if last.without_position:
        failures.append(
            f"the event store {table} holds {last.without_position:,} events without a position, which no replay reads"
        )
    if last.without_type:
        notes.append(f"the event store {table} holds {last.without_type:,} events without a type, which no projector handles")
    return Opinion(failures, notes)


def stored_up_to(context: Context, position: Place, ahead: Sequence[int] = ()) -> Stored:
    """Counts the whole store up to a position, by type, in one statement.

    :param ahead: positions of single events that count wherever they are: an undone switch has drained them
    """
    if position is None and not ahead:
        return Stored()
    dialect, section = context.store.dialect, context.spec.event_store
    with dialect.connect() as connection:
        schema = section.db_schema or dialect.default_schema(connection)
        kinds = dialect.column_types(connection, schema, section.table)
        place, name = dialect.quote(section.columns.position), section.columns.type
        only, values = only_these(dialect, section)
        places = [f"{place} IS NULL", *([] if position is None else [f"{place} <= {int(position)}"])]
        if ahead:
            places.append(f"{place} IN ({', '.join(str(int(each)) for each in ahead)})")
        counted = " OR ".join(places)
        # The position stands in the statement: as a bound value a driver could make something else of it than the database's own number.
        statement = (
            f"SELECT {dialect.exact_bytes(dialect.quote(name), kinds[name].kind)}, count(*), count({place}) "
            f"FROM {dialect.qualified(schema, section.table)} "
            f"WHERE {' AND '.join([f'({counted})', *only])} GROUP BY 1"
        )
        rows = [tuple(row) for row in dialect.execute(connection, statement, values)]
    by_type = {text_of(found): int(placed) for found, _, placed in rows if found is not None}
    return Stored(
        by_type=by_type,
        without_type=sum(int(placed) for found, _, placed in rows if found is None),
        without_position=sum(int(all_of_them) - int(placed) for _, all_of_them, placed in rows),
    )


def only_these(dialect: EventExpressions, section: EventStoreSection) -> tuple[list[str], tuple[object, ...]]:
    """The conditions of ``event_store.only``, and the values bound in them."""
    conditions = []
    for name, value in section.only.items():
        quoted = dialect.quote(name)
        if value is None:
            conditions.append(f"{quoted} IS NULL")
        else:
            conditions.append(dialect.equals_bytes(quoted) if isinstance(value, str) else f"{quoted} = {dialect.mark}")
    return conditions, tuple(value for value in section.only.values() if value is not None)


def text_of(found: object) -> str:
    """A text of which a database may have given the bytes; what is no UTF-8 is no type that a projector could handle."""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)
