"""MySQL and MariaDB: how long a RENAME of many tables takes, measured on a few that are empty. It cannot be undone half-way."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

FEW = 10
"""Tables below which a RENAME is not worth measuring."""

_TABLES, _ROUNDS = 6, 3

Query = Callable[..., Any]
"""Executes SQL with bound values."""


def seconds_per_table(query: Query, qualified: Callable[[str], str]) -> float:
    """What a switch takes for each of its tables, which are renamed twice.

    :param qualified: quotes a name, with its schema
    """
    ours = [
        (qualified(f"projection_rebuild_trial_{number}"), qualified(f"projection_rebuild_trial_{number}_old"))
        for number in range(_TABLES)
    ]
    drop = f"DROP TABLE IF EXISTS {', '.join(name for pair in reversed(ours) for name in pair)}"
    # A measurement that was killed may have left some.
    query(drop)
    try:
        parent, _ = ours[0]
        query(f"CREATE TABLE {parent} (id INT PRIMARY KEY) ENGINE = InnoDB")
        for name, _ in ours[1:]:
            query(
                f"CREATE TABLE {name} (id INT PRIMARY KEY, p INT, INDEX (p), FOREIGN KEY (p) REFERENCES {parent} (id)) ENGINE = InnoDB"
            )
        return median(_renamed(query, ours) for _ in range(_ROUNDS)) / _TABLES
    finally:
        query(drop)


def _renamed(query: Query, pairs: list[tuple[str, str]]) -> float:
    """Seconds for a way there and back."""
    began = time.monotonic()
    query(f"RENAME TABLE {', '.join(f'{one} TO {other}' for one, other in pairs)}")
    query(f"RENAME TABLE {', '.join(f'{other} TO {one}' for one, other in pairs)}")
    return time.monotonic() - began
