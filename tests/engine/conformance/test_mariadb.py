"""MariaDB holds the contract."""

from __future__ import annotations

from typing import ClassVar

from projection_rebuild.model.column_kinds import ColumnKind
from tests.engine.conformance.contract import DatabaseContract, Feature, Reasons, Vocabulary
from tests.engine.conformance.contract import mysql_words as alike


class TestMariaDB(DatabaseContract):
    kind = "mariadb"
    says = Vocabulary(
        lock_wait="SELECT @@SESSION.lock_wait_timeout",
        uncarried=alike.TRIGGER,
        refused=alike.REFUSED,
        bits=alike.BITS,
        # JSON is another name for a long text.
        json=ColumnKind.TEXT,
        slow="SELECT SLEEP(60)",
        zone="SELECT @@SESSION.time_zone",
        far_away=alike.FAR_AWAY,
        unfit=alike.UNFIT,
        patient="SET SESSION lock_wait_timeout = 5",
    )
    cannot: ClassVar[Reasons] = {
        Feature.COUNT_READS: "it counts only with userstat or a performance schema, which are off unless somebody wants them",
        Feature.MEMORY: alike.NO_MEMORY,
        Feature.REPLICA_LAG: alike.NO_LAG,
        Feature.FREE_BYTES: alike.NO_ROOM,
        Feature.PARTIAL_INDEX: alike.NO_PARTIAL,
        Feature.DEFERRED_KEYS: alike.NO_DEFERRED,
        Feature.NUMBERS_AHEAD: alike.NO_AHEAD,
    }
