"""Decides between two transactions of a replay whether it has to stop or to rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from projection_rebuild.traffic.throttle import Verdict


class Pace(Protocol):
    """What a replay uses of :class:`~projection_rebuild.traffic.throttle.Throttle`."""

    stopped: Callable[[], bool]

    def committed(self, latency: float) -> None:
        """Takes note of how many seconds a commit took."""

    def is_due(self) -> bool:
        """Whether it is time to call :meth:`look`."""

    def look(self) -> Verdict | None:
        """The reason why the replay has to rest; None: it goes on."""

    def rest(self, verdict: Verdict) -> None:
        """Waits until the replay may go on.

        :raises Interrupted: the worker has to stop
        """


class FullSpeed:
    """A pace that never rests, for the few events before a cutover.

    :param stopped: whether the worker has to stop
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def committed(self, latency: float) -> None: ...

    def is_due(self) -> bool:
        return False

    def look(self) -> Verdict | None:
        return None

    def rest(self, verdict: Verdict) -> None: ...
