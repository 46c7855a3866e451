"""The states of a run: which may follow which, what each of them means, and that nobody moves a run otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import FencedOut, StepOrderError
from projection_rebuild.ledger import TRANSITIONS, Ledger, RunLedger, RunState
from tools import state_diagram

S = RunState
PAIRS = [*itertools.product(RunState, repeat=2)]
ALLOWED = [(state, follower) for state, followers in TRANSITIONS.items() for follower in followers]
REFUSED = [pair for pair in PAIRS if pair not in ALLOWED]


@pytest.fixture
def ledger(sqlite_url: sa.URL) -> Iterator[tuple[RunLedger, sa.Connection]]:
    """An empty ledger, and a connection to it."""
    engine = sa.create_engine(sqlite_url)
    dialect = dialect_for(engine)
    with dialect.connect() as connection:
        made = Ledger(dialect, None).over(connection, "run")
        made.create()
        yield made, connection
    engine.dispose()


def begin(ledger: RunLedger, connection: sa.Connection, state: RunState) -> None:
    """A run that is in a state, however it came to be there."""
    ledger.runs.begin("shop", {"by": "alice"})
    connection.execute(sa.text("UPDATE projection_rebuild_runs SET state = :state"), {"state": state})


def stored(connection: sa.Connection) -> tuple[str, str]:
    return tuple(connection.execute(sa.text("SELECT state, record FROM projection_rebuild_runs")).one())


def test_the_table_names_every_state_and_the_ways_that_a_run_may_go() -> None:
    assert [*TRANSITIONS] == [*RunState]
    assert {state: {*followers} for state, followers in TRANSITIONS.items()} == {
        S.PLANNED: {S.PLANNED, S.CLONED, S.ABANDONED},
        S.CLONED: {S.PLANNED, S.CLONED, S.VERIFIED, S.ABANDONED},
        S.VERIFIED: {S.PLANNED, S.CLONED, S.VERIFIED, S.SWITCHING, S.ABANDONED},
        S.SWITCHING: {S.VERIFIED, S.SWITCHED},
        S.SWITCHED: {S.PLANNED, S.SWITCHED, S.RECONCILED, S.FINISHED},
        S.RECONCILED: {S.PLANNED, S.FINISHED},
        S.FINISHED: {S.PLANNED, S.FINISHED},
        S.ABANDONED: set(),
    }


@pytest.mark.parametrize(("state", "follower"), ALLOWED)
def test_a_run_goes_where_the_table_says(ledger: tuple[RunLedger, sa.Connection], state: RunState, follower: RunState) -> None:
    made, connection = ledger
    begin(made, connection, state)
    made.runs.move(follower, dropped=["orders_old"])
    run = made.runs.find()
    assert run is not None and run.state is follower
    assert (run.stored["by"], run.stored["dropped"]) == ("alice", ["orders_old"]) and follower in run.stored["moved"]


@pytest.mark.parametrize(("state", "follower"), REFUSED)
def test_a_run_goes_nowhere_else(ledger: tuple[RunLedger, sa.Connection], state: RunState, follower: RunState) -> None:
    made, connection = ledger
    begin(made, connection, state)
    before = stored(connection)
    with pytest.raises(StepOrderError) as caught:
        made.runs.move(follower, dropped=["orders_old"])
    assert caught.value.code == ("PR-ORDER-03" if state is S.ABANDONED else "PR-ORDER-01") and "run" in caught.value.message
    assert stored(connection) == before


def test_a_run_that_another_worker_has_moved_is_not_moved(
    ledger: tuple[RunLedger, sa.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, connection = ledger
    begin(made, connection, S.VERIFIED)
    stale = made.runs.get()
    made.runs.move(S.ABANDONED)
    before = stored(connection)
    assert not made.runs.move_from(stale, S.SWITCHING)
    monkeypatch.setattr(made.runs, "get", lambda *_: stale)
    with pytest.raises(FencedOut, match="no longer verified: another worker has moved it"):
        made.runs.move(S.SWITCHING)
    assert stored(connection) == before


def test_a_late_look_moves_no_run_that_is_within_its_switch(ledger: tuple[RunLedger, sa.Connection]) -> None:
    """A worker that was taken for dead may end its verification then. Only the switch may say that it did not happen."""
    made, connection = ledger
    begin(made, connection, S.SWITCHING)
    before = stored(connection)
    with pytest.raises(FencedOut, match="another worker has moved it"):
        made.runs.move_unless_switching(S.VERIFIED)
    assert stored(connection) == before


@pytest.mark.parametrize("state", RunState)
def test_a_takeover_gives_up_what_is_left_to_be_given_up(ledger: tuple[RunLedger, sa.Connection], state: RunState) -> None:
    made, connection = ledger
    begin(made, connection, state)
    made.claims.claim(["orders"])
    made.checkpoints.begin({"OrderProjector": (None, 0)})
    token = made.checkpoints.of_projectors()["OrderProjector"].token
    made.of("heir").take_over("run")
    given_up = state in {S.PLANNED, S.CLONED, S.VERIFIED, S.ABANDONED}
    assert stored(connection)[0] == (S.ABANDONED if given_up else state)
    assert made.claims.all() == {"orders": "heir"}
    assert made.checkpoints.of_projectors()["OrderProjector"].token != token


def test_each_state_means_the_same_to_every_step() -> None:
    meaning = {
        "in_doubt": {S.SWITCHING},
        "has_begun_switch": {S.SWITCHING, S.SWITCHED, S.RECONCILED, S.FINISHED},
        "has_switched": {S.SWITCHED, S.RECONCILED, S.FINISHED},
        "is_reconciled": {S.RECONCILED, S.FINISHED},
        "is_over": {S.RECONCILED, S.FINISHED, S.ABANDONED},
        "is_verified": {S.VERIFIED},
    }
    assert {name: {state for state in RunState if getattr(state, name)} for name in meaning} == meaning
    assert {name for name, found in vars(RunState).items() if isinstance(found, property)} == meaning.keys()


def test_what_a_run_has_reached_is_what_lies_on_its_way() -> None:
    way = [S.PLANNED, S.CLONED, S.VERIFIED, S.SWITCHING, S.SWITCHED, S.RECONCILED, S.FINISHED]
    reached = {state: [other for other in RunState if state.has_reached(other)] for state in RunState}
    assert reached == {state: way[: number + 1] for number, state in enumerate(way)} | {S.ABANDONED: []}


@pytest.mark.parametrize(
    ("moves", "kept"),
    [
        ([S.CLONED, S.VERIFIED], [S.CLONED, S.VERIFIED]),
        ([S.CLONED, S.VERIFIED, S.CLONED], [S.CLONED]),
        ([S.CLONED, S.VERIFIED, S.PLANNED], [S.PLANNED]),
        ([S.CLONED, S.VERIFIED, S.ABANDONED], [S.CLONED, S.VERIFIED, S.ABANDONED]),
    ],
)
def test_the_record_tells_when_a_run_came_to_each_state(
    ledger: tuple[RunLedger, sa.Connection], moves: list[RunState], kept: list[RunState]
) -> None:
    made, connection = ledger
    begin(made, connection, S.PLANNED)
    for state in moves:
        made.runs.move(state)
    run = made.runs.find()
    assert run is not None and [*run.stored["moved"]] == kept


def test_the_diagram_of_the_docs_is_the_table() -> None:
    pages = [*state_diagram.pages()]
    assert pages, "no page of the docs has the diagram of the states any more"
    stale = [path.name for path, text, wanted in pages if text != wanted]
    assert not stale, f"run `python -m tools.state_diagram`: the diagram is not up to date in {stale}"
