"""The real purchases, held against the text file itself."""

from __future__ import annotations

from collections import Counter

from include.universal.cdnow import DATA, purchases
from include.universal.independent import cdnow_totals


def test_every_line_becomes_one_expense() -> None:
    lines = [line.split() for line in DATA.read_text().splitlines()]
    events = list(purchases())
    assert {event.type for event in events} == {"ExpenseRecorded"}
    assert len(events) == len(lines) == 6919
    assert len({event.payload["expense_id"] for event in events}) == 6919
    assert len({event.stream for event in events}) == len({event.payload["user_id"] for event in events}) == 2357


def test_days_discs_and_cents_are_those_of_the_file() -> None:
    in_file = Counter(
        (f"{day[:4]}-{day[4:6]}-{day[6:]}", int(discs), int(dollars.replace(".", "")))
        for _, _, day, discs, dollars in (line.split() for line in DATA.read_text().splitlines())
    )
    in_events = Counter((said["spent_on"], said["quantity"], said["amount_cents"]) for said in (e.payload for e in purchases()))
    assert in_events == in_file


def test_a_customer_is_one_stream_in_the_order_of_days() -> None:
    versions: Counter[str] = Counter()
    days: dict[str, str] = {}
    for event in purchases():
        versions[event.stream] += 1
        assert event.version == versions[event.stream]
        assert days.get(event.stream, "") <= event.payload["spent_on"]
        days[event.stream] = event.payload["spent_on"]


def test_ids_are_the_same_in_each_run() -> None:
    assert list(purchases()) == list(purchases())


def test_the_totals_of_each_customer_and_month_are_those_of_the_file() -> None:
    expenses: Counter[tuple[object, ...]] = Counter()
    months: dict[tuple[object, ...], tuple[int, int]] = {}
    for said in (event.payload for event in purchases()):
        expenses[said["user_id"], said["spent_on"], said["amount_cents"], said["quantity"]] += 1
        count, cents = months.get((said["user_id"], said["spent_on"][:7]), (0, 0))
        months[said["user_id"], said["spent_on"][:7]] = count + 1, cents + said["amount_cents"]
    assert ({key: (count,) for key, count in expenses.items()}, months) == cdnow_totals(DATA)
