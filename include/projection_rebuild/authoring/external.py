"""Projectors that are programs: what a spec says of one, as a class among the other projectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, NoReturn

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import ProjectorError
from projection_rebuild.rows.types import Rows, row

LOOK_EVERY = 1.0
"""Seconds between two looks whether a program's checkpoint is still its worker's; the program is ended when it is not."""

PATIENCE = 5.0
"""Seconds between asking a program to end and ending it."""

MARGIN = 1.0
"""Seconds that a machine which is short of time may take for that, beyond what it should."""


def take_over() -> float:
    """Seconds after which a worker that has lost its checkpoint has ended its program, also one that does not heed SIGTERM.

    The worker looks within the first, and may be slow to; then the program has its time to end by itself.
    """
    return 2 * LOOK_EVERY + PATIENCE + MARGIN


LONGEST_VERSION = 190
"""Characters of a version in the record of a run."""


class OnRetry(StrEnum):
    """What a call that did not come to its end means for the next one.

    * ``restart``: its tables are made anew, and it begins at the first event; right for every program
    * ``repeat``: it is called for the same positions again, from the last one that it has reported; right for a program that
      gives the same rows when it gets an event twice
    """

    RESTART = "restart"
    REPEAT = "repeat"


class ExternalProjector(Projector):
    """A program that fills its tables by itself, over connections of its own. Made from a spec by :func:`made_of`."""

    command: ClassVar[tuple[str, ...]] = ()
    directory: ClassVar[str | None] = None
    environment: ClassVar[Mapping[str, str]] = {}
    connections: ClassVar[bool] = False
    show_output: ClassVar[bool] = False
    batch_positions: ClassVar[int | None] = None
    on_retry: ClassVar[OnRetry] = OnRetry.RESTART

    def project(self, event: Event, rows: Rows) -> NoReturn:
        """It handles its events itself, in its own language.

        :raises ProjectorError: always
        """
        raise ProjectorError(f"{self.name()} is a program; the application runs it itself")


def made_of(
    name: str, tables: Mapping[str, Sequence[str]], event_types: Sequence[str], depends_on: Sequence[type[Projector]], **how: Any
) -> type[ExternalProjector]:
    """The class of a program.

    :param tables: the key columns of each table
    :param how: the other class variables
    """
    owns = tuple(_row_class(table, keys) for table, keys in tables.items())
    said = {"owns": owns, "depends_on": tuple(depends_on), "_handlers": dict.fromkeys(event_types), **how}
    made: type[ExternalProjector] = type(name, (ExternalProjector,), {"__module__": __name__})
    for attribute, value in said.items():
        setattr(made, attribute, value)
    # What is kept of the code that made the rows: the program's own is not ours to read.
    made.version = " ".join(made.command)[:LONGEST_VERSION]
    return made


def _row_class(table: str, keys: Sequence[str]) -> type:
    """Nothing is known of the rows but how they are told apart."""
    columns = {f"key_{number}": column for number, column in enumerate(keys)}
    return row(table, key=list(columns), columns=columns)(type("Row", (), {"__annotations__": dict.fromkeys(columns, str)}))
