"""The projectors of one spec, imported once: the spec is data, and this is the code that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

from projection_rebuild.authoring import external
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import ProjectorError
from projection_rebuild.spec.dependencies import choose, order
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.programs import ProgramSection
from projection_rebuild.spec.projectors import load_projector, needs
from projection_rebuild.spec.rebuild import RebuildSpec


class ProjectorRegistry(Mapping[str, type[Projector]]):
    """Projector classes by name, in the order of the spec.

    :param projectors: the classes by name
    """

    def __init__(self, projectors: Mapping[str, type[Projector]]) -> None:
        self._projectors = dict(projectors)

    @classmethod
    def load(cls, spec: RebuildSpec) -> Self:
        """Imports the projectors of a spec, and makes classes for its external programs.

        :raises ProjectorError: a projector cannot be imported or used, or two share a name
        """
        loaded: dict[str, type[Projector]] = {}
        for named in spec.projectors:
            projector = load_projector(named) if isinstance(named, str) else _program(named, loaded)
            if projector.name() in loaded:
                place = named if isinstance(named, str) else named.name
                raise ProjectorError(f"{place}: there is already a projector named {projector.name()}; rename one")
            loaded[projector.name()] = projector
        return cls(loaded)

    def __getitem__(self, name: str) -> type[Projector]:
        return self._projectors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._projectors)

    def __len__(self) -> int:
        return len(self._projectors)

    def order(self) -> list[str]:
        """The names, each after its dependencies; see :func:`projection_rebuild.spec.dependencies.order`."""
        return order(self)

    def needs(self) -> dict[str, list[str]]:
        """The projectors to replay before each, by name; see :func:`projection_rebuild.spec.projectors.needs`."""
        return needs(self)

    def choose(self, options: RunOptions) -> list[str]:
        """The names that a run rebuilds, in their order; see :func:`projection_rebuild.spec.dependencies.choose`."""
        return choose(self, options)


def _program(section: ProgramSection, loaded: Mapping[str, type[Projector]]) -> type[Projector]:
    """Makes the projector class of an external program.

    :param loaded: the projectors before it in the spec, by name
    :raises ProjectorError: it depends on a projector that is not among them
    """
    if unknown := [name for name in section.depends_on if name not in loaded]:
        raise ProjectorError(
            f"{section.name} depends on {', '.join(unknown)}; a program depends on projectors that are listed before it"
        )
    settings = section.model_dump(
        include={"command", "on_retry", "batch_positions", "directory", "environment", "connections", "show_output"}
    )
    before = [loaded[name] for name in section.depends_on]
    return external.made_of(section.name, section.tables, section.event_types, before, **settings)
