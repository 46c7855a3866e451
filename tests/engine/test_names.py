"""Awkward names: quotes, capitals, percent signs, other alphabets, and names as long as the database allows."""

from __future__ import annotations

import sqlalchemy as sa

from include.projection_rebuild.events import Event
from include.projection_rebuild.names import TableSet, derived
from include.projection_rebuild.projector import Projector, handles
from include.projection_rebuild.rows import Rows, row
from tests.engine import shop
from tests.engine.test_rebuild import events, expected, rebuild, run_to

AWKWARD, LONG = 'Weird "T%s ü`x', "l" * 63
INDEX = {AWKWARD: 'Ix %s "q', LONG: "i" * 63}


@row(AWKWARD, key="id")
class Awkward:
    id: str
    customer: int


@row(LONG, key="id")
class Long:
    id: str
    customer: int


class AwkwardProjector(Projector):
    owns = (Awkward, Long)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Awkward(event.stream, event["customer"]))
        rows.add(Long(event.stream, event["customer"]))


def test_awkward_names_are_the_same_after_rebuilds(engine: sa.Engine) -> None:
    metadata = sa.MetaData()
    made = [
        sa.Table(
            name,
            metadata,
            sa.Column("id", sa.String(36), primary_key=True),
            sa.Column("customer", sa.Integer),
            sa.Index(INDEX[name], "customer"),
        )
        for name in (AWKWARD, LONG)
    ]
    metadata.create_all(engine)
    shop.metadata.create_all(engine)
    stored = events(200)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
    for number in range(3):
        run_to(rebuild(engine, f"run-{number}", projectors=["tests.engine.test_names:AwkwardProjector"]), "drop")
    with engine.connect() as connection:
        for table in made:
            found = {each.id: each.customer for each in connection.execute(sa.select(table))}
            assert found == {key: each[0] for key, each in expected(stored)["orders"].items()}
    for name in (AWKWARD, LONG):
        assert [each["name"] for each in sa.inspect(engine).get_indexes(name)] == [INDEX[name]]


def test_long_names_are_shortened_and_stay_apart() -> None:
    one, other = "t" * 62 + "a", "t" * 62 + "b"
    names = {derived(name, suffix, 63) for name in (one, other) for suffix in ("_rebuild", "_old")}
    assert len(names) == 4
    assert all(len(name.encode()) <= 63 and not name.startswith(one) for name in names)


def test_names_are_cut_between_letters_not_within_one() -> None:
    short = derived("ü" * 40, "_rebuild", 63)
    assert len(short.encode()) <= 63
    assert short.startswith("ü") and short.endswith("_rebuild")


def test_a_short_name_just_gets_its_suffix() -> None:
    assert TableSet.of("orders", schema=None, limit=63) == TableSet(None, "orders", "orders_rebuild", "orders_old")
