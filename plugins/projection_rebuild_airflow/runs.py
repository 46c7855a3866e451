"""Opens the engine for a task: connections become SQLAlchemy engines, a DAG run becomes a run of the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from airflow.sdk import BaseHook, Context
from airflow.sdk.exceptions import AirflowNotFoundException

from projection_rebuild.api import (
    Checkpoint,
    ConnectionRefused,
    ProjectorRegistry,
    Rebuild,
    RebuildSpec,
    boundary,
    load_with_projectors,
)
from projection_rebuild_airflow.connections import url_of
from projection_rebuild_airflow.ids import dag_run_of, ledger_id

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

_log = logging.getLogger(__name__)

# Airflow raises its own errors to skip, defer or end a task; the engine must let them pass.
boundary.declare_face("projection_rebuild_airflow", passes="airflow")


def run_is_over(ti: RuntimeTaskInstanceProtocol, run: str) -> bool:
    """Whether the DAG run behind a run of the ledger is neither queued nor running; also True if it was deleted.

    A run without a DAG run is never over: a person may be working on it from a REPL.

    :param run: its name in the ledger
    """
    dag_run = dag_run_of(run)
    if dag_run is None:
        return False
    return ti.get_dr_count(dag_id=dag_run.dag_id, run_ids=[dag_run.run_id], states=["queued", "running"]) == 0


def is_over_by(context: Context) -> Callable[[str], bool]:
    """:func:`run_is_over`, bound to the task of a context."""
    return partial(run_is_over, context["ti"])


def ledger_run(context: Context) -> str:
    """The name of a task's run in the ledger."""
    return ledger_id(context["dag"].dag_id, context["run_id"])


def started_by(context: Context) -> str:
    """The user who triggered a DAG run; empty for a scheduled run."""
    return context["dag_run"].triggering_user_name or ""


Progress = Callable[[Checkpoint, float], None]
"""Takes the checkpoint of a replay and its events per second, now and then."""


def _no_progress(checkpoint: Checkpoint, rate: float) -> None:
    """Ignores the progress."""


@contextmanager
def open_rebuild(spec_path: str, context: Context, progress: Progress = _no_progress) -> Iterator[Rebuild]:
    """The engine's object for the DAG run of a task; closes its connections at the end.

    :param spec_path: the spec file; it is read again, so that the task follows its current content
    """
    loaded = load_with_projectors(Path(spec_path))
    with open_spec(loaded.spec, ledger_run(context), progress, loaded.projectors) as rebuild:
        yield rebuild


@contextmanager
def open_spec(
    spec: RebuildSpec, run_id: str, progress: Progress = _no_progress, projectors: ProjectorRegistry | None = None
) -> Iterator[Rebuild]:
    """The engine's object for any run of a spec; closes its connections at the end.

    :param run_id: its name in the ledger
    :param projectors: the projectors of the spec; None: the engine imports them
    """
    with ExitStack() as opened:
        read_models = opened.enter_context(_engine(spec.read_models.conn_id))
        event_store = (
            read_models
            if spec.event_store.conn_id == spec.read_models.conn_id
            else opened.enter_context(_engine(spec.event_store.conn_id))
        )
        rebuild = Rebuild(
            spec,
            run_id=run_id,
            event_store=event_store,
            read_models=read_models,
            log=_log.info,
            progress=progress,
            projectors=projectors,
        )
        opened.callback(rebuild.close)
        yield rebuild


@contextmanager
def _engine(conn_id: str) -> Iterator[sa.Engine]:
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConnectionRefused(f"there is no connection {conn_id}; create it, or correct conn_id in the spec") from error
    engine = sa.create_engine(url_of(connection))
    try:
        yield engine
    finally:
        engine.dispose()
