"""The project's own files: what they promise each other."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tools import airflow_settings, airflow_up, commit_subject

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PRIVATE = re.compile(r"_[a-z]\w*|_[A-Z]\w*")


def pinned(lock: str) -> dict[str, str]:
    """The versions of a lock, by package."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==([^ ;]+)", text, re.MULTILINE))


def of_project() -> tuple[list[Requirement], list[Requirement]]:
    """What the distribution needs, with all extras, and what an Astro project pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    needed = [*project["project"]["dependencies"], *(each for extra in extras for each in extra)]
    pins = project["dependency-groups"]["deployment"]
    return [Requirement(each) for each in needed], [Requirement(each) for each in pins]


def test_requirements_are_the_locked_run_time_dependencies() -> None:
    wanted = set((ROOT / "requirements.txt").read_text().split())
    pins = of_project()[1]
    assert wanted == {str(each) for each in pins if each.name != "apache-airflow"}
    assert all(re.fullmatch(r"==[\w.]+", str(each.specifier)) for each in pins)
    for lock in ("runtime", "development"):
        locked = pinned(lock)
        assert {str(each.specifier) for each in pins if f"=={locked[each.name.lower()]}" != str(each.specifier)} == set()


def test_the_distribution_needs_ranges_whose_ends_are_locked_for_tests() -> None:
    """Lower ends as the oldest lock, upper ends above the newest; each of them is pinned in an Astro project, too."""
    oldest, newest = pinned("oldest"), pinned("runtime")
    needed, pins = of_project()
    for each in needed:
        operators = {part.operator: part.version for part in each.specifier}
        assert operators.keys() >= {">=", "<"} and "==" not in operators, each
        assert Version(oldest[each.name.lower()]) == Version(operators[">="]), each
        assert newest[each.name.lower()] in each.specifier, each
    # The standard provider comes with Airflow.
    assert {each.name for each in needed} - {each.name for each in pins} == {"apache-airflow-providers-standard"}


def test_the_folders_of_the_packages_are_on_the_path_wherever_the_project_runs() -> None:
    image = re.search(r"^ENV .*PYTHONPATH=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    make = re.search(r"^export PYTHONPATH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    astro = re.search(r"^PYTHONPATH=(\S+)$", (ROOT / ".env").read_text(), re.MULTILINE)
    assert image and make and astro
    folders = ["", "/include", "/plugins"]
    assert image[1].split(":") == [f"/usr/local/airflow{each}" for each in folders]
    assert make[1].split(":") == [f"$(CURDIR){each}" for each in folders]
    # The CLI's file replaces what the image says; without containers, Airflow runs in the project's folder.
    assert astro[1] == f"{image[1]}:.:include:plugins"
    assert airflow_up.environment(ROOT, 8080)["PYTHONPATH"] == ":".join(f"{ROOT}{each}" for each in folders)


def test_the_engine_imports_no_airflow_and_nothing_of_the_example() -> None:
    for path in (ROOT / "include" / "projection_rebuild").rglob("*.py"):
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom)
                else []
            )
        }  # fmt: skip
        wrong = {
            name
            for name in imported
            if name.startswith(("airflow", "include.universal", "projection_rebuild_airflow", "projection_rebuilds", "tests"))
        }
        assert not wrong, path


def test_everything_that_tests_use_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    assert [each for name in groups for each in groups[name] if "==" not in each] == []


def test_no_airflow_of_ours_touches_a_database_of_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    env = airflow_up.environment(tmp_path, 8081)
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow.db"


def test_airflow_listens_on_this_machine_alone_and_serves_no_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__HOST", "0.0.0.0")  # noqa: S104 - what it must not take over
    env = airflow_up.environment(tmp_path, 8081)
    assert {each for key, each in env.items() if key.startswith("AIRFLOW__") and key.endswith("HOST")} == {"127.0.0.1"}
    # These two would serve log files on every network; no setting keeps them from it.
    assert all("--skip-serve-logs" in part for part in airflow_up.PARTS if part[0] in ("scheduler", "triggerer"))
    assert {part[0] for part in airflow_up.PARTS} == {"scheduler", "triggerer", "dag-processor", "api-server"}


def test_the_password_is_made_up_once_and_is_its_owners(tmp_path: Path) -> None:
    path = airflow_up.made_password(tmp_path)
    first = path.read_text()
    assert len(json.loads(first)["admin"]) >= 12 and path.stat().st_mode & 0o077 == 0
    assert airflow_up.made_password(tmp_path).read_text() == first
    (tmp_path / "other").mkdir()
    assert airflow_up.made_password(tmp_path / "other").read_text() != first
    said = airflow_up.how_to_open(8081, path)
    assert json.loads(first)["admin"] not in said and path.name in said
    assert "http://localhost:8081" in said and "ssh -L 8081:localhost:8081" in said


def test_when_one_part_ends_the_others_are_ended(tmp_path: Path) -> None:
    sleeps = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).touch(), sys.exit()))"
    waits = [
        sys.executable,
        "-c",
        f"{sleeps}; pathlib.Path(sys.argv[2]).touch(); time.sleep(600)",
        *(str(tmp_path / each) for each in ("ended", "ready")),
    ]
    ends = [
        sys.executable,
        "-c",
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\nsys.exit(3)",
    ]
    assert airflow_up.run_parts(dict(os.environ), [waits, [*ends, str(tmp_path / "ready")]]) == 3
    assert (tmp_path / "ended").exists()


def test_the_image_is_installed_from_the_lock_with_hashes() -> None:
    image, lock = (ROOT / "Dockerfile").read_text(), (ROOT / "locks" / "runtime.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (installed,) = re.findall(r"^RUN pip install .*$", image, re.MULTILINE)
    assert "--require-hashes -r locks/runtime.txt" in installed
    airflow, python = re.findall(r"^ARG BASE=apache/airflow:([\d.]+)-python([\d.]+)$", image, re.MULTILINE)[0]
    assert f"apache-airflow=={airflow}" in {str(each) for each in of_project()[1]}
    assert f"\napache-airflow=={airflow} " in lock
    assert project["requires-python"].startswith(f">={python}")
    packages = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(packages) > 100 and all("--hash=sha256:" in each for each in packages)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert "locks" not in ignored and "requirements.txt" not in ignored


def test_a_fast_test_does_not_import_airflow() -> None:
    script = "import sys, tests.conftest, projection_rebuild.rebuild; raise SystemExit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_the_settings_file_becomes_connections_pools_and_nothing_more(tmp_path: Path) -> None:
    settings = airflow_settings.read()
    made = settings.environment(tmp_path)
    assert json.loads(made["AIRFLOW_CONN_UNIVERSAL_DB"]) == {"conn_type": "sqlite", "host": f"{tmp_path}/.demo/universal.db"}
    assert json.loads(settings.pools_file())["projection_rebuilds"]["slots"] == 2


@pytest.mark.parametrize("text", ["airflow: {connection: []}", "nothing", "airflow: {pools: [{pool_name: x}]}"])
def test_a_settings_file_that_cannot_be_used_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "airflow_settings.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match="airflow_settings"):
        airflow_settings.read(path)


def test_no_file_carries_a_path_of_a_developers_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = re.compile(rf"(?<![\w/.-]){re.escape(str(ROOT))}(?![\w-])")
    for name in tracked:
        if not name.endswith(".png"):
            assert not home.search((ROOT / name).read_text(errors="replace")), name


def test_each_hook_runs_from_the_project_and_asks_no_host() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["id"]: hook for repository in repositories for hook in repository["hooks"]}
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert {hook["language"] for hook in hooks.values()} == {"system"}
    assert all(re.search(r"(^|\s)\.venv/bin/", hook["entry"]) for hook in hooks.values())
    assert hooks["commit-subject"]["stages"] == ["commit-msg"]
    (lint,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    checks = re.findall(r"\$\(BIN\)/(\S+(?: (?:check|format))?)", lint)
    entries = " ".join(hook["entry"] for hook in hooks.values())
    without = [check for check in checks if f".venv/bin/{check}" not in entries]
    assert not without, f"what `make lint` finds, a hook has to find before: add one for {without}"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("x" * 72, []),
        ("x" * 72 + "\n\n" + "a body may have longer lines " * 4, []),
        ("# a comment of git's\n\nSubject\n# " + "x" * 80, []),
        ("x" * 73, ["73 characters"]),
        ("Subject.", ["full stop"]),
        ("Subject\nbody", ["second line"]),
        ("x" * 80 + ".\nbody", ["81 characters", "full stop", "second line"]),
        ("# only a comment\n\n", ["no subject"]),
        ("", ["no subject"]),
    ],
)
def test_a_commit_message_is_checked(tmp_path: Path, message: str, found: list[str]) -> None:
    path = tmp_path / "COMMIT_EDITMSG"
    path.write_text(message)
    done = subprocess.run(
        [sys.executable, "-m", "tools.commit_subject", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = done.stderr.splitlines()
    assert len(said) == len(found) and all(words in line for words, line in zip(found, said, strict=True))
    assert done.returncode == bool(found)
    assert len(commit_subject.problems(message)) == len(found)


def test_each_decision_is_a_record_and_the_index_lists_all() -> None:
    index = (ROOT / "docs" / "decisions.md").read_text()
    listed = re.findall(r"^\* \[(\d{4})\]\(adr/([^)]+)\)\s+(.+)$", index, re.MULTILINE)
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert [name for _, name, _ in listed] == records
    assert [int(number) for number, _, _ in listed] == list(range(1, len(records) + 1))
    for number, name, title in listed:
        text = (ROOT / "docs" / "adr" / name).read_text()
        assert name.startswith(f"{number}-") and text.startswith(f"# {int(number)}. {title}\n")
        parts = re.findall(r"^## (.+)\n\n(\S.*)$", text, re.MULTILINE)
        assert [heading for heading, _ in parts] == ["Status", "Context", "Decision", "Consequences"], name
        # A reason and a price take more than a few words.
        said = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
        assert [part for part in ("Context", "Consequences") if len(said[part].split()) < 10] == [], name
        assert re.match(r"(Proposed|Accepted|Superseded by \[\d{4}\]\([^)]+\)), \d{4}-\d\d-\d\d\.$", parts[0][1]), name


GUIDES = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/architecture.md", "docs/decisions.md"]
"""What contributors read: a path that has moved sends them nowhere."""


@pytest.mark.parametrize("page", GUIDES)
def test_what_a_guide_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:benchmarks|dags|docs|include|plugins|tests|tools)/[\w./-]*)`", text)
    linked = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [link for link in linked if link and not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_contributing_names_each_target_that_tests() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^(test[a-z-]*|prove|bench|setup|hooks|lock):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in targets if f"`make {target}`" not in text and f"make {target} " not in text] == []


APPLICATION = """
import sys
sys.modules |= dict.fromkeys(["airflow", "alembic", "MySQLdb", "psutil", "tenacity"])
import sqlalchemy
import projection_rebuild.replay.inline, projection_rebuild.eventstore.pyeventsourcing
from projection_rebuild.dialects import dialect_for
dialect_for(sqlalchemy.create_engine("postgresql+psycopg://"))
"""


def test_an_application_needs_the_driver_of_its_own_database_only() -> None:
    """And no more of the packages than docs/getting-started/pyeventsourcing.md names."""
    alone = {"PYTHONPATH": str(ROOT / "include")}
    done = subprocess.run([sys.executable, "-c", APPLICATION], cwd=ROOT, capture_output=True, text=True, env=alone, check=False)
    assert done.returncode == 0, done.stderr


# Tests that a newcomer finds ----------------------------------------------------------------------------------------


def modules_of_tests() -> dict[Path, ast.Module]:
    """All modules below ``tests``, parsed, by their paths in it."""
    found = (path for path in TESTS.rglob("*.py") if "node_modules" not in path.parts)
    return {path.relative_to(TESTS): ast.parse(path.read_text()) for path in sorted(found)}


def is_test(path: Path) -> bool:
    return path.name.startswith("test_")


def imported_by(module: ast.Module) -> set[str]:
    """The dotted names that a module imports; of ``from a import b`` both ``a`` and ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_no_module_imports_a_test_module() -> None:
    modules = modules_of_tests()
    tests = {".".join(("tests", *path.with_suffix("").parts)) for path in modules if is_test(path)}
    assert len(tests) > 100
    assert {str(path): wrong for path, module in modules.items() if (wrong := imported_by(module) & tests)} == {}


