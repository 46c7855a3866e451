"""The pause: for how long writers wait in an attempt, and its bound."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from projection_rebuild.dialects.base import PauseTooLong
from projection_rebuild.model.results import by_parts


class Pause:
    """The time for which writers wait in one attempt.

    ``parts`` holds the seconds of each part that has ended, by name.

    :param longest: the longest time for which they may wait
    """

    def __init__(self, longest: timedelta) -> None:
        self._longest = longest.total_seconds()
        self.parts: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """Restarts the clock at the moment from which writers really wait."""
        self.began = self._last = time.monotonic()
        self._until = self.began + self._longest

    @property
    def half(self) -> float:
        """The moment at which half of the longest pause is over, by the same clock as ``began``."""
        return self.began + self._longest / 2

    def left(self) -> float:
        """The seconds for which writers may still wait; negative once the time is up."""
        return self._until - time.monotonic()

    @staticmethod
    def is_past(moment: float) -> bool:
        """Whether a moment has passed, by the same clock as ``began``."""
        return time.monotonic() > moment

    def ended(self, part: str) -> float:
        """Records that a part of the pause has ended.

        :returns: the seconds since the pause began
        """
        now = time.monotonic()
        self.parts[part], self._last = now - self._last, now
        return now - self.began

    @contextmanager
    def parts_in_error(self) -> Iterator[None]:
        """Adds the time of each part to an error about a pause that grew too long.

        :raises PauseTooLong: as the block did, with the parts in its text
        """
        try:
            yield
        except PauseTooLong:
            self.ended("then")
            raise PauseTooLong(by_parts(self.parts)) from None

    def stay_in_time(self) -> None:
        """Checks the clock.

        :raises PauseTooLong: the time is up
        """
        if self.left() <= 0:
            raise PauseTooLong
