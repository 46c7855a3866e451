"""Runs a command, and ends it and all processes that it has started when the calling process closes a pipe or dies.

A script without dependencies: ``python supervisor.py PATIENCE COMMAND ARGUMENT...``. PATIENCE are the seconds between
SIGTERM and SIGKILL. Standard input is a pipe to which the caller writes nothing; end of file means that the caller has
closed the pipe, or has died.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
"""The option of Linux's ``prctl`` by which the kernel sends a process a signal when its parent dies."""


def _kill(group: int, signal_number: int) -> bool:
    """Sends a signal to a process group; returns whether the group still exists."""
    try:
        os.killpg(group, signal_number)
    except ProcessLookupError:
        return False
    return True


def _end_with_parent(group: int, patience: float) -> None:
    """Waits for end of file on standard input, then ends the process group."""
    os.read(0, 1)
    _kill(group, signal.SIGTERM)
    time.sleep(patience)
    _kill(group, signal.SIGKILL)


def main(patience: float, command: list[str]) -> int:
    """Runs the command.

    :param patience: seconds between SIGTERM and SIGKILL
    :returns: its exit code, as a shell reports it
    """
    # Signals to this process's group must not end it before its command. The command does not inherit handlers.
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signal_number, lambda *_: None)
    kernel = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_supervisor() -> None:
        if kernel is not None:
            kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    try:
        child = subprocess.Popen(  # noqa: S603 - the spec's own command
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_supervisor
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=_end_with_parent, args=[child.pid, patience], daemon=True).start()
    code = child.wait()
    # Ends the processes that the command has left behind.
    _kill(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Not sys.exit(), which might wait for the thread that reads standard input.
    result = main(float(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    os._exit(result)
