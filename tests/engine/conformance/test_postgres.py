"""PostgreSQL holds the contract."""

from __future__ import annotations

from typing import ClassVar

from tests.engine.conformance.contract import DatabaseContract, Feature, Reasons, Uncarried, Vocabulary


class TestPostgres(DatabaseContract):
    kind = "postgres"
    says = Vocabulary(
        lock_wait="SHOW lock_timeout",
        uncarried=Uncarried(
            "what is bound to the table",
            "CREATE FUNCTION of_{table}() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM {table}; END",
            "DROP FUNCTION of_{table}",
            "of_{table}() is bound to this very table",
        ),
        refused={
            "a double key": "INSERT INTO {table} (id) VALUES (1), (1)",
            "no key": "INSERT INTO {table} (id) VALUES (NULL)",
            "a day": "INSERT INTO {table} (id, day) VALUES (1, '2026-02-31')",
            "a time": "INSERT INTO {table} (id, at) VALUES (1, 's3cret')",
            "a number": "INSERT INTO {table} (id, price) VALUES (1, 's3cret')",
            "a number that is too large": "INSERT INTO {table} (id, price) VALUES (1, 12345678901)",
            "a division": "INSERT INTO {table} (id, price) VALUES (1, 1 / 0)",
            "a sum": "INSERT INTO {table} (id) VALUES (9223372036854775807 + 1)",
            "a text": "INSERT INTO {table} (id, words) VALUES (1, repeat('x', 101))",
            "JSON": "INSERT INTO {table} (id, more) VALUES (1, '{s3cret')",
        },
        bits=("", "good::int"),
        slow="SELECT pg_sleep(60)",
        zone="SHOW TimeZone",
        far_away={"options": "-c TimeZone=Asia/Singapore"},
        unfit={"options": "-c standard_conforming_strings=off"},
        memory="SHOW work_mem",
        ahead="ALTER SEQUENCE {table}_id_seq CACHE 20",
        patient="SET LOCAL lock_timeout = '5s'",
    )
    cannot: ClassVar[Reasons] = {
        Feature.FREE_BYTES: "the server does not tell what its disks have left",
    }
