"""Random projectors over random histories, in every way: the same rows, whatever they do and whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql

from include.universal.projectors import CategorySummaryProjector
from include.universal.schema import metadata as universal
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.checking.check import Checked
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.testing import Told, tables_apart
from tests.conftest import DATABASES, EVERY_STATEMENT, SERVERS

# A projector that is told what to do -------------------------------------------------------------------------------


@row("things", key="name", lookups=["label"], stream="name")
class Thing:
    name: str
    label: str | None
    times: int = 0
    amount: Decimal = Decimal(0)
    on: bool = False
    at: datetime | None = None
    notes: dict[str, Any] = None  # type: ignore[assignment]


@row("members", key=("name", "number"), lookups=["name"], stream="name")
class Member:
    name: str
    number: int
    times: int = 0


def count(event: Event, rows: Rows) -> None:
    thing(event, rows).times += 1


def pay(event: Event, rows: Rows) -> None:
    thing(event, rows).amount += Decimal(event["number"]) / 4


def turn(event: Event, rows: Rows) -> None:
    found = thing(event, rows)
    found.on = not found.on
    found.at = datetime(2026, 1, 1) + timedelta(hours=event["number"])  # noqa: DTZ001 - it has none


def owe(event: Event, rows: Rows) -> None:
    """More digits than the column has."""
    thing(event, rows).amount += Decimal(event["number"]) / 1000


def watch(event: Event, rows: Rows) -> None:
    """A zone, and a precision that some databases' column has not."""
    thing(event, rows).at = datetime(2026, 1, 1, 1, 2, 3, 600_000, timezone(timedelta(hours=event["number"])))


def spell(event: Event, rows: Rows) -> None:
    """A text for a number, in a key."""
    rows.get_or_add(Member, event.stream, str(event["number"])).times += 1


def echo(event: Event, rows: Rows) -> None:
    """Tells later what the columns hold."""
    found = thing(event, rows)
    found.notes["seen"] = [found.times + 1, f"{found.amount + 0:.4f}", found.at and found.at.isoformat()]


def note(event: Event, rows: Rows) -> None:
    thing(event, rows).notes.setdefault("ü", []).append(event["number"])


def rename(event: Event, rows: Rows) -> None:
    found = thing(event, rows)
    if found.label != event["label"]:
        rows.remove(Thing, event.stream)
        rows.add(Thing(event.stream, event["label"], found.times, found.amount, found.on, found.at, found.notes))


def forget(event: Event, rows: Rows) -> None:
    rows.remove(Thing, event.stream)


def settle(event: Event, rows: Rows) -> None:
    """No row if and only if all of its sums are zero."""
    found = thing(event, rows)
    found.times -= 1
    found.amount -= Decimal(event["number"]) / 4
    if found.times == found.amount == 0:
        rows.remove(Thing, event.stream)


def join(event: Event, rows: Rows) -> None:
    rows.get_or_add(Member, event.stream, event["number"]).times += 1


def leave(event: Event, rows: Rows) -> None:
    rows.remove(Member, event.stream, event["number"])


def empty(event: Event, rows: Rows) -> None:
    for each in rows.where(Member, name=event.stream):
        rows.remove(Member, each.name, each.number)


def tell(event: Event, rows: Rows) -> None:
    """Touches the rows of other streams."""
    for each in rows.where(Thing, label=event["label"]):
        each.times += 10


def take(event: Event, rows: Rows) -> None:
    """Reads a row of another stream."""
    other = rows.find(Thing, "abc"[event["number"] % 3])
    if other is not None and other.times:
        thing(event, rows).times += other.times


def thing(event: Event, rows: Rows) -> Thing:
    return rows.get_or_add(Thing, event.stream, label=event["label"], notes={})


OWN: list[Callable[[Event, Rows], None]] = [
    count,
    pay,
    owe,
    turn,
    watch,
    spell,
    echo,
    note,
    rename,
    forget,
    settle,
    join,
    leave,
    empty,
]
OTHERS: list[Callable[[Event, Rows], None]] = [tell, take]
TYPES = ["First", "Second", "Third"]


def projector(deeds: Sequence[Sequence[Callable[[Event, Rows], None]]]) -> type[Projector]:
    """A class that does these at an event of each type; in shards too, if it stays with its own."""
    alone = not {each for some in deeds for each in some} & {*OTHERS}

    def handler(some: Sequence[Callable[[Event, Rows], None]]) -> Callable[[Any, Event, Rows], None]:
        def handle(self: Any, event: Event, rows: Rows) -> None:
            for deed in some:
                deed(event, rows)

        return handle

    handlers = {f"handle_{at}": handles(TYPES[at])(handler(some)) for at, some in enumerate(deeds)}
    if not alone:
        # It says by a field that no row has whose rows these are: then it cannot be divided.
        handlers["partition"] = classmethod(lambda cls: None)
    return type("Random", (Projector,), {"owns": (Thing, Member), **handlers})


