"""Runs a program under a supervisor, reads its output line by line, and returns its exit code.

Imports nothing of the engine.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Process:
    """A running program. It ends when :meth:`end` is called, and at the latest with this process.

    :param command: program and arguments
    :param patience: seconds between SIGTERM and SIGKILL
    :param directory: its working directory; None: the current one
    :param environment: its whole environment
    :raises OSError: the program cannot be started, or not in this directory
    """

    def __init__(self, command: Sequence[str], *, patience: float, directory: str | None, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the command is the spec's own
            [sys.executable, "-I", "-S", str(SUPERVISOR), str(patience), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environment),
            text=True,
            errors="replace",
            # A signal to the worker's process group does not reach the supervisor.
            start_new_session=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, see Popen above
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self, seconds: float) -> str | None:
        """The next line of its output; None: no line came within this time, or the program has ended."""
        try:
            return self._lines.get(timeout=seconds)
        except Empty:
            return None

    def has_ended(self) -> bool:
        """Whether the program has ended and :meth:`line` has returned all of its lines."""
        if self._process.poll() is None:
            return False
        # Its last lines may still be in the pipe. The wait is short, since a child process may keep the pipe open.
        self._reader.join(2)
        return self._lines.empty()

    def end(self) -> int:
        """Ends the program and all processes that it has started, if it is still running.

        :returns: its exit code, as a shell reports it: 128 plus the number of the signal that has ended it
        """
        assert self._process.stdin is not None  # noqa: S101 - a pipe, see Popen above
        self._process.stdin.close()
        return self._process.wait()
