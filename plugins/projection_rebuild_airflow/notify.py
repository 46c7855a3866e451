"""Sends messages about a rebuild through the Airflow notifiers that its spec names.

A notifier that fails stops nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowException

from projection_rebuild.api import (
    NotifierSection,
    NotifySection,
    RebuildError,
    RebuildSpec,
    RunState,
    SpecError,
    VerificationFailed,
    failure_of,
    load_spec,
    word_for,
)
from projection_rebuild_airflow.ids import ledger_id
from projection_rebuild_airflow.runs import ledger_run, open_spec

_log = logging.getLogger(__name__)


def made(section: NotifierSection) -> BaseNotifier:
    """A new notifier as a spec describes it. Each message needs its own: a notifier renders its templates in place.

    :raises SpecError: the notifier cannot be imported or constructed; its message lacks the name of the spec's key
    """
    try:
        kind = pkgutil.resolve_name(section.notifier)
        misfit = _misfit(kind, section.arguments)
        notifier = None if misfit else kind(**section.arguments)
    except Exception as error:
        # Without the error's text and without the chain: both may quote the arguments.
        raise SpecError(f"{section.notifier} cannot be made: {failure_of(error)}. Correct `notifier` or `arguments`") from None
    if misfit:
        raise SpecError(f"{section.notifier} cannot be made: {misfit}. Correct `arguments`")
    if not isinstance(notifier, BaseNotifier):
        raise SpecError(f"{section.notifier} is no notifier of Airflow (airflow.sdk.BaseNotifier)")
    return notifier


def _misfit(kind: Callable[..., object], arguments: dict[str, Any]) -> str:
    """Why the names of the arguments do not fit; empty: they fit.

    It quotes names only, because values may be secrets.
    """
    signature = inspect.signature(kind)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        return str(error)
    return ""


def check(spec: RebuildSpec, path: Path) -> None:
    """Constructs each notifier once, so that a mistake shows when the DAG is built and not when a message is due.

    :raises SpecError: a notifier cannot be constructed; names file and key
    """
    for event in NotifySection.model_fields:
        for section in getattr(spec.notify, event):
            try:
                made(section)
            except SpecError as error:
                raise SpecError(f"{path.name}, notify.{event}: {error.message}") from None


class Tell:
    """Sends a message through the notifiers that a spec names for an event.

    Their templates have Airflow's own variables and ``rebuild``, with ``event``, ``name``, ``run_id``, ``message``,
    ``subject`` and ``report`` (Markdown; empty if the ledger cannot be read).

    :param spec: the spec of the DAG
    :param event: a key of ``notify``
    """

    def __init__(self, spec: RebuildSpec, event: str) -> None:
        self._spec = spec
        self._event = event
        self._sections: tuple[NotifierSection, ...] = getattr(spec.notify, event)

    def __call__(self, context: Context, message: str) -> None:
        """Sends a message about the run of a task; does nothing if the spec names no notifier for the event."""
        self.about(ledger_run(context), dict(context), message)

    def about(self, run: str, context: dict[str, Any], message: str) -> None:
        """Sends a message about a run.

        :param run: its name in the ledger
        :param context: the variables of the notifiers' templates
        """
        if not self._sections:
            return
        rebuild = {
            "event": self._event,
            "name": self._spec.rebuild,
            "run_id": run,
            "message": message,
            "subject": f"Rebuild {self._spec.rebuild}: {self._event.replace('_', ' ')}",
            "report": _report(self._spec, run),
        }
        for section in self._sections:
            try:
                made(section)({**context, "rebuild": rebuild})
            except Exception as error:
                # Without the error's text: it may quote secret arguments.
                _log.error("the notifier %s for %s has failed: %s", section.notifier, self._event, type(error).__name__)


def _report(spec: RebuildSpec, run: str) -> str:
    try:
        with open_spec(spec, run) as rebuild:
            return rebuild.report().as_markdown()
    except Exception as error:
        _log.warning("the message has no report: %s", type(error).__name__)
        return ""


class OnFailure:
    """Airflow's callback for a task that has failed for good."""

    def __init__(self, spec: RebuildSpec) -> None:
        self._failure = Tell(spec, "failure")
        self._verification = Tell(spec, "verification_failed") if spec.notify.verification_failed else self._failure

    def __call__(self, context: Context) -> None:
        """Sends which task failed, and why."""
        error = context.get("exception")
        cause = error.__cause__ if isinstance(error, BaseException) else None
        tell = self._verification if isinstance(cause, VerificationFailed) else self._failure
        tell(context, f"{context['ti'].task_id} has failed: {_describe(error)}")


def _describe(error: BaseException | str | None) -> str:
    """An error in words that a message may contain.

    That is the text of our own and Airflow's errors. Of any other error it is the kind only, because its text may quote
    a row.
    """
    if error is None:
        return "it was stopped from outside"
    return str(error) if isinstance(error, RebuildError | AirflowException | str) else word_for(error)


class OnSwitch:
    """Airflow's callback after a swap.

    :param event: ``swapped`` or ``rolled_back``
    """

    def __init__(self, spec: RebuildSpec, event: str) -> None:
        self._tell = Tell(spec, event)

    def __call__(self, context: Context) -> None:
        """Sends that the tables are swapped."""
        self._tell(context, "the tables are switched; the old ones stay until their time")


async def deadline_missed(spec_path: str, context: dict[str, Any]) -> str:
    """Airflow's callback, in the triggerer, for a run that is not over by its deadline.

    A run that has swapped is in time.

    :param context: Airflow passes ``dag_run`` and ``deadline`` to a deadline's callback
    :returns: in words, whether and why a message was sent
    """
    return await asyncio.to_thread(_deadline_missed, load_spec(Path(spec_path)), context["dag_run"])


def _deadline_missed(spec: RebuildSpec, dag_run: dict[str, Any]) -> str:
    run = ledger_id(dag_run["dag_id"], dag_run["dag_run_id"])
    state = _state(spec, run)
    if state is not None and state.has_switched:
        return f"{run} has switched in time; it only waits for the retention of its old tables"
    message = f"the run is {state or 'not planned yet'} and has not switched within {spec.deadline} (deadline)"
    Tell(spec, "deadline_missed").about(run, {"dag_run": dag_run, "run_id": dag_run["dag_run_id"]}, message)
    return f"{run}: {message}"


def _state(spec: RebuildSpec, run: str) -> RunState | None:
    """The state of a run; None: the run is not planned, or the ledger cannot be read.

    The message goes out in both cases.
    """
    try:
        with open_spec(spec, run) as rebuild:
            return RunState(rebuild.report().state)
    except Exception as error:
        _log.warning("the ledger does not give the state of %s: %s", run, type(error).__name__)
        return None
