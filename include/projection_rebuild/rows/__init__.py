"""Typed rows as handlers see them, and what a database's column makes of their values; usable without a database."""

from projection_rebuild.rows.buffer import Asking, RowBuffer
from projection_rebuild.rows.recording import ProbeRows, Unknown
from projection_rebuild.rows.types import UNCHANGING, Changes, Key, Rows, RowSource, RowType, Values, row, row_type

__all__ = [
    "UNCHANGING",
    "Asking",
    "Changes",
    "Key",
    "ProbeRows",
    "RowBuffer",
    "RowSource",
    "RowType",
    "Rows",
    "Unknown",
    "Values",
    "row",
    "row_type",
]
