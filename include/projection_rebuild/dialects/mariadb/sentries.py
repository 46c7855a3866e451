"""Keeps everybody from MariaDB's tables until a RENAME has them, one after the other.

MariaDB has no RENAME of locked tables. What LOCK TABLES holds is let go of all at once, so that whoever waits for a later table
has it before the RENAME comes to it; and tables cannot be locked one by one, as the children of foreign keys are locked
with their parent. So each table has a keeper: a connection whose statement has the name of the table to itself and waits for a
gate that stays shut. Would the gate open (our process has died), the statement finds that neither is a view, and ends.

A keeper can go too early: it is killed, or a slow machine lets the RENAME come late to the next table. Where that would do harm, the RENAME comes to a
door last, a table of ours that is shut as well. Who waits there has all tables before; so it is then that somebody looks whether anybody came between.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from projection_rebuild.dialects.base import Sessions, TablesBusy
from projection_rebuild.errors import ConnectionRefused

GATE = "~projection_rebuild_gate"
"""A table that nobody needs, there for as long as a switch takes. Locks are taken in the order of names: a keeper has its table before it comes to this one."""

STEP = 0.002
"""Seconds that a RENAME has to wake up and come to the next table."""

WAITING = "Waiting for table metadata lock"


def door_of(table: str) -> str:
    """The name of the door of the run that has a table. Locks are taken in the order of names: it comes after all tables with keepers.

    A run that was killed may leave it behind; the next one with this table uses it.
    """
    return f"~projection_rebuild_out_{hashlib.sha256(table.encode()).hexdigest()[:16]}"


@contextmanager
def shut(dialect: Sessions, guard: sa.Connection, *gates: str) -> Iterator[None]:
    """Makes gates, keeps them shut, and removes each if no other run is at it.

    :param guard: the connection that holds them
    :param gates: their quoted names
    :raises TablesBusy: another run removed one again and again
    """
    _shut(dialect, guard, gates)
    try:
        yield
    finally:
        # If it stays there, the next one uses it.
        with suppress(sa.exc.SQLAlchemyError):
            dialect.run(guard, "UNLOCK TABLES")
            dialect.run(guard, "SET SESSION lock_wait_timeout = 0")
            for gate in reversed(gates):
                dialect.run(guard, f"DROP TABLE IF EXISTS {gate}")


def _shut(dialect: Sessions, guard: sa.Connection, gates: Sequence[str]) -> None:
    for _ in range(3):
        for gate in gates:
            dialect.run(guard, f"CREATE TABLE IF NOT EXISTS {gate} (nothing INT PRIMARY KEY)")
        # No such table: another run has removed it since.
        with suppress(sa.exc.ProgrammingError):
            dialect.run(guard, f"LOCK TABLES {', '.join(f'{gate} READ' for gate in gates)}")
            return
    raise TablesBusy


class Keepers:
    """The keepers of all tables of a switch.

    :param lookout: a connection from which they are watched and sent away
    :param guard: the connection that holds gate and door
    :param door: its quoted name; None: nobody does harm by coming between
    """

    def __init__(self, dialect: Sessions, lookout: sa.Connection, guard: sa.Connection, door: str | None) -> None:
        self._dialect = dialect
        self._lookout = lookout
        self._guard = guard
        self._door = door
        self._keepers: list[tuple[int, threading.Thread]] = []
        self.confirmed = door is None
        """Whether nobody can have come between."""
        self._refusal: Exception | None = None

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

    def through_the_door(self, rename: str) -> str:
        """The RENAME, which then comes to the door last, and leaves it as it is."""
        if self._door is None:
            return rename
        aside = f"{self._door[:-1]}_{self._door[-1]}"
        return f"{rename}, {self._door} TO {aside}, {aside} TO {self._door}"

    @contextmanager
    def making_way(self, session: int, until: float, confirm: Callable[[], None] | None) -> Iterator[None]:
        """Within it a RENAME takes the tables: a keeper goes when the RENAME waits for it, and already has the tables before.

        :param session: the RENAME's
        :param until: by the monotonic clock, when all have gone at the latest
        :param confirm: asked when the RENAME has all tables, and waits at the door; what it raises is raised here, and nothing is renamed
        """
        done = threading.Event()
        usher = threading.Thread(target=self._make_way, args=[session, until, done, confirm], name="usher", daemon=True)
        usher.start()
        try:
            yield
        except sa.exc.DBAPIError:
            done.set()
            usher.join()
            if self._refusal is not None:
                raise self._refusal from None
            raise
        finally:
            done.set()
            usher.join()

    def _make_way(self, session: int, until: float, done: threading.Event, confirm: Callable[[], None] | None) -> None:
        # Who has lost his lookout makes no more way: the RENAME runs into its time-out, and the keepers leave.
        with suppress(sa.exc.SQLAlchemyError):
            while self._keepers:
                while not (done.is_set() or self._are_waiting([session]) or time.monotonic() > until):
                    time.sleep(STEP / 4)
                self._send_away(*self._keepers.pop(0))
                time.sleep(STEP)
            while self._door is not None and not self._is_wanted(self._door):
                if done.is_set():
                    return
                time.sleep(STEP / 4)
            if confirm is not None:
                self._let_through(session, confirm)

    def _is_wanted(self, door: str) -> bool:
        """Whether the RENAME waits for the door: whoever comes to read there would wait behind it."""
        self._dialect.run(self._lookout, "SET SESSION lock_wait_timeout = 0")
        try:
            self._dialect.run(self._lookout, f"SELECT 1 FROM {door} LIMIT 0")
        except sa.exc.DBAPIError as error:
            if not self._dialect.lock_was_refused(error):
                raise
            return True
        return False

    def _let_through(self, session: int, confirm: Callable[[], None]) -> None:
        try:
            confirm()
        except Exception as error:
            # The door stays shut, so that the RENAME ends with nothing renamed.
            self._refusal = error
            self._dialect.run(self._lookout, f"KILL QUERY {session}")
            return
        self.confirmed = True
        self._dialect.run(self._guard, "UNLOCK TABLES")

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
