"""Where the spec files are, and which of them can be used."""

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
    """All spec files found.

    :param usable: by path
    :param projectors: those of each usable one, by its path
    :param broken: what is wrong with the others, by path
    """

    usable: dict[Path, RebuildSpec] = field(default_factory=dict)
    projectors: dict[Path, ProjectorRegistry] = field(default_factory=dict)
    broken: dict[Path, str] = field(default_factory=dict)


def folders() -> list[Path]:
    """The folders of specs; without the variable, ``include/rebuilds`` of an Astro project or ``rebuilds`` in the folder of DAGs."""
    named = os.environ.get(FOLDERS_VARIABLE)
    if named:
        return [Path(each) for each in named.split(os.pathsep) if each]
    include = find_spec("include")
    of_astro = [Path(each) / "rebuilds" for each in (include and include.submodule_search_locations) or ()]
    found = [each for each in of_astro if each.is_dir()]
    return found[:1] or [Path(conf.get_mandatory_value("core", "dags_folder")) / "rebuilds"]


def spec_files(folder: Path) -> list[Path]:
    """What is called a spec in a folder, whether or not it can be read.

    :raises OSError: the folder cannot be read
    """
    return sorted(folder / name for name in os.listdir(folder) if name.endswith(".yaml"))


def problem(path: Path, error: BaseException) -> str:
    """What is wrong with a spec file, in one sentence that names it."""
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
    """Reads every ``*.yaml`` in the folders; one that cannot be used, for whatever reason, stops none of the others."""
    found = Specs()
    names: dict[str, Path] = {}
    for folder in folders():
        try:
            paths = spec_files(folder)
        except OSError as error:
            found.broken[folder] = _unreadable(folder, error)
            continue
        for path in paths:
            try:
                loaded = load_with_projectors(path)
            # A projector's module may do anything when it is imported, end the interpreter included.
            except (Exception, SystemExit) as error:
                found.broken[path] = problem(path, error)
                continue
            spec = loaded.spec
            if spec.rebuild in names:
                found.broken[path] = (
                    f"{path.name}, rebuild: {spec.rebuild} is the name of {names[spec.rebuild].name} too; rename one"
                )
                continue
            names[spec.rebuild] = path
            found.usable[path], found.projectors[path] = spec, loaded.projectors
    return found
