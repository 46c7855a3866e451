"""The shop's totals by SQL: a projector with the same name as the shop's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from projection_rebuild.authoring.projector import Projector
from tests.engine.harness import shop

_FIELD = {
    "postgresql": "(e.payload->>'@')",
    "mysql": "JSON_UNQUOTE(JSON_EXTRACT(e.payload, '$.@'))",
    "mariadb": "JSON_UNQUOTE(JSON_EXTRACT(e.payload, '$.@'))",
    "sqlite": "json_extract(e.payload, '$.@')",
}


def _statements(database: str) -> Sequence[str]:
    customer, price = (_FIELD[database].replace("@", name) for name in ("customer", "price"))
    whole = "bigint" if database == "postgresql" else "INTEGER" if database == "sqlite" else "SIGNED"
    changes = f"""
        SELECT CAST({customer} AS {whole}) AS customer, sum(CASE e.type WHEN 'OrderPlaced' THEN 1 ELSE 0 END) AS orders,
               sum(CASE e.type WHEN 'LineAdded' THEN CAST({price} AS decimal(14, 2)) ELSE 0 END) AS spent
          FROM {{events}} e GROUP BY CAST({customer} AS {whole})"""
    insert = f"INSERT INTO {{customer_totals}} (customer, orders, spent) SELECT d.customer, d.orders, d.spent FROM ({changes}) d"
    if database in ("mysql", "mariadb"):
        t = "{customer_totals}"
        return [f"{insert} ON DUPLICATE KEY UPDATE orders = {t}.orders + VALUES(orders), spent = {t}.spent + VALUES(spent)"]
    spent = "t.spent + excluded.spent"
    if database == "sqlite":
        # SQLite has no decimals, and adds floats.
        insert, spent = insert.replace("d.spent FROM", "round(d.spent, 2) FROM"), f"round({spent}, 2)"
    update = f"UPDATE SET orders = t.orders + excluded.orders, spent = {spent}"
    insert = insert.replace("{customer_totals} (", "{customer_totals} AS t (")
    return [f"{insert} WHERE true ON CONFLICT (customer) DO {update}"]


class CustomerTotalProjector(shop.CustomerTotalProjector):
    """A projector with both forms: SQL, and handlers for the tail and the cutover."""

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return _statements(database)


class TotalsBySqlAlone(Projector):
    """A projector without handlers."""

    owns = (shop.CustomerTotal,)
    reads_events: ClassVar[tuple[str, ...]] = ("OrderPlaced", "LineAdded")

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return _statements(database)


class ForOneDatabase(TotalsBySqlAlone):
    """A projector with SQL for PostgreSQL only."""

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return _statements(database) if database == "postgresql" else ()
