"""The interface of a database: one class for each subject, and :class:`Dialect`, which joins them.

Methods that return statements do not execute them: a step executes them one by one, and a dry run prints them. They
read the catalogs on each call, so after a crash they return exactly the statements that are still missing.
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
    """All that a database does for a rebuild.

    It has the methods for sessions and statements itself; callers reach all others through the property of a subject.
    """

    @property
    def inspector(self) -> Inspector:
        """Reads what tables are: their columns, keys and sizes."""
        return self

    @property
    def dependents(self) -> DependentObjects:
        """Reads what hangs on a table, and whether a rebuild can carry it over."""
        return self

    @property
    def shadow(self) -> ShadowTables:
        """Creates, completes and drops green tables."""
        return self

    @property
    def trials(self) -> TablesApart:
        """Creates tables in a schema of their own, for trials and checks."""
        return self

    @property
    def rows(self) -> Comparing:
        """Reads, writes and compares rows."""
        return self

    @property
    def partial_copy(self) -> PartialCopy:
        """Copies the rows that a partial rebuild keeps."""
        return self

    @property
    def events(self) -> EventLog:
        """Finds the event store's high-water mark, and fences the store."""
        return self

    @property
    def expressions(self) -> EventExpressions:
        """Builds SQL expressions over the event store's columns."""
        return self

    @property
    def probe(self) -> PreflightProbe:
        """Checks settings, privileges and tables for a plan."""
        return self

    @property
    def traffic(self) -> TrafficProbe:
        """Measures how busy the server is."""
        return self

    @property
    @abstractmethod
    def cutover(self) -> Cutover:
        """The strategy by which this database cuts over."""


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
