"""The statements of a swap on MySQL and MariaDB, and of what follows it."""

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
"""For how long a plan waits for another one that measures renames."""

LiveAndOld = tuple[text.Keyed, text.Keyed]

Definitions = Mapping[TableSet, tuple[text.Definition, text.Definition]]
"""Blue and green of each table, as the statements of a swap were made from them: they are read but once while writers wait."""


class MySQLSwapStatements(MySQLShadow, SwapStatements):
    """See :class:`SwapStatements`."""

    open_snapshots: ClassVar[str]
    """A query for the transactions of others that go on reading from one snapshot."""

    def restore_names(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        renames = [f"{self.qualified(each.schema, each.old)} TO {self.qualified(each.schema, each.green)}" for each in tables]
        return [f"RENAME TABLE {', '.join(renames)}"]

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        try:
            found = self._execute(connection, self.open_snapshots)
            return {(session, which): f"session {session}" for session, which in found}
        except sa.exc.DBAPIError as error:
            if number_of(error) in (ACCESS_DENIED, TABLE_ACCESS_DENIED):
                return {}
            raise

    def estimate_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        if len(tables) < rename_time.FEW:
            return None
        # One at a time: the tables are the same for all. Whoever does not come to it in time goes without.
        with self.named_lock(connection, "rehearsal", MEASURING) as reserved:
            if not reserved:
                return None
            each = rename_time.seconds_per_table(partial(self._execute, connection), partial(self.qualified, tables[0].schema))
        return each * len(tables)

    def before_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        # Where green is only planned, what makes it gives it everything.
        made = [table for table in tables if self.table_exists(connection, table.schema, table.green)]
        statements = [each for table in made for each in self.index_green(connection, table)]
        statements += [each for table in made for each in self._statistics_since(connection, table)]
        return statements + [each for table in made for each in self.constrain_green(connection, table, tables)]

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
        """Foreign keys that blue has been given meanwhile are not looked for: they come after the swap, from the retired table."""
        if table.target_schema is not None:
            # Another structure on purpose.
            return
        names = {self._name_on_green(each.name, table): each.name for each in blue.checks()}
        changed = different(blue, green, names)
        lives = {each.green: each.blue for each in run}
        kept = {key.to(key.parent) for key in blue.foreign_keys()}
        changed += [
            f"foreign key {text.final(key.name)}"
            for key in green.foreign_keys()
            if key.to(lives.get(key.parent, key.parent)) not in kept
        ]
        if changed:
            raise changed_since(table.blue, table.green, changed)

    def _counter(self, table: TableSet, name: str, counter: int) -> str:
        """AUTO_INCREMENT goes on from where it was; the server itself sees to it that it is above all rows."""
        return f"ALTER TABLE {self.qualified(table.schema, name)} AUTO_INCREMENT = {counter}"

    def after_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return self._names_put_right({table: self._live_and_old(connection, table) for table in tables})

    def _planned_after(self, read: Definitions, planned: bool) -> list[str]:
        return self._names_put_right({table: self._live_and_old_to_be(table, read, planned) for table in read})

    def _names_put_right(self, shown: Mapping[TableSet, LiveAndOld]) -> list[str]:
        """Constraints get their names back, which the old tables had until then."""
        made = self._separated(shown)
        for table, (live, old) in shown.items():
            made += self._foreign_keys_renamed(table, live, self._missing(live, old, table, shown))
        return made

    def _foreign_keys_renamed(self, table: TableSet, live: text.Keyed, added: list[text.ForeignKey]) -> list[str]:
        keys = [key for key in live.foreign_keys if key.name != text.final(key.name)]
        keys += [replace(key, name=meanwhile_name(key.name)) for key in added]
        if not keys:
            return []
        drops = [f"DROP FOREIGN KEY {self.quote(key.name)}" for key in keys]
        adds = [f"ADD {self._foreign_key(key, table.schema, key.parent, text.final(key.name))}" for key in keys]
        return [UNCHECKED[0], self._in_place(table.schema, table.blue, live, [*drops, *adds]), UNCHECKED[1]]

    def _separated(self, tables: Mapping[TableSet, LiveAndOld]) -> list[str]:
        """The live tables get the foreign keys to tables beside the run, and the old ones, whose rows hold up deletes there, lose
        theirs. In this order, so that what is missing can always be read from the catalogs."""
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
        """As :meth:`_live_and_old`, of what the swap will leave; nothing counts meanwhile."""
        blue, green = read[table]
        lives, olds = {each.green: each.blue for each in read}, {each.blue: each.old for each in read}
        if green.clauses and not planned:
            live = green.keyed()
            keys = [
                replace(key, parent=lives[key.parent]) if self._beside(key, table.schema, lives) else key
                for key in live.foreign_keys
            ]
        else:
            # What makes it, or has yet to complete it, gives it these names.
            live = (blue if table.target_schema is None else text.Definition(table.target_schema.definition)).keyed()
            beside = (key for key in live.foreign_keys if self._beside(key, table.schema, olds))
            keys = [replace(key, name=meanwhile_name(key.name)) for key in beside]
        old = blue.keyed()
        retired = [
            replace(
                key,
                name=text.renamed(key.name, table.blue, table.old, "ibfk"),
                parent=olds[key.parent] if self._beside(key, table.schema, olds) else key.parent,
            )
            for key in old.foreign_keys
        ]
        return replace(live, foreign_keys=keys, counter=0), replace(old, foreign_keys=retired, counter=0)

    def _missing(self, live: text.Keyed, old: text.Keyed, table: TableSet, tables: Iterable[TableSet]) -> list[text.ForeignKey]:
        """Foreign keys that the old table has and the live one has not, by the names and parents that they have there."""
        there = {key.to(key.parent) for key in live.foreign_keys}
        if table.target_schema is not None:
            return [
                key for key in text.Definition(table.target_schema.definition).foreign_keys() if key.to(key.parent) not in there
            ]
        lives = {each.old: each.blue for each in tables}
        found = []
        for key in old.foreign_keys:
            number = text.generated(key.name, table.old, "ibfk")
            name = f"{table.blue}_ibfk_{number}" if number else text.final(key.name)
            parent = lives[key.parent] if self._beside(key, table.schema, lives) else key.parent
            found.append(replace(key, name=name, parent=parent))
        return [key for key in found if key.to(key.parent) not in there]

    def _in_place(self, schema: str | None, table: str, as_it_is: text.Keyed, parts: Sequence[str]) -> str:
        changes = ", ".join([*parts, *self._kept(as_it_is)])
        return f"ALTER TABLE {self.qualified(schema, table)} {changes}, ALGORITHM = INPLACE"

    def parents_beside(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[tuple[str | None, str]]:
        """Schema and name of the tables beside the run to which its tables have foreign keys, or will have."""
        run = {table.blue for table in tables}
        definitions = [(table, self._definition(connection, table.schema, table.blue)) for table in tables]
        definitions += [(table, self._wanted(connection, table)) for table in tables if table.target_schema]
        keys = [(table, key) for table, definition in definitions for key in definition.foreign_keys()]
        found = {
            (key.parent_schema or table.schema, key.parent): None
            for table, key in keys
            if not self._beside(key, table.schema, run)
        }
        return list(found)


def different(wanted: text.Definition, there: text.Definition, names: Mapping[str, str]) -> list[str]:
    """What differs between two tables that should be alike, foreign keys left out.

    :param names: of the second one's CHECKs, as they are called on the first one
    """
    if wanted.row_format is None:
        # A copy may have to say what the other has from another default of the server's.
        there = there.without_row_format()
    one, other = wanted.parts(), there.parts()
    one |= {f"constraint {each.name}": each.rule for each in wanted.checks()}
    other |= {f"constraint {names.get(each.name, each.name)}": each.rule for each in there.checks()}
    return [what for what in one | other if one.get(what) != other.get(what)]
