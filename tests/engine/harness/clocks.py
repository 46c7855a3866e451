"""Clocks that take the place of the module :mod:`time` in a module of the engine."""

from __future__ import annotations

import time


class StandingClock:
    """Stands still, or goes on by a jump at each look; whoever sleeps on it moves it on.

    :param jump: seconds
    :ivar now: its time
    """

    def __init__(self, jump: float = 0) -> None:
        self.now = time.monotonic()
        self._jump = jump

    def monotonic(self) -> float:
        """As :func:`time.monotonic`."""
        self.now += self._jump
        return self.now

    def sleep(self, seconds: float) -> None:
        """As :func:`time.sleep`, without the wait."""
        self.now += seconds


class ShiftedClock:
    """The real time, which can be put forward.

    :ivar ahead: by how many seconds
    """

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """As :func:`time.monotonic`."""
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        """As :func:`time.sleep`."""
        time.sleep(seconds)
