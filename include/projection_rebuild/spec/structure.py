"""Another structure for the rebuilt tables: ``structure``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from pydantic import model_validator

from projection_rebuild.errors import SpecError
from projection_rebuild.errors.boundary import failure_of, is_of_the_machine, machine_trouble
from projection_rebuild.model import limits
from projection_rebuild.spec.fields import Section


class StructureSection(Section):
    """A new structure for the rebuilt tables. The engine carries over everything that it does not mention.

    Set either ``metadata`` or ``ddl``.

    :param metadata: ``package.module:name`` of an SQLAlchemy MetaData, or of the base class of declarative models
    :param ddl: a file with CREATE statements for tables and indexes, beside the spec file
    :param views: new queries for views that the new structure would break, by name
    """

    metadata: str | None = None
    ddl: Path | None = None
    views: dict[str, str] = {}

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.metadata is None) == (self.ddl is None):
            raise ValueError("name the new structure by `metadata` (package.module:name) or by `ddl` (a file), one of the two")
        return self


def load_structure(section: StructureSection) -> sa.MetaData | str:
    """The metadata that a section names, or the text of its DDL file.

    :raises SpecError: the import or the file fails, or the object is no MetaData
    :raises MachineTrouble: the machine failed, or a database that the module uses; a later import may succeed
    """
    if section.ddl is not None:
        try:
            return limits.read(section.ddl, limits.DDL_FILE)
        except SpecError as error:
            raise SpecError(f"structure.ddl: {error.message}") from None
    module_name, _, name = str(section.metadata).partition(":")
    try:
        metadata = getattr(importlib.import_module(module_name), name, None)
    # The code of a module may do anything during its import, and even end the interpreter.
    except (Exception, SystemExit) as error:
        if is_of_the_machine(error) and not isinstance(error, ImportError):
            raise machine_trouble(error, f", importing {module_name}") from None
        raise SpecError(f"structure.metadata: importing {module_name} failed with {failure_of(error)}") from None
    metadata = getattr(metadata, "metadata", metadata)
    if not isinstance(metadata, sa.MetaData):
        raise SpecError(f"structure.metadata: {section.metadata} is no MetaData; write it as package.module:name")
    return metadata
