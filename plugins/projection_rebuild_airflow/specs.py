"""Finds the spec files, and loads those that are usable."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from airflow.configuration import conf

from projection_rebuild.api import (
    NAME,
    ProjectorRegistry,
    RebuildError,
    RebuildSpec,
    SpecError,
    failure_of,
    load_with_projectors,
    shown,
)

FOLDERS_VARIABLE = "PROJECTION_REBUILD_SPECS"
"""The environment variable that names the folders of specs, separated as in PATH."""


@dataclass
class Specs:
    """The content of all spec files.

    :param usable: the specs, by path
    :param projectors: the projectors of each usable spec, by its path
    :param broken: the problems of the other files and of unreadable folders, by path
    """

    usable: dict[Path, RebuildSpec] = field(default_factory=dict)
    projectors: dict[Path, ProjectorRegistry] = field(default_factory=dict)
    broken: dict[Path, str] = field(default_factory=dict)


def folders() -> list[Path]:
    """The folders of specs, as :data:`FOLDERS_VARIABLE` names them.

    Without the variable, it is ``include/rebuilds`` of an Astro project, else ``rebuilds`` in the folder of DAGs.
    """
    variable = os.environ.get(FOLDERS_VARIABLE)
    if variable:
        return [Path(name) for name in variable.split(os.pathsep) if name]
    include = find_spec("include")
    candidates = [Path(location) / "rebuilds" for location in (include and include.submodule_search_locations) or ()]
    of_astro = [folder for folder in candidates if folder.is_dir()]
    return of_astro[:1] or [Path(conf.get_mandatory_value("core", "dags_folder")) / "rebuilds"]


def spec_files(folder: Path) -> list[Path]:
    """The files of a folder whose names are those of specs, whether or not they can be read.

    :raises OSError: the folder cannot be read
    """
    return sorted(folder / name for name in os.listdir(folder) if name.endswith(".yaml"))


def problem(path: Path, error: BaseException) -> str:
    """The problem of a spec file, in words that name the file and the remedy."""
    if isinstance(error, SpecError):
        return str(error)
    if isinstance(error, RebuildError):
        return f"{shown(path.name, NAME)}, projectors: {shown(error, 1_000)}"
    return f"{shown(path.name, NAME)} cannot be used: {failure_of(error)}. Correct the file, or the projectors that it names"


def _unreadable(folder: Path, error: OSError) -> str:
    if os.environ.get(FOLDERS_VARIABLE):
        return f"{FOLDERS_VARIABLE} names {folder}, which cannot be read as a folder: {error.strerror}"
    return f"there is no folder of specs at {folder} ({error.strerror}): make it, or name yours with {FOLDERS_VARIABLE}"


def read_specs() -> Specs:
    """Reads every ``*.yaml`` in the folders. A broken spec, whatever its problem, does not stop the others."""
    specs = Specs()
    names: dict[str, Path] = {}
    for folder in folders():
        try:
            paths = spec_files(folder)
        except OSError as error:
            specs.broken[folder] = _unreadable(folder, error)
            continue
        for path in paths:
            try:
                loaded = load_with_projectors(path)
            # The import of a projector's module may do anything, even end the interpreter.
            except (Exception, SystemExit) as error:
                specs.broken[path] = problem(path, error)
                continue
            spec = loaded.spec
            if spec.rebuild in names:
                specs.broken[path] = (
                    f"{path.name}, rebuild: {spec.rebuild} is the name of {names[spec.rebuild].name} too; rename one"
                )
                continue
            names[spec.rebuild] = path
            specs.usable[path], specs.projectors[path] = spec, loaded.projectors
    return specs
