"""How an attempt at the tables ends, for whoever may try again."""

from __future__ import annotations


class TablesBusy(Exception):
    """Somebody uses the tables, and has not been asked to wait; trying again can help."""


class TablesChanged(Exception):
    """Something was done to the tables since they were looked at; looking again can help."""


class FenceDied(Exception):
    """The connection that held appends back is gone; nothing has been switched."""


class PauseTooLong(Exception):
    """This attempt has held the writers for as long as it may; it is undone."""
