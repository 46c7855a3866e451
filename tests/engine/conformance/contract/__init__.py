"""What every database must do for the engine, verb by verb: one base class for each subject of ``dialects.base``."""

from __future__ import annotations

from tests.engine.conformance.contract.apart import TablesApartContract
from tests.engine.conformance.contract.comparing import ComparingContract
from tests.engine.conformance.contract.declared import Contract, Feature, Reasons, Uncarried, Vocabulary
from tests.engine.conformance.contract.dependents import DependentObjectsContract
from tests.engine.conformance.contract.event_log import EventLogContract
from tests.engine.conformance.contract.expressions import EventExpressionsContract
from tests.engine.conformance.contract.inspector import InspectorContract
from tests.engine.conformance.contract.lock_waits import LockWaitsContract
from tests.engine.conformance.contract.partial_copy import PartialCopyContract
from tests.engine.conformance.contract.preflight import PreflightProbeContract
from tests.engine.conformance.contract.row_store import RowStoreContract
from tests.engine.conformance.contract.sessions import SessionsContract
from tests.engine.conformance.contract.shadow import ShadowTablesContract
from tests.engine.conformance.contract.statements import StatementsContract
from tests.engine.conformance.contract.traffic import TrafficProbeContract


class DatabaseContract(
    StatementsContract,
    SessionsContract,
    LockWaitsContract,
    InspectorContract,
    DependentObjectsContract,
    TrafficProbeContract,
    PreflightProbeContract,
    ShadowTablesContract,
    TablesApartContract,
    RowStoreContract,
    ComparingContract,
    PartialCopyContract,
    EventLogContract,
    EventExpressionsContract,
):
    """All of it. A database inherits this class, and gives ``kind``, ``says`` and ``cannot``."""


__all__ = ["Contract", "DatabaseContract", "Feature", "Reasons", "Uncarried", "Vocabulary"]
