"""What hangs on tables."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from tests.engine.conformance.contract.declared import Contract
from tests.engine.conformance.contract.tables import Workshop
from tests.engine.harness.databases import execute


class DependentObjectsContract(Contract):
    """See :class:`projection_rebuild.dialects.base.DependentObjects`."""

    def test_parents_are_what_foreign_keys_point_to(
        self, dialect: Dialect, connection: sa.Connection, workshop: Workshop
    ) -> None:
        parent, child = workshop.pair()
        assert dialect.dependents.parents(connection, child.schema, child.blue) == {parent.blue}
        assert dialect.dependents.parents(connection, parent.schema, parent.blue) == set()

    def test_a_table_is_no_parent_of_its_own(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        name = f"tree_of_{table.blue}"
        options = " ENGINE=InnoDB" if dialect.ddl_commits else ""
        tree = f"CREATE TABLE {name} (id int PRIMARY KEY, above int, FOREIGN KEY (above) REFERENCES {name} (id)){options}"
        execute(application, tree)
        assert dialect.dependents.parents(connection, table.schema, name) == set()

    def test_what_is_carried_over_is_named(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        table = workshop.words()
        carried = dialect.dependents.dependent_objects(connection, [table])
        assert {each.table for each in carried} == {table.blue}
        # Some tell the type besides.
        named = {name.split()[0] for each in carried for name in each.names}
        assert {"id", "word", f"ix_{table.blue}_word"} <= named

    def test_nothing_is_lost_of_a_plain_table(self, dialect: Dialect, connection: sa.Connection, workshop: Workshop) -> None:
        assert dialect.dependents.unsupported_objects(connection, [workshop.words()]) == []

    def test_what_would_be_lost_is_named(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        lost, table = self.says.uncarried, workshop.words()
        assert lost.kind in dialect.dependents.refuses
        execute(application, lost.make.format(table=table.blue))
        refusals = dialect.dependents.unsupported_objects(connection, [table])
        execute(application, lost.undo.format(table=table.blue))
        assert len(refusals) == 1 and lost.named.format(table=table.blue) in str(refusals[0])
        assert dialect.dependents.unsupported_objects(connection, [table]) == []

    def test_what_comes_to_hang_on_a_table_changes_the_fingerprint(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        seen = dialect.dependents.hanging(connection, [table])
        assert dialect.dependents.hanging(connection, [table]) == seen
        options = " ENGINE=InnoDB" if dialect.ddl_commits else ""
        execute(
            application,
            f"CREATE TABLE late_{table.blue} (id int PRIMARY KEY, made int, "
            f"CONSTRAINT fk_late_{table.blue} FOREIGN KEY (made) REFERENCES {table.blue} (id)){options}",
        )
        assert dialect.dependents.hanging(connection, [table]) != seen

    def test_a_schema_is_told_in_words_that_differ_when_it_does(
        self, dialect: Dialect, connection: sa.Connection, application: sa.Engine, workshop: Workshop
    ) -> None:
        table = workshop.words()
        before = dialect.dependents.definitions(connection, table.schema)
        assert any(table.blue in name for name in before) and any("word" in words for words in before.values())
        column = f"CREATE INDEX late_{table.blue} ON {table.blue} (id, word)"
        execute(application, column)
        changed = dialect.dependents.definitions(connection, table.schema)
        assert changed != before and f"late_{table.blue}" in f"{[*changed, *changed.values()]}"
        # What a rebuild keeps of its own is no part of it.
        execute(application, "CREATE TABLE projection_rebuild_conformance (id int PRIMARY KEY)")
        assert dialect.dependents.definitions(connection, table.schema) == changed
        execute(application, "DROP TABLE projection_rebuild_conformance")
