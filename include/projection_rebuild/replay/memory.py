"""How much memory the rows of a replay take: measured, never estimated from their number. Knows nothing of rows or databases."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MIB = 1024 * 1024
PEAK = 0.6
"""The share of a limit at which what is held is written: writing takes room as well, for a copy of what is written."""


class Memory:
    """What this process has taken since the object was made, against a limit.

    How much a row takes is learned when the limit is reached for the first time. From then on the rows are counted: what they
    leave is used again by the next ones, but not given back to the system, so that measuring again would tell nothing.

    :param limit: in MiB, beyond what the process takes now
    """

    def __init__(self, limit: int) -> None:
        self._process = psutil.Process()
        self._limit = limit * MIB * PEAK
        self._before = self._process.memory_info().rss
        self._most: int | None = None

    def is_full(self, rows: int) -> bool:
        """Whether so many rows are as many as there may be."""
        if self._most is None and rows and self._process.memory_info().rss - self._before >= self._limit:
            self._most = rows
        return self._most is not None and rows >= self._most


@contextmanager
def collector_off() -> Iterator[None]:
    """Without Python's search for cycles, which again and again looks at every row in memory; :func:`collect` is for between."""
    was_on = gc.isenabled()
    gc.disable()
    # Without a look at it: what is there is the program, a million objects of it in a worker of Airflow.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def collect() -> None:
    """Within :func:`collector_off`: finds the cycles among what is new since the last call, and never looks at it again."""
    if not gc.isenabled():
        gc.collect()
        gc.freeze()
