"""The projector classes that a spec names: imports them, refuses unusable ones, and finds their dependencies."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from uuid import UUID

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import ProjectorError
from projection_rebuild.errors.boundary import failure_of, is_of_the_machine, machine_trouble
from projection_rebuild.model.findings import Finding
from projection_rebuild.rows.types import row_type
from projection_rebuild.rows.values import plain_type


def load_projector(path: str) -> type[Projector]:
    """Imports a projector from ``package.module:Class``.

    :raises ProjectorError: the module or class does not exist, the import fails, or the class is no usable projector
    """
    module_name, separator, class_name = path.partition(":")
    if not separator or not class_name:
        raise ProjectorError(f"{path!r} does not name a projector; write it as package.module:Class")
    try:
        module = importlib.import_module(module_name)
    # The code of a module may do anything during its import, and even end the interpreter.
    except (Exception, SystemExit) as error:
        if is_of_the_machine(error) and not isinstance(error, ImportError):
            raise machine_trouble(error, f", importing {module_name}") from None
        remedy = "; correct its name, or put the folder that holds it on Python's path" if _not_found(module_name, error) else ""
        raise ProjectorError(f"{path}: importing {module_name} failed with {failure_of(error)}{remedy}") from None
    projector = getattr(module, class_name, None)
    if not (isinstance(projector, type) and issubclass(projector, Projector)):
        raise ProjectorError(f"{path}: {module_name} has no projector class {class_name}")
    _refuse_unusable(projector, path)
    return projector


def _not_found(module_name: str, error: BaseException) -> bool:
    """Whether Python did not find the module itself or its package, rather than a module that it imports."""
    missing = error.name if type(error) is ModuleNotFoundError else None
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _refuse_unusable(projector: type[Projector], path: str) -> None:
    owns: object = projector.owns
    if not isinstance(owns, tuple | list):
        raise ProjectorError(f"{path}: `owns` is no tuple; write `owns = (Subscription,)`, with the comma")
    if not owns:
        raise ProjectorError(f"{path}: it owns no table; set `owns` to its row classes")
    projector.kinds()
    projector.partition()
    if not projector.event_types():
        raise ProjectorError(f"{path}: it handles no event; mark its handlers with @handles(...)")
    if projector.reads_events and projector.has_handlers():
        raise ProjectorError(f"{path}: `reads_events` is for a projector without handlers; handlers tell their types themselves")
    _refuse_part(projector, path)


def _refuse_part(projector: type[Projector], path: str) -> None:
    if projector.part is None:
        return
    attributes = projector.part.rows
    if missing := [row_class.__name__ for row_class in projector.owns if row_class not in attributes]:
        raise ProjectorError(f"{path}: `part` does not say by what the rows of {', '.join(missing)} are told apart; add them")
    for row_class in projector.owns:
        kind, attribute = row_type(row_class), attributes[row_class]
        if attribute not in kind.attributes:
            raise ProjectorError(f"{path}: `part` names {attribute!r}, which is no column of {row_class.__name__}")
        attribute_type = plain_type(kind.types[kind.column(attribute)])
        if attribute_type not in (str, int, date, UUID):
            raise ProjectorError(
                f"{path}: `part` names {row_class.__name__}.{attribute}, which is no str, int, date or UUID; name a column that is"
            )


def needs(projectors: Mapping[str, type[Projector]]) -> dict[str, list[str]]:
    """By name, the projectors to replay before each: those that it depends on, and the owners of what it reads."""
    names = {projector: name for name, projector in projectors.items()}
    names |= {member: name for name, projector in projectors.items() for member in projector.composed_of}
    owners = {table: name for name, projector in projectors.items() for table in projector.tables()}
    before_each: dict[str, list[str]] = {}
    for name, projector in projectors.items():
        before = [names[needed] for needed in projector.depends_on if needed in names]
        before += [owners[table] for row_class in projector.reads if (table := row_type(row_class).table) in owners]
        before_each[name] = [needed for needed in dict.fromkeys(before) if needed != name]
    return before_each


def foreign_readings(projectors: Mapping[str, type[Projector]]) -> Iterator[str]:
    """Yields messages about projectors that read their own table, or a table by another row class than its owner."""
    owners = {kind.table: (name, kind) for name, projector in projectors.items() for kind in projector.kinds()}
    for name, projector in projectors.items():
        for row_class in projector.reads:
            owner, kind = owners.get(row_type(row_class).table, (name, row_type(row_class)))
            if row_class in projector.owns:
                yield f"{name} reads {row_class.__name__}, which it owns; take it out of `reads`"
            elif kind.row_class is not row_class:
                yield f"{name} reads {kind.table} by {row_class.__name__}; use {kind.row_class.__name__}, by which {owner} writes it"


def shared_tables(projectors: Iterable[type[Projector]]) -> Iterator[Finding]:
    """Yields a finding for each table with two owners; a table must have exactly one."""
    owners: dict[str, str] = {}
    for projector in projectors:
        for table in projector.tables():
            owner = owners.setdefault(table, projector.name())
            if owner != projector.name():
                problem = f"it is owned by {owner} and {projector.name()}"
                yield Finding(about=f"the table {table}", problem=problem, remedy="give it one owner", refuses=True)
