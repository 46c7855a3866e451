"""Base classes of the test servers: a private folder, a free port, an unprivileged user, and a reliable end."""

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
    """A server is not available; the message gives the remedy. Tests never skip because of it."""


class Server(ABC):
    """A database server on which tests may do anything.

    :ivar url: SQLAlchemy URL of its administrative database
    """

    url: sa.URL

    def create_database(self, name: str) -> sa.URL:
        """Creates an empty database and returns its URL."""
        self._administer(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        return self.url.set(database=name)

    def drop_database(self, name: str) -> None:
        """Drops a database, even if it has connections."""
        force = " WITH (FORCE)" if self.url.get_backend_name() == "postgresql" else ""
        self._administer(f"DROP DATABASE IF EXISTS {name}{force}")

    @cached_property
    def _administration(self) -> sa.Engine:
        """The engine for administration.

        It is cached, because a new engine first queries the server; its connections are not.
        """
        return sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def _administer(self, *statements: str) -> None:
        with self._administration.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


class GivenServer(Server):
    """A server that runs outside the tests, named by a URL in the environment."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)


class OwnServer(Server):
    """A server that the tests start, kill and start again.

    :param name: the prefix of its folder's name
    :param users: candidates for its account when the tests run as root; the first existing one is used
    :param durable: as in production: commits wait for the disk, and it has a GiB of cache. Otherwise commits reach only
        the operating system, which is fast, and enough to survive a killed server
    """

    def __init__(self, name: str, *, users: Sequence[str] = ("nobody",), durable: bool = False) -> None:
        self.name = name
        self.durable = durable
        self.port = free_port()
        # Not below the test runner's own folders, which the server's account cannot read.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.account = _account(users) if os.geteuid() == 0 else None
        self._hand_over(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        atexit.register(self.remove)

    @abstractmethod
    def prepare(self) -> None:
        """Creates the data folder; called once."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""

    def start(self) -> None:
        """Starts the server and waits until it answers.

        :raises ServerMissing: it did not start; the message has the end of its log
        """
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
                # SIGXFSZ stays ignored, as in Python, so that a write beyond files_limited_to() fails and does not end
                # the server.
                restore_signals=False,
                **self._as_account(),
            )
        self._wait()

    def stop(self) -> None:
        """Ends the server in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the server (``kill -9``) to simulate an outage; :meth:`start` recovers on the same data and port."""
        if self._process is None:
            return
        with _killing_children(self._process.pid):
            self._end(signal.SIGKILL)

    @contextmanager
    def files_limited_to(self, size: int) -> Iterator[None]:
        """Within it, no file of the server grows beyond so many bytes, as on a full disk.

        On PostgreSQL the limit holds for connections that are opened within it, as long as they last.
        """
        assert self._process is not None
        limit = ["prlimit", f"--pid={self._process.pid}"]
        self.run(*limit, f"--fsize={size}:")
        try:
            yield
        finally:
            self.run(*limit, "--fsize=unlimited:")

    def remove(self) -> None:
        """Kills the server and removes its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str | Path) -> None:
        """Runs one of the server's own programs under its account.

        :raises ServerMissing: the program failed; the message has its output
        """
        done = subprocess.run(
            [str(word) for word in command], cwd=self.folder, capture_output=True, text=True, check=False, **self._as_account()
        )
        if done.returncode:
            raise ServerMissing(f"{self.name}: {Path(command[0]).name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    def readable(self, folder: Path) -> Path:
        """A folder of programs, or a copy of it if the server's account cannot read the original."""
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
    """Kills a server's child processes after the server itself, and waits for their end.

    Busy processes of PostgreSQL outlive their parent, and PostgreSQL does not start again until they have ended.
    """
    # A stopped server cannot fork while this function lists its children.
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
    """A prefix for a command, so that its process ends even if this process is killed and cannot clean up."""
    setpriv = shutil.which("setpriv")
    # At this signal PostgreSQL ends at once, even with open connections; the MySQL family ends normally.
    return [setpriv, "--pdeathsig", "QUIT", "--"] if setpriv else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _account(users: Sequence[str]) -> pwd.struct_passwd:
    known = {account.pw_name: account for account in pwd.getpwall()}
    for name in (*users, "nobody"):
        if name in known:
            return known[name]
    raise ServerMissing(f"database servers do not run as root, and there is no account {' or '.join(users)}; create one")
