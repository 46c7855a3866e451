"""What the plan refuses, the switch refuses; what has been changed since the clone is carried over, refused by name, or told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import CloneError, LeftOnOld
from projection_rebuild.ledger import RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows.types import Rows, row
from tests.conftest import DATABASES, SERVERS
from tests.engine.harness import shop
from tests.engine.harness.changes import CHANGES, UNTRIED, Change
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import SPEC, rebuild
from tests.engine.harness.sweep import EVERY_STATEMENT

ON_EACH = [pytest.param(kind, marks=[getattr(pytest.mark, kind)] if kind in SERVERS else []) for kind in DATABASES]
LAST_LOOK = {
    "postgres": "IN ACCESS EXCLUSIVE MODE",
    "mysql": r"SELECT COUNT\(\*\) FROM performance_schema.metadata_locks",
    "mariadb": "FLUSH TABLES",
    "sqlite": "PRAGMA busy_timeout = 321",
}
"""The statement that takes what keeps others from the tables, or on MySQL the one before it, since that one is sent past SQLAlchemy; on
MariaDB the fence, within which they are looked at."""


@row("counted", key="id")
class Counted:
    id: str


class CountedProjector(Projector):
    """A table with an identity column."""

    owns = (Counted,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Counted(event.stream))


ALONE = [each for each in SPEC["projectors"] if "Line" not in each]
SETTINGS: dict[str, Any] = {
    "projectors": [*ALONE, f"{__name__}:CountedProjector"],
    "swap": {"attempts": 4, "lock_timeout": "321ms"},
}


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def live(kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    """The shop's tables, filled, with indexes to spare, and two tables beside them."""
    engine = sa.create_engine(new_database(kind))
    shop.metadata.create_all(engine)
    identity = "n BIGINT GENERATED ALWAYS AS IDENTITY" if kind == "postgres" else "n BIGINT"
    execute(
        engine,
        "DROP TABLE order_lines",
        f"CREATE TABLE counted (id VARCHAR(36) PRIMARY KEY, {identity})",
        "CREATE TABLE kinds (id VARCHAR(20) PRIMARY KEY)",
        "CREATE TABLE notes (order_id VARCHAR(36))",
        "INSERT INTO kinds VALUES ('none'), ('placed'), ('shipped'), ('cancelled')",
        "CREATE INDEX ix_gone ON orders (customer, status)",
        "CREATE INDEX ix_kept ON orders (updated_at)",
    )
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [each for each in events(60) if each["event_class"] != "LineAdded"])
    made = rebuild(engine, "fill", **SETTINGS)
    run_to(made, "drop")
    made.close()
    yield engine
    engine.dispose()


