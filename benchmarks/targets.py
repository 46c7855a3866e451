"""What has to be reached, as ratios within one run, and whether it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks import tables
from benchmarks.results import Results, rate, seconds
from benchmarks.ways import SUMMARIES


@dataclass(frozen=True)
class Target:
    """A ratio with a bound.

    :param what: for people
    :param value: the ratio; None where it was not measured
    :param must: the bound that has to be kept
    :param strive: the one to strive for
    :param at_least: whether more is better
    """

    what: str
    value: float | None
    must: float
    strive: float
    at_least: bool = True
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """One word or two."""
        if self.value is None:
            return "not measured"
        reached = [bound for bound in (self.must, self.strive) if (self.value - bound) * (1 if self.at_least else -1) >= 0]
        return ("NOT met", "met", "met, and what to strive for")[len(reached)]

    def row(self) -> list[str]:
        """Its cells in the report."""
        sign = ">=" if self.at_least else "<="
        value = "" if self.value is None else f"{self.value:,.2f} {self.unit}"
        return [self.what, f"{sign} {self.must:g} {self.unit}", f"{sign} {self.strive:g} {self.unit}", value, self.verdict]


def targets(results: Results, size: int) -> Iterator[Target]:
    """All of them.

    :param size: of the store that the ways were measured on
    """

    def speed(engine: str, way: str, other: str) -> float | None:
        return _ratio(results, engine, way, other, size, rate)

    def time(engine: str, way: str, other: str) -> float | None:
        return _ratio(results, engine, way, other, size, seconds)

    for one, two, how in (("python1", "python2", "a pass per projector"), ("composed1", "composed2", "one pass")):
        yield Target(f"PostgreSQL, 1 worker, {how}, events/s against the seed's way", speed("postgres", one, "seed"), 120, 200)
        yield Target(f"PostgreSQL, 2 workers, {how}, events/s against the seed's way", speed("postgres", two, "seed"), 200, 350)
        yield Target(
            f"PostgreSQL, 2 workers, {how}, time against hand-written SQL", time("postgres", two, "floor"), 1.1, 0.8, False
        )
        yield Target(f"PostgreSQL, 2 workers, {how}, time against the limit", time("postgres", two, "limit"), 2.5, 1.5, False)
    yield Target("PostgreSQL, set-based handlers, time against hand-written SQL", _sets(results, size), 1.15, 1.0, False)
    yield Target("MariaDB, 1 worker, one pass, events/s against the seed's way", speed("mariadb", "composed1", "seed"), 100, 150)
    # Its shards are told apart by a function of Python's, so that dividing gains nothing there.
    yield Target(
        "SQLite, 1 worker, a pass per projector, events/s against the seed's way", speed("sqlite", "python1", "seed"), 50, 80
    )
    yield Target("PostgreSQL, bounded fallback, events/s against the seed's way", speed("postgres", "bounded", "seed"), 45, 80)
    yield Target(
        "one projection, 1 worker, events/s against pyeventsourcing", speed("postgres", "one", "pyeventsourcing"), 60, 100
    )
    yield Target("one projection, 1 worker, events/s against Emmett, tuned", speed("postgres", "one", "emmett1000"), 20, 40)
    peaks = [run.peak_mib for run in results if run.peak_mib is not None]
    yield Target("peak memory of any worker", max(peaks, default=None), 256, 128, False, "MiB")
    yield Target("time for 4 times the events", _growth(results, size), 4.4, 4.0, False)


def _ratio(results: Results, engine: str, way: str, other: str, size: int, measure: Callable[..., float]) -> float | None:
    ours, theirs = results.of(engine, way, size), results.of(engine, other, size)
    return measure(ours) / measure(theirs) if ours and theirs else None


def _sets(results: Results, size: int) -> float | None:
    """Against the seconds that the hand-written SQL takes for the same two tables."""
    ours, theirs = results.of("postgres", "sets", size), results.of("postgres", "floor", size)
    if not ours or not theirs:
        return None
    return seconds(ours) / median(sum(run.parts[name] for name in tables.names(SUMMARIES)) for run in theirs)


def _growth(results: Results, size: int) -> float | None:
    small, large = results.of("postgres", "python1", size), results.of("postgres", "python1", 4 * size)
    return seconds(large) / seconds(small) if small and large else None
