"""What the engine asks of a database, verb by verb; one subclass per database, the verbs in the same order.

Methods that return statements do not execute them: a step runs them one by one (and a dry run prints them). They read
the catalogs each time, so that after a crash they return just what is still missing.
"""

from __future__ import annotations

from abc import abstractmethod

from projection_rebuild.dialects.base.cutover import (
    Cutover,
    CutoverInTransaction,
    HeldBack,
    HeldInTransaction,
    HeldTables,
    LockOrder,
    LockPolicy,
)
from projection_rebuild.dialects.base.event_log import EventExpressions, EventLog, Fence
from projection_rebuild.dialects.base.inspector import DependentObjects, Inspector, TableSize
from projection_rebuild.dialects.base.partial_copy import KeyList, PartialCopy
from projection_rebuild.dialects.base.preflight import PreflightProbe, RunTables
from projection_rebuild.dialects.base.row_store import KEYS_PER_STATEMENT, Comparing, RowStore
from projection_rebuild.dialects.base.sessions import CHECKED, LockWaits, Refusal, Sessions, own_port
from projection_rebuild.dialects.base.shadow import SchemaTrial, Scratch, ShadowTables, TablesApart, wait_for
from projection_rebuild.dialects.base.statements import DENIALS, Statements, died
from projection_rebuild.dialects.base.swap_statements import PreparedSwap, SwapStatements
from projection_rebuild.dialects.base.traffic import TrafficProbe
from projection_rebuild.errors.outcomes import FenceDied, PauseTooLong, TablesBusy, TablesChanged


class Dialect(
    LockWaits,
    Inspector,
    DependentObjects,
    TrafficProbe,
    PreflightProbe,
    ShadowTables,
    TablesApart,
    SwapStatements,
    Comparing,
    PartialCopy,
    EventLog,
    EventExpressions,
):
    """All that a database does for a rebuild. Sessions and statements are its own; all else is asked of a subject."""

    @property
    def inspector(self) -> Inspector:
        """What there is: tables, columns, keys, sizes."""
        return self

    @property
    def dependents(self) -> DependentObjects:
        """What hangs on a table, and whether it can be carried over."""
        return self

    @property
    def shadow(self) -> ShadowTables:
        """Making, completing and dropping green tables."""
        return self

    @property
    def trials(self) -> TablesApart:
        """Tables in a place of their own, for trials and checks."""
        return self

    @property
    def rows(self) -> Comparing:
        """Reading, writing and comparing rows."""
        return self

    @property
    def partial_copy(self) -> PartialCopy:
        """Copying the rows that a partial rebuild keeps."""
        return self

    @property
    def events(self) -> EventLog:
        """The event store's table: high-water mark and fence."""
        return self

    @property
    def expressions(self) -> EventExpressions:
        """SQL expressions over the event store's columns."""
        return self

    @property
    def probe(self) -> PreflightProbe:
        """What a plan asks the server."""
        return self

    @property
    def traffic(self) -> TrafficProbe:
        """How busy the server is."""
        return self

    @property
    @abstractmethod
    def cutover(self) -> Cutover:
        """The way in which this database cuts over."""


__all__ = [
    "CHECKED",
    "DENIALS",
    "KEYS_PER_STATEMENT",
    "Comparing",
    "Cutover",
    "CutoverInTransaction",
    "DependentObjects",
    "Dialect",
    "EventExpressions",
    "EventLog",
    "Fence",
    "FenceDied",
    "HeldBack",
    "HeldInTransaction",
    "HeldTables",
    "Inspector",
    "KeyList",
    "LockOrder",
    "LockPolicy",
    "LockWaits",
    "PartialCopy",
    "PauseTooLong",
    "PreflightProbe",
    "PreparedSwap",
    "Refusal",
    "RowStore",
    "RunTables",
    "SchemaTrial",
    "Scratch",
    "Sessions",
    "ShadowTables",
    "Statements",
    "SwapStatements",
    "TableSize",
    "TablesApart",
    "TablesBusy",
    "TablesChanged",
    "TrafficProbe",
    "died",
    "own_port",
    "wait_for",
]