def test_what_test_modules_share_lies_in_a_package_of_its_own() -> None:
    """In a ``harness``, or in another package without tests; fixtures in a ``conftest.py``."""
    paths = modules_of_tests()
    with_tests = {path.parent for path in paths if is_test(path)}
    helpers = [path for path in paths if not is_test(path) and path.name not in ("conftest.py", "__init__.py")]
    assert len(helpers) > 20
    assert [str(path) for path in helpers if path.parent in with_tests] == []
    assert not any(is_test(path) for path in paths if "harness" in path.parts)


def private_names(node: ast.AST) -> list[str]:
    """The private names in an expression, and in the dotted names of its texts; not those of ``self`` and ``cls``."""
    found: list[str] = []
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and not (isinstance(each.value, ast.Name) and each.value.id in ("self", "cls")):
            found.append(each.attr)
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            found += each.value.split(".")
    return [name for name in found if PRIVATE.fullmatch(name)]


def replaced_in(function: ast.AST) -> list[str]:
    """The private names that a function replaces: by a patch, or by an assignment to somebody else's attribute."""
    found: list[str] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("setattr", "delattr", "object", "patch"):
            found += [name for given in node.args[:2] for name in private_names(given)]
            # The name is a parameter, or of a loop: it stands somewhere in the function.
            if len(node.args) > 1 and not isinstance(node.args[0], ast.Constant) and not isinstance(node.args[1], ast.Constant):
                texts = (each for each in ast.walk(function) if isinstance(each, ast.Constant))
                found += [name for each in texts for name in private_names(each)]
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            found += [name for target in targets if isinstance(target, ast.Attribute) for name in private_names(target)]
    return found


@pytest.mark.parametrize(
    "code",
    [
        "monkeypatch.setattr(swap._Attempt, 'hold', late)",
        "patch.setattr(swap, '_finish_at_once', late)",
        "monkeypatch.setattr('projection_rebuild.dialects.mysql.dialect._LISTS_LOCKS', '')",
        "mock.patch.object(dialect, '_copy', copied)",
        "for name in ('open', '_drop'): setattr(retire, name, late)",
        "memory._process = process",
        "made._context.dialect.fence = late",
        "del ledger._checkpoints",
    ],
)
def test_a_private_name_that_a_test_replaces_is_seen(code: str) -> None:
    assert replaced_in(ast.parse(code))


def test_private_names_are_replaced_in_a_harness_alone() -> None:
    """A test has a named seam for it: ``before_the_drain``, ``just_before``, ``Fault`` ..."""
    modules = {path: module for path, module in modules_of_tests().items() if "harness" not in path.parts}
    found = {str(path): [name for each in module.body for name in replaced_in(each)] for path, module in modules.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"^## (\S+) \((?:unreleased|\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == project["version"]
    first = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert re.findall(r"^### (.+)$", first, re.MULTILINE)[0] == "Behaviour changes"
