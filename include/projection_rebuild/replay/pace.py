"""What a replay asks between two transactions: whether to stop, and whether to rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from projection_rebuild.traffic.throttle import Verdict


class Pace(Protocol):
    """What :class:`~projection_rebuild.traffic.throttle.Throttle` is to a replay."""

    stopped: Callable[[], bool]

    def committed(self, latency: float) -> None:
        """Told the seconds that a commit has taken."""

    def is_due(self) -> bool:
        """Whether it is time for a look."""

    def look(self) -> Verdict | None:
        """Why the replay has to rest; None: go on."""

    def rest(self, verdict: Verdict) -> None:
        """Rests; raises :class:`Interrupted` when the worker is asked to stop."""


class FullSpeed:
    """Never rests: the replay of the few events before a cutover.

    :param stopped: whether the worker is asked to stop
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def committed(self, latency: float) -> None: ...

    def is_due(self) -> bool:
        return False

    def look(self) -> Verdict | None:
        return None

    def rest(self, verdict: Verdict) -> None: ...
