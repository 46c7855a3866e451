"""Shards by a field of the payload, where some payloads cannot be read: each event is set aside once, or told by its position."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import UndecodableEvent
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.databases import flavour
from tests.engine.harness.driver import run_to
from tests.engine.harness.tally import CustomerProjector, Store

GOOD = [
    '{"customer": "a"}',
    '{"customer": "ü"}',
    '{"customer": "\\u00fc"}',
    '{"customer": "\\ud83d\\ude00"}',
    '{"customer": 7}',
    '{"customer": "b", "x": "\\u0000"}',
]
BAD = ["{", "", "[1]", "7", '{"customer": "c"', '{"customer": "\\ud800"}']
WRONG_BYTES = [b'{"customer": "\xff"}', b"\x00", b"\xed\xa0\x80", b'{"a": "\xc0\xaf"}', b"\xf5\x80\x80\x80"]
EXPECTED = [("7", 2), ("a", 2), ("b", 2), ("ü", 4), ("😀", 2)]


def bad(kind: str) -> list[Any]:
    return [*map(str.encode, BAD), *WRONG_BYTES] if kind == "bytes" else BAD


@pytest.mark.parametrize("kind", ["text", "bytes"])
def test_each_is_set_aside_once(engine: sa.Engine, kind: str) -> None:
    good = [each.encode() for each in GOOD] if kind == "bytes" else GOOD
    store = Store(engine, {"data": "{" + kind + "}"})
    payloads = [*good, *bad(kind), *good]
    store.add({"id": at, "data": each, "type": "made"} for at, each in enumerate(payloads))
    made = store.rebuild(
        CustomerProjector, replay={"shards": 3, "on_error": "dead_letter"}, verify={"max_dead_letters": len(bad(kind))}
    )
    assert made.plan(RunOptions()).shards == {"CustomerProjector": 3}
    run_to(made, "reconcile")
    assert sorted((name, count) for name, count in store.rows("customers")) == sorted(EXPECTED)
    with engine.connect() as connection:
        aside = connection.exec_driver_sql("SELECT position FROM projection_rebuild_dead_letters ORDER BY position").scalars()
        assert [*aside] == [*range(len(good), len(good) + len(bad(kind)))]


@pytest.mark.parametrize("kind", ["text", "bytes"])
def test_the_first_is_told_by_its_position(engine: sa.Engine, kind: str) -> None:
    store = Store(engine, {"data": "{" + kind + "}"})
    made = store.rebuild(CustomerProjector, replay={"shards": 2})
    store.add([{"id": 0, "data": b'{"customer": "a"}' if kind == "bytes" else '{"customer": "a"}'}])
    run_to(made, "plan")
    store.add([{"id": 5, "data": bad(kind)[0]}])
    made.clone_tables()
    with pytest.raises(UndecodableEvent, match="at position 5"):
        made.replay("CustomerProjector")


def test_json_columns_are_read_whatever_their_other_fields_hold(engine: sa.Engine) -> None:
    sql = "json" if flavour(engine) == "postgresql" else "{json}"
    store = Store(engine, {"data": sql})
    store.add({"id": at, "data": each} for at, each in enumerate(GOOD * 2))
    run_to(store.rebuild(CustomerProjector, replay={"shards": 3}), "reconcile")
    assert sorted((name, count) for name, count in store.rows("customers")) == sorted(EXPECTED)
