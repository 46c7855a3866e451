"""Runs a command, and ends it with all that it has started when whoever asked for it is gone.

A script, run by Python alone: ``python supervisor.py PATIENCE COMMAND ARGUMENT...``, with the seconds between asking the command to end
and ending it. Its standard input is a pipe to which nobody writes; it ends when the asking process closes it, or dies in whatever way.
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
"""What Linux calls it that a process gets a signal when its parent dies."""


def _kill(group: int, signal_number: int) -> bool:
    try:
        os.killpg(group, signal_number)
    except ProcessLookupError:
        return False
    return True


def _end_with_parent(group: int, patience: float) -> None:
    os.read(0, 1)
    _kill(group, signal.SIGTERM)
    time.sleep(patience)
    _kill(group, signal.SIGKILL)


def main(patience: float, command: list[str]) -> int:
    """The exit code of the command, as a shell tells it."""
    # Whoever ends our own group does not end this process before its command; a handler is not handed on to the command.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda *_: None)
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
    # What it has left behind ends with it.
    _kill(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Not by sys.exit(): the thread that waits at standard input would be waited for.
    result = main(float(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    os._exit(result)
