"""The report: a Markdown table per database, the targets, and the machine. Written anew after each round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import pauses, plot
from benchmarks.results import Results, Run, rate, seconds
from benchmarks.targets import targets
from benchmarks.ways import Way

TITLES = {"postgres": "PostgreSQL", "mariadb": "MariaDB", "mysql": "MySQL", "sqlite": "SQLite"}
CLONE = "clone"
"""The name under which the results hold the steps around a replay."""
PAUSE = "pause"
"""As well, for how long writers waited at a switch."""


def write(results: Results, ways: Sequence[Way], head: Sequence[str], into: Path, size: int) -> None:
    """Writes what is known so far.

    :param head: sentences on what it was measured
    :param size: events in the store of the rounds
    """
    lines = [
        "# Benchmark",
        "",
        "Written by `make bench`; do not edit. What it means stands in [method](performance/method.md).",
        "",
    ]
    lines += [f"* {each}" for each in head]
    replayed = dict.fromkeys(run.engine for run in results if run.way not in (CLONE, PAUSE))
    if replayed:
        lines += ["", "![Events per second](images/benchmark-speeds.svg)"]
    for engine in replayed:
        lines += ["", f"## {TITLES[engine]}", "", *_engine(results, engine, ways, size)]
    if replayed:
        lines += [
            "",
            "## Targets",
            "",
            *_table(("", "must", "strive for", "measured", ""), (each.row() for each in targets(results, size))),
        ]
    lines += [*_growth(results), *_clones(results), *_pauses(results)]
    if replayed:
        lines += ["", "## What each way does", "", *(f"* **{way.title}**: {way.says}" for way in ways)]
    (into / "benchmark.md").write_text("\n".join(lines) + "\n")
    if not replayed:
        return
    images = into / "images"
    images.mkdir(exist_ok=True)
    plot.speeds(results, ways, TITLES, size, images / "benchmark-speeds.svg")
    if _sizes(results):
        plot.growth(results, ways, images / "benchmark-growth.svg")


def _engine(results: Results, engine: str, ways: Sequence[Way], size: int) -> Iterator[str]:
    titles = {way.name: way.title for way in ways}
    seed, floor = results.of(engine, "seed", size), results.of(engine, "floor", size)
    rows = []
    for name, title in titles.items():
        runs = results.of(engine, name, size)
        if not runs:
            continue
        first = runs[0]
        rows.append(
            [
                title,
                f"{first.events:,}",
                str(len(runs)),
                f"{seconds(runs):,.2f}",
                f"{rate(runs):,.0f}",
                f"{rate(runs) / rate(seed):,.1f}" if seed else "",
                f"{seconds(runs) / seconds(floor):,.2f}" if floor and first.events == size else "",
                _memory(runs),
                _rows(runs),
            ]
        )
    header = ("way", "events", "rounds", "s, median", "events/s", "x the seed's way", "time, x hand-written SQL", "MiB", "rows")
    yield from _table(header, rows)
    yield ""
    yield from _parts(results, engine, titles, size)


def _parts(results: Results, engine: str, titles: dict[str, str], size: int) -> Iterator[str]:
    for name, title in titles.items():
        runs = results.of(engine, name, size)
        if runs and runs[-1].parts:
            parts = ", ".join(f"{part} {took:.2f} s" for part, took in runs[-1].parts.items())
            yield f"* {title}, last round: {parts}"


def _sizes(results: Results) -> list[int]:
    """Those at which replays were measured, if there are several."""
    sizes = sorted({run.size for run in results if run.engine == "postgres" and run.way == "python1"})
    return sizes if len(sizes) > 1 else []


def _growth(results: Results) -> Iterator[str]:
    if sizes := _sizes(results):
        runs = [results.of("postgres", "python1", size) for size in sizes]
        rows = (
            [f"{size:,}", f"{seconds(each):,.2f}", f"{rate(each):,.0f}", _memory(each), _rows(each)]
            for size, each in zip(sizes, runs, strict=True)
        )
        yield from ("", "## As events grow: PostgreSQL, Python handlers, 1 worker", "")
        yield from _table(("events", "s, median", "events/s", "MiB of the worker", "rows"), rows)
        yield from ("", "![Seconds against events](images/benchmark-growth.svg)")


def _clones(results: Results) -> Iterator[str]:
    if runs := results.of("postgres", CLONE):
        steps = [name for name in runs[0].parts if name != "pause"]
        yield from ("", "## The steps around a replay, on large tables: PostgreSQL", "")
        yield "The rows are copied by one INSERT ... SELECT instead of a replay, in ascending order of their keys. Seconds."
        yield ""
        rows = (
            [f"{run.size:,}", *(f"{run.parts[name]:,.3f}" for name in steps), f"{run.parts['pause'] * 1000:.1f} ms"]
            for run in runs
        )
        yield from _table(("rows", *steps, "writers held, median of 5 switches"), rows)


def _pauses(results: Results) -> Iterator[str]:
    runs = [run for run in results if run.way == PAUSE]
    if runs:
        parts = list(runs[0].parts)
        yield from ("", "## For how long writers wait at a switch of many tables", "")
        yield (
            "Small tables, each with a foreign key to a table that is not rebuilt; milliseconds, medians of "
            f"{pauses.SWITCHES} switches, without a bound. The CPU is that of the whole step, what comes before the pause included."
        )
        yield ""
        rows = (
            [
                TITLES[run.engine],
                str(run.size),
                f"{run.seconds * 1000:,.0f}",
                *(f"{run.parts[name] * 1000:,.1f}" for name in parts),
            ]
            for run in runs
        )
        yield from _table(("database", "tables", "writers held", *parts), rows)


def _rows(runs: Sequence[Run]) -> str:
    if runs[0].equal is None:
        return ""
    wrong = sum(not run.equal for run in runs)
    return f"{runs[0].rows:,} " + ("equal" if not wrong else f"**not equal in {wrong} of {len(runs)} rounds**")


def _memory(runs: Sequence[Run]) -> str:
    peaks = [run.peak_mib for run in runs if run.peak_mib is not None]
    return f"{max(peaks):,.0f}" if peaks else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
