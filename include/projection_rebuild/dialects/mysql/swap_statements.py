"""The statements of a swap on MySQL and MariaDB, and those that follow it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base import PreparedSwap, SwapStatements
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import rename_time
from projection_rebuild.dialects.mysql.base import ACCESS_DENIED, TABLE_ACCESS_DENIED, number_of
from projection_rebuild.dialects.mysql.shadow import UNCHECKED, MySQLShadow, meanwhile_name
from projection_rebuild.errors import changed_since
from projection_rebuild.model.names import TableSet

MEASURING = timedelta(seconds=10)
"""How long a plan waits for another plan that measures renames."""

LiveAndOld = tuple[text.Keyed, text.Keyed]
"""A live table and its retired table."""

Definitions = Mapping[TableSet, tuple[text.Definition, text.Definition]]
"""Blue and green of each table, from which the engine computes a swap: it reads them only once while writers wait."""


class MySQLSwapStatements(MySQLShadow, SwapStatements):
    """See :class:`SwapStatements`."""

    open_snapshots: ClassVar[str]
    """A query for the transactions of other clients that read from one snapshot."""

    def restore_names(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        renames = [
            f"{self.qualified(table.schema, table.old)} TO {self.qualified(table.schema, table.green)}" for table in tables
        ]
        return [f"RENAME TABLE {', '.join(renames)}"]

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        try:
            transactions = self._execute(connection, self.open_snapshots)
            return {(session, number): f"session {session}" for session, number in transactions}
        except sa.exc.DBAPIError as error:
            if number_of(error) in (ACCESS_DENIED, TABLE_ACCESS_DENIED):
                return {}
            raise

    def estimate_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        if len(tables) < rename_time.FEW:
            return None
        # One plan at a time, since all use the same tables. A plan that waits too long goes on without an estimate.
        with self.named_lock(connection, "rehearsal", MEASURING) as reserved:
            if not reserved:
                return None
            seconds = rename_time.seconds_per_table(partial(self._execute, connection), partial(self.qualified, tables[0].schema))
        return seconds * len(tables)

    def before_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        # A green table that is only planned needs nothing here: its creation will give it everything.
        created = [table for table in tables if self.table_exists(connection, table.schema, table.green)]
        statements = [statement for table in created for statement in self.index_green(connection, table)]
        statements += [statement for table in created for statement in self._statistics_since(connection, table)]
        return statements + [statement for table in created for statement in self.constrain_green(connection, table, tables)]

    def swap_statements(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> PreparedSwap:
        counters, read = [], {}
        for table in tables:
            blue, green = (self._definition(connection, table.schema, name) for name in (table.blue, table.green))
            read[table] = blue, green
            if not planned:
                self._refuse_changes(table, tables, blue, green)
            wanted = blue if table.target_schema is None else self._wanted(connection, table)
            if blue.counter not in (0, green.counter) and wanted.counts:
                counters.append(self._counter(table, table.green, blue.counter))
        renames = [
            f"{self.qualified(table.schema, before)} TO {self.qualified(table.schema, after)}"
            for table in tables
            for before, after in ((table.blue, table.old), (table.green, table.blue))
        ]
        return PreparedSwap([*counters, f"RENAME TABLE {', '.join(renames)}"], partial(self._planned_after, read, planned))

    def _refuse_changes(self, table: TableSet, run: Sequence[TableSet], blue: text.Definition, green: text.Definition) -> None:
        """Refuses a swap if blue has changed since the engine created green like it.

        It ignores new foreign keys of blue: the statements after the swap copy them from the retired table.

        :raises CloneError: names the changes
        """
        if table.target_schema is not None:
            # Green has another structure on purpose.
            return
        names = {self._name_on_green(check.name, table): check.name for check in blue.checks()}
        changed = different(blue, green, names)
        lives = {member.green: member.blue for member in run}
        kept = {key.to(key.parent) for key in blue.foreign_keys()}
        changed += [
            f"foreign key {text.final(key.name)}"
            for key in green.foreign_keys()
            if key.to(lives.get(key.parent, key.parent)) not in kept
        ]
        if changed:
            raise changed_since(table.blue, table.green, changed)

    def _counter(self, table: TableSet, name: str, counter: int) -> str:
        """A statement that sets AUTO_INCREMENT; the server itself keeps it above all rows."""
        return f"ALTER TABLE {self.qualified(table.schema, name)} AUTO_INCREMENT = {counter}"

    def after_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return self._corrections({table: self._live_and_old(connection, table) for table in tables})

    def _planned_after(self, read: Definitions, planned: bool) -> list[str]:
        return self._corrections({table: self._live_and_old_to_be(table, read, planned) for table in read})

    def _corrections(self, tables: Mapping[TableSet, LiveAndOld]) -> list[str]:
        """Statements that separate live and old tables, and give the live tables' foreign keys their real names."""
        statements = self._separated(tables)
        for table, (live, old) in tables.items():
            statements += self._foreign_keys_renamed(table, live, self._missing(live, old, table, tables))
        return statements

    def _foreign_keys_renamed(self, table: TableSet, live: text.Keyed, added: list[text.ForeignKey]) -> list[str]:
        keys = [key for key in live.foreign_keys if key.name != text.final(key.name)]
        keys += [replace(key, name=meanwhile_name(key.name)) for key in added]
        if not keys:
            return []
        drops = [f"DROP FOREIGN KEY {self.quote(key.name)}" for key in keys]
        adds = [f"ADD {self._foreign_key(key, table.schema, key.parent, text.final(key.name))}" for key in keys]
        return [UNCHECKED[0], self._in_place(table.schema, table.blue, live, [*drops, *adds]), UNCHECKED[1]]

    def _separated(self, tables: Mapping[TableSet, LiveAndOld]) -> list[str]:
        """Statements that move the foreign keys to tables outside the run from old to live tables.

        Rows of an old table would keep clients from deleting parents. Live tables get their keys before old tables lose
        theirs, so that the catalogs always show which keys are still missing.
        """
        counters, adds, drops = [], [], []
        for table, (live, old) in tables.items():
            if old.counter > live.counter and live.counts:
                counters.append(self._counter(table, table.blue, old.counter))
            if missing := self._missing(live, old, table, tables):
                clauses = [f"ADD {self._foreign_key(key, table.schema, key.parent)}" for key in missing]
                adds.append(self._in_place(table.schema, table.blue, live, clauses))
            if keys := old.foreign_keys:
                clauses = [f"DROP FOREIGN KEY {self.quote(key.name)}" for key in keys]
                drops.append(self._in_place(table.schema, table.old, old, clauses))
        return [*counters, *([UNCHECKED[0], *adds, *drops, UNCHECKED[1]] if adds or drops else [])]

    def _live_and_old(self, connection: sa.Connection, table: TableSet) -> LiveAndOld:
        live, old = (self._definition(connection, table.schema, name).keyed() for name in (table.blue, table.old))
        return live, old

    def _live_and_old_to_be(self, table: TableSet, read: Definitions, planned: bool) -> LiveAndOld:
        """As :meth:`_live_and_old`, computed before the swap; no counter moves until then."""
        blue, green = read[table]
        lives, olds = {member.green: member.blue for member in read}, {member.blue: member.old for member in read}
        if green.clauses and not planned:
            live = green.keyed()
            keys = [
                replace(key, parent=lives[key.parent]) if self._is_among(key, table.schema, lives) else key
                for key in live.foreign_keys
            ]
        else:
            # The statements that create or complete green will give its keys these names.
            live = (blue if table.target_schema is None else text.Definition(table.target_schema.definition)).keyed()
            within_run = (key for key in live.foreign_keys if self._is_among(key, table.schema, olds))
            keys = [replace(key, name=meanwhile_name(key.name)) for key in within_run]
        old = blue.keyed()
        retired = [
            replace(
                key,
                name=text.renamed(key.name, table.blue, table.old, "ibfk"),
                parent=olds[key.parent] if self._is_among(key, table.schema, olds) else key.parent,
            )
            for key in old.foreign_keys
        ]
        return replace(live, foreign_keys=keys, counter=0), replace(old, foreign_keys=retired, counter=0)

    def _missing(self, live: text.Keyed, old: text.Keyed, table: TableSet, tables: Iterable[TableSet]) -> list[text.ForeignKey]:
        """The foreign keys that the live table lacks, with their names and parents on the live table.

        It should have those of its target schema, or those of the old table.
        """
        present = {key.to(key.parent) for key in live.foreign_keys}
        if table.target_schema is not None:
            return [
                key for key in text.Definition(table.target_schema.definition).foreign_keys() if key.to(key.parent) not in present
            ]
        lives = {member.old: member.blue for member in tables}
        wanted = []
        for key in old.foreign_keys:
            number = text.generated(key.name, table.old, "ibfk")
            name = f"{table.blue}_ibfk_{number}" if number else text.final(key.name)
            parent = lives[key.parent] if self._is_among(key, table.schema, lives) else key.parent
            wanted.append(replace(key, name=name, parent=parent))
        return [key for key in wanted if key.to(key.parent) not in present]

    def _in_place(self, schema: str | None, table: str, present: text.Keyed, clauses: Sequence[str]) -> str:
        changes = ", ".join([*clauses, *self._kept(present)])
        return f"ALTER TABLE {self.qualified(schema, table)} {changes}, ALGORITHM = INPLACE"

    def parents_beside(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[tuple[str | None, str]]:
        """Schema and name of each table outside the run to which the run's tables have foreign keys, or will have."""
        run = {table.blue for table in tables}
        definitions = [(table, self._definition(connection, table.schema, table.blue)) for table in tables]
        definitions += [(table, self._wanted(connection, table)) for table in tables if table.target_schema]
        keys = [(table, key) for table, definition in definitions for key in definition.foreign_keys()]
        parents = {
            (key.parent_schema or table.schema, key.parent): None
            for table, key in keys
            if not self._is_among(key, table.schema, run)
        }
        return list(parents)


def different(wanted: text.Definition, actual: text.Definition, names: Mapping[str, str]) -> list[str]:
    """The parts in which two tables differ that should be alike, without foreign keys.

    :param names: the names on the wanted table of the actual table's CHECKs
    """
    if wanted.row_format is None:
        # A copy may have to name the row format that the other table has by a former default of the server.
        actual = actual.without_row_format()
    wanted_parts, actual_parts = wanted.parts(), actual.parts()
    wanted_parts |= {f"constraint {check.name}": check.rule for check in wanted.checks()}
    actual_parts |= {f"constraint {names.get(check.name, check.name)}": check.rule for check in actual.checks()}
    return [part for part in wanted_parts | actual_parts if wanted_parts.get(part) != actual_parts.get(part)]
