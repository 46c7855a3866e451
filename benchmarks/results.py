"""What was measured: one record per run, written as soon as it is known, and medians over the rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import orjson


@dataclass(frozen=True)
class Run:
    """One run of one way.

    :param engine: the kind of database
    :param way: which way it was
    :param events: how many events it has handled
    :param size: how many the store held
    :param peak_mib: the largest resident memory of one of its worker processes; None: not measured
    :param rows: how many rows it left
    :param equal: whether they are those of the hand-written SQL; None: it leaves none
    :param parts: seconds of its parts, where it has some
    :param note: what it says of itself
    """

    engine: str
    way: str
    round: int
    events: int
    size: int
    seconds: float
    peak_mib: float | None = None
    rows: int = 0
    equal: bool | None = None
    parts: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


class Results:
    """All runs so far.

    :param path: a file of one JSON line per run; an earlier one is replaced
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: list[Run] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    @classmethod
    def read(cls, lines: bytes) -> Iterator[Run]:
        """The runs of such a file."""
        return (Run(**orjson.loads(line)) for line in lines.splitlines())

    def add(self, run: Run) -> None:
        """Notes a run; it is on the disk when this returns."""
        self._runs.append(run)
        with self._path.open("ab") as file:
            file.write(orjson.dumps(asdict(run)) + b"\n")

    def of(self, engine: str, way: str, size: int | None = None) -> list[Run]:
        """The rounds of one way, at one size of the store."""
        return [run for run in self._runs if run.engine == engine and run.way == way and (size is None or run.size == size)]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)


def seconds(runs: Iterable[Run]) -> float:
    """The median."""
    return median(run.seconds for run in runs)


def rate(runs: Iterable[Run]) -> float:
    """The median, in events per second."""
    return median(run.rate for run in runs)
