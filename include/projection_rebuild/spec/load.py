"""Reads and checks a spec file before any step uses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from projection_rebuild.errors import ProjectorError, SpecError
from projection_rebuild.model import limits
from projection_rebuild.model.limits import shown
from projection_rebuild.spec.file import read_spec
from projection_rebuild.spec.projectors import foreign_readings, shared_tables
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.spec.structure import load_structure
from projection_rebuild.spec.validation import validate


@dataclass(frozen=True)
class LoadedSpec:
    """The data of a spec file, and the projectors that it names."""

    spec: RebuildSpec
    projectors: ProjectorRegistry


def load_spec(path: Path | str) -> RebuildSpec:
    """Reads and checks a spec file and its projectors.

    :raises SpecError: the message names file, key and remedy
    """
    return load_with_projectors(Path(path)).spec


def load_with_projectors(path: Path) -> LoadedSpec:
    """Like :func:`load_spec`; also returns the projectors, which it imports once.

    :raises SpecError: the message names file, key and remedy
    """
    content, name = read_spec(path), shown(path.name, limits.NAME)
    spec = validate(RebuildSpec, content, name)
    try:
        projectors = ProjectorRegistry.load(spec)
        shared = [*shared_tables(projectors.values())]
    except ProjectorError as error:
        raise SpecError(f"{name}, projectors: {shown(error.message, 1_000)}") from error
    if shared:
        raise SpecError(f"{name}, projectors: {shown(' | '.join(map(str, shared)), 1_000)}")
    if foreign := [*foreign_readings(projectors)]:
        raise SpecError(f"{name}, projectors: {shown(' | '.join(foreign), 1_000)}")
    if misplaced := [*_misplaced(spec, projectors)]:
        raise SpecError(f"{name}, stages: {shown(' | '.join(misplaced), 1_000)}")
    return LoadedSpec(_beside(path, spec), projectors)


def _misplaced(spec: RebuildSpec, projectors: ProjectorRegistry) -> Iterator[str]:
    """Yields messages about stages that do not fit the projectors."""
    if not spec.stages:
        return
    places: dict[str, int] = {}
    names = [stage.name for stage in spec.stages]
    if len(set(names)) < len(names):
        yield "two have the same name; rename one"
    for at, stage in enumerate(spec.stages):
        for name in stage.projectors:
            if name not in projectors:
                yield f"{stage.name} names {name}, which is none of the projectors; they are {', '.join(projectors)}"
            elif name in places:
                yield f"{name} is named twice; leave it in one stage"
            else:
                places[name] = at
    if missing := [name for name in projectors if name not in places]:
        yield f"{', '.join(missing)} is in none of them; add it to one"
    for name, needed in ((name, needed) for name, before in projectors.needs().items() for needed in before):
        if places.get(needed, 0) > places.get(name, len(names)):
            yield f"{name} is in an earlier stage than {needed}, on which it depends; move one of them"


def _beside(path: Path, spec: RebuildSpec) -> RebuildSpec:
    """The spec with the path of ``structure.ddl`` relative to the spec file; loads the new structure to check it."""
    structure = spec.structure
    if structure is None:
        return spec
    if structure.ddl is not None:
        structure = structure.model_copy(update={"ddl": path.parent / structure.ddl})
    try:
        load_structure(structure)
    except SpecError as error:
        raise SpecError(f"{shown(path.name, limits.NAME)}, {error.message}") from None
    return spec.model_copy(update={"structure": structure})
