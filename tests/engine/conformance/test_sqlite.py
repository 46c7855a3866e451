"""SQLite holds the contract."""

from __future__ import annotations

from typing import ClassVar

from tests.engine.conformance.contract import DatabaseContract, Feature, Reasons, Uncarried, Vocabulary

A_FILE = "a database is a file, and each session is in the process that uses it"
ONE_WRITER = "one transaction at a time writes, and locks the whole file"


class TestSqlite(DatabaseContract):
    kind = "sqlite"
    says = Vocabulary(
        lock_wait="PRAGMA busy_timeout",
        uncarried=Uncarried(
            "taken name", "CREATE VIEW {table}_old AS SELECT 1", "DROP VIEW {table}_old", "the rebuild needs the name {table}_old"
        ),
        refused={
            "a double key": "INSERT INTO {table} (id) VALUES (1), (1)",
            "no key": "INSERT INTO {table} (id) VALUES (NULL)",
        },
        bits=("", "good"),
    )
    cannot: ClassVar[Reasons] = {
        Feature.CUT: A_FILE,
        Feature.CANCEL: A_FILE,
        Feature.COUNT_SESSIONS: A_FILE,
        Feature.COUNT_READS: "nobody counts what is read of a file",
        Feature.TRANSACTION_AGE: A_FILE,
        Feature.REPLICA_LAG: "it has no replicas",
        Feature.TIME_ZONE: "its times are texts, which no session changes",
        Feature.UNFIT_SESSIONS: "values are stored as they are given",
        Feature.MEMORY: "a session has no such limit",
        Feature.NO_OFFSETS: "its times are texts, offset included",
        Feature.TWO_WRITERS: ONE_WRITER,
        Feature.ROW_LOCKS: ONE_WRITER,
        Feature.DEFERRED_KEYS: "sessions of the engine do not have foreign keys checked",
        Feature.FENCE_ENDS: "a fence is a lock of a process, and ends with it",
        Feature.NUMBERS_AHEAD: ONE_WRITER,
        Feature.LIVE_SCHEMA_BESIDE: "a place apart is another file",
    }
