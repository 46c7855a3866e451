"""Projectors that are external programs, as entries of ``projectors``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from projection_rebuild.authoring.external import OnRetry
from projection_rebuild.spec.fields import Flag, Section, Whole


class ProgramSection(Section):
    """A projector that is an external program.

    :param name: the projector's name; other projectors have the names of their classes
    :param command: program and arguments; the engine fills in
        ``{from} {after} {to} {suffix} {schema} {run} {projector}``
    :param tables: the tables that it fills, each with its key columns
    :param event_types: the stored types that it handles
    :param depends_on: projectors to replay first; the spec lists them before it
    :param on_retry: what the engine does after a call that did not end
    :param batch_positions: the longest range of positions for one call; null: up to the head
    :param directory: its working directory
    :param environment: its environment variables, in addition to those of the worker
    :param connections: whether its environment has the URLs of the two databases, passwords included
    :param show_output: whether its output goes to the log; it may contain any data
    """

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")
    command: tuple[str, ...] = Field(min_length=1)
    tables: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    event_types: tuple[str, ...] = Field(min_length=1)
    depends_on: tuple[str, ...] = ()
    on_retry: OnRetry = OnRetry.RESTART
    batch_positions: Whole | None = Field(default=None, ge=1)
    directory: str | None = None
    environment: dict[Annotated[str, Field(pattern=r"^[^=]+$")], str] = {}
    connections: Flag = False
    show_output: Flag = False
