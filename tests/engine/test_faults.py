"""Every statement of every step fails, or loses its connection, and the step is simply run again.

The statements are those that change something, the runs are rebuilds, and a connection is cut when its statement is done but not
answered; with REBUILD_TEST_EVERY_STATEMENT=1 all statements, rollbacks too, and cuts before a statement as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import OutOfRoom, StatementCancelled
from projection_rebuild.replay import prefetch
from projection_rebuild.spec.options import RunOptions
from tests.conftest import EVERY_STATEMENT, SERVERS
from tests.engine.harness.clients import LiveShop
from tests.engine.harness.databases import on
from tests.engine.harness.faults import EVERYTHING, WRITES, Fault, answerless, cut, refusals
from tests.engine.harness.sweep import REBUILD, ROLLBACK, Worker, assert_within_the_work, sweep

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("database_kind", on("sqlite", "mysql"), indirect=True)
@pytest.mark.parametrize("steps", [REBUILD, ROLLBACK] if EVERY_STATEMENT else [REBUILD])
def test_every_statement_fails_once(database_url: sa.URL, steps: Sequence[str]) -> None:
    shop, kinds = LiveShop(database_url), refusals(database_url.get_backend_name())
    only = EVERYTHING if EVERY_STATEMENT else WRITES
    worker = Worker(shop)
    strikes = sweep(shop, worker.struck_by(lambda at: Fault(at, kinds[at % len(kinds)], only=only)), worker.retry, steps)
    assert_within_the_work(strikes)
    worker.close()


@pytest.mark.parametrize("server_kind", on("mariadb", among=[*SERVERS]), indirect=True)
@pytest.mark.parametrize("after", [True, False] if EVERY_STATEMENT else [True])
def test_every_statement_loses_its_connection(server_kind: str, new_database: Callable[[str], sa.URL], after: bool) -> None:
    shop = LiveShop(new_database(server_kind))
    strike, only = cut(shop.url), EVERYTHING if EVERY_STATEMENT else WRITES
    worker = Worker(shop)
    attempt = worker.struck_by(lambda at: Fault(at, answerless(strike) if after else strike, after=after, only=only))
    strikes = sweep(shop, attempt, worker.retry)
    assert_within_the_work(strikes)
    worker.close()


def test_what_fails_while_a_plan_is_made_refuses_nothing(database_url: sa.URL) -> None:
    """A refusal fails its task at once, and this may be over at the next try."""
    shop, kinds = LiveShop(database_url), refusals(database_url.get_backend_name())
    for at in count(1, 1 if EVERY_STATEMENT else 7):
        made, fault = shop.open_run("troubled"), Fault(at, kinds[at % len(kinds)])
        with fault.on(made), suppress(OutOfRoom, StatementCancelled):
            made.plan(RunOptions(dry_run=True))
        made.close()
        if fault.struck is None:
            break
    assert at > 20


def test_a_row_that_cannot_be_loaded_is_not_blamed_on_the_handler(sqlite_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler's rows are loaded ahead, but for those that it asks for late."""
    shop = LiveShop(sqlite_url)
    made = shop.open_run("late")
    made.plan(RunOptions())
    made.clone_tables()
    monkeypatch.setattr(prefetch.RecordingRows, "load_wanted", lambda self: False)
    fault = Fault(1, refusals("sqlite")[0], only=re.compile('SELECT .* FROM "orders_rebuild"'))
    with fault.on(made), pytest.raises(OutOfRoom, match=r"at the event Order\w+ at position \d+"):
        made.replay("OrderProjector")
    assert fault.struck
    made.replay("OrderProjector")
    made.close()
