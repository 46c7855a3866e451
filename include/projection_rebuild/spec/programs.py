"""Projectors that are programs: ``programs``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from projection_rebuild.authoring.external import OnRetry
from projection_rebuild.spec.fields import Flag, Section, Whole


class ProgramSection(Section):
    """A projector that is a program.

    :param name: what it is called; projectors have the names of their classes
    :param command: program and arguments; ``{from} {after} {to} {suffix} {schema} {run} {projector}`` are filled in
    :param tables: the tables that it fills, each with the columns that tell its rows apart
    :param event_types: the stored types that it handles
    :param depends_on: projectors listed before it that are replayed first
    :param on_retry: what a call that was cut short means for the next one
    :param batch_positions: the longest range of positions for one call; null: up to the head
    :param directory: where it is started
    :param environment: variables for it, beside those of the worker
    :param connections: whether it is told the two databases' URLs, passwords included, in its environment
    :param show_output: whether its output goes to the log; it may hold anything
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
