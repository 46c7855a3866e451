"""Who is told what: notifiers by import path, each with the report, and none that stops anything."""

from __future__ import annotations

import asyncio
import email
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk import DAG, BaseNotifier
from airflow.sdk.exceptions import AirflowFailException

import include
from projection_rebuild.errors import SpecError, VerificationFailed
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild_airflow import notify
from projection_rebuild_airflow.dag_factory import rebuild_dag, rollback_dag

SPEC = Path(include.__path__[0]) / "rebuilds" / "universal.yaml"
HERE = f"{__name__}.Kept"


class Kept(BaseNotifier):
    """Keeps what it is to say."""

    template_fields = ("text",)
    said: ClassVar[list[str]] = []

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = text

    def notify(self, context: Any) -> None:
        if self.text == "broken":
            raise ConnectionError("nobody there")
        self.said.append(self.text)


class _Task:
    task_id = "verify_counts"


CONTEXT: Any = {"dag": DAG("rebuild_universal", schedule=None), "run_id": "manual__1", "ti": _Task()}
TEXT = "{{ rebuild.event }} {{ run_id }}: {{ rebuild.message }} [{{ rebuild.report }}]"


class FakeReport:
    def __init__(self, state: str) -> None:
        self.state = state

    def as_markdown(self) -> str:
        return "# the report"


class FakeRebuild:
    def __init__(self, state: str) -> None:
        self.state = state

    def report(self) -> FakeReport:
        return FakeReport(self.state)


@pytest.fixture
def spec_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RebuildSpec]:
    """The example's spec with more at its end; its run in the ledger is in a given state."""

    def make(more: str, state: str = "cloned") -> RebuildSpec:
        Kept.said.clear()

        @contextmanager
        def opened(*_: Any) -> Iterator[FakeRebuild]:
            yield FakeRebuild(state)

        monkeypatch.setattr(notify, "open_spec", opened)
        path = tmp_path / "spec.yaml"
        path.write_text(SPEC.read_text(encoding="utf-8") + more, encoding="utf-8")
        return load_spec(path)

    return make


def named(**events: str) -> str:
    lines = [f"  {event}: [{{notifier: {HERE}, arguments: {{text: '{text}'}}}}]\n" for event, text in events.items()]
    return "notify:\n" + "".join(lines)


def failed(cause: Exception) -> Any:
    error = AirflowFailException(str(cause))
    error.__cause__ = cause
    return {**CONTEXT, "exception": error}


def test_a_failure_is_told_with_the_report(spec_with: Callable[..., RebuildSpec]) -> None:
    spec = spec_with(named(failure=TEXT))
    notify.OnFailure(spec)(failed(VerificationFailed("green does not pass")))
    notify.OnFailure(spec)(CONTEXT)
    first, second = Kept.said
    assert first == "failure manual__1: verify_counts has failed: green does not pass [PR-VERIFY-01] [# the report]"
    assert "stopped from outside" in second


def test_a_failed_verification_has_notifiers_of_its_own_if_they_are_named(spec_with: Callable[..., RebuildSpec]) -> None:
    spec = spec_with(named(failure="another", verification_failed=TEXT))
    notify.OnFailure(spec)(failed(VerificationFailed("green does not pass")))
    notify.OnFailure(spec)(failed(OSError("net")))
    assert [each.partition(" ")[0] for each in Kept.said] == ["verification_failed", "another"]


def test_a_notifier_or_a_ledger_that_fails_stops_nothing(
    spec_with: Callable[..., RebuildSpec], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    two = named(swapped="broken").replace("}]", f"}}, {{notifier: {HERE}, arguments: {{text: '{TEXT}'}}}}]")
    spec = spec_with(two)
    monkeypatch.setattr(notify, "open_spec", lambda *_: 1 / 0)
    notify.OnSwitch(spec, "swapped")(CONTEXT)
    assert len(Kept.said) == 1 and Kept.said[0].endswith("[]")
    assert "has failed: ConnectionError" in caplog.text


@pytest.mark.parametrize(
    ("notifier", "words"),
    [
        ("no.such.Notifier", "no.such.Notifier cannot be made"),
        ("pathlib.Path", "is no notifier"),
        (f"{HERE}, arguments: {{nonsense: 1}}", "argument: 'text'"),
    ],
)
def test_a_notifier_that_cannot_be_made_is_an_error_of_the_spec(
    notifier: str, words: str, spec_with: Callable[..., RebuildSpec]
) -> None:
    spec = spec_with(f"notify:\n  swapped: [{{notifier: {notifier}}}]\n")
    with pytest.raises(SpecError, match=r"spec.yaml, notify.swapped: ") as caught:
        rebuild_dag(spec, Path("spec.yaml"))
    assert words in str(caught.value)


def test_every_task_tells_of_its_failure_and_each_switch_of_itself(spec_with: Callable[..., RebuildSpec]) -> None:
    spec = spec_with(named(failure="no", swapped="{{ rebuild.event }}", rolled_back="{{ rebuild.event }}"))
    for dag in (rebuild_dag(spec, SPEC), rollback_dag(spec, SPEC)):
        assert all(task.on_failure_callback for task in dag.tasks)
        (callback,) = dag.get_task("atomic_swap").on_success_callback
        callback(CONTEXT)
    assert Kept.said == ["swapped", "rolled_back"]


@pytest.mark.parametrize(("state", "told"), [("cloned", 1), ("abandoned", 1), ("reconciled", 0), ("finished", 0)])
def test_a_missed_deadline_is_told_unless_the_run_has_switched(
    state: str, told: int, spec_with: Callable[..., RebuildSpec], tmp_path: Path
) -> None:
    spec = spec_with("deadline: 8h\n" + named(deadline_missed=TEXT), state)
    dag = rebuild_dag(spec, tmp_path / "spec.yaml")
    (alert,) = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline]
    assert alert.callback.path == "projection_rebuild_airflow.notify.deadline_missed"
    context = {"dag_run": {"dag_id": "rebuild_universal", "dag_run_id": "manual__1"}, "deadline": {}}
    said = asyncio.run(notify.deadline_missed(**alert.callback.kwargs, context=context))
    assert len(Kept.said) == told and ("in time" in said) == (not told)
    if told:
        assert f"the run is {state} and has not switched within 8:00:00" in Kept.said[0]


class Mailbox(socketserver.StreamRequestHandler):
    """As much SMTP as a client needs to hand over one letter."""

    letters: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().upper():
            if line.startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                letter = []
                while (text := self.rfile.readline()) != b".\r\n":
                    letter.append(text.decode())
                self.letters.append("".join(letter))
            self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")
            if line.startswith(b"QUIT"):
                return


def test_a_letter_by_airflows_smtp_notifier(spec_with: Callable[..., RebuildSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in docs/how-to/notifications.md."""
    docs = (Path(include.__path__[0]).parent / "docs" / "how-to" / "notifications.md").read_text(encoding="utf-8")
    example = docs[docs.index("notify:\n") :].partition("```")[0]
    spec = spec_with(example)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"smtp://127.0.0.1:{server.server_address[1]}?disable_ssl=true&disable_tls=true"
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", where)
        notify.OnFailure(spec)(failed(OSError("the disk is full")))
        server.shutdown()
    letter = email.message_from_string(Mailbox.letters.pop())
    (body,) = letter.get_payload()
    text = body.get_payload(decode=True).decode()
    assert letter["Subject"] == "Rebuild universal: failure" and letter["To"] == "on-call@example.com"
    assert "the disk is full" in text and "# the report" in text
