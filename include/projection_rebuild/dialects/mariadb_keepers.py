"""Keeps everybody from MariaDB's tables until a RENAME has them, one after the other.

MariaDB has no RENAME of locked tables. What LOCK TABLES holds is let go of all at once, so that whoever waits for a later table
has it before the RENAME comes to it; and tables cannot be locked one by one, as the children of foreign keys are locked
with their parent. So each table has a keeper: a connection whose statement has the name of the table to itself and waits for a
gate that stays shut. Would the gate open (our process has died), the statement finds that neither is a view, and ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from include.projection_rebuild.dialects.base import Dialect, TablesBusy
from include.projection_rebuild.errors import ConnectionRefused

GATE = "~projection_rebuild_gate"
"""A table that nobody needs, there for as long as a switch takes. Locks are taken in the order of names: a keeper has its table before it comes to this one."""

STEP = 0.002
"""Seconds that a RENAME has to wake up and come to the next table."""

WAITING = "Waiting for table metadata lock"


@contextmanager
def shut(dialect: Dialect, guard: sa.Connection, gate: str) -> Iterator[None]:
    """Makes a gate, keeps it shut, and removes it if no other run is at it.

    :param guard: the connection that holds it
    :param gate: its quoted name
    :raises TablesBusy: another run removed it again and again
    """
    _shut(dialect, guard, gate)
    try:
        yield
    finally:
        # If it stays there, the next one uses it.
        with suppress(sa.exc.SQLAlchemyError):
            dialect.run(guard, "UNLOCK TABLES")
            dialect.run(guard, "SET SESSION lock_wait_timeout = 0")
            dialect.run(guard, f"DROP TABLE IF EXISTS {gate}")


def _shut(dialect: Dialect, guard: sa.Connection, gate: str) -> None:
    for _ in range(3):
        dialect.run(guard, f"CREATE TABLE IF NOT EXISTS {gate} (nothing INT PRIMARY KEY)")
        # No such table: another run has removed it since.
        with suppress(sa.exc.ProgrammingError):
            dialect.run(guard, f"LOCK TABLES {gate} READ")
            return
    raise TablesBusy


class Keepers:
    """The keepers of all tables of a switch.

    :param lookout: a connection from which they are watched and sent away
    """

    def __init__(self, dialect: Dialect, lookout: sa.Connection) -> None:
        self._dialect = dialect
        self._lookout = lookout
        self._keepers: list[tuple[int, threading.Thread]] = []

    def post(self, connection: sa.Connection, table: str, gate: str) -> None:
        """Sends a keeper to a table, in the order in which a RENAME takes them.

        :param connection: the keeper's own
        :param table: its quoted name, as the gate's
        """
        session = int(connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())
        keeper = threading.Thread(target=self._keep, args=[connection, table, gate], name=f"keeper of {table}", daemon=True)
        self._keepers.append((session, keeper))
        keeper.start()

    def _keep(self, connection: sa.Connection, table: str, gate: str) -> None:
        # Ends by being killed, or with an error, should the gate open.
        with suppress(sa.exc.SQLAlchemyError):
            self._dialect.run(connection, f"DROP VIEW {table}, {gate}")

    def wait_until_posted(self, until: float) -> None:
        """Until each keeper waits, for its table or at the gate.

        :param until: by the monotonic clock
        :raises TablesBusy: that took too long
        """
        while not self._are_waiting([session for session, _ in self._keepers]):
            if time.monotonic() > until:
                raise TablesBusy
            time.sleep(STEP / 4)

    def _are_waiting(self, sessions: Sequence[int]) -> bool:
        query = sa.text("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID IN :ids AND STATE = :waiting")
        bound = query.bindparams(sa.bindparam("ids", expanding=True))
        return len(sessions) == int(self._lookout.execute(bound, {"ids": sessions, "waiting": WAITING}).scalar_one())

    @contextmanager
    def making_way(self, session: int, until: float) -> Iterator[None]:
        """Within it a RENAME takes the tables: a keeper goes when the RENAME waits for it, and already has the tables before.

        :param session: the RENAME's
        :param until: by the monotonic clock, when all have gone at the latest
        """
        done = threading.Event()
        usher = threading.Thread(target=self._make_way, args=[session, until, done], name="usher", daemon=True)
        usher.start()
        try:
            yield
        finally:
            done.set()
            usher.join()

    def _make_way(self, session: int, until: float, done: threading.Event) -> None:
        # Who has lost his lookout makes no more way: the RENAME runs into its time-out, and the keepers leave.
        with suppress(sa.exc.SQLAlchemyError):
            while self._keepers:
                while not (done.is_set() or self._are_waiting([session]) or time.monotonic() > until):
                    time.sleep(STEP / 4)
                self._send_away(*self._keepers.pop(0))
                time.sleep(STEP)

    def _send_away(self, session: int, keeper: threading.Thread) -> None:
        while keeper.is_alive():
            try:
                self._dialect.run(self._lookout, f"KILL QUERY {session}")
            except sa.exc.SQLAlchemyError:
                with suppress(sa.exc.SQLAlchemyError, ConnectionRefused):
                    self._dialect.cancel(session)
            # Again, if the statement had not begun when it was struck.
            keeper.join(STEP)

    def leave(self) -> None:
        """Sends all away that are left, whatever has happened."""
        while self._keepers:
            self._send_away(*self._keepers.pop(0))
