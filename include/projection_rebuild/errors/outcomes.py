"""The ways in which an attempt of the cutover fails; the caller may try again."""

from __future__ import annotations


class TablesBusy(Exception):
    """Other sessions use the tables, and did not have to wait; another attempt can help."""


class TablesChanged(Exception):
    """The tables have changed since the engine has inspected them; another inspection can help."""


class FenceDied(Exception):
    """The connection with the fence has ended; the engine has swapped nothing."""


class PauseTooLong(Exception):
    """Writers have waited in this attempt for as long as the spec allows; the engine undoes it."""
