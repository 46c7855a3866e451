"""The import paths of version 0.1, which work until version 0.3: each gives the module of today, with a DeprecationWarning.

A module has one object, whichever path it is imported by, so that its classes are the same ones. A package of an old path is a stand-in
for the one of today: Python makes what is imported below a package its attribute, and an old module may have the name of a new package.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

ENGINE = "projection_rebuild"


def _moved() -> dict[str, str]:
    """The modules of the engine that have moved since version 0.1: the full path that each had, and the one that it has."""
    if find_spec(f"{ENGINE}.moved") is None:
        return {}
    table: Mapping[str, str] = import_module(f"{ENGINE}.moved").MOVED
    return {f"{ENGINE}.{old}": f"{ENGINE}.{new}" for old, new in table.items()}


class OldPaths(MetaPathFinder):
    """Finds modules by the paths that they had.

    :param roots: packages that have another name today, old name to new name
    :param moved: modules that have moved within the packages of today
    """

    def __init__(self, roots: Mapping[str, str], moved: Mapping[str, str]) -> None:
        self.roots = dict(roots)
        self._moved = dict(moved)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module of today for an old path; None: it is none of ours."""
        root = next((each for each in self.roots if f"{fullname}.".startswith(f"{each}.")), None)
        if root is None:
            return None
        under_new_root = self.roots[root] + fullname.removeprefix(root)
        today = self._moved.get(under_new_root, under_new_root)
        found = find_spec(today) if today != fullname else None
        if found is not None and found.submodule_search_locations is None:
            return ModuleSpec(fullname, _SameModule(found))
        if found is not None or any(each.startswith(f"{under_new_root}.") for each in self._moved):
            return ModuleSpec(fullname, _StandIn(self, today if found else None), is_package=True)
        return None


class _SameModule(InspectLoader):
    """Puts the module of today at an old path.

    :param today: where the module is
    """

    def __init__(self, today: ModuleSpec) -> None:
        self._today = today

    def exec_module(self, module: ModuleType) -> None:
        """Python takes from ``sys.modules`` what an import puts there in the place of the module that it made."""
        _warn(module.__name__, self._today.name)
        sys.modules[module.__name__] = import_module(self._today.name)

    def get_code(self, fullname: str) -> CodeType | None:
        """For ``python -m``, which runs a module without importing it."""
        _warn(fullname, self._today.name)
        return self._today.loader.get_code(self._today.name) if isinstance(self._today.loader, InspectLoader) else None

    def get_source(self, fullname: str) -> str | None:
        """The same file's text."""
        return self._today.loader.get_source(self._today.name) if isinstance(self._today.loader, InspectLoader) else None


class _StandIn(Loader):
    """Makes the stand-in for a package.

    :param today: the package's name today; None: there is no such package any more, only modules that were in it
    """

    def __init__(self, finder: OldPaths, today: str | None) -> None:
        self._finder = finder
        self._today = today

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty package, below which the finder finds modules."""
        return OldPackage(spec.name, self._finder, self._today)

    def exec_module(self, module: ModuleType) -> None:
        """Whoever asks for a name warns then; an import of a module below would otherwise warn twice."""


class OldPackage(ModuleType):
    """Hands on the names of a package of today.

    :param today: the package's name today, if there is one
    """

    def __init__(self, name: str, finder: OldPaths, today: str | None) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._finder = finder
        self._today = today

    def __getattr__(self, name: str) -> object:
        """What the package of today has by this name, unless it is a module, which whoever wants it imports."""
        if self._today is None or name.startswith("__") or self._finder.find_spec(f"{self.__name__}.{name}", self.__path__):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(self._today), name)
        _warn(self.__name__, self._today)
        return value


def _warn(old: str, today: str) -> None:
    # Of the line that imports: Python leaves its own import machinery out of the count.
    warnings.warn(f"{old} is now {today}; the old path goes with version 0.3", DeprecationWarning, stacklevel=3)


_renamed = OldPaths({f"include.{ENGINE}": ENGINE}, _moved())


def install() -> None:
    """Makes Python find the engine by its old paths; called when the engine is imported, by whichever path."""
    if _renamed not in sys.meta_path:
        # Before Python's own finders, which would import a second copy of a file that is found by two names.
        sys.meta_path.insert(0, _renamed)
        # After them: what is there today is meant.
        sys.meta_path.append(OldPaths({ENGINE: ENGINE}, _moved()))


def renamed(old: str, today: str) -> None:
    """Makes a package that has another name today importable by its old one; called by what is left at the old place."""
    _renamed.roots[old] = today
    sys.modules[old] = OldPackage(old, _renamed, today)
