"""All that speaks against a rebuild, or that a person should know before it, in one pass over stores and tables. Touches nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.dialects.base import Surroundings, Trial
from projection_rebuild.errors import PlanError, PoisonEvent, RebuildError
from projection_rebuild.errors.drivers import one_line, trouble_of
from projection_rebuild.errors.trouble import MAY_PASS
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import GREEN_SUFFIX, OLD_SUFFIX, Form, TableSet
from projection_rebuild.model.plan import Space
from projection_rebuild.model.refusals import foreign_green, foreign_old
from projection_rebuild.planning.schema_change import difference, statements
from projection_rebuild.replay.partial import look
from projection_rebuild.replay.set_based import why_not
from projection_rebuild.replay.shards import why_whole
from projection_rebuild.rows.shapes import Shape
from projection_rebuild.rows.types import RowType, row_type
from projection_rebuild.run.context import Context
from projection_rebuild.shadow import live_tables
from projection_rebuild.spec.dependencies import choose, sort
from projection_rebuild.spec.live_writer import LiveWriter
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import shared_tables
from projection_rebuild.spec.replay import OnError
from projection_rebuild.traffic.probe import untold

SAMPLE = 500
"""Events of the sample that are read at once."""

MARGIN = 1.2
"""The room that is asked for, in times of what the tables take now: they grow, and indexes are sorted on disk."""


@dataclass
class NewStructure:
    """What was seen of the structure that the spec names.

    :param forms: by table, as the dialect keeps it
    :param views: defined anew with it, by name
    :param difference: from today's structure, a line each
    :param parents: by table, those that its foreign keys will point to
    """

    forms: dict[str, str] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    difference: list[str] = field(default_factory=list)
    parents: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Preflight:
    """What was found.

    :param projectors: the chosen ones, in their order
    :param tables: their tables by live name, parents first
    :param space: what the doubles need; None where the tables could not be looked at
    :param structure: what another structure asks for; empty where the tables stay as they are
    """

    projectors: list[str]
    tables: list[str]
    findings: list[Finding]
    space: Space | None
    structure: NewStructure


def preflight(context: Context, connection: sa.Connection, options: RunOptions) -> Preflight:
    """Looks at everything, whatever has been found before.

    :param connection: to the read models
    """
    return _Look(context, connection).at_all(options)


class _Look:
    def __init__(self, context: Context, connection: sa.Connection) -> None:
        self._context = context
        self._dialect = context.dialect
        self._connection = connection
        self._findings: list[Finding] = []
        self._tables: list[str] = []
        self._space: Space | None = None
        self._structure = NewStructure()

    def at_all(self, options: RunOptions) -> Preflight:
        projectors, part = self._choose(options), options.part(self._context.spec.zone)
        self._findings += shared_tables(self._context.projectors.values())
        store = f"event store {self._context.store.table}"
        unreadable = self._ask(store, self._context.store.preflight)
        if not unreadable:
            self._ask(store, lambda: self._event_types(projectors))
            self._ask(store, lambda: self._samples(projectors))
            if part is not None:
                self._ask("the part", lambda: look(self._context, self._connection, part, projectors))
        too_old = self._dialect.too_old(self._connection)
        self._findings += too_old
        self._findings += self._undivided(options, projectors)
        self._findings += self._never_done(options, projectors)
        if not too_old:
            self._look_at_tables(projectors)
        if part is not None and self._structure.forms:
            self._findings.append(
                Finding(
                    about="since, until, aggregates",
                    problem=f"the structure of {', '.join(self._structure.forms)} changes, so that no rows can be copied",
                    remedy="rebuild these projectors as a whole",
                    refuses=True,
                )
            )
        return Preflight(projectors, self._tables, list(dict.fromkeys(self._findings)), self._space, self._structure)

    def _ask(self, about: str, question: Callable[[], Iterable[Finding]]) -> bool:
        """Adds the answers; one that the database denies us is a finding, too. Other errors may pass, and are no findings.

        :returns: whether any of them refuses the rebuild
        """
        try:
            found = list(question())
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None or not self._dialect.is_permission_error(error):
                raise
            problem = f"it cannot be looked at: {trouble.describe()}"
            found = [Finding(about=about, problem=problem, remedy="put this and what else is listed right", refuses=True)]
        self._findings += found
        return any(each.refuses for each in found)

    def _choose(self, options: RunOptions) -> list[str]:
        known = self._context.projectors
        wanted = options.projectors or tuple(known)
        if unknown := [name for name in wanted if name not in known]:
            problem = f"{', '.join(unknown)} is unknown"
            self._findings.append(
                Finding(about="projectors", problem=problem, remedy=f"this spec has {', '.join(known)}", refuses=True)
            )
        there = tuple(name for name in wanted if name in known)
        try:
            return choose(known, options.model_copy(update={"projectors": there}))
        except PlanError as error:
            self._findings.append(Finding.refusal(error.message))
            return list(there)

    def _event_types(self, projectors: list[str]) -> Iterator[Finding]:
        """Event types without a handler, and handlers without events: often a type that was renamed on one side only."""
        stored = set(self._context.store.types())
        projectors_of_spec = self._context.projectors.values()
        handled = {
            each for projector in projectors_of_spec for each in (*projector.stored_types(), *projector.upcasters.dropped())
        }
        if stored - handled:
            yield Finding(
                about="events",
                problem=f"no projector of this spec handles {', '.join(sorted(stored - handled))}",
                remedy="if one should, give it a handler",
            )
        for name in projectors:
            unseen = set(self._context.projector(name).stored_types()) - stored
            if unseen:
                yield Finding(
                    about="events",
                    problem=f"{name} handles {', '.join(sorted(unseen))}, which the store does not hold",
                    remedy="if it should, correct the name of the type",
                )

    def _samples(self, projectors: list[str]) -> Iterator[Finding]:
        """Events that cannot be read as the replay reads them: of the first and the last one, and of the first and last of each type."""
        store = self._context.store
        positions = sorted({position for pair in store.samples().values() for position in pair})
        chosen = [self._context.projector(name) for name in projectors]
        metadata = any(each.needs_metadata for each in chosen)
        for start in range(0, len(positions), SAMPLE):
            for event in store.find(positions[start : start + SAMPLE], metadata=metadata):
                users = [each for each in chosen if event.type in each.stored_types()]
                yield from self._unreadable(event, users)

    def _unreadable(self, event: Event, users: Sequence[type[Projector]]) -> Iterator[Finding]:
        aside = self._context.spec.replay.on_error is OnError.DEAD_LETTER
        about = f"the event {event.type} at position {event.position:,}"
        try:
            for projector in users or ([Projector] if isinstance(event, Undecodable) else []):
                projector.upcasters.current(event)
        except PoisonEvent as error:
            becomes = "; the replay sets such events aside" if aside else "; the replay would end there" if users else ""
            problem = f"{error.cause if isinstance(event, Undecodable) else error.message}{becomes}"
            remedy = "correct what decodes it (event_store.decoder, an upcaster), or the event"
            yield Finding(about=about, problem=problem, remedy=remedy, refuses=bool(users) and not aside)

    # The tables -------------------------------------------------------------------------------------------------

    def _look_at_tables(self, projectors: list[str]) -> None:
        kinds = {kind.table: kind for name in projectors for kind in self._context.projector(name).kinds()}
        consumers = self._context.spec.live_writer.checkpoint
        sets = [self._context.table_set(name) for name in [*kinds, *([consumers.table] if consumers else [])]]
        self._findings += self._names(sets)
        self._ask("structure", lambda: self._new_structure([self._context.table_set(name) for name in kinds], kinds))
        for kind in kinds.values():
            self._ask(kind.table, partial(self._shape, kind))
        self._ask("reads", lambda: self._readings(projectors))
        self._ask("live_writer", lambda: self._contract(projectors))
        self._ask("throttle", self._limits)
        self._ask("projectors", lambda: self._forms(projectors))
        for table in sets:
            self._ask(table.blue, partial(self._taken, table, {each.blue for each in sets}))
        there: list[TableSet] = []
        for table in sets:
            self._ask(table.blue, partial(self._exists, self._formed(table), there))
        surroundings = Surroundings(self._context.schema, there, self._context.ledger.tables)
        self._ask("server", lambda: self._dialect.preflight(self._connection, surroundings))
        if there:
            self._ask("what hangs on the tables", lambda: self._uncarried(there))
            self._ask("foreign keys", lambda: self._order([each.blue for each in there if each.blue in kinds]))
            self._ask("live tables", lambda: live_tables.untold(self._context, self._connection, there))
            self._ask("disk", lambda: self._room(there))
            if not any(each.refuses for each in self._findings):
                self._ask("swap.max_pause", lambda: self._pause(there))
            self._ask("low_traffic", lambda: untold(self._context, self._connection, there))
            self._ask("programs", lambda: self._programs(projectors, there))

    def _pause(self, there: list[TableSet]) -> Iterator[Finding]:
        """Whether a switch that cannot be undone keeps its bound."""
        longest = self._context.spec.swap.max_pause.total_seconds()
        expected = self._dialect.forecast_swap(self._connection, there)
        if expected is not None and expected > longest / 2:
            yield Finding(
                about="swap.max_pause",
                problem=f"by what empty tables take here, the RENAME of {len(there)} tables holds the writers for about {expected:.1f} s, and "
                f"they may be held for {longest:g} s; it cannot be undone half-way",
                remedy="rebuild fewer tables in one run (`projectors`), or raise swap.max_pause",
                refuses=expected > longest,
            )

    def _forms(self, projectors: list[str]) -> Iterator[Finding]:
        """Projectors whose SQL cannot be used."""
        for name in projectors:
            projector = self._context.projector(name)
            reason = why_not(self._context, projector)
            if projector.has_handlers():
                if reason and self._context.spec.replay.set_based:
                    problem = f"{reason}, so that it is replayed by its handlers and not by its SQL"
                    yield Finding(about=name, problem=problem, remedy="this is only slower")
                continue
            if reason is None:
                reason = self._dialect.cutover.sql_reads_no_events
            if reason is not None:
                problem = f"it has no handlers, and its SQL cannot be used: {reason or 'it has none for this database'}"
                yield Finding(about=name, problem=problem, remedy="give it handlers as well", refuses=True)

    def _undivided(self, options: RunOptions, projectors: list[str]) -> Iterator[Finding]:
        """Projectors that are to be replayed in shards and cannot be."""
        for name in projectors:
            reason = why_whole(self._context, self._context.projector(name))
            if reason is not None and (options.shards or self._context.spec.replay.shards_of(name)) > 1:
                problem = f"it is replayed as a whole and not in shards: {reason}"
                yield Finding(about=name, problem=problem, remedy="nothing has to be done")

    def _never_done(self, options: RunOptions, projectors: list[str]) -> Iterator[Finding]:
        """Programs in a stage that could work through its windows for ever."""
        for name in [] if options.replay_now else projectors:
            projector, stage = self._context.projector(name), self._context.spec.stage_of(name)
            if stage is None or stage.any_time or not issubclass(projector, ExternalProjector):
                continue
            if projector.on_retry is OnRetry.RESTART and projector.batch_positions is None:
                problem = f"one call does all of its work, which nothing ends when the window of the stage {stage.name} does"
                remedy = "set its batch_positions, take the windows out, or let the run have replay_now"
                yield Finding(about=name, problem=problem, remedy=remedy, refuses=True)

    def _limits(self) -> Iterator[Finding]:
        """Limits that nobody can tell whether they are kept."""
        limits = self._context.spec.throttle
        dialect, connection = self._dialect, self._connection
        if limits.max_replica_lag is not None and limits.replica_lag is None and dialect.replica_lag(connection) is None:
            problem = "this server does not know how far its replicas are behind, so max_replica_lag is not looked at"
            yield Finding(about="throttle", problem=problem, remedy="give throttle.replica_lag, SQL for the seconds")
        if limits.max_active_sessions is not None and dialect.active_sessions(connection) is None:
            problem = "this database does not count sessions, so max_active_sessions is not looked at"
            yield Finding(about="throttle", problem=problem, remedy="take it out")

    def _formed(self, table: TableSet) -> TableSet:
        definition = self._structure.forms.get(table.blue)
        return table if definition is None else replace(table, form=Form(definition, tuple(self._structure.views.items())))

    def _new_structure(self, tables: Sequence[TableSet], kinds: Mapping[str, RowType]) -> Iterator[Finding]:
        """Makes the tables that the spec asks for, apart and for a moment, and looks whether everything would work with them."""
        section = self._context.spec.structure
        there = [each for each in tables if self._dialect.table_exists(self._connection, each.schema, each.blue)]
        if section is None or not there:
            return
        names = [each.blue for each in there]
        try:
            made = statements(section, names, self._connection.dialect)
            with self._dialect.try_structure(self._connection, there, made, section.views) as trial:
                yield from self._tried(trial, kinds)
        except RebuildError as error:
            yield Finding.refusal(error.message)
        except sa.exc.DBAPIError as error:
            trouble = trouble_of(error)
            if trouble is None or trouble.kind in MAY_PASS:
                raise
            # The tables are made apart and are empty: what the database says quotes the author's own words, and no row.
            problem = f"the database does not take it: {one_line(str(error.orig))}"
            yield Finding(about="structure", problem=problem, remedy="correct the metadata or the file", refuses=True)

    def _tried(self, trial: Trial, kinds: Mapping[str, RowType]) -> Iterator[Finding]:
        found, changed = self._structure, [name for name in trial.forms if name not in trial.unchanged]
        if not trial.forms:
            problem = f"it makes none of the tables {', '.join(sorted(kinds))}"
            yield Finding(about="structure", problem=problem, remedy="correct it, or take it out of the spec", refuses=True)
        elif not changed:
            # Then nothing is done about it, and such a run can be taken back.
            yield Finding(about="structure", problem="the tables have it already", remedy="take it out of the spec")
            return
        found.forms, found.views = {name: trial.forms[name] for name in changed}, trial.views
        yield from map(Finding.refusal, trial.refusals)
        for name in changed:
            columns = self._dialect.columns(trial.connection, trial.schema, name)
            unique = self._dialect.unique_keys(trial.connection, trial.schema, name)
            yield from self._columns_and_key(kinds[name], columns, unique)
            yield from _spelled_alike(kinds[name], unique, self._dialect.shapes(trial.connection, trial.schema, name))
            found.parents[name] = self._dialect.parents(trial.connection, trial.schema, name)
        found.difference = difference(self._connection, self._context.schema, trial, changed)

    def _exists(self, table: TableSet, there: list[TableSet]) -> Iterator[Finding]:
        if self._dialect.table_exists(self._connection, table.schema, table.blue):
            there.append(table)
        return iter(())

    def _names(self, sets: Sequence[TableSet]) -> Iterator[Finding]:
        """Names that had to be shortened, and those that two tables need."""
        needs: dict[str, list[str]] = {}
        for table in sets:
            for name in (table.blue, table.green, table.old):
                needs.setdefault(name.casefold(), []).append(table.blue)
            if (table.green, table.old) != (table.blue + GREEN_SUFFIX, table.blue + OLD_SUFFIX):
                yield Finding(
                    about=table.blue,
                    problem=f"its name is too long for {GREEN_SUFFIX} and {OLD_SUFFIX} behind it, so that its doubles are called "
                    f"{table.green} and {table.old}",
                    remedy="look for them under these names",
                )
        for name, tables in needs.items():
            if len(tables) > 1:
                yield Finding(
                    about=name,
                    problem=f"{' and '.join(tables)} need this name, one of them for its double",
                    remedy="rename one of these tables",
                    refuses=True,
                )

    def _shape(self, kind: RowType) -> Iterator[Finding]:
        """Whether a table is there and has what its row class says."""
        schema, blue = self._context.schema, kind.table
        if not self._dialect.table_exists(self._connection, schema, blue):
            problem, remedy = f"there is no table {blue}", "create it (it may be empty), or correct the projector's row class"
            yield Finding(about=blue, problem=problem, remedy=remedy, refuses=True)
            return
        there = self._dialect.columns(self._connection, schema, blue)
        missing = [name for name in kind.columns if name not in there]
        if blue in self._structure.forms:
            # Whether the new table has what it needs has been looked at where it was tried.
            if missing:
                yield Finding(
                    about=blue,
                    problem=f"today it has no column {', '.join(missing)}, which {kind.row_class.__name__} writes",
                    remedy="let the application write it only where it is there, since it is not until the switch",
                )
            return
        unique = self._dialect.unique_keys(self._connection, schema, blue)
        yield from self._columns_and_key(kind, there, unique)
        yield from _spelled_alike(kind, unique, self._dialect.shapes(self._connection, schema, blue))

    def _columns_and_key(self, kind: RowType, there: Sequence[str], unique: Sequence[set[str]]) -> Iterator[Finding]:
        blue = kind.table
        if missing := [name for name in kind.columns if name not in there]:
            problem = f"it has no column {', '.join(missing)}"
            yield Finding(about=blue, problem=problem, remedy=f"correct the row class {kind.row_class.__name__}", refuses=True)
        elif set(kind.key) not in unique:
            yield Finding(
                about=blue,
                problem=f"the key ({', '.join(kind.key)}) of {kind.row_class.__name__} is neither primary key nor unique; rows could "
                "not be told apart",
                remedy="add a unique constraint or correct the key",
                refuses=True,
            )

    def _readings(self, projectors: list[str]) -> Iterator[Finding]:
        """Tables that handlers look at and this run does not rebuild: whether they are there, and that the live ones are meant."""
        of_run = {table for name in projectors for table in self._context.projector(name).tables()}
        for name in projectors:
            for kind in map(row_type, self._context.projector(name).reads):
                if kind.table not in of_run:
                    yield from self._shape(kind)
                    problem = f"{name} reads it, and this run does not rebuild it: handlers see the live table as it is now"
                    yield Finding(about=kind.table, problem=problem, remedy="choose its projector as well if its rows are wrong")

    def _contract(self, projectors: list[str]) -> Iterator[Finding]:
        """Why the live writer's contract cannot be kept as it is declared."""
        writer = self._context.spec.live_writer
        if writer.contract is LiveWriter.TRANSACTIONAL and not self._context.one_database:
            yield Finding(
                about="live_writer",
                problem="events and read models are in two databases, where no transaction writes both",
                remedy="declare the contract as checkpointed or detached",
                refuses=True,
            )
        if writer.jobs_left is not None and not self._context.one_database:
            yield Finding(
                about="live_writer.jobs_left",
                problem="events and read models are in two databases, where no transaction appends an event together with its job: an event "
                "that is seen before its job would be in green, and its job would project it once more",
                remedy="declare the contract as checkpointed, or give drain_check",
                refuses=True,
            )
        consumers, about = writer.checkpoint, "live_writer.checkpoint"
        if consumers is None:
            return
        dialect, table = self._dialect, self._context.table_set(consumers.table)
        if not dialect.table_exists(self._connection, table.schema, table.blue):
            problem = f"there is no table {table.blue} beside the read models"
            yield Finding(about=about, problem=problem, remedy="correct its name", refuses=True)
            return
        columns = dialect.columns(self._connection, table.schema, table.blue)
        missing = [name for name in (consumers.name_column, consumers.position_column) if name not in columns]
        if missing:
            problem = f"{table.blue} has no column {', '.join(missing)}"
            yield Finding(about=about, problem=problem, remedy="correct the columns' names", refuses=True)
            return
        query = sa.select(sa.column(consumers.name_column, sa.String)).select_from(sa.table(table.blue, schema=table.schema))
        there = {str(name) for name in self._connection.execute(query).scalars()}
        expected = {consumers.names.get(name, "") for name in projectors}
        if there != expected:
            yield Finding(
                about=about,
                problem=f"{table.blue} has rows of {sorted(there)}, the projectors of this run are {sorted(expected)}; it is switched as "
                "a whole",
                remedy="choose all of its projectors, and name each in live_writer.checkpoint.names",
                refuses=True,
            )

    def _taken(self, table: TableSet, run: set[str]) -> Iterator[Finding]:
        """Tables in green's or old's place that no run has made."""
        dialect, ledger, connection = self._dialect, self._context.ledger, self._connection
        known = ledger.exists(connection)
        for name, refusal in ((table.green, foreign_green(table)), (table.old, foreign_old(table.old))):
            if name in run or not dialect.table_exists(connection, table.schema, name):
                continue
            ours = known and (
                ledger.owned_tables.run_of_green(connection, name)
                if name == table.green
                else ledger.owned_tables.retired(connection, old=name)
            )
            if not ours:
                yield Finding.refusal(f"{table.blue}: {refusal}")

    def _uncarried(self, tables: Sequence[TableSet]) -> Iterator[Finding]:
        return map(Finding.refusal, self._dialect.cannot_carry(self._connection, tables))

    def _order(self, tables: list[str]) -> Iterator[Finding]:
        parents = {each: self._dialect.parents(self._connection, self._context.schema, each) for each in tables}
        parents |= self._structure.parents
        graph = {table: sorted(parents[table] & set(tables)) for table in tables}
        try:
            self._tables = sort(
                graph,
                "the foreign keys of these tables point at each other in a circle",
                "there is no order in which they could be filled. Drop one of these foreign keys",
            )
        except PlanError as error:
            yield Finding.refusal(error.message)

    def _programs(self, projectors: Sequence[str], tables: Sequence[TableSet]) -> Iterator[Finding]:
        """What cannot be right where a projector is a program with transactions of its own."""
        context = self._context
        owners = {table: name for name in projectors for table in context.projector(name).tables()}
        programs = {name for name in projectors if issubclass(context.projector(name), ExternalProjector)}
        for table in tables:
            owner = owners.get(table.blue)
            if owner in programs and table.green != table.blue + GREEN_SUFFIX:
                problem = (
                    f"{owner} is a program, which finds its tables by the suffix {GREEN_SUFFIX}, and this name is too long for it"
                )
                yield Finding(about=table.blue, problem=problem, remedy="give the table a shorter name", refuses=True)
            for parent in sorted(self._dialect.parents(self._connection, table.schema, table.blue)):
                other = owners.get(parent)
                if owner and other and owner != other and {owner, other} & programs:
                    yield Finding(
                        about=table.blue,
                        problem=f"it has a foreign key to {parent}, which is filled by {other}, and it is filled by {owner}; one of these is a "
                        "program, so that no transaction writes both",
                        remedy="rebuild them in two runs, let one program fill both, or drop the foreign key",
                        refuses=True,
                    )

    def _room(self, tables: Sequence[TableSet]) -> Iterator[Finding]:
        dialect, connection = self._dialect, self._connection
        needed = sum(dialect.table_bytes(connection, each.schema, each.blue) for each in tables)
        free = dialect.free_bytes(connection)
        if free is not None:
            # What an earlier attempt has left is dropped before anything is made.
            left = [each for each in tables if dialect.table_exists(connection, each.schema, each.green)]
            free += sum(dialect.table_bytes(connection, each.schema, each.green) for each in left)
        self._space = Space(needed=needed, free=free)
        if free is not None and free < needed * MARGIN:
            yield Finding(
                about="disk",
                problem=self._space.describe(),
                remedy=f"make room for {MARGIN:g} times of it",
                refuses=True,
            )


def _spelled_alike(kind: RowType, unique: Iterable[set[str]], shapes: Mapping[str, Shape]) -> Iterator[Finding]:
    """Columns in which the database takes two texts for one, and must not have both, where a handler takes them for two."""
    there = set(kind.key).union(*unique)
    for column in kind.columns:
        alike = shapes[column].alike if column in shapes and column in there else None
        if alike is None:
            continue
        only = " in blanks at the end only" if alike.endswith("_bin") else ""
        what = "key" if column in kind.key else "value of a unique key"
        yield Finding(
            about=f"{kind.table}.{column}",
            problem=f"by its {alike}, texts that differ{only} are the same {what} to the database, but not to a handler: events that give both "
            "end in an error",
            remedy="make sure that events spell a key in one way only, or give the column a collation by which the bytes decide",
        )
