"""The database server itself is killed, at every lasting statement of a run and in the middle of one, and started again.

All statements that change anything, of all steps, with REBUILD_TEST_EVERY_STATEMENT=1.
"""

from __future__ import annotations

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import EVERY_STATEMENT, SERVERS
from tests.engine.harness.clients import LiveShop
from tests.engine.harness.databases import on
from tests.engine.harness.faults import WRITES, Fault, Strike, answerless, cut
from tests.engine.harness.sweep import REBUILD, STEPS, Worker, error_of, sweep
from tests.servers import OwnServer, Server

LASTING = re.compile(r"COMMIT|CREATE|ALTER|DROP|RENAME|LOCK|SET LOCAL idle_in_transaction|FLUSH|UNLOCK", re.IGNORECASE)
"""What a server that comes back may remember, or must have forgotten."""

THE_SWITCH = {
    "postgresql": re.compile("SET LOCAL idle_in_transaction.*LOCK TABLE", re.DOTALL),
    "mysql": re.compile("(SET STATEMENT .*)?RENAME TABLE"),
}
STEPS_OF_ONE_PROJECTOR = ("clone_tables", "OrderLineProjector", "atomic_swap", "drop_old_tables")

pytestmark = pytest.mark.slow


class Outage:
    """A server that can be ended at once, and started again."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def strike(self) -> Strike:
        """Ends it; a server that is not ours to end cuts the connection instead."""
        return cut(self._server.url) if not isinstance(self._server, OwnServer) else lambda _: self.begin()

    def begin(self) -> None:
        """``kill -9``."""
        if isinstance(self._server, OwnServer):
            self._server.kill()

    def end(self) -> None:
        """The server is there again, on the data that it left."""
        if isinstance(self._server, OwnServer):
            self._server.start()


@pytest.mark.parametrize("server_kind", on("postgres", among=[*SERVERS]), indirect=True)
def test_the_server_dies_at_every_lasting_statement(breakable_server: Server) -> None:
    shop, outage = LiveShop(breakable_server.create_database("outage")), Outage(breakable_server)
    worker = Worker(shop)
    only = WRITES if EVERY_STATEMENT else LASTING
    attempt = worker.struck_by(lambda at: Fault(at, answerless(outage.strike), after=True, only=only))

    def through_an_outage(run_id: str, step: str, at: int) -> bool:
        struck = attempt(run_id, step, at)
        if struck:
            outage.end()
        return struck

    deaths = sweep(shop, through_an_outage, worker.retry, struck=REBUILD if EVERY_STATEMENT else STEPS_OF_ONE_PROJECTOR)
    assert min(deaths.values()) >= 3 and deaths["atomic_swap"] >= 5, deaths
    worker.close()


def test_the_server_dies_in_the_middle_of_the_switch(breakable_server: Server) -> None:
    shop, outage = LiveShop(breakable_server.create_database("outage")), Outage(breakable_server)
    worker = Worker(shop)
    deaths = 50 if EVERY_STATEMENT else 5
    killers: list[threading.Timer] = []

    def soon(_: Any) -> None:
        killers.append(threading.Timer(random.uniform(0, 0.04), outage.begin))
        killers[-1].start()

    attempt = worker.struck_by(lambda _: Fault(1, soon, only=THE_SWITCH[shop.url.get_backend_name()]))

    def through_an_outage(run_id: str, step: str, at: int) -> bool:
        if at > deaths:
            return False
        assert attempt(run_id, step, at)
        killers[-1].join()
        outage.end()
        return True

    assert sweep(shop, through_an_outage, worker.retry, struck=["atomic_swap"]) == {"atomic_swap": deaths}
    worker.close()


@pytest.mark.parametrize("server_kind", on("mysql", among=[*SERVERS]), indirect=True)
def test_steps_are_cancelled_from_another_thread(breakable_server: Server) -> None:
    """As the operator does for a task that is cleared or marked failed while it runs."""
    shop, pick = LiveShop(breakable_server.create_database("cancelled")), random.Random(7)
    worker = Worker(shop)
    errors = []

    def cancelled(run_id: str, step: str, at: int) -> bool:
        if at > (60 if EVERY_STATEMENT else 8):
            return False
        made = worker.open(run_id)
        with ThreadPoolExecutor() as threads:
            ending = threads.submit(lambda: (time.sleep(pick.uniform(0, 0.06)), made.cancel_query()))
            errors.append(error_of(lambda: STEPS[step](made)))
            ending.result()
        return True

    sweep(shop, cancelled, worker.retry)
    # Some came at the right moment.
    assert any(errors)
    worker.close()
