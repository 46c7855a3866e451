"""The floor: the four tables as one SQL statement each, as somebody writes them by hand who knows the events and the database.

All tables are computed from the events alone, in one session. It shares nothing with the projectors, so that it is also the
answer that every other way is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks import tables
from benchmarks.events import PROJECTORS
from benchmarks.store import Store
from projection_rebuild.authoring.projector import Projector


@dataclass(frozen=True)
class Words:
    """How a database says what the statements need.

    :param field: a field of the payload as text; ``{}`` is its name
    :param key: the same, so that the database can join and group by it
    :param number: the same as a whole number
    :param day: a text as a date
    :param tagged: a text with the event's position in front, so that the greatest is the last
    :param untagged: the text without its position
    :param big: the type to cast a price to
    :param joins: whether expenses are joined with what happened to them (needs a hash join or an index made on the fly), or grouped
    :param begin: what the session sets first
    """

    field: str
    key: str
    number: str
    day: str
    tagged: str
    untagged: str
    big: str
    joins: bool = True
    begin: Sequence[str] = ()

    def last(self, name: str, *types: str) -> str:
        """A field of a group's last event of these types."""
        tagged = self.tagged.format(self.field.format(name))
        return self.untagged.format(f"max(CASE WHEN event_class IN ({_listed(types)}) THEN {tagged} END)")

    def only(self, expression: str, event_type: str) -> str:
        """An expression over a group's only event of this type."""
        return f"max(CASE WHEN event_class = '{event_type}' THEN {expression} END)"


_MYSQL = Words(
    field="JSON_VALUE(event_properties, '$.{}')",
    key="CAST(JSON_VALUE(event_properties, '$.{}') AS CHAR(36))",
    number="CAST(JSON_VALUE(event_properties, '$.{}') AS SIGNED)",
    day="CAST({} AS DATE)",
    tagged="CONCAT(LPAD(id, 12, '0'), {})",
    untagged="SUBSTRING({}, 13)",
    big="SIGNED",
    joins=False,
    begin=("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",),
)
WORDS = {
    "postgres": Words(
        field="(event_properties ->> '{}')",
        key="(event_properties ->> '{}')",
        number="(event_properties ->> '{}')::bigint",
        day="({})::date",
        tagged="ARRAY[to_char(id, 'FM000000000000'), {}] COLLATE \"C\"",
        untagged="({})[2]",
        big="bigint",
        begin=("SET work_mem = '256MB'", "SET maintenance_work_mem = '256MB'"),
    ),
    "mariadb": _MYSQL,
    "mysql": _MYSQL,
    "sqlite": Words(
        field="(event_properties ->> '{}')",
        key="CAST(event_properties ->> '{}' AS TEXT)",
        number="(event_properties ->> '{}')",
        day="{}",
        tagged="printf('%012d', id) || {}",
        untagged="substr({}, 13)",
        big="integer",
    ),
}


def _listed(types: Iterable[str]) -> str:
    return ", ".join(f"'{each}'" for each in types)


def statements(words: Words, suffix: str, upto: int) -> dict[str, str]:
    """One INSERT per table, from the events up to a position."""
    expenses = _joined_expenses if words.joins else _grouped_expenses
    ways = {
        "subscriptions": _subscriptions,
        "expenses": expenses,
        "category_summaries": _categories,
        "monthly_summaries": _months,
    }
    return {name: f"INSERT INTO {name}_{suffix} {way(words, lambda *types: _events(upto, types))}" for name, way in ways.items()}


def _events(upto: int, types: Iterable[str]) -> str:
    return f"FROM stored_events WHERE id <= {upto} AND event_class IN ({_listed(types)})"


Events = Callable[..., str]
SIGN = "CASE WHEN event_class = 'ExpenseDeleted' THEN -1 ELSE 1 END"


def _subscriptions(words: Words, of: Events) -> str:
    created, renewed, changed, cancelled = (f"Subscription{each}" for each in ("Created", "Renewed", "PriceChanged", "Cancelled"))
    ended = f"sum(CASE WHEN event_class = '{cancelled}' THEN 1 ELSE 0 END)"

    def first(name: str) -> str:
        return words.only(words.field.format(name), created)

    return f"""
        (id, user_id, name, category, price_cents, status, started_on, renews_on, cancelled_on, renewals)
        SELECT aggregate_uuid, {words.only(words.number.format("user_id"), created)}, {first("name")}, {first("category")},
          CAST({words.last("price_cents", created, changed)} AS {words.big}),
          CASE WHEN {ended} = 0 THEN 'active' ELSE 'cancelled' END, {words.day.format(first("started_on"))},
          CASE WHEN {ended} = 0 THEN {words.day.format(words.last("renews_on", created, renewed))} END,
          {words.day.format(words.only(words.field.format("cancelled_on"), cancelled))},
          sum(CASE WHEN event_class = '{renewed}' THEN 1 ELSE 0 END)
        {of(created, renewed, changed, cancelled)} GROUP BY aggregate_uuid"""


