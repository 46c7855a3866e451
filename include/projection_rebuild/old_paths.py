"""Keeps the import paths of version 0.1 working until version 0.3, with a DeprecationWarning.

An old path of a module gives the module object of today, so that its classes are the same objects. An old path of a
package gives a stand-in for the package of today. The stand-in is necessary because Python sets imported submodules as
attributes of their package, and an old module may have the name of a new package.
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
    """The modules of the engine that have moved since version 0.1: old full path to new full path."""
    if find_spec(f"{ENGINE}.moved") is None:
        return {}
    table: Mapping[str, str] = import_module(f"{ENGINE}.moved").MOVED
    return {f"{ENGINE}.{old}": f"{ENGINE}.{new}" for old, new in table.items()}


class OldPaths(MetaPathFinder):
    """Finds modules by their old paths.

    :param roots: the packages with a new name: old name to new name
    :param moved: the modules that have moved: old path to new path, both with the new name of the package
    """

    def __init__(self, roots: Mapping[str, str], moved: Mapping[str, str]) -> None:
        self.roots = dict(roots)
        self._moved = dict(moved)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of the module of today for an old path; None: this finder does not know the path."""
        root = next((old for old in self.roots if f"{fullname}.".startswith(f"{old}.")), None)
        if root is None:
            return None
        under_new_root = self.roots[root] + fullname.removeprefix(root)
        today = self._moved.get(under_new_root, under_new_root)
        spec = find_spec(today) if today != fullname else None
        if spec is not None and spec.submodule_search_locations is None:
            return ModuleSpec(fullname, _SameModule(spec))
        if spec is not None or any(old.startswith(f"{under_new_root}.") for old in self._moved):
            return ModuleSpec(fullname, _StandIn(self, today if spec else None), is_package=True)
        return None


class _SameModule(InspectLoader):
    """Loads the module of today under an old path.

    :param today: the spec of the module of today
    """

    def __init__(self, today: ModuleSpec) -> None:
        self._today = today

    def exec_module(self, module: ModuleType) -> None:
        """Replaces the new module in ``sys.modules`` by the module of today; the import returns that one."""
        _warn(module.__name__, self._today.name)
        sys.modules[module.__name__] = import_module(self._today.name)

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the module of today, for ``python -m``, which runs a module without importing it."""
        _warn(fullname, self._today.name)
        return self._today.loader.get_code(self._today.name) if isinstance(self._today.loader, InspectLoader) else None

    def get_source(self, fullname: str) -> str | None:
        """The source of the module of today."""
        return self._today.loader.get_source(self._today.name) if isinstance(self._today.loader, InspectLoader) else None


class _StandIn(Loader):
    """Loads the stand-in for a package.

    :param today: the package's name today; None: the package no longer exists, only modules that were in it
    """

    def __init__(self, finder: OldPaths, today: str | None) -> None:
        self._finder = finder
        self._today = today

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Creates an empty package. The finder finds the modules below it."""
        return OldPackage(spec.name, self._finder, self._today)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: the stand-in warns when code reads a name. A warning here would repeat that of a submodule."""


class OldPackage(ModuleType):
    """A stand-in that gives the names of a package of today.

    :param today: the package's name today; None: the package no longer exists
    """

    def __init__(self, name: str, finder: OldPaths, today: str | None) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._finder = finder
        self._today = today

    def __getattr__(self, name: str) -> object:
        """The attribute of the package of today. A module is no attribute here: code imports it by its path."""
        if self._today is None or name.startswith("__") or self._finder.find_spec(f"{self.__name__}.{name}", self.__path__):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(self._today), name)
        _warn(self.__name__, self._today)
        return value


def _warn(old: str, today: str) -> None:
    # The warning names the line that imports: Python does not count the frames of its import machinery.
    warnings.warn(f"{old} is now {today}; the old path goes with version 0.3", DeprecationWarning, stacklevel=3)


_renamed = OldPaths({f"include.{ENGINE}": ENGINE}, _moved())


def install() -> None:
    """Makes Python find the engine by its old paths. The package calls it whenever it is imported."""
    if _renamed not in sys.meta_path:
        # Before Python's own finders: they would import a second copy of a file that has two names.
        sys.meta_path.insert(0, _renamed)
        # After Python's own finders: a module that exists today comes before an old path.
        sys.meta_path.append(OldPaths({ENGINE: ENGINE}, _moved()))


def renamed(old: str, today: str) -> None:
    """Makes a renamed package importable by its old name. The file that is left at the old place calls it."""
    _renamed.roots[old] = today
    sys.modules[old] = OldPackage(old, _renamed, today)
