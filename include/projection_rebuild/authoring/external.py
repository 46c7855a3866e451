"""Projectors that are external programs: each becomes a class, made from its section of the spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, NoReturn

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import ProjectorError
from projection_rebuild.rows.types import Rows, row

LOOK_EVERY = 1.0
"""Seconds between two checks of whether the worker still owns the program's checkpoint; if not, it ends the program."""

PATIENCE = 5.0
"""Seconds between SIGTERM and SIGKILL when a worker ends a program."""

MARGIN = 1.0
"""Seconds that a busy machine may need beyond these times."""


def take_over() -> float:
    """Seconds within which a worker that has lost its checkpoint has ended its program, even if it ignores SIGTERM.

    They allow one late check of the worker, and then the time that the program has to end by itself.
    """
    return 2 * LOOK_EVERY + PATIENCE + MARGIN


LONGEST_VERSION = 190
"""The most characters of a version in the record of a run."""


class OnRetry(StrEnum):
    """What the engine does after a call that did not end.

    * ``restart``: it clones the tables again, and the program begins at the first event; right for every program
    * ``repeat``: it calls the program again from the last position that the program has reported; right for a program
      that writes the same rows when it reads an event twice
    """

    RESTART = "restart"
    REPEAT = "repeat"


class ExternalProjector(Projector):
    """A program that fills its tables itself, over its own connections. :func:`made_of` makes its class from a spec."""

    command: ClassVar[tuple[str, ...]] = ()
    directory: ClassVar[str | None] = None
    environment: ClassVar[Mapping[str, str]] = {}
    connections: ClassVar[bool] = False
    show_output: ClassVar[bool] = False
    batch_positions: ClassVar[int | None] = None
    on_retry: ClassVar[OnRetry] = OnRetry.RESTART

    def project(self, event: Event, rows: Rows) -> NoReturn:
        """Cannot run in Python: the program handles its events itself.

        :raises ProjectorError: always
        """
        raise ProjectorError(f"{self.name()} is a program; the application runs it itself")


def made_of(
    name: str, tables: Mapping[str, Sequence[str]], event_types: Sequence[str], depends_on: Sequence[type[Projector]], **how: Any
) -> type[ExternalProjector]:
    """Makes the projector class of a program.

    :param tables: the key columns of each table
    :param how: the other class variables
    """
    owns = tuple(_row_class(table, keys) for table, keys in tables.items())
    attributes = {"owns": owns, "depends_on": tuple(depends_on), "_handlers": dict.fromkeys(event_types), **how}
    projector: type[ExternalProjector] = type(name, (ExternalProjector,), {"__module__": __name__})
    for attribute, value in attributes.items():
        setattr(projector, attribute, value)
    # The record of a run keeps the command as the version, since the engine cannot read the program's code.
    projector.version = " ".join(projector.command)[:LONGEST_VERSION]
    return projector


def _row_class(table: str, keys: Sequence[str]) -> type:
    """A row class with the key columns alone: the engine does not know the other columns of a program's tables."""
    columns = {f"key_{number}": column for number, column in enumerate(keys)}
    return row(table, key=list(columns), columns=columns)(type("Row", (), {"__annotations__": dict.fromkeys(columns, str)}))
