"""Runs the engine without Airflow: shows what a rebuild by a spec would do, and tries it on a copy of a database.

``python -m projection_rebuild plan include/rebuilds/universal.yaml --read-models postgresql+psycopg://...``
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from projection_rebuild.checking.check import EVENTS, check
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import ConnectionRefused, RebuildError
from projection_rebuild.errors.boundary import NOTHING, named
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec

READ_MODELS, EVENT_STORE, SCRATCH = "REBUILD_READ_MODELS_URL", "REBUILD_EVENT_STORE_URL", "REBUILD_SCRATCH_URL"

SCRIPT = "projection-rebuild"
"""The name of the script that the wheel installs."""

PROVE = "prove "
"""The prefix of the run ids of ``prove``."""

Make = Callable[[str], Rebuild]
"""Opens the run of the spec that has the given id."""


def plan(make: Make, options: RunOptions) -> int:
    """Prints what a run would do: findings, the objects that it carries over, and every statement. It only reads.

    :returns: the exit code, 0
    """
    with closing(make("dry run")) as rebuild:
        print(rebuild.plan(options.model_copy(update={"dry_run": True})).describe())
    return 0


def check_ways(
    spec: RebuildSpec,
    event_store: sa.Engine,
    read_models: sa.Engine,
    scratch: sa.Engine | None,
    projectors: Sequence[str] | None,
    events: int,
) -> int:
    """Projects the same events in every way, and prints which rows differ.

    See :mod:`projection_rebuild.checking.check`.

    :param scratch: the database for the tables of the check; None: a place of its own in the read models' database
    :param projectors: their names; None: all of the spec
    :param events: the number of events from the beginning of the store
    :returns: the exit code: 0 if no rows differ
    """
    checked = check(spec, event_store=event_store, read_models=read_models, scratch=scratch, projectors=projectors, events=events)
    print(checked.describe())
    return 0 if checked.agrees else 1


def prove(make: Make, options: RunOptions, schema: Callable[[], dict[str, str]], rebuilds: int) -> int:
    """Rebuilds and drops several times, then rebuilds and rolls back. It compares the schema after each of these.

    :param schema: reads the present schema: the definition by object
    :param rebuilds: the number of rebuilds before the last one
    :returns: the exit code: 0 if the schema never differed from the one before
    """
    before, began = schema(), f"{PROVE}{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    print(f"{len(before)} objects in the schema")
    different = 0
    for number in range(1, rebuilds + 1):
        _rebuild(make(f"{began} {number}"), options.model_copy(update={"keep_old": False}))
        different += _differ(f"after {number} rebuilds", before, schema())
    _rebuild(make(f"{began} last"), options.model_copy(update={"keep_old": True}))
    _roll_back(make(f"{began} back"))
    different += _differ("after a rebuild that was taken back", before, schema())
    return 1 if different else 0


def _rebuild(rebuild: Rebuild, options: RunOptions) -> None:
    with closing(rebuild), _given_up_if_it_fails(rebuild):
        rebuild_plan = rebuild.plan(options, is_over=_is_left_over)
        rebuild.clone_tables()
        for projector in rebuild_plan.projectors:
            rebuild.replay(projector)
        rebuild.verify()
        print(rebuild.swap().describe())
        rebuild.reconcile()
        if options.keep_old is False:
            rebuild.drop_old()


def _is_left_over(run_id: str) -> bool:
    """Whether a run belongs to an earlier ``prove``, which was probably killed.

    If that one still works elsewhere, the engine takes its tables over all the same, and it stops at its next write.
    """
    return run_id.startswith(PROVE)


@contextmanager
def _given_up_if_it_fails(rebuild: Rebuild) -> Iterator[None]:
    """Releases the tables of a run that fails, because no caller continues it."""
    try:
        yield
    except BaseException:
        # The engine refuses this for a run that has swapped its tables, or was never planned.
        with suppress(RebuildError):
            rebuild.stand_down("prove did not come to its end")
        raise


def _roll_back(rebuild: Rebuild) -> None:
    with closing(rebuild), _given_up_if_it_fails(rebuild):
        rebuild.plan_rollback(RunOptions(keep_old=False), is_over=_is_left_over)
        rebuild.bring_back()
        print(rebuild.swap().describe())
        rebuild.reconcile()
        rebuild.drop_old()


def _differ(when: str, before: dict[str, str], after: dict[str, str]) -> bool:
    """Prints the differences of two schemas, and returns whether they differ.

    :param when: describes the moment of the second schema
    """
    old, new = (
        [f"{name}: {line}" for name in sorted(schema) for line in schema[name].splitlines()] for schema in (before, after)
    )
    lines = list(difflib.unified_diff(old, new, "before", when, lineterm="", n=0))
    print("\n".join(lines) if lines else f"{when}: the same, statement for statement")
    return bool(lines)


def _called_as() -> str:
    """The words that start this command: the installed script, or Python with the module."""
    # The first argument is empty if another module runs this one.
    return SCRIPT if Path(sys.argv[0] or "").stem == SCRIPT else "python -m projection_rebuild"


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_called_as(), description=__doc__.splitlines()[0])
    parser.add_argument(
        "what",
        choices=["plan", "check", "prove"],
        help="plan: print and touch nothing; check: project the same events in every way into tables apart, and compare; "
        "prove: really rebuild, several times",
    )
    parser.add_argument("spec", type=Path, help="a spec file")
    parser.add_argument("--read-models", default=os.environ.get(READ_MODELS), help=f"SQLAlchemy URL; default: ${READ_MODELS}")
    parser.add_argument(
        "--event-store", default=os.environ.get(EVENT_STORE), help=f"default: ${EVENT_STORE}, or the read models' database"
    )
    parser.add_argument("--projectors", help="names, with commas; default: all of the spec")
    parser.add_argument(
        "--events", type=_count, default=EVENTS, help="the first so many events are looked at (check; default: %(default)s)"
    )
    parser.add_argument(
        "--scratch",
        default=os.environ.get(SCRATCH),
        help=f"where check makes its tables, so that the read models' database is only read; default: ${SCRATCH}, or a schema of their own there",
    )
    parser.add_argument("--rebuilds", type=int, default=3, help="how many in a row (prove)")
    parser.add_argument("--really", action="store_true", help="prove rebuilds the tables of this database: say that you mean it")
    arguments = parser.parse_args(given)
    if not arguments.read_models:
        parser.error(f"name the database: --read-models URL, or {READ_MODELS}")
    if arguments.what == "prove" and not arguments.really:
        parser.error("prove rebuilds and switches the tables of this database several times; add --really, best on a copy of it")
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number of events, 1 or more")
    return int(text)


def main(given: Sequence[str] | None = None) -> int:
    """Executes the command line.

    :returns: the exit code: 0 if all is well; 1 if the engine refuses the rebuild, or rows or the schema differ
    """
    arguments = _arguments(given)
    try:
        return _do(arguments)
    except Exception as error:
        print(error if isinstance(error, RebuildError) else named(error, arguments.what, NOTHING))
        return 1


def _do(arguments: argparse.Namespace) -> int:
    names = tuple(name.strip() for name in arguments.projectors.split(",")) if arguments.projectors else None
    with ExitStack() as opened:
        read_models = _engine(arguments.read_models, READ_MODELS, opened)
        two_databases = arguments.event_store and arguments.event_store != arguments.read_models
        event_store = _engine(arguments.event_store, EVENT_STORE, opened) if two_databases else read_models
        spec, options = load_spec(arguments.spec), RunOptions.parse({"projectors": names} if names else {})
        make = partial(_make, spec, event_store, read_models)
        if arguments.what == "plan":
            return plan(make, options)
        if arguments.what == "check":
            scratch = _engine(arguments.scratch, SCRATCH, opened) if arguments.scratch else None
            return check_ways(spec, event_store, read_models, scratch, names, arguments.events)
        return prove(make, options, partial(_schema, spec, read_models), arguments.rebuilds)


def _engine(url: str, known_as: str, opened: ExitStack) -> sa.Engine:
    """The SQLAlchemy engine of a URL.

    :param known_as: the name of the URL in the error
    :param opened: closes the engine
    :raises ConnectionRefused: SQLAlchemy cannot use the URL, or would ignore a part of it
    """
    with warnings.catch_warnings():
        # SQLAlchemy only warns of parameters of SQLite that it ignores, such as `mode=ro`.
        warnings.simplefilter("error", sa.exc.SAWarning)
        try:
            engine = sa.create_engine(url)
            opened.callback(engine.dispose)
            return engine
        except (sa.exc.ArgumentError, sa.exc.SAWarning, ImportError, ValueError, TypeError):
            # Without the error's text: it may quote the password.
            pass
    raise ConnectionRefused(
        f"{known_as} is no URL that can be used as it stands; write it as DRIVER://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE, with every "
        "special character as %XX (SQLite with parameters: sqlite:///file:PATH?mode=ro&uri=true)"
    )


def _make(spec: RebuildSpec, event_store: sa.Engine, read_models: sa.Engine, run_id: str) -> Rebuild:
    return Rebuild(spec, run_id=run_id, event_store=event_store, read_models=read_models)


def _schema(spec: RebuildSpec, read_models: sa.Engine) -> dict[str, str]:
    dialect = dialect_for(read_models)
    with dialect.connect() as connection:
        return dialect.dependents.definitions(connection, spec.read_models.db_schema)


if __name__ == "__main__":
    raise SystemExit(main())
