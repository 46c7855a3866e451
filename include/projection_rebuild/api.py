"""All names of the engine that the Airflow face uses, in one place. Another face needs no other names."""

from __future__ import annotations

from projection_rebuild import old_paths
from projection_rebuild.errors import (
    ConnectionRefused,
    Interrupted,
    RebuildError,
    SpecError,
    Troubled,
    VerificationFailed,
    boundary,
)
from projection_rebuild.errors.boundary import failure_of, word_for
from projection_rebuild.ledger import SHARD, Checkpoint, DeadLetter, RunState
from projection_rebuild.model import limits
from projection_rebuild.model.limits import AGGREGATE, MOST_AGGREGATES, MOST_SHARDS, NAME, REASON, RUN_ID, check, shown, word
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place, is_before, share_done
from projection_rebuild.model.results import ReplayResult, SwapResult, TableComparison, Verification
from projection_rebuild.operations.housekeeping import Housekeeping
from projection_rebuild.operations.status import Look, Progress, RunSeen, TableSeen
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.stages import Closed
from projection_rebuild.run.report import Report, Said
from projection_rebuild.run.signals import PAUSE, SWAP_NOW, TRAFFIC
from projection_rebuild.spec.load import load_spec, load_with_projectors
from projection_rebuild.spec.notify import NotifierSection, NotifySection
from projection_rebuild.spec.options import PARAMETERS, RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.traffic.low_traffic import (
    Outcome,
    Probe,
    Traffic,
    Verdict,
    Waiting,
    appends_per_minute,
    closing,
    measured,
    next_opening,
)

__all__ = [
    "AGGREGATE",
    "MOST_AGGREGATES",
    "MOST_SHARDS",
    "NAME",
    "PARAMETERS",
    "PAUSE",
    "REASON",
    "RUN_ID",
    "SHARD",
    "SWAP_NOW",
    "TRAFFIC",
    "Checkpoint",
    "Closed",
    "ConnectionRefused",
    "DeadLetter",
    "Housekeeping",
    "Interrupted",
    "Look",
    "NotifierSection",
    "NotifySection",
    "Outcome",
    "Place",
    "Plan",
    "Probe",
    "Progress",
    "ProjectorRegistry",
    "Rebuild",
    "RebuildError",
    "RebuildSpec",
    "ReplayResult",
    "Report",
    "RunOptions",
    "RunSeen",
    "RunState",
    "Said",
    "SpecError",
    "SwapResult",
    "TableComparison",
    "TableSeen",
    "Traffic",
    "Troubled",
    "Verdict",
    "Verification",
    "VerificationFailed",
    "Waiting",
    "appends_per_minute",
    "boundary",
    "check",
    "closing",
    "failure_of",
    "is_before",
    "limits",
    "load_spec",
    "load_with_projectors",
    "measured",
    "next_opening",
    "old_paths",
    "share_done",
    "shown",
    "word",
    "word_for",
]
