"""A task that is ended while a database works for it ends on the server too, also where the driver waits in C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import Context

from projection_rebuild.errors import Interrupted
from projection_rebuild.rebuild import Rebuild
from projection_rebuild_airflow.operators import rebuild as operators
from projection_rebuild_airflow.operators.rebuild import RebuildOperator
from projection_rebuild_airflow.signals import heard_at_once
from tests.engine.harness.databases import marked
from tests.engine.harness.faults import until
from tests.engine.harness.specs import rebuild

SLEEP = 600


class SleepOperator(RebuildOperator):
    """A step that is one long statement."""

    def step(self, rebuild: Rebuild, context: Context) -> None:
        with rebuild._context.dialect.connect() as connection:
            connection.exec_driver_sql(f"SELECT sleep({SLEEP}) /* a long statement */")


@pytest.fixture
def as_airflow() -> Iterator[Callable[[RebuildOperator], None]]:
    """Lets a signal call ``on_kill``, as Airflow does it in the process of a task."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda operator: signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())  # type: ignore[func-returns-value]
    signal.signal(signal.SIGTERM, before)


def sleeping(engine: sa.Engine) -> int:
    """How many sessions execute the long statement."""
    query = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT sleep(%%/* a long statement */'"
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


@pytest.mark.parametrize("kind", marked("mariadb", "mysql"))
def test_a_signal_ends_the_statement_on_the_server_at_once(
    kind: str, new_database: Any, as_airflow: Callable[[RebuildOperator], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(new_database(kind))
    monkeypatch.setattr(operators, "open_rebuild", lambda *_: nullcontext(rebuild(engine)))
    operator = SleepOperator(task_id="sleep", spec_path="spec.yaml")
    as_airflow(operator)

    def end() -> None:
        until(lambda: sleeping(engine))
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    began = time.monotonic()
    with pytest.raises((Interrupted, sa.exc.OperationalError)):
        operator.execute({})
    assert time.monotonic() - began < SLEEP / 2
    ending.join()
    assert sleeping(engine) == 0
    engine.dispose()


def test_a_thread_has_nothing_to_do_with_signals() -> None:
    heard: list[str] = []

    def work() -> None:
        with heard_at_once(lambda: heard.append("ended")):
            heard.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == ["worked"]


def test_whoever_listened_before_listens_again() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    with heard_at_once(lambda: None):
        pass
    assert signal.set_wakeup_fd(before) == writing
    os.close(reading)
    os.close(writing)
