"""A benchmark from its beginning to its report."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import clones, machine, pauses, rounds
from benchmarks.report import CLONE, PAUSE, TITLES, write
from benchmarks.results import Results, Run
from benchmarks.store import Database, Store, database
from benchmarks.ways import Scope, Stage, ways

LARGE = "postgres"
"""Where large stores and tables are measured."""
GROWN = "python1"
"""The way that is measured on a growing store."""


@dataclass(frozen=True)
class Options:
    """What is measured.

    :param engines: the kinds of database
    :param events: how many the store holds
    :param rounds: how often each way runs on PostgreSQL; half as often elsewhere
    :param part: how many events the slow ways get
    :param into: where the report goes
    :param tables: rows of the tables that are cloned and switched, on PostgreSQL
    :param growth: whether a quarter and four times the events are measured, too, on PostgreSQL
    :param switches: numbers of tables that are switched at once
    :param switched: the kinds of database on which that is measured
    """

    engines: tuple[str, ...]
    events: int
    rounds: int
    part: int
    into: Path
    tables: tuple[int, ...] = ()
    growth: bool = False
    switches: tuple[int, ...] = ()
    switched: tuple[str, ...] = ()


class Bench:
    """A benchmark at work; its report is written anew after each round, so that nothing is lost if it is cut off."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._say = Console(highlight=False, soft_wrap=True).print
        self._ways = ways()
        self._results = Results(options.into / "benchmark.jsonl")
        self._stores: dict[str, Store] = {}
        self._head = [f"{machine.describe()}; load when it began: {machine.load()}"]

    def run(self) -> None:
        """Measures everything that was asked for, what says most first."""
        with ExitStack() as stack:
            servers = {}
            for engine in self._options.engines:
                servers[engine] = stack.enter_context(database(engine))
                self.measure(engine, servers[engine])
            if server := servers.get(LARGE):
                self._grow(server)
                self._clone(server)
            for engine in self._options.switched:
                self.switch(engine, servers.get(engine) or stack.enter_context(database(engine)))

    def switch(self, engine: str, server: Database) -> Results:
        """For how long writers wait at a switch.

        :returns: all results so far
        """
        for count in self._options.switches:
            pause = pauses.run(server, count)
            self._results.add(Run(engine, PAUSE, 1, count, count, pause.seconds, parts=pause.parts | {pauses.CPU: pause.cpu}))
            self._say(f"{engine}, {count} table{'s' if count > 1 else ''} at once: {pauses.described(pause)}")
            self._write()
        return self._results

    def measure(self, engine: str, server: Database) -> Results:
        """All rounds on one database.

        :returns: all results so far
        """
        options = self._options
        store = Store(engine, server.create("bench"), options.events)
        self._say(f"{engine}: loading {options.events:,} events ...")
        store.grow_to(options.events)
        self._head.append(f"{TITLES[engine]} {store.version}, durable; {rounds.describe_store(store)}")
        stage = Stage(store, min(options.part, options.events))
        rounds.prepare(stage)
        mine = [way for way in self._ways if not way.engines or engine in way.engines]
        for number in range(1, (options.rounds if engine == LARGE else (options.rounds + 1) // 2) + 1):
            rounds.run_round(stage, number, [way for way in mine if number <= way.rounds], self._results, self._say)
            self._write()
        store.engine.dispose()
        self._stores[engine] = store
        return self._results

    def _grow(self, server: Database) -> None:
        """A quarter of the events, and four times as many."""
        events = self._options.events
        if not self._options.growth:
            return
        grown = [way for way in self._ways if way.name == GROWN]
        quarter = Store(LARGE, server.create("quarter"), events)
        for store, count in ((quarter, events // 4), (self._stores[LARGE], 4 * events)):
            self._say(f"{LARGE}: growing to {count:,} events ...")
            store.grow_to(count)
            stage = Stage(store, self._options.part)
            rounds.prepare(stage, (Scope.ALL,))
            rounds.run_round(stage, 1, grown, self._results, self._say)
            store.engine.dispose()
            self._write()

    def _clone(self, server: Database) -> None:
        for rows in self._options.tables:
            steps = clones.run(server, rows)
            self._results.add(Run(LARGE, CLONE, 1, rows, rows, sum(steps.values()) - steps["pause"], parts=steps))
            self._say(f"{LARGE}, a table of {rows:,} rows: {', '.join(f'{name} {took:.3f} s' for name, took in steps.items())}")
            self._write()

    def _write(self) -> None:
        write(self._results, self._ways, self._head, self._options.into, self._options.events)
