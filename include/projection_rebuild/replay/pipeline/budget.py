"""How much may be folded before it has to be written: so many events, and so much memory. No clock decides it.

A row that is new is inserted once, and updated in each transaction after that. So a slow machine would have more to do.
"""

from __future__ import annotations

from projection_rebuild.replay.memory import Memory
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.spec.replay import ReplaySection


class Budget:
    """The limits of one worker.

    :param rows_per_transaction: what the database allows; None: any number
    :param kept_events: how many events a transaction may hold where they stay in memory until it is committed; None: they do not
    :ivar events: after so many events a transaction is due; the loop lowers it while it looks for an event
    """

    def __init__(self, limits: ReplaySection, rows_per_transaction: int | None, kept_events: int | None) -> None:
        self.events = limits.batch_events if kept_events is None else min(limits.batch_events, kept_events)
        self._limits = limits
        self._rows_per_transaction = rows_per_transaction
        self._memory = Memory(limits.max_memory)

    def is_enough(self, events: int, rows: RowBuffer) -> bool:
        """Whether what is folded has to be committed before more is."""
        return (
            events >= self.events
            or (self._rows_per_transaction is not None and rows.touched >= self._rows_per_transaction)
            or self.memory_is_full(len(rows))
        )

    def memory_is_full(self, rows: int) -> bool:
        """Whether so many rows are as many as there may be in memory."""
        most = self._limits.max_rows_in_memory
        return (most is not None and rows > most) or self._memory.is_full(rows)

    def describe_memory(self) -> str:
        """The limit of memory, as the spec sets it."""
        most = self._limits.max_rows_in_memory
        return f"replay.max_memory ({self._limits.max_memory} MiB)" if most is None else f"replay.max_rows_in_memory ({most:,})"
