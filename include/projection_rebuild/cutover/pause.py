"""The time for which the writers are held, and its bound."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from projection_rebuild.dialects.base import PauseTooLong
from projection_rebuild.model.results import by_parts


class Pause:
    """The time for which writers are held.

    :param longest: for how long they may be
    """

    def __init__(self, longest: timedelta) -> None:
        self._longest = longest.total_seconds()
        self.parts: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """Begins now, and not before: until then nobody was held."""
        self.began = self._last = time.monotonic()
        self._until = self.began + self._longest

    @property
    def half(self) -> float:
        """The moment, by the same clock as ``began``, at which half of it is over."""
        return self.began + self._longest / 2

    def left(self) -> float:
        """Seconds for which they may still be held."""
        return self._until - time.monotonic()

    @staticmethod
    def is_past(moment: float) -> bool:
        """Whether a moment is over, by the same clock as ``began``."""
        return time.monotonic() > moment

    def ended(self, part: str) -> float:
        """Notes that a part has ended; returns the whole time until now, in seconds."""
        now = time.monotonic()
        self.parts[part], self._last = now - self._last, now
        return now - self.began

    @contextmanager
    def told(self) -> Iterator[None]:
        """Says where the time has gone, if it is not enough."""
        try:
            yield
        except PauseTooLong:
            self.ended("then")
            raise PauseTooLong(by_parts(self.parts)) from None

    def stay_in_time(self) -> None:
        """Looks at the clock.

        :raises PauseTooLong: the time is up
        """
        if self.left() <= 0:
            raise PauseTooLong
