"""A process that has imported Airflow, and forks for each of its commands: a command costs no start of its own.

Run by :class:`tests.airflow_home.AirflowHome` as ``python -m tests.airflow_home.forks SOCKET``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module

PRELOADED = (
    "airflow.__main__",
    "airflow.cli.commands.dag_command",
    "airflow.dag_processing.collection",
    "airflow.dag_processing.dagbag",
    "airflow.jobs.triggerer_job_runner",
    "airflow.sdk.execution_time.task_runner",
    "a2wsgi",
    "alembic.command",
    "anyio._backends._asyncio",
    "include.universal.projectors",
    "projection_rebuild_airflow.dag_factory",
    "projection_rebuild_airflow.operators.housekeeping",
    "projection_rebuild_airflow.sensors.low_traffic",
    "projection_rebuild_airflow.sensors.retention",
    "sqlalchemy.dialects.mysql.mysqldb",
    "sqlalchemy.dialects.postgresql.psycopg",
)
"""What a run of a DAG imports, for the most part."""

MAX_REQUEST = 1 << 17


def serve(path: str) -> None:
    """Forks for each command that comes by the socket, until this process is ended."""
    for name in PRELOADED:
        import_module(name)
    # `airflow dags test` serves its tasks by this application, in its own process; what it does at its first request takes seconds.
    import_module("airflow.sdk.execution_time.supervisor").in_process_api_server().app._cadwyn_initialize()
    import_module("sqlalchemy.orm").configure_mappers()
    # Children end by themselves; nobody here waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen()
    # What a thread holds at a fork is held for ever in the child.
    assert threading.active_count() == 1, threading.enumerate()
    while True:
        asked, _ = listening.accept()
        request, (output,), _, _ = socket.recv_fds(asked, MAX_REQUEST, 1)
        if os.fork() == 0:
            listening.close()
            os._exit(_command(asked, output, **json.loads(request)))
        asked.close()
        os.close(output)


def _command(asked: socket.socket, output: int, words: Sequence[str], env: Mapping[str, str]) -> int:
    """One command, in its own process; says its exit code to whoever has asked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [each for each in env.get("PYTHONPATH", "").split(os.pathsep) if each and each not in sys.path]
    sys.argv = ["airflow", *words]
    code = 1
    try:
        import_module("airflow.__main__").main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    asked.send(str(code).encode())
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
