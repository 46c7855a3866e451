"""Specs, parameters and words that somebody made to break things, or made by a slip: one readable refusal in every face."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from projection_rebuild.__main__ import main
from projection_rebuild.errors import RebuildError, SpecError, StepOrderError
from projection_rebuild.model import limits
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.specs import PLAIN, rebuild, spec

LONGEST_MESSAGE = 8_000


def refused(action: Callable[[], object], *words: str) -> str:
    """The message of the one SpecError that it ends in: short, of one line, and fit to be printed anywhere."""
    with pytest.raises(RebuildError) as caught:
        action()
    assert type(caught.value) is SpecError, caught.value
    said = str(caught.value)
    assert said.isprintable() and len(said) <= LONGEST_MESSAGE, said[:500]
    for word in words:
        assert word in said
    return said


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


# Files --------------------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "m: &m {k: 0}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}], {name}: 1}}\n"
    for before, name in zip("mabcdefgh", "abcdefghi", strict=True)
)
FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "deep, flow": ("[" * 20_000, ["line 1", "32"]),
    "deep, mappings": ("{a: " * 20_000, ["line 1", "32"]),
    "deep, block": ("- " * 20_000 + "x", ["32"]),
    "deep, in a spec": (PLAIN + "notify: " + "[" * 5_000 + "]" * 5_000, ["line 6", "32"]),
    "aliases of aliases": (LAUGHS, ["values", "aliases"]),
    "merged aliases": (MERGED, ["values", "aliases"]),
    "an alias within itself": ("a: &a [*a]", ["line 1", "within"]),
    "an alias of nothing": ("a: *" + "b" * 900, ["line 1", "alias"]),
    "a long file": (PLAIN + "# " + "x" * 10_000_000, ["131,072 bytes"]),
    "many values": ("a: [" + "1," * 50_000 + "]", ["12,000 values"]),
    "a key twice": (PLAIN + "rebuild: other\n", ["line 6", "rebuild", "line 1"]),
    "a key twice, below": (
        PLAIN + "swap:\n  max_pause: 1s\n  attempts: 3\n  max_pause: 60s\n",
        ["line 9", "max_pause", "line 7"],
    ),
    "a key twice, in one line": (PLAIN + "verify: {tables: {orders: 1, orders: 99}}", ["line 6", "orders"]),
    "a merge twice": ("a: &a {x: 1}\nb: {<<: *a, <<: *a}", ["line 2", "<<"]),
    "a merge of a text": ("a: {<<: text}", ["line 1", "<<"]),
    "a key of null": (PLAIN + "verify: {tables: {~: 1}}", ["line 6", "quotes"]),
    "a key without a name": (PLAIN + "? \n: 1\n", ["line 6", "quotes"]),
    "a key that is a truth": (PLAIN + "on: 1\n", ["line 6", "'on'", "quotes"]),
    "a key that is a number": (PLAIN + "verify: {tables: {1: 5}}", ["line 6", "quotes"]),
    "a key that is a list": ("? [a]\n: 1\n", ["line 1"]),
    "a long key": (PLAIN + f"? {'k' * 100_000}\n: 1\n", ["100,000 characters"]),
    "a tag": (PLAIN + "deadline: !!python/object/apply:os.system [ls]", ["line 6", "tags"]),
    "a binary": (PLAIN + "timezone: !!binary aGFsbG8=", ["line 6", "tags"]),
    "a date that is none": (PLAIN + "timezone: !!timestamp 2001-99-99", ["line 6", "tags"]),
    "a date": (PLAIN + "timezone: 2001-99-99", ["timezone"]),
    "two documents": (PLAIN + "---\na: 1\n", ["line 6", "second document"]),
    "a tab": (PLAIN + "swap:\n\tattempts: 3\n", ["line 7"]),
    "a version of many digits": ("%YAML 1." + "1" * 10_000 + "\n---\na: 1\n", ["shop.yaml"]),
    "an escape that is no character": ('a: "\\UFFFFFFFF"', ["shop.yaml"]),
    "NUL": (PLAIN + "timezone: 'UTC\x00'\n", ["line 6", "0x0000"]),
    "NUL, escaped": (PLAIN + 'timezone: "UTC\\0"\n', ["timezone", "\\x00"]),
    "a lone surrogate": (PLAIN + 'verify: {assertions: ["SELECT \\ud800"]}\n', ["verify.assertions.0", "\\ud800"]),
    "a surrogate in the bytes": (PLAIN + "timezone: \ud800", ["UTF-8"]),
    "a name of two lines": (PLAIN + 'retention: {keep_old: true, "drop\\nafter": 1d}', ["\\n"]),
    "no UTF-8": (PLAIN.encode() + b"timezone: \xff\xfe", ["UTF-8", "byte"]),
    "UTF-16": (PLAIN.encode("utf-16"), ["UTF-8"]),
    "a long text": (PLAIN + f"timezone: {'x' * 100_000}\n", ["timezone", "100,000 characters", "250"]),
    "a whole number of many digits": (PLAIN + f"replay: {{batch_events: {'9' * 9_000}}}", ["replay.batch_events"]),
    "a number beyond 64 bits": (PLAIN + f"replay: {{batch_events: {2**63}}}", ["replay.batch_events", str(2**63 - 1)]),
    "a number that is none": (PLAIN + "verify: {max_count_drift_percent: .nan}", ["line 6", ".nan"]),
    "an infinite number": (PLAIN + "verify: {max_count_drift_percent: 1.0e+999}", ["max_count_drift_percent", "inf"]),
    "a time zone of control characters": (PLAIN + 'timezone: "\\e[2J"', ["timezone", "\\x1b"]),
    "a scheme of a clock with a zone": (PLAIN + 'low_traffic: {window: "01:00Z-05:00"}', ["low_traffic.window", "01:00"]),
    "a clock that is a number": (PLAIN + "low_traffic: {window: {start: 100, end: 200}}", ["low_traffic.window", "01:00"]),
    "a truth among the values of events": (
        PLAIN.replace("{conn_id: db}", "{conn_id: db, only: {country: NO}}", 1),
        ["line 2", "NO", "quotes"],
    ),
    "an octal number among the values of events": (
        PLAIN.replace("{conn_id: db}", "{conn_id: db, only: {tenant: 007}}", 1),
        ["line 2", "007", "quotes"],
    ),
    "a module that ends the interpreter": (PLAIN.replace("tests.engine.harness.shop:", "tests.engine.leaves:"), ["SystemExit"]),
    "a module of a long name": (PLAIN.replace("tests.engine.harness.shop", "t" * 220), ["importing"]),
    "a module that is relative": (PLAIN.replace("tests.engine.harness.shop", "...x"), ["importing"]),
    "an environment that no program can have": (
        PLAIN.replace(
            '"tests.engine.harness.shop:OrderProjector"',
            "{name: P, command: [x], tables: {t: [id]}, event_types: [E], environment: {A=B: c}}",
        ),
        ["environment"],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_ends_in_one_readable_refusal(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content, words = FILES[name]
    package = tmp_path / "leaves.py"
    package.write_text("raise SystemExit(3)")
    monkeypatch.setattr("tests.engine.__path__", [*__import__("tests.engine").engine.__path__, str(tmp_path)])
    refused(lambda: load_spec(written(tmp_path, content)), "shop.yaml", *words)


def test_the_work_on_a_hostile_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [0]
    parse = yaml.parse

    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for event in parse(*args, **kwargs):
            asked[0] += 1
            yield event

    monkeypatch.setattr(yaml, "parse", counted)
    for content, _ in FILES.values():
        asked[0] = 0
        with pytest.raises(SpecError):
            load_spec(written(tmp_path, content))
        assert asked[0] <= 3 * limits.MOST_VALUES


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "loop", "device", "nothing", "dangling"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "shop.yaml"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case "loop":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to(tmp_path / "gone")
    refused(lambda: load_spec(path), "shop.yaml", "cannot be read")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    path.chmod(0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        refused(lambda: load_spec(path), "shop.yaml", "Permission denied")
    finally:
        os.seteuid(me)


def test_a_file_of_a_hostile_name_is_named_in_print(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\n\xff.yaml"))
    for content in ("[", PLAIN):
        path.write_text(content)
        refused(lambda: load_spec(path), "a\\n\\udcff.yaml", "cannot be used")
    refused(lambda: load_spec(tmp_path / "a\0b.yaml"), "a\\x00b.yaml")


def test_the_structure_file_is_read_with_the_same_care(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "new.sql")
    path = written(tmp_path, PLAIN + "structure: {ddl: new.sql}\n")
    refused(lambda: load_spec(path), "shop.yaml", "structure.ddl", "new.sql", "no file")
    (tmp_path / "new.sql").unlink()
    (tmp_path / "new.sql").write_bytes(b"x" * (limits.DDL_FILE + 1))
    refused(lambda: load_spec(path), "structure.ddl", "bytes")


def test_what_yaml_takes_for_something_else_stays_what_it_looks_like(tmp_path: Path) -> None:
    found = load_spec(
        written(
            tmp_path,
            b"\xef\xbb\xbf"
            + (
                PLAIN.replace("{conn_id: db}", '{conn_id: db, only: {country: "NO", at: "2026-01-01", tenant: 7, gone: null}}', 1)
                + "low_traffic: {window: {start: 22:00, end: 05:30}}\nswap: {approval: yes}\nretention: {keep_old: off}\n"
                + "replay: &r {batch_events: 1_000}\nthrottle: {look_every: 2s}\n"
            ).encode(),
        )
    )
    assert found.event_store.only == {"country": "NO", "at": "2026-01-01", "tenant": 7, "gone": None}
    assert (found.low_traffic.window.start.hour, found.low_traffic.window.end.minute) == (22, 30)  # type: ignore[union-attr]
    assert (found.swap.approval, found.retention.keep_old, found.replay.batch_events) == (True, False, 1_000)


def test_anchors_and_merges_are_still_of_use(tmp_path: Path) -> None:
    text = PLAIN + (
        "verify: {assertions: [&a 'SELECT 1 WHERE 1 = 0', *a]}\nthrottle: &limits {look_every: 2s, max_active_sessions: 3}\n"
        "low_traffic: {<<: *limits, max_active_sessions: 5}\n"
    )
    found = load_spec(written(tmp_path, text))
    assert found.verify.assertions == ("SELECT 1 WHERE 1 = 0",) * 2
    assert (found.low_traffic.look_every, found.low_traffic.max_active_sessions) == (timedelta(seconds=2), 5)


# Values, in every face ----------------------------------------------------------------------------------------------

DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]
RING: list[Any] = []
RING.append(RING)

PARAMETERS: list[tuple[str, Any]] = [
    *(("reason", each) for each in ("a\0b", "\ud800", "x" * 10_000_000, "x" * 501, "\x1b[2J", 5, True, ["x"], DEEP, b"bytes")),
    *(("aggregates", [each]) for each in ("a\0b", "\udfff", "x" * 511, "x" * 10_000_000, 1, None, True, "", DEEP)),
    *(("aggregates", each) for each in ("a", {"a": 1}, ["a"] * 5_001, ["a" * 500] * 12_000, RING)),
    *(("projectors", each) for each in (["a\0b"], ["\ud800"], ["x" * 251], ["a\nb"], "OrderProjector", [1], [True], DEEP, RING)),
    *(("shards", each) for each in (True, False, "3", 3.0, 1e3, 0, -1, 65, 2**70, float("nan"), float("inf"), [1], DEEP)),
    *(
        ("max_count_drift_percent", each)
        for each in (True, "5", -0.1, 100.1, float("nan"), float("inf"), -float("inf"), 10**400, [5])
    ),
    *(
        ("drop_after", each)
        for each in (
            *(
                "99999999999d",
                "1e400d",
                "-5s",
                "nan",
                "inf",
                "infs",
                "1" * 5_000 + "d",
                "36501d",
                "٣d",
                "1d\0",
                "1\nd",
                "5",
                "x" * 10_000_000,
            ),
            *(5, 5.0, True, float("inf"), 10**400, ["1d"], {"days": 1}, timedelta(days=-1), timedelta.max, DEEP),
        )
    ),
    *(
        (name, each)
        for name in ("since", "until")
        for each in (
            *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "9999-12-31", "0001-01-01", "1899-12-31", "2026-13-01"),
            *("2026-01-01T00:00:00+99:99", "2026-01-01\0", "\ud800", "x" * 10_000_000, "now", 5, 5.5, True, 10**400, [1], DEEP),
            *(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        )
    ),
    *(
        (name, each)
        for name in ("dry_run", "swap_now", "keep_old", "approval", "replay_now", "rebuild_dependents")
        for each in (1, 0.5, "yes", "true", "on", "\0", [True], DEEP)
    ),
    ("a\0b", 1),
    ("x" * 10_000_000, 1),
    ("\ud800", 1),
    ("unknown", 1),
]


def _named(pair: tuple[str, Any]) -> str:
    return f"{pair[0][:20]!r}-{type(pair[1]).__name__}-{limits.shown(pair[1]) if pair[1] is not DEEP and pair[1] is not RING else ''}"


@pytest.mark.parametrize(("name", "value"), PARAMETERS, ids=[_named(each) for each in PARAMETERS])
def test_a_hostile_parameter_is_refused_in_every_face(name: str, value: Any) -> None:
    from projection_rebuild_airflow.params import options_from, rollback_options_from

    said = refused(lambda: RunOptions.parse({"projectors": ["OrderProjector"], name: value}))
    assert limits.shown(name)[:4] in said
    refused(lambda: options_from({"projectors": ["OrderProjector"], name: value}))
    refused(lambda: rollback_options_from({name: value}))


def test_keys_that_are_no_text_are_refused() -> None:
    for key in (None, 1, True, (1, 2), b"x"):
        refused(lambda key=key: RunOptions.parse({key: 1}), "no text")


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x" * 511, "a\nb", 5, True, ["x"], {"a": 1}, DEEP])
def test_a_hostile_name_of_a_run_is_refused(value: Any) -> None:
    from projection_rebuild_airflow.params import rollback_options_from

    refused(lambda: rollback_options_from({"run": value}))


SPECS: list[tuple[str, Any]] = [
    *((f"{section}.{key}", each) for section, key in (("swap", "attempts"), ("replay", "batch_events"), ("replay", "max_memory"),
      ("throttle", "max_active_sessions"), ("verify", "max_dead_letters"), ("low_traffic", "max_appends_per_minute"))
      for each in (True, "3", 3.0, 1e3, float("nan"), 2**63, -1, [3])),
    *((f"{section}.{key}", each) for section, key in (("retention", "drop_after"), ("swap", "max_pause"), ("throttle", "look_every"),
      ("low_traffic", "quiet_for"), ("swap", "approval_timeout"))
      for each in ("99999999999d", "-1s", "nan", "1e400d", float("inf"), 5, True, timedelta.max, "x" * 10_000_000)),
    *((f"{section}.{key}", each) for section, key in (("swap", "approval"), ("retention", "keep_old"), ("replay", "set_based"))
      for each in (1, 0, "true", "yes", "\0")),
    *(("verify.tables", {"orders": each}) for each in (True, "5", float("nan"), 101)),
    *(("replay.shards", each) for each in (True, "3", 3.0, {"P": True}, {"P": 0}, {"P\0": 1}, [1])),
    *((f"{section}.{key}", each) for section, key in (("event_store", "table"), ("event_store", "conn_id"), ("event_store", "schema"),
      ("read_models", "conn_id"), ("read_models", "schema")) for each in ("a\0b", "\ud800", "a\nb", "x" * 251, "x" * 10_000_000, 5, True)),
    *(("verify.assertions", [each]) for each in ("SELECT 1\0", "\ud800", "x" * 20_001, "x" * 10_000_000, 1, DEEP)),
    *(("notify.failure", [{"notifier": "a.B", "arguments": each}]) for each in ({"a": "\ud800"}, {"a": DEEP}, {"a": "x" * 20_001}, {"a": 2**64},
      {"a": float("nan")}, {1: 2}, {"a": RING})),
    *(("schedule", each) for each in ("* " * 100_000, "0-99999999999 * * * *", "*/0 * * * *", "0 0 31 2 *", "0 0 31 2 * 0 2099", "\0", "1," * 125 + "1 * * * *", 5, ["@daily"])),
    *(("rebuild", each) for each in ("a\n", "a\0", "x" * 101, "", 5, True, "é")),
    ("deadline", "99999999999d"),
    *((f"swap.{key}", each) for key in ("lock_timeout", "max_pause") for each in ("0s", "0.5ms", "25d", "61m")),
    ("structure", {"ddl": "a\0b"}),
    ("structure", {"views": {"v": "SELECT \0"}, "ddl": "x.sql"}),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), SPECS, ids=[_named(each) for each in SPECS])
def test_a_hostile_value_of_a_spec_is_refused(place: str, value: Any) -> None:
    from projection_rebuild.spec.validation import validate as _validate
    from tests.engine.harness.specs import SPEC

    section, _, key = place.partition(".")
    given = SPEC | ({section: dict(SPEC.get(section, {})) | {key: value}} if key else {section: value})
    said = refused(lambda: _validate(RebuildSpec, given, "shop.yaml"), "shop.yaml")
    assert section in said


# What is said to a run ----------------------------------------------------------------------------------------------


def waiting(url: str) -> Iterator[Rebuild]:
    engine = sa.create_engine(url)
    shop.metadata.create_all(engine)
    made = rebuild(engine)
    run_to(made, "verify")
    yield made
    made.close()
    engine.dispose()


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuild]:
    """A run of an empty shop that only waits for its switch, and of which nothing has been said."""
    yield from waiting(f"sqlite:///{tmp_path_factory.mktemp('verified')}/shop.db")


@pytest.fixture
def of_its_own(tmp_path: Path) -> Iterator[Rebuild]:
    """The same for one test."""
    yield from waiting(f"sqlite:///{tmp_path}/shop.db")


@pytest.mark.parametrize("reason", ["a\0b", "\ud800", "x" * 10_000_000, "x" * 501, "\x1b[2J", 5, None, ["x"]], ids=limits.shown)
def test_hostile_words_are_refused_and_change_nothing(verified: Rebuild, reason: Any) -> None:
    before = verified.notes()
    for said in (
        lambda: verified.swap_now(by="me", reason=reason),
        lambda: verified.pause(by="me", reason=reason),
        lambda: verified.decide(True, by="me", reason=reason),
    ):
        refused(said, "reason")
    assert verified.notes() == before


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 10_000_000, "a\nb"])
def test_whoever_acts_is_noted_in_print(of_its_own: Rebuild, name: str) -> None:
    of_its_own.swap_now(by=name)
    of_its_own.pause(by=name)
    of_its_own.resume(by=name)
    of_its_own.pause(by=name)
    of_its_own.set_limits({"max_active_sessions": 3}, by=name)
    of_its_own.decide(False, by=name)
    assert len(of_its_own.notes()) == 4
    for note in of_its_own.notes().values():
        assert note.by.isprintable() and len(note.by) <= limits.NAME
    of_its_own.stand_down(f"rejected by {name}")


@pytest.mark.parametrize(
    "given",
    [
        *({"max_active_sessions": each} for each in (True, "3", 3.0, float("nan"), 2**63, DEEP)),
        *({"max_replica_lag": each} for each in ("99999999999d", "-1s", 5)),
        *({"replica_lag": each} for each in ("SELECT 1\0", "x" * 20_001, "\ud800", 5)),
        {"unknown": 1},
        {1: 2},
        {"a\0b": 1},
        "max_active_sessions",
        [("max_active_sessions", 3)],
    ],
    ids=lambda each: limits.shown(each) if not isinstance(each, dict) or DEEP not in each.values() else "deep",
)
def test_hostile_limits_are_refused(verified: Rebuild, given: Any) -> None:
    refused(lambda: verified.set_limits(given, by="me"))
    assert "throttle" not in verified.notes()


def test_a_run_of_a_hostile_name_is_none(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    for name in ("a\0b", "\ud800", "x" * 511, "a\nb", 5):
        refused(lambda name=name: rebuild(engine, run_id=name), "run_id")
    made = rebuild(engine)
    refused(lambda: made.plan_rollback(RunOptions(), of="a\0b"))
    refused(lambda: made.plan(RunOptions.model_construct(reason="\ud800")))
    refused(lambda: rebuild(engine, verify={"assertions": ["\0"]}))
    engine.dispose()


# What is allowed goes through, and comes back from the ledger as it was ----------------------------------------------


@pytest.mark.parametrize("text", ["0s", "1ms", "15d", "11.574075d", "365d", "36500d", "1234567s", "0.000001s", "99999999ms"])
def test_a_duration_survives_the_ledger_to_the_microsecond(text: str) -> None:
    options = RunOptions.parse({"drop_after": text})
    assert RunOptions.of_record(options.model_dump(mode="json")) == options
    assert RunOptions.parse(options.model_dump(mode="json")) == options


def test_a_run_that_an_earlier_version_began_goes_on() -> None:
    record = RunOptions().model_dump(mode="json") | {"drop_after": "1.296e+06s", "reason": "x" * 9_000}
    options = RunOptions.of_record(record)
    assert options.drop_after == timedelta(days=15)
    assert options.reason == "x" * 500
    assert RunOptions.of_record(record | {"drop_after": "9e+12s"}).drop_after == limits.LONGEST


def test_what_stands_at_a_limit_is_allowed() -> None:
    options = RunOptions.parse(
        {
            "projectors": ["P" * limits.NAME],
            "reason": "why\n\tä😀" + "x" * (limits.REASON - 7),
            "aggregates": [f"{number:0510}" for number in range(limits.MOST_AGGREGATES)],
            "since": "1900-01-01T00:00:00+14:00",
            "until": "9998-12-31T23:59:59-12:00",
            "shards": limits.MOST_SHARDS,
            "max_count_drift_percent": 100,
        }
    )
    part = options.part(spec().zone)
    assert part is not None and part.since is not None and part.until is not None
    assert part.since.astimezone(UTC) < part.until.astimezone(UTC)


# Whatever comes -----------------------------------------------------------------------------------------------------

_SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.binary(max_size=5), st.datetimes()),
    st.sampled_from(
        ["", "1d", "99999999999d", "\ud800", "\0", "x" * 600, "2026-01-01", "0001-01-01T00:00+14:00", "OrderProjector"]
    ),
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
)
_FIELDS = st.sampled_from([*RunOptions.model_fields, "run", "no such key", "\0"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_FIELDS, _VALUES, max_size=6))
def test_any_parameters_are_options_or_one_refusal(params: dict[str, Any]) -> None:
    from projection_rebuild_airflow.params import options_from, rollback_options_from

    for read in (RunOptions.parse, options_from, rollback_options_from):
        try:
            read(params)
        except RebuildError:
            refused(lambda read=read: read(params))


_PIECES = st.sampled_from(
    [
        *("rebuild: shop\n", "event_store: {conn_id: db}\n", "read_models: {conn_id: db}\n", "live_writer: transactional\n"),
        *(
            'projectors: ["tests.engine.harness.shop:OrderProjector"]\n',
            "swap:\n",
            "  max_pause: ",
            "1s\n",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ": ",
            ", ",
        ),
        *(
            "&a ",
            "*a",
            "<<: *a\n",
            "!!int ",
            "!x ",
            "? ",
            "|\n",
            ">\n",
            '"',
            "'",
            "\\x",
            "\\ud800",
            "\t",
            "#",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
        ),
        *("on", "~", "1:30", "2026-01-01", ".nan", "0x", "1e9", "99999999999d", "\n", "  ", "é", "\x07"),
    ]
)
_TEXTS = st.one_of(
    st.lists(_PIECES, max_size=25).map("".join), st.text(max_size=60), st.text(max_size=40).map(lambda each: PLAIN + each)
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_TEXTS)
@example("a: 'b")
@example("%TAG ! !\n--- a")
@example("!<%FF> x")
def test_any_text_is_a_spec_or_one_refusal(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    try:
        found = load_spec(path)
    except RebuildError:
        refused(lambda: load_spec(path), "shop.yaml")
    else:
        assert isinstance(found, RebuildSpec)


def test_a_step_that_is_too_early_is_still_another_error(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    made = rebuild(engine)
    shop.metadata.create_all(engine)
    made.plan(RunOptions())
    with pytest.raises(StepOrderError):
        made.decide(True, by="me")
    engine.dispose()


def test_the_documents_tell_the_limits() -> None:
    told = (Path(__file__).parents[2] / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    numbers = [
        limits.SPEC_FILE // 1024,
        limits.DDL_FILE // 1024**2,
        limits.DEEPEST,
        limits.MOST_VALUES,
        limits.MOST_TEXT // 1024**2,
        limits.NAME,
    ]
    numbers += [limits.SQL, limits.REASON, limits.AGGREGATE, limits.MOST_AGGREGATES, limits.RUN_ID, limits.SHOWN]
    for number in numbers:
        assert f"{number:,}" in told, number
    assert f"{limits.LONGEST.days}d" in told and f"{limits.LONGEST_HOLD.seconds // 3600}h" in told
    assert str(limits.FIRST_YEAR) in told and str(limits.LAST_YEAR) in told


def test_the_command_line_refuses_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, PLAIN)
    for names in ("a\0b", "x" * 300, "\udcff"):
        assert main(["plan", str(path), "--read-models", f"sqlite:///{tmp_path}/shop.db", "--projectors", names]) == 1
        said = capsys.readouterr().out.strip()
        assert said.isprintable() and "projectors.0" in said