def _joined_expenses(words: Words, of: Events) -> str:
    key, number, field = words.key.format("expense_id"), words.number.format, words.field.format
    return f"""
        (id, user_id, category, amount_cents, quantity, note, spent_on)
        WITH moved AS MATERIALIZED (SELECT {key} AS id, {words.last("to_category", "ExpenseRecategorised")} AS category
          {of("ExpenseRecategorised")} GROUP BY {key}),
        deleted AS MATERIALIZED (SELECT {key} AS id {of("ExpenseDeleted")})
        SELECT recorded.id, user_id, coalesce(moved.category, recorded.category), amount_cents, quantity, note, spent_on
        FROM (SELECT {key} AS id, {number("user_id")} AS user_id, {field("category")} AS category,
            {number("amount_cents")} AS amount_cents, {number("quantity")} AS quantity, {field("note")} AS note,
            {words.day.format(field("spent_on"))} AS spent_on {of("ExpenseRecorded")}) recorded
        LEFT JOIN moved ON moved.id = recorded.id
        LEFT JOIN deleted ON deleted.id = recorded.id
        WHERE deleted.id IS NULL"""


def _grouped_expenses(words: Words, of: Events) -> str:
    key, number, field = words.key.format("expense_id"), words.number.format, words.field.format
    recorded, moved, deleted = "ExpenseRecorded", "ExpenseRecategorised", "ExpenseDeleted"
    either = f"coalesce({field('to_category')}, {field('category')})"
    to = words.untagged.format(f"max({words.tagged.format(either)})")
    return f"""
        (id, user_id, category, amount_cents, quantity, note, spent_on)
        SELECT {key}, max({number("user_id")}), {to}, max({number("amount_cents")}), {words.only(number("quantity"), recorded)},
          {words.only(field("note"), recorded)}, {words.day.format(words.only(field("spent_on"), recorded))}
        {of(recorded, moved, deleted)} GROUP BY {key} HAVING sum({SIGN}) = count(*)"""


def _categories(words: Words, of: Events) -> str:
    number, field = words.number.format, words.field.format
    return f"""
        (user_id, category, expenses, total_cents)
        SELECT user_id, category, sum(sign), sum(sign * amount_cents)
        FROM (SELECT {number("user_id")} AS user_id, coalesce({field("to_category")}, {field("category")}) AS category,
            {number("amount_cents")} AS amount_cents, {SIGN} AS sign
            {of("ExpenseRecorded", "ExpenseRecategorised", "ExpenseDeleted")}
          UNION ALL
          SELECT {number("user_id")}, {field("from_category")}, {number("amount_cents")}, -1 {of("ExpenseRecategorised")}) part
        GROUP BY user_id, category HAVING sum(sign) <> 0"""


def _months(words: Words, of: Events) -> str:
    number, field = words.number.format, words.field.format
    return f"""
        (user_id, month, expenses, total_cents)
        SELECT user_id, month, sum(sign), sum(sign * amount_cents)
        FROM (SELECT {number("user_id")} AS user_id, substr({field("spent_on")}, 1, 7) AS month,
            {number("amount_cents")} AS amount_cents, {SIGN} AS sign {of("ExpenseRecorded", "ExpenseDeleted")}) part
        GROUP BY user_id, month HAVING sum(sign) <> 0"""


def run(
    store: Store, suffix: str, projectors: Sequence[type[Projector]] = PROJECTORS, upto: int | None = None
) -> dict[str, float]:
    """Makes and fills the tables ``<name>_<suffix>``, indexes and statistics included.

    :returns: seconds for each table
    """
    words, seconds = WORDS[store.kind], {}
    inserts = statements(words, suffix, store.count if upto is None else upto)
    with store.engine.connect() as connection:
        for statement in words.begin:
            connection.exec_driver_sql(statement)
        tables.make(connection, suffix, projectors)
        connection.commit()
        for name in tables.names(projectors):
            began = time.monotonic()
            connection.exec_driver_sql(inserts[name])
            tables.finish(connection, suffix, name)
            connection.commit()
            seconds[name] = time.monotonic() - began
        # Its settings are nobody else's.
        connection.invalidate()
    return seconds
