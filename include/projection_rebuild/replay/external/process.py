"""One call of a program: started under a supervisor, its output read line by line, its exit code told. Imports nothing of the engine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Process:
    """A program at work; it ends when :meth:`end` is called, and with this process in any case.

    :param command: program and arguments
    :param patience: seconds that it has to end by itself when it is asked to
    :param directory: where it is started; None: here
    :param environment: all of its environment
    :raises OSError: it cannot be started in this directory, or not at all
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
            # Whoever kills the worker with all of its process group does not hit the supervisor.
            start_new_session=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self, seconds: float) -> str | None:
        """Its next line of output; None: none in this time, or it has ended."""
        try:
            return self._lines.get(timeout=seconds)
        except Empty:
            return None

    def has_ended(self) -> bool:
        """Whether it has ended and all of its lines have been given."""
        if self._process.poll() is None:
            return False
        # What it has said last may still be on its way; somebody to whom it has given its output is not waited for.
        self._reader.join(2)
        return self._lines.empty()

    def end(self) -> int:
        """Ends it with all that it has started, if it is still at work.

        :returns: its exit code, as a shell tells it
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.close()
        return self._process.wait()
