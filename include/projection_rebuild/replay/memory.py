"""Measures how much memory the rows of a replay take. It knows nothing of rows or databases."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MIB = 1024 * 1024
PEAK = 0.6
"""The share of the limit at which rows are written: writing needs memory as well, for a copy of them."""


class Memory:
    """Compares the memory that this process has taken since the object was created with a limit.

    When the process reaches the limit for the first time, the number of its rows becomes the limit. Measuring again
    would show nothing: Python reuses freed memory for the next rows, but does not return it to the system.

    :param limit: in MiB, beyond the memory that the process takes now
    """

    def __init__(self, limit: int) -> None:
        self._process = psutil.Process()
        self._limit = limit * MIB * PEAK
        self._before = self._process.memory_info().rss
        self._most: int | None = None

    def is_full(self, rows: int) -> bool:
        """Whether this number of rows reaches the limit."""
        if self._most is None and rows and self._process.memory_info().rss - self._before >= self._limit:
            self._most = rows
        return self._most is not None and rows >= self._most


@contextmanager
def collector_off() -> Iterator[None]:
    """Switches off Python's garbage collector, which would scan every row in memory again and again.

    Call :func:`collect` from time to time within it.
    """
    was_on = gc.isenabled()
    gc.disable()
    # No collection first: the existing objects are the program itself, a million of them in an Airflow worker.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def collect() -> None:
    """Within :func:`collector_off`: collects cycles among the objects created since the last call.

    No later call scans the remaining ones again.
    """
    if not gc.isenabled():
        gc.collect()
        gc.freeze()
