"""MySQL and MariaDB: measures on a few empty tables how long a RENAME of many tables takes.

The engine cannot interrupt a RENAME.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

FEW = 10
"""The number of tables from which on the engine measures a RENAME."""

_TABLES, _ROUNDS = 6, 3

Query = Callable[..., Any]
"""Executes SQL with bound values."""


def seconds_per_table(query: Query, qualified: Callable[[str], str]) -> float:
    """The time of a swap for each of its tables, which it renames twice, in seconds.

    :param qualified: quotes a name, with its schema
    """
    pairs = [
        (qualified(f"projection_rebuild_trial_{number}"), qualified(f"projection_rebuild_trial_{number}_old"))
        for number in range(_TABLES)
    ]
    drop = f"DROP TABLE IF EXISTS {', '.join(name for pair in reversed(pairs) for name in pair)}"
    # A killed measurement may have left tables.
    query(drop)
    try:
        parent, _ = pairs[0]
        query(f"CREATE TABLE {parent} (id INT PRIMARY KEY) ENGINE = InnoDB")
        for name, _ in pairs[1:]:
            query(
                f"CREATE TABLE {name} (id INT PRIMARY KEY, p INT, INDEX (p), FOREIGN KEY (p) REFERENCES {parent} (id)) ENGINE = InnoDB"
            )
        return median(_renamed(query, pairs) for _ in range(_ROUNDS)) / _TABLES
    finally:
        query(drop)


def _renamed(query: Query, pairs: list[tuple[str, str]]) -> float:
    """Seconds for a rename of all tables and back."""
    began = time.monotonic()
    query(f"RENAME TABLE {', '.join(f'{name} TO {other}' for name, other in pairs)}")
    query(f"RENAME TABLE {', '.join(f'{other} TO {name}' for name, other in pairs)}")
    return time.monotonic() - began
