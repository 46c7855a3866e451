"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import signal
import time
from datetime import timedelta
from pathlib import Path

import benchmarks as package
from benchmarks import pauses
from benchmarks.bench import Bench, Options
from benchmarks.store import ENGINES


def main() -> int:
    """Measures and reports."""
    options = _arguments()
    # Servers are stopped and folders removed, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    Bench(options).run()
    print(f"took {timedelta(seconds=round(time.monotonic() - began))}; see {options.into / 'benchmark.md'}")
    return 0


def _arguments() -> Options:
    parser = argparse.ArgumentParser(prog="make bench", description=(package.__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--events", type=int, default=1_000_000, help="in the store (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="on PostgreSQL; half as many elsewhere (%(default)s)")
    parser.add_argument("--part", type=int, default=5_000, help="events that one-at-a-time ways are measured on (%(default)s)")
    parser.add_argument("--into", type=Path, default=Path(".bench"), help="folder of the report (%(default)s)")
    parser.add_argument(
        "--tables",
        type=int,
        nargs="*",
        help="rows of the tables that are cloned and switched (as many as events, and 5 times as many)",
    )
    parser.add_argument(
        "--switches",
        type=int,
        nargs="*",
        choices=pauses.TABLES,
        help="tables of the switches whose pause is measured (%(choices)s)",
    )
    parser.add_argument("--only-switches", action="store_true", help="measure nothing but these")
    parser.add_argument("--no-growth", action="store_true", help="leave out a quarter and four times the events")
    given = parser.parse_args()
    engines = tuple(given.engine or ("postgres", "mariadb", "sqlite"))
    switches = pauses.TABLES if given.switches is None else tuple(given.switches)
    if given.only_switches:
        return Options((), given.events, 0, 0, given.into, switches=switches, switched=tuple(given.engine or ENGINES))
    sizes = tuple([given.events, 5 * given.events] if given.tables is None else given.tables)
    return Options(
        engines,
        given.events,
        given.rounds,
        given.part,
        given.into,
        sizes,
        growth=not given.no_growth,
        switches=switches,
        switched=tuple(given.engine or ENGINES),
    )


if __name__ == "__main__":
    raise SystemExit(main())
