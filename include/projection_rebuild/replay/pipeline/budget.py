"""Limits how much a replay folds before it commits: by events and by memory, never by the clock.

A new row costs one INSERT, and one UPDATE in each later transaction that changes it. So with commits by the clock, a
slow machine would have more to write than a fast one.
"""

from __future__ import annotations

from projection_rebuild.replay.memory import Memory
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.spec.replay import ReplaySection


class Budget:
    """The limits of one worker.

    :param rows_per_transaction: the most rows that the database allows; None: any number
    :param kept_events: the most events per transaction if they stay in memory until its commit; None: they do not stay
    :ivar events: the number of events after which a commit is due; the loop lowers it to find an event whose rows are
        refused
    """

    def __init__(self, limits: ReplaySection, rows_per_transaction: int | None, kept_events: int | None) -> None:
        self.events = limits.batch_events if kept_events is None else min(limits.batch_events, kept_events)
        self._limits = limits
        self._rows_per_transaction = rows_per_transaction
        self._memory = Memory(limits.max_memory)

    def is_enough(self, events: int, rows: RowBuffer) -> bool:
        """Whether a commit is due before the replay folds more events.

        :param events: the number of events folded since the last commit
        """
        return (
            events >= self.events
            or (self._rows_per_transaction is not None and rows.touched >= self._rows_per_transaction)
            or self.memory_is_full(len(rows))
        )

    def memory_is_full(self, rows: int) -> bool:
        """Whether this number of rows reaches the memory limit."""
        most = self._limits.max_rows_in_memory
        return (most is not None and rows > most) or self._memory.is_full(rows)

    def describe_memory(self) -> str:
        """The memory limit, as the spec sets it."""
        most = self._limits.max_rows_in_memory
        return f"replay.max_memory ({self._limits.max_memory} MiB)" if most is None else f"replay.max_rows_in_memory ({most:,})"