metadata = sa.MetaData()
_NAME = sa.String(20).with_variant(mysql.VARCHAR(20, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
sa.Table(
    "things",
    metadata,
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("label", _NAME),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("amount", sa.Numeric(14, 2), nullable=False),
    sa.Column("on", sa.Boolean, nullable=False),
    sa.Column("at", sa.DateTime),
    sa.Column("notes", sa.JSON, nullable=False),
    mysql_engine="InnoDB",
)
sa.Table(
    "members",
    metadata,
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("times", sa.Integer, nullable=False),
    mysql_engine="InnoDB",
)

deeds = st.lists(st.lists(st.sampled_from([*OWN, *OTHERS]), min_size=1, max_size=3), min_size=3, max_size=3)
alone = st.lists(st.lists(st.sampled_from(OWN), min_size=1, max_size=3), min_size=3, max_size=3)
told = st.tuples(
    st.sampled_from(TYPES),
    st.sampled_from("abc"),
    st.fixed_dictionaries({"number": st.integers(-2, 3), "label": st.sampled_from([None, "", "x", "X"])}),
)
histories = st.lists(told, min_size=1, max_size=20)


def on(examples: dict[str, int]) -> list[Any]:
    """Each kind of database with so many examples."""
    many = {kind: 60 if kind == "sqlite" else 15 for kind in DATABASES}
    return [
        pytest.param(kind, number, marks=[getattr(pytest.mark, kind)] if kind in SERVERS else [], id=kind)
        for kind, number in (many if EVERY_STATEMENT else examples).items()
    ]


def settled(examples: int) -> settings:
    # A failure names the event; to look for a smaller one takes minutes.
    return settings(
        phases=[Phase.generate],
        max_examples=examples,
        deadline=None,
        derandomize=not EVERY_STATEMENT,
        database=None,
        suppress_health_check=[*HealthCheck],
    )


FEW = {"sqlite": 12, "postgres": 3, "mariadb": 3, "mysql": 3}


@pytest.mark.parametrize(("kind", "examples"), on(FEW))
def test_random_projectors_over_random_histories(kind: str, examples: int, new_database: Callable[[str], sa.URL]) -> None:
    class Standing(Projector):
        """Has the tables made; what is done at an event comes with each example."""

        owns = (Thing, Member)

    with tables_apart([Standing], tables=metadata, url=new_database(kind)) as look:

        @settled(examples)
        @given(deeds | alone, histories)
        def agree(some: Sequence[Sequence[Callable[[Event, Rows], None]]], history: Sequence[Told]) -> None:
            found = look(history, [projector(some)])
            assert found.agrees, found.describe()

        agree()


# Sums by SQL ---------------------------------------------------------------------------------------------------------


@st.composite
def expenses(draw: st.DrawFn) -> list[Told]:
    """Expenses that are recorded, moved and deleted, with amounts that need not be those of before."""
    open_ones: list[str] = []
    made: list[Told] = []
    for at in range(draw(st.integers(1, 14))):
        cents, category = draw(st.integers(0, 3)), draw(st.sampled_from(["a", "b"]))
        kind = draw(
            st.sampled_from(["ExpenseRecorded", "ExpenseDeleted", "ExpenseRecategorised"] if open_ones else ["ExpenseRecorded"])
        )
        said: dict[str, Any] = {"user_id": 1, "expense_id": f"{at}", "amount_cents": cents}
        if kind == "ExpenseRecorded":
            said["category"] = category
            open_ones.append(category)
        elif kind == "ExpenseDeleted":
            said["category"] = open_ones.pop(draw(st.integers(0, len(open_ones) - 1)))
        else:
            place = draw(st.integers(0, len(open_ones) - 1))
            said |= {"from_category": open_ones[place], "to_category": category}
            open_ones[place] = category
        made.append((kind, f"{at}", said))
    return made


@pytest.mark.parametrize(("kind", "examples"), on(FEW))
def test_sums_by_sql_over_random_histories(kind: str, examples: int, new_database: Callable[[str], sa.URL]) -> None:
    with tables_apart([CategorySummaryProjector], tables=universal, url=new_database(kind)) as look:

        @settled(examples)
        @given(expenses())
        def agree(history: Sequence[Told]) -> None:
            found: Checked = look(history)
            assert found.agrees and not found.remarks, found.describe()

        agree()