def execute(engine: sa.Engine, *statements: str) -> None:
    """On one connection, as they stand; an invalid index is made by a statement that fails."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for each in statements:
            if engine.dialect.name == "sqlite":
                # A connection that has a table's former definition in memory alters that.
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").close()
            with suppress(sa.exc.DataError) if "CONCURRENTLY" in each else nullcontext():
                connection.exec_driver_sql(each, execution_options={"no_parameters": True})


@contextmanager
def right_before(made: Rebuild, statement: str, *changes: str) -> Iterator[None]:
    """Somebody executes something right before a statement of the switch is sent for the first time."""
    engine, others, done = made._context.dialect.engine, sa.create_engine(made._context.dialect.engine.url), []

    def sent(_: object, __: object, sql: str, *___: object) -> None:
        if not done and re.search(statement, sql):
            done.append(sql)
            execute(others, *changes)

    sa.event.listen(engine, "before_cursor_execute", sent)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", sent)
        others.dispose()
    assert done, f"no {statement} was sent"


def refusal(made: Rebuild, *expected: Change) -> str:
    """What a switch is refused with; it has to name one of these."""
    with pytest.raises(CloneError) as refused:
        made.swap()
    said = str(refused.value)
    assert any(each.refused in said for each in expected), f"{[each.kind for each in expected]}: {said}"
    assert state_of(made) is RunState.VERIFIED
    return said


def state_of(made: Rebuild) -> RunState:
    with made._context.dialect.connect() as connection:
        return made._context.ledger.over(connection, made._context.run_id).runs.get().state


def finish(made: Rebuild) -> None:
    """The switch and what follows it; where an ALTER has made another table of a live one, by what the refusal says."""
    try:
        made.swap()
    except CloneError as error:
        assert "clear `verify_counts`" in str(error)
        made.verify()
        made.swap()
    assert made.reconcile().findings == []
    made.drop_old()


def works(engine: sa.Engine, there: Sequence[Change]) -> None:
    """The application writes, and each of these is on the live table."""
    execute(engine, "INSERT INTO orders (id, customer, status, placed_on) VALUES ('new', 1, 'placed', '2026-01-01')")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT note FROM orders WHERE id = 'new'").scalars().all() == ["none"]
        for each in there:
            said = connection.exec_driver_sql(each.there, execution_options={"no_parameters": True}).scalars().all()
            assert len(said) == 1 and said[0], f"{each.kind} is not there: {said}"


MOMENTS = ("replay", "verification", "last look")


def carried(kind: str) -> list[Change]:
    return [each for each in CHANGES[kind] if not each.refused]


def refused(kind: str, moment: str) -> list[Change]:
    """Each change has one of the moments in turn, or all of them where it may take long."""
    found = [each for each in CHANGES[kind] if each.refused]
    return found if EVERY_STATEMENT else found[MOMENTS.index(moment) :: len(MOMENTS)]


def verified(engine: sa.Engine, upto: str = "verify") -> Rebuild:
    made = rebuild(engine, **SETTINGS)
    run_to(made, upto)
    return made


@pytest.mark.parametrize("kind", ON_EACH, indirect=True)
def test_what_is_changed_during_the_replay(kind: str, live: sa.Engine) -> None:
    made = verified(live, "clone")
    left = [each for each in refused(kind, "replay") if not each.alone]
    for each in [*carried(kind), *left]:
        execute(live, *each.statements)
    for name in made.chosen():
        made.replay(name)
    made.verify()
    while left:
        said = refusal(made, *left)
        for each in [each for each in left if each.refused in said]:
            execute(live, *each.undo)
            left.remove(each)
    finish(made)
    works(live, carried(kind))


@pytest.mark.parametrize("kind", ON_EACH, indirect=True)
def test_what_is_changed_after_verification(kind: str, live: sa.Engine) -> None:
    made = verified(live)
    for each in refused(kind, "verification"):
        execute(live, *each.statements)
        refusal(made, each)
        execute(live, *each.undo)
    for each in carried(kind):
        execute(live, *each.statements)
    finish(made)
    works(live, carried(kind))


@pytest.mark.parametrize("kind", ON_EACH, indirect=True)
def test_what_is_changed_within_the_last_look(kind: str, live: sa.Engine) -> None:
    made = verified(live)
    for each in refused(kind, "last look"):
        with right_before(made, LAST_LOOK[kind], *each.statements):
            refusal(made, each)
        execute(live, *each.undo)
        if kind in ("mysql", "mariadb"):
            # Both may have made another table of the live one.
            made.clone_tables()
            for name in made.chosen():
                made.replay(name)
            made.verify()
    late = [statement for each in carried(kind) for statement in each.statements]
    with right_before(made, LAST_LOOK[kind], *late):
        finish(made)
    works(live, carried(kind))


@pytest.mark.parametrize("kind", ON_EACH, indirect=True)
def test_each_change_makes_a_difference_to_the_last_look(kind: str, live: sa.Engine) -> None:
    made = verified(live)
    dialect = made._context.dialect
    with dialect.connect() as connection:
        run = made._context.ledger.over(connection, "run").runs.get()
        tables = made._context.switched_sets(made._context.plan_of(run))

        def of(table: TableSet) -> list[str]:
            try:
                return dialect.swap_statements(connection, [table]).statements
            except CloneError as error:
                return [error.message]

        def look() -> list[str]:
            # On PostgreSQL and SQLite the fingerprint has all of it.
            defined = tables if dialect.ddl_commits else []
            return [dialect.dependents.hanging(connection, tables), *(said for table in defined for said in of(table))]

        seen = look()
        for each in CHANGES[kind]:
            execute(live, *each.statements)
            now = look()
            assert each.unseen or now != seen, each.kind
            execute(live, *each.undo)
            seen = look()


@pytest.mark.parametrize("kind", ON_EACH, indirect=True)
def test_every_kind_that_the_plan_refuses_is_tried_at_the_switch(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    dialect = dialect_for(engine)
    with dialect.connect():
        known = set(dialect.dependents.refuses)
    tried = {each.plan for each in CHANGES[kind] if each.plan}
    assert tried <= known
    assert known - tried <= UNTRIED
    engine.dispose()


@pytest.mark.mariadb
@pytest.mark.parametrize("kind", marked("mariadb"), indirect=True)
def test_what_slips_in_between_the_last_look_and_the_renames_is_told_until_it_is_put_right(kind: str, live: sa.Engine) -> None:
    made = verified(live)
    trigger = "CREATE TRIGGER tg_new BEFORE INSERT ON orders FOR EACH ROW SET NEW.note = 'seen'"
    child = "ALTER TABLE notes ADD CONSTRAINT fk_new FOREIGN KEY (order_id) REFERENCES orders (id)"
    column, index = "ALTER TABLE orders ADD COLUMN more INT", "CREATE INDEX ix_new ON orders (placed_on)"
    with right_before(made, "RENAME TABLE", column, index, trigger, child):
        found = made.swap().left_on_old
    words = [
        "trigger tg_new is on",
        "foreign key fk_new of notes refers to",
        "column more is not the same",
        "index ix_new is not the same",
    ]
    assert all(any(word in each for each in found) for word in words), found
    with pytest.raises(LeftOnOld) as told:
        made.reconcile()
    assert all(word in str(told.value) for word in words)
    execute(
        live,
        *("DROP TRIGGER tg_new", "ALTER TABLE notes DROP FOREIGN KEY fk_new"),
        *(child.replace("fk_new", "fk_live"), trigger.replace("tg_new", "tg_live"), column, index),
    )
    assert made.reconcile().findings == []
    made.drop_old()


@pytest.mark.postgres
@pytest.mark.parametrize("kind", marked("postgres"), indirect=True)
def test_what_needs_no_lock_and_slips_in_within_the_switch_is_told(kind: str, live: sa.Engine) -> None:
    made = verified(live)
    # Its body does not look at the table, and nor does whoever makes it.
    function = "CREATE FUNCTION fn_row(orders) RETURNS int LANGUAGE sql AS 'SELECT 1'"
    with right_before(made, "ALTER TABLE .* RENAME TO", function):
        assert made.swap().left_on_old
    with pytest.raises(LeftOnOld, match=r"function public.fn_row\(public.orders_old\) is bound to orders_old"):
        made.reconcile()
    execute(live, "DROP FUNCTION fn_row", function)
    assert made.reconcile().findings == []
    made.drop_old()


@pytest.mark.postgres
@pytest.mark.parametrize("kind", marked("postgres"), indirect=True)
def test_an_index_that_is_renamed_under_the_locks_costs_an_attempt(kind: str, live: sa.Engine) -> None:
    made = verified(live)
    with right_before(made, "ALTER TABLE .* RENAME TO", "ALTER INDEX ix_kept RENAME TO ix_other"):
        assert made.swap().attempts == 2
    assert made.reconcile().findings == []
    made.drop_old()
    assert "ix_other" in {each["name"] for each in sa.inspect(live).get_indexes("orders")}
