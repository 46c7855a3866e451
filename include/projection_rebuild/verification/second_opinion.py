"""Checks whether green has every event of the store: counts the store and compares with the ledger.

It counts with a plain statement, which shares no query and no bound with the replay. So it finds events that the replay
has skipped because of a wrong bound, a wrong comparison of types, or a position that the replay never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from projection_rebuild.dialects.base import EventExpressions
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place
from projection_rebuild.model.refusals import miscount
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step
from projection_rebuild.spec.stores import EventStoreSection


@dataclass(frozen=True)
class Stored:
    """What the store holds up to a position.

    :param by_type: how many events of each type
    :param without_type: events whose type is NULL
    :param without_position: rows of the whole store whose position is NULL
    """

    by_type: Mapping[str, int] = field(default_factory=dict)
    without_type: int = 0
    without_position: int = 0


@dataclass(frozen=True)
class Opinion:
    """The result of a count.

    :param failures: why green must not replace blue
    :param notes: what an operator should know, though it is no failure
    """

    failures: list[str]
    notes: list[str]


def count(step: Step, plan: Plan) -> Opinion:
    """Compares the store with what each projector has handled and set aside, up to the position of its checkpoint.

    It reads the type and the position of every event once for each different checkpoint; after a catch-up all
    checkpoints have the same position.

    :param connection: to the read models
    """
    checkpoints = step.ledger.checkpoints.of_projectors()
    stored = {
        place: stored_up_to(step.context, place, plan.already or ())
        for place in {checkpoints[name].position for name in plan.projectors}
    }
    failures, notes = [], []
    for name in plan.projectors:
        checkpoint, types = checkpoints[name], step.context.projector(name).stored_types()
        aside = len(step.ledger.dead_letters.of_run(name))
        existing = sum(stored[checkpoint.position].by_type.get(event_type, 0) for event_type in types)
        if existing != checkpoint.events + aside:
            failures.append(miscount(name, checkpoint.events, aside, existing, checkpoint.position))
    last = max(stored.values(), key=lambda store: sum(store.by_type.values()), default=Stored())
    table = step.spec.event_store.table
    if last.without_position:
        failures.append(
            f"the event store {table} holds {last.without_position:,} events without a position, which no replay reads"
        )
    if last.without_type:
        notes.append(f"the event store {table} holds {last.without_type:,} events without a type, which no projector handles")
    return Opinion(failures, notes)


def stored_up_to(context: Context, position: Place, ahead: Sequence[int] = ()) -> Stored:
    """Counts the whole store up to a position, by type, in one statement.

    :param ahead: positions of single events to count wherever they are, since a cutover that was undone has drained
        them
    """
    if position is None and not ahead:
        return Stored()
    dialect, section = context.store.dialect, context.spec.event_store
    with dialect.connect() as connection:
        schema = section.db_schema or dialect.inspector.default_schema(connection)
        kinds = dialect.inspector.column_types(connection, schema, section.table)
        place, name = dialect.quote(section.columns.position), section.columns.type
        only, values = only_these(dialect, section)
        places = [f"{place} IS NULL", *([] if position is None else [f"{place} <= {int(position)}"])]
        if ahead:
            places.append(f"{place} IN ({', '.join(str(int(drained)) for drained in ahead)})")
        counted = " OR ".join(places)
        # The position is part of the statement's text: a driver could convert a bound value into another number.
        statement = (
            f"SELECT {dialect.rows.exact_bytes(dialect.quote(name), kinds[name].kind)}, count(*), count({place}) "
            f"FROM {dialect.qualified(schema, section.table)} "
            f"WHERE {' AND '.join([f'({counted})', *only])} GROUP BY 1"
        )
        rows = [tuple(row) for row in dialect.execute(connection, statement, values)]
    by_type = {text_of(stored_type): int(placed) for stored_type, _, placed in rows if stored_type is not None}
    return Stored(
        by_type=by_type,
        without_type=sum(int(placed) for stored_type, _, placed in rows if stored_type is None),
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


def text_of(stored: object) -> str:
    """A text, which some databases return as bytes; no projector handles a type that is no UTF-8."""
    return stored.decode(errors="replace") if isinstance(stored, bytes) else str(stored)
