"""What every test server has in common: a private folder, a free port, an unprivileged user, and a sure end."""

from __future__ import annotations

import atexit
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

START_SECONDS = 600


class ServerMissing(Exception):
    """A server cannot be had here; says how to get it. Never a reason to skip a test."""


class Server(ABC):
    """A database server that tests may do anything to.

    :ivar url: SQLAlchemy URL of its administrative database
    """

    url: sa.URL

    def create_database(self, name: str) -> sa.URL:
        """Makes an empty database and returns its URL."""
        self._administer(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        return self.url.set(database=name)

    def drop_database(self, name: str) -> None:
        """Drops a database, connections to it or not."""
        force = " WITH (FORCE)" if self.url.get_backend_name() == "postgresql" else ""
        self._administer(f"DROP DATABASE IF EXISTS {name}{force}")

    @cached_property
    def _administration(self) -> sa.Engine:
        """Kept, because a new engine first asks a server several things; its connections are not."""
        return sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def _administer(self, *statements: str) -> None:
        with self._administration.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


class GivenServer(Server):
    """A server that somebody else runs, named by a URL in the environment."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)


class OwnServer(Server):
    """A server that the tests start, kill and start again.

    :param name: names its folder
    :param users: the accounts that it may run as when the tests run as root; the first that exists is taken
    :param durable: as in production, where commits wait for the disk and a GiB of memory holds what is in use; otherwise they reach the
        operating system only, which is enough to outlive a killed server, and fast
    """

    def __init__(self, name: str, *, users: Sequence[str] = ("nobody",), durable: bool = False) -> None:
        self.name = name
        self.durable = durable
        self.port = free_port()
        # Not below the test runner's own folders: those are closed to the account that the server runs as.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.account = _account(users) if os.geteuid() == 0 else None
        self._hand_over(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        atexit.register(self.remove)

    @abstractmethod
    def prepare(self) -> None:
        """Makes the data folder; once."""

    @abstractmethod
    def command(self) -> list[str]:
        """The server in the foreground."""

    def start(self) -> None:
        """Starts it and waits until it answers."""
        if not self._prepared:
            self.prepare()
            self._prepared = True
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_ends_with_this_process(), *self.command()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # SIGXFSZ stays ignored, as Python ignores it: a write beyond files_limited_to() fails, and ends no server.
                restore_signals=False,
                **self._as_account(),
            )
        self._wait()

    def stop(self) -> None:
        """Ends it in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``, as an outage would; :meth:`start` recovers on the same data and port."""
        if self._process is None:
            return
        with _killing_children(self._process.pid):
            self._end(signal.SIGKILL)

    @contextmanager
    def files_limited_to(self, size: int) -> Iterator[None]:
        """Within it no file grows beyond so many bytes, as on a full disk.

        On PostgreSQL it holds for the connections that are made within it, and as long as they last.
        """
        assert self._process is not None
        limit = ["prlimit", f"--pid={self._process.pid}"]
        self.run(*limit, f"--fsize={size}:")
        try:
            yield
        finally:
            self.run(*limit, "--fsize=unlimited:")

    def remove(self) -> None:
        """Ends it and removes its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str | Path) -> None:
        """Runs one of the server's own programs as its account.

        :raises ServerMissing: it failed; with what it printed
        """
        done = subprocess.run(
            [str(each) for each in command], cwd=self.folder, capture_output=True, text=True, check=False, **self._as_account()
        )
        if done.returncode:
            raise ServerMissing(f"{self.name}: {Path(command[0]).name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    def readable(self, folder: Path) -> Path:
        """A folder of programs, or a copy of it where the server's account cannot reach the original."""
        try:
            subprocess.run(["/usr/bin/test", "-r", str(folder)], check=True, capture_output=True, **self._as_account())
        except (subprocess.CalledProcessError, PermissionError):
            copied = self.folder / "programs"
            shutil.copytree(folder, copied, symlinks=True, dirs_exist_ok=True)
            return copied
        return folder

    def _as_account(self) -> dict[str, Any]:
        if self.account is None:
            return {}
        return {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}

    def _hand_over(self, folder: Path) -> None:
        folder.chmod(0o755)
        if self.account is not None:
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def _wait(self) -> None:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql("SELECT 1")
                    return
            except sa.exc.OperationalError as error:
                if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                    log = (self.folder / "server.log").read_text(errors="replace")
                    raise ServerMissing(f"{self.name} did not start: {error.orig}\n{log[-4000:]}") from error
                time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(timeout=600)
        self._process = None


@contextmanager
def _killing_children(pid: int) -> Iterator[None]:
    """Kills what a server has forked, too, after the server itself, and waits for its end.

    PostgreSQL's processes outlive their parent while they are busy, and until they end it refuses to start again.
    """
    # It cannot fork while it is listed.
    os.kill(pid, signal.SIGSTOP)
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    children = []
    for child in listed.read_text().split() if listed.exists() else []:
        with suppress(ProcessLookupError):
            children.append(os.pidfd_open(int(child)))
    yield
    for handle in children:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], 600)
        os.close(handle)


def _ends_with_this_process() -> list[str]:
    """What to put before a command so that it ends even if this process is killed and can clean up nothing."""
    setpriv = shutil.which("setpriv")
    # To PostgreSQL it means to end at once, whoever is connected; to the MySQL family, to end.
    return [setpriv, "--pdeathsig", "QUIT", "--"] if setpriv else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _account(users: Sequence[str]) -> pwd.struct_passwd:
    known = {each.pw_name: each for each in pwd.getpwall()}
    for name in (*users, "nobody"):
        if name in known:
            return known[name]
    raise ServerMissing(f"database servers do not run as root, and there is no account {' or '.join(users)}; create one")
