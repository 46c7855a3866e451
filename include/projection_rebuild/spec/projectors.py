"""The projector classes that a spec names: importing them, refusing what cannot be used, and what each needs."""

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

    :raises ProjectorError: no such module or class, an import that fails, or a class that is no usable projector
    """
    module_name, separator, class_name = path.partition(":")
    if not separator or not class_name:
        raise ProjectorError(f"{path!r} does not name a projector; write it as package.module:Class")
    try:
        module = importlib.import_module(module_name)
    # A module may do anything when it is imported, end the interpreter included.
    except (Exception, SystemExit) as error:
        if is_of_the_machine(error) and not isinstance(error, ImportError):
            raise machine_trouble(error, f", importing {module_name}") from None
        remedy = "; correct its name, or put the folder that holds it on Python's path" if _not_found(module_name, error) else ""
        raise ProjectorError(f"{path}: importing {module_name} failed with {failure_of(error)}{remedy}") from None
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Projector)):
        raise ProjectorError(f"{path}: {module_name} has no projector class {class_name}")
    _refuse_unusable(found, path)
    return found


def _not_found(module_name: str, error: BaseException) -> bool:
    """Whether the module itself, or a package that it is in, is not there; not one that it imports."""
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
    told = projector.part.rows
    if missing := [each.__name__ for each in projector.owns if each not in told]:
        raise ProjectorError(f"{path}: `part` does not say by what the rows of {', '.join(missing)} are told apart; add them")
    for row_class in projector.owns:
        kind, attribute = row_type(row_class), told[row_class]
        if attribute not in kind.attributes:
            raise ProjectorError(f"{path}: `part` names {attribute!r}, which is no column of {row_class.__name__}")
        found = plain_type(kind.types[kind.column(attribute)])
        if found not in (str, int, date, UUID):
            raise ProjectorError(
                f"{path}: `part` names {row_class.__name__}.{attribute}, which is no str, int, date or UUID; name a column that is"
            )


def needs(projectors: Mapping[str, type[Projector]]) -> dict[str, list[str]]:
    """By name, the projectors that have to be replayed before each: those that it depends on, and the owners of what it reads."""
    names = {projector: name for name, projector in projectors.items()}
    names |= {member: name for name, projector in projectors.items() for member in projector.composed_of}
    owners = {table: name for name, projector in projectors.items() for table in projector.tables()}
    found: dict[str, list[str]] = {}
    for name, projector in projectors.items():
        before = [names[needed] for needed in projector.depends_on if needed in names]
        before += [owners[table] for each in projector.reads if (table := row_type(each).table) in owners]
        found[name] = [each for each in dict.fromkeys(before) if each != name]
    return found


def foreign_readings(projectors: Mapping[str, type[Projector]]) -> Iterator[str]:
    """What is read otherwise than its owner writes it."""
    owners = {kind.table: (name, kind) for name, projector in projectors.items() for kind in projector.kinds()}
    for name, projector in projectors.items():
        for each in projector.reads:
            owner, kind = owners.get(row_type(each).table, (name, row_type(each)))
            if each in projector.owns:
                yield f"{name} reads {each.__name__}, which it owns; take it out of `reads`"
            elif kind.row_class is not each:
                yield f"{name} reads {kind.table} by {each.__name__}; use {kind.row_class.__name__}, by which {owner} writes it"


def shared_tables(projectors: Iterable[type[Projector]]) -> Iterator[Finding]:
    """A table has exactly one owner; those that have two."""
    owners: dict[str, str] = {}
    for projector in projectors:
        for table in projector.tables():
            owner = owners.setdefault(table, projector.name())
            if owner != projector.name():
                problem = f"it is owned by {owner} and {projector.name()}"
                yield Finding(about=f"the table {table}", problem=problem, remedy="give it one owner", refuses=True)
