"""What a run is going to do: which projectors, in which order, on which tables. Pure: reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from pydantic import BaseModel

from include.projection_rebuild.errors import PlanError
from include.projection_rebuild.projector import Projector
from include.projection_rebuild.spec import RunOptions


class Plan(BaseModel):
    """The answer of the step `plan`, small enough to be kept in the ledger.

    :param projectors: the chosen ones, each after those that it depends on
    :param tables: their tables by live name, parents before the tables that refer to them
    :param events: about how many events the store holds
    :param head: the newest position when the plan was made
    :param findings: what an operator should know; none of it stops the run
    :param sql: for a dry run, every statement that would be executed before the replay and at the switch
    """

    rebuild: str
    run_id: str
    projectors: list[str]
    tables: list[str]
    schema_name: str | None
    events: int
    head: int
    findings: list[str] = []
    sql: list[str] = []
    dry_run: bool = False

    def describe(self) -> str:
        """The plan as a person reads it in a log."""
        lines = [
            f"Rebuild {self.rebuild}: {len(self.projectors)} projectors, {len(self.tables)} tables, about {self.events:,} events",
            "  projectors: " + " -> ".join(self.projectors),
            "  tables:     " + ", ".join(self.tables),
            *(f"  note:       {each}" for each in self.findings),
        ]
        if self.sql:
            lines += ["  SQL, in this order:", *(f"    {each};" for each in self.sql)]
        if self.dry_run:
            lines.append("  Dry run: nothing has been touched.")
        return "\n".join(lines)


def order(projectors: Mapping[str, type[Projector]]) -> list[str]:
    """The names of projectors, each after those that it depends on, otherwise in the given order.

    :raises PlanError: a cycle, with its names; or a dependency that the spec does not list
    """
    names = {projector: name for name, projector in projectors.items()}
    graph: dict[str, list[str]] = {}
    for name, projector in projectors.items():
        for needed in projector.depends_on:
            if needed not in names:
                raise PlanError(f"{name} depends on {needed.__name__}, which is not in the spec; add it to `projectors`")
        graph[name] = [names[needed] for needed in projector.depends_on]
    return sort(graph, "the projectors depend on each other in a circle")


def sort(graph: Mapping[str, Sequence[str]], circle: str) -> list[str]:
    """A stable topological order of ``{name: names before it}``.

    :raises PlanError: a cycle; says ``circle`` and its names
    """
    sorter = TopologicalSorter({name: [each for each in before if each in graph] for name, before in graph.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise PlanError(f"{circle}: {' -> '.join(reversed(error.args[1]))}") from None
    rank = {name: at for at, name in enumerate(graph)}
    sorted_names: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=rank.__getitem__)
        sorted_names += ready
        sorter.done(*ready)
    return sorted_names


def choose(projectors: Mapping[str, type[Projector]], options: RunOptions) -> list[str]:
    """The names of the projectors to rebuild, in their order.

    :raises PlanError: an unknown name; lists those that are known
    """
    ordered = order(projectors)
    if options.projectors is None:
        return ordered
    unknown = [name for name in options.projectors if name not in projectors]
    if unknown:
        raise PlanError(f"projectors: {', '.join(unknown)} is unknown; this spec has {', '.join(ordered)}")
    chosen = set(options.projectors)
    if options.rebuild_dependents:
        for name in ordered:
            if any(needed.name() in chosen for needed in projectors[name].depends_on):
                chosen.add(name)
    return [name for name in ordered if name in chosen]
