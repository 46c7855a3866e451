"""Clocks that replace the module :mod:`time` in a module of the engine."""

from __future__ import annotations

import time


class StandingClock:
    """A clock that stands still between calls. Each reading advances it by ``jump``, and each sleep by its length.

    :param jump: seconds
    :ivar now: its current time, in seconds
    """

    def __init__(self, jump: float = 0) -> None:
        self.now = time.monotonic()
        self._jump = jump

    def monotonic(self) -> float:
        """Replaces :func:`time.monotonic`."""
        self.now += self._jump
        return self.now

    def sleep(self, seconds: float) -> None:
        """Replaces :func:`time.sleep`, without the wait."""
        self.now += seconds


class ShiftedClock:
    """The real time plus an offset.

    :ivar ahead: the offset, in seconds
    """

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Replaces :func:`time.monotonic`."""
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        """Replaces :func:`time.sleep`."""
        time.sleep(seconds)
