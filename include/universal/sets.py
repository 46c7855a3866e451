"""SQL for the two summaries: it does for a range of events what the projectors' handlers do event by event.

The statements sum up the changes first, and then add them to the table. They use no upsert: the row of an upsert must
satisfy the table's constraints, and a change may be negative. They delete a row only when all of its sums are zero,
because the next range needs the sums.
"""

from __future__ import annotations

from collections.abc import Sequence

FIELD = {
    "postgresql": "(e.payload->>'{name}')",
    "mysql": "JSON_UNQUOTE(JSON_EXTRACT(e.payload, '$.{name}'))",
    "mariadb": "JSON_UNQUOTE(JSON_EXTRACT(e.payload, '$.{name}'))",
    "sqlite": "json_extract(e.payload, '$.{name}')",
}
"""A field of the payload, as text."""

WHOLE = {"postgresql": "bigint", "mysql": "SIGNED", "mariadb": "SIGNED", "sqlite": "INTEGER"}

TEMPORARY = {
    "postgresql": ("TEMP", "pg_temp.{}"),
    "mysql": ("TEMPORARY", "{}"),
    "mariadb": ("TEMPORARY", "{}"),
    "sqlite": ("TEMP", "temp.{}"),
}
"""The keyword for a temporary table, and the form of its name that no other table can match."""


def category_statements(database: str) -> Sequence[str]:
    """Statements for ``category_summaries``; a recategorised expense leaves one category and enters another."""
    field, number = _readers(database)
    word = _text(database, 60)
    changes = f"""
        SELECT {number("user_id")} AS user_id,
               {word(f"CASE e.type WHEN 'ExpenseRecategorised' THEN {field('to_category')} ELSE {field('category')} END")} AS part,
               CASE e.type WHEN 'ExpenseDeleted' THEN -1 ELSE 1 END AS sign, {number("amount_cents")} AS cents
          FROM {{events}} e
        UNION ALL
        SELECT {number("user_id")}, {word(field("from_category"))}, -1, {number("amount_cents")}
          FROM {{events}} e WHERE e.type = 'ExpenseRecategorised'"""
    return _added(database, "category_summaries", "category", changes)


def month_statements(database: str) -> Sequence[str]:
    """Statements for ``monthly_summaries``."""
    field, number = _readers(database)
    word = _text(database, 7)
    changes = f"""
        SELECT {number("user_id")} AS user_id, {word(f"substr({field('spent_on')}, 1, 7)")} AS part,
               CASE e.type WHEN 'ExpenseDeleted' THEN -1 ELSE 1 END AS sign, {number("amount_cents")} AS cents
          FROM {{events}} e"""
    return _added(database, "monthly_summaries", "month", changes)


class _Reader:
    """Builds an SQL expression from the name of a field."""

    def __init__(self, template: str) -> None:
        self._template = template

    def __call__(self, name: str) -> str:
        return self._template.replace("{name}", name)


def _readers(database: str) -> tuple[_Reader, _Reader]:
    text = FIELD[database]
    return _Reader(text), _Reader(f"CAST({text} AS {WHOLE[database]})")


def _text(database: str, length: int) -> _Reader:
    if database in ("mysql", "mariadb"):
        # With the binary collation of the tables.
        return _Reader(f"CAST({{name}} AS CHAR({length})) COLLATE utf8mb4_bin")
    return _Reader("{name}")


def _added(database: str, table: str, part: str, changes: str) -> Sequence[str]:
    """Statements that add changes to a summary.

    :param part: the summary's second key column
    :param changes: a query with the columns user_id, part, sign and cents
    """
    summed = f"""SELECT c.user_id, c.part, sum(c.sign) AS expenses, sum(c.sign * c.cents) AS total_cents
      FROM ({changes}) c GROUP BY c.user_id, c.part"""
    target, columns = "{" + table + "}", f"user_id, {part}, expenses, total_cents"
    temporary, name = TEMPORARY[database]
    name = name.format(f"{table}_changes")
    drop = f"DROP {'TEMPORARY ' if temporary == 'TEMPORARY' else ''}TABLE IF EXISTS {name}"
    same = f"t.user_id = d.user_id AND t.{part} = d.part"
    if temporary == "TEMP":
        add = f"""UPDATE {target} AS t SET expenses = t.expenses + d.expenses, total_cents = t.total_cents + d.total_cents
                    FROM {name} d WHERE {same}"""
    else:
        add = f"""UPDATE {target} t JOIN {name} d ON {same}
                     SET t.expenses = t.expenses + d.expenses, t.total_cents = t.total_cents + d.total_cents"""
    return [
        drop,
        # PostgreSQL reads for this statement in parallel, which it does for no other statement that writes a table.
        f"CREATE {temporary} TABLE {table}_changes AS {summed}",
        add,
        f"""INSERT INTO {target} ({columns}) SELECT d.user_id, d.part, d.expenses, d.total_cents FROM {name} d
             WHERE (d.expenses <> 0 OR d.total_cents <> 0) AND NOT EXISTS (SELECT 1 FROM {target} t WHERE {same})""",
        f"DELETE FROM {target} WHERE expenses = 0 AND total_cents = 0",
        drop,
    ]
