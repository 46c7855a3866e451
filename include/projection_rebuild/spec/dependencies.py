"""The order of projectors, and which of them a run rebuilds. Pure: reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import PlanError
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import needs


def order(projectors: Mapping[str, type[Projector]]) -> list[str]:
    """The names of projectors, each after those that it depends on, otherwise in the given order.

    :raises PlanError: the projectors form a cycle; or the spec does not list a dependency
    """
    listed = {*projectors.values(), *(member for projector in projectors.values() for member in projector.composed_of)}
    for name, projector in projectors.items():
        for needed in projector.depends_on:
            if needed not in listed:
                raise PlanError(f"{name} depends on {needed.__name__}, which is not in the spec; add it to `projectors`")
    circle = "the projectors depend on each other in a circle"
    return sort(
        needs(projectors),
        circle,
        "take one of these out of its `depends_on` or `reads`, or let them go in one pass (`composed_of`)",
    )


def sort(graph: Mapping[str, Sequence[str]], circle: str, remedy: str) -> list[str]:
    """A stable topological order of ``{name: names before it}``.

    :param circle: the beginning of the message about a cycle
    :param remedy: the end of that message
    :raises PlanError: the graph has a cycle; the message has its names
    """
    sorter = TopologicalSorter({name: [needed for needed in before if needed in graph] for name, before in graph.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise PlanError(f"{circle}: {' -> '.join(reversed(error.args[1]))}; {remedy}") from None
    rank = {name: at for at, name in enumerate(graph)}
    sorted_names: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=rank.__getitem__)
        sorted_names += ready
        sorter.done(*ready)
    return sorted_names


def choose(projectors: Mapping[str, type[Projector]], options: RunOptions) -> list[str]:
    """The names of the projectors to rebuild, in their order; leaves out unknown names.

    :raises PlanError: see :func:`order`
    """
    ordered = order(projectors)
    if options.projectors is None:
        return ordered
    chosen = set(options.projectors)
    if options.rebuild_dependents:
        needed = needs(projectors)
        for name in ordered:
            if chosen.intersection(needed[name]):
                chosen.add(name)
    return [name for name in ordered if name in chosen]
