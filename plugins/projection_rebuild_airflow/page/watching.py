"""Reads the state of rebuilds for all users of the page: few reads however many users, and none can hang the page."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from projection_rebuild.api import (
    ConnectionRefused,
    Look,
    Rebuild,
    RebuildError,
    RebuildSpec,
    Report,
    TableSeen,
    Traffic,
    Troubled,
)
from projection_rebuild_airflow.page.airflow_runs import dag_runs_of
from projection_rebuild_airflow.page.seen import DagRunSeen, Seen
from projection_rebuild_airflow.runs import open_spec
from projection_rebuild_airflow.specs import Specs, folders, read_specs, spec_files

LOOK_EVERY = 1.0
"""Seconds between two looks at a database."""

SLOWLY = 4.0
"""Seconds between two looks at the sizes of its tables and at earlier runs; more if one such look takes long."""

PATIENCE = 10.0
"""Seconds after which the page reports that the database does not answer."""

COUNTED_OVER = timedelta(minutes=1)
"""The time over which appends and reads are counted."""


class Unseen(RebuildError):
    """The page cannot show a rebuild now; the message gives the reason."""

    code = "PR-PAGE-01"


@dataclass
class Watcher:
    """Looks at one rebuild, one look at a time, and serves all users from it.

    :param spec: the rebuild's spec
    :param path: the spec's file
    :param clock: seconds, monotonic
    """

    spec: RebuildSpec
    path: Path
    clock: Callable[[], float] = time.monotonic
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _seen: Seen | None = None
    _looked: float = float("-inf")
    _tables: list[TableSeen] = field(default_factory=list)
    _past: list[Report] = field(default_factory=list)
    _slow_due: float = float("-inf")
    _traffic: deque[Traffic] = field(default_factory=deque)

    def see(self) -> Seen:
        """The state of the rebuild, at most a second old.

        :raises Unseen: the database cannot be read, or does not answer in time
        """
        latest = self._seen
        # While another thread looks, the last look is good enough. A database that hangs blocks one thread, not all.
        if not self._busy.acquire(timeout=PATIENCE if latest is None else 0):
            if latest is None or self.clock() - self._looked > PATIENCE:
                raise Unseen(f"the database {self.spec.read_models.conn_id} does not answer")
            return latest
        try:
            if self._seen is None or self.clock() - self._looked >= LOOK_EVERY:
                self._seen = self._look()
            return self._seen
        finally:
            self._busy.release()

    def _look(self) -> Seen:
        reason = ""
        try:
            with open_spec(self.spec, run_id="") as rebuild:
                look = rebuild.look(self._traffic[-1] if self._traffic else None)
                if self.clock() >= self._slow_due:
                    self._look_slowly(rebuild)
        except ConnectionRefused as error:
            # Its message holds the remedy, and no host name and no account.
            raise Unseen(f"{error.code}, {error.message}") from error
        except Exception as error:
            # Only the gist: a database's own message may hold host names and accounts, which users of the page need not
            # see.
            reason = error.gist if isinstance(error, Troubled) else type(error).__name__
        if reason:
            # Outside the handler, so that the error has no chain.
            raise Unseen(f"{self.spec.read_models.conn_id} cannot be asked: {reason}")
        self._looked = self.clock()
        earlier = self._earlier(look.traffic)
        # Each look counts the appends since the look before it; the page shows the appends since the earliest.
        appended = sum(traffic.appended or 0 for traffic in list(self._traffic)[1:]) if earlier else None
        look = look.model_copy(update={"traffic": replace(look.traffic, appended=appended)})
        return Seen(self.spec, look, self._tables, self._past, earlier, _dag_runs(look))

    def _look_slowly(self, rebuild: Rebuild) -> None:
        began = self.clock()
        self._tables, self._past = rebuild.tables(), rebuild.history(20)
        duration = self.clock() - began
        self._slow_due = self.clock() + max(SLOWLY, 20 * duration)

    def _earlier(self, latest: Traffic) -> Traffic | None:
        """The oldest look of the last minute, from which the page counts appends and reads; None: the first look."""
        while len(self._traffic) > 1 and latest.at - self._traffic[0].at > COUNTED_OVER:
            self._traffic.popleft()
        self._traffic.append(latest)
        return self._traffic[0] if len(self._traffic) > 1 else None


def _dag_runs(look: Look) -> dict[str, DagRunSeen]:
    return dag_runs_of(run.report.run_id for run in look.runs)


class Watchers:
    """The watchers of all specs. A changed spec gets a new watcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: list[tuple[Path, int | None]] | None = None
        self._specs = Specs()
        self._by_rebuild: dict[str, Watcher] = {}

    def all(self) -> dict[str, Watcher]:
        """The watchers of all usable specs, by the name of the rebuild."""
        with self._lock:
            self._refresh()
            return dict(self._by_rebuild)

    def problems(self) -> list[str]:
        """The problems of all broken specs."""
        with self._lock:
            self._refresh()
            return list(self._specs.broken.values())

    def _refresh(self) -> None:
        changes = [change for folder in folders() for change in _changes(folder)]
        if changes == self._changes:
            return
        self._specs = read_specs()
        self._by_rebuild = {spec.rebuild: self._watcher(spec, path) for path, spec in self._specs.usable.items()}
        self._changes = changes

    def _watcher(self, spec: RebuildSpec, path: Path) -> Watcher:
        """The watcher that the rebuild already has if its spec is unchanged, else a new one."""
        current = self._by_rebuild.get(spec.rebuild)
        return current if current is not None and current.spec == spec else Watcher(spec, path)


def _changes(folder: Path) -> list[tuple[Path, int | None]]:
    """Each spec file of a folder with the time of its last change, in nanoseconds.

    The time is None if the file cannot be examined, such as a broken symbolic link.
    """
    try:
        paths = spec_files(folder)
    except OSError:
        return [(folder, None)]
    return [(path, _changed(path)) for path in paths]


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


WATCHERS = Watchers()
"""The watchers of this process."""
