"""Formats the output of a proof: the findings of each setting as they come, and a summary table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from rich.table import Table
from rich.text import Text

from tools.prove.clients import Role
from tools.prove.proof import Proof
from tools.prove.setting import Setting


def describe(name: str, proof: Proof, max_pause: float) -> str:
    """The findings of a proof, as lines for a terminal.

    :param name: the name of the setting
    :param max_pause: seconds for which a swap may hold writers, by the spec
    """
    read, append = proof.longest.get(Role.READ, 0.0), proof.longest.get(Role.APPEND, 0.0)
    lines = [
        f"{name}: {'holds' if proof.holds else 'DOES NOT HOLD'}",
        f"  {proof.appended:,} events appended, {proof.by_strangers:,} of them by a stranger's client; "
        f"{proof.rebuilds} rebuilds done, {proof.rollbacks} taken back; {proof.kills} kills survived, {proof.retries} steps tried again",
        f"  lost: {proof.lost}; doubled: {proof.doubled}; wrong rows: {proof.wrong_rows}",
        "  failed "
        + "; ".join(f"{name}: {proof.failed(role)}" for role, name in TRANSACTIONS.items())
        + f"; empty reads: {proof.empty_reads}",
        f"  longest read: {_ms(read)}; longest append: {_ms(append)} of {_ms(max_pause)} allowed"
        + (f"; longest transaction of a stranger: {_ms(stranger)}" if (stranger := proof.longest.get(Role.STRANGER)) else ""),
        f"  pause of a switch: median {_ms(median(proof.pauses or [0.0]))}, longest {_ms(max(proof.pauses, default=0.0))}",
    ]
    if proof.deadlocks:
        lines.append(f"  known exception, MySQL's deadlock 1213 at a client: {proof.deadlocks}")
    lines += [f"  wrong rows of {table}: {rows}" for table, rows in proof.rows.items() if rows]
    lines += [
        f"  error at {role}, {kind}, {count} times: {proof.samples[role, kind]}" for (role, kind), count in proof.errors.items()
    ]
    return "\n".join([*lines, *(f"  a rebuild gave up: {reason}" for reason in proof.gave_up)])


TRANSACTIONS = {
    Role.APPEND: "appends",
    Role.PROJECT: "projections",
    Role.READ: "reads",
    Role.STRANGER: "transactions of strangers",
}


def summary(proofs: Mapping[Setting, Proof], max_pause: float) -> Table:
    """The summary: one line per setting, and one per engine.

    :param max_pause: seconds for which a swap may hold writers, by the spec
    """
    table = Table(title="What must be 0 is 0 where a line holds", header_style="bold")
    table.add_column("engine, contract, clients", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for engine in dict.fromkeys(setting.engine for setting in proofs):
        of_engine = {setting: proof for setting, proof in proofs.items() if setting.engine == engine}
        for setting, proof in of_engine.items():
            table.add_row(setting.describe(), *_cells(proof, max_pause))
        table.add_row(f"{engine}, all", *_cells(sum(of_engine.values(), Proof()), max_pause), style="bold", end_section=True)
    return table


COLUMNS = (
    "rebuilds", "taken back", "kills", "appended", "lost", "doubled", "wrong rows", "failed appends", "failed reads", "empty reads", "1213",
    "longest read", "longest append", "pause p50", "pause max", "",
)  # fmt: skip


def _cells(proof: Proof, max_pause: float) -> list[str | Text]:
    append = proof.longest.get(Role.APPEND, 0.0)
    writing = (Role.APPEND, Role.PROJECT, Role.STRANGER)
    return [
        f"{proof.rebuilds}" if not proof.gave_up else Text(f"{proof.rebuilds} of {proof.rebuilds + len(proof.gave_up)}", "red"),
        str(proof.rollbacks),
        str(proof.kills),
        f"{proof.appended:,}",
        _zero(proof.lost),
        _zero(proof.doubled),
        _zero(proof.wrong_rows),
        _zero(sum(proof.failed(role) for role in writing)),
        _zero(proof.failed(Role.READ)),
        _zero(proof.empty_reads),
        Text(str(proof.deadlocks), "yellow" if proof.deadlocks else ""),
        _ms(proof.longest.get(Role.READ, 0.0)),
        Text(_ms(append), "red" if append > max_pause else ""),
        _ms(median(proof.pauses or [0.0])),
        _ms(max(proof.pauses, default=0.0)),
        Text("holds", "green") if proof.holds else Text("DOES NOT HOLD", "red"),
    ]


def _zero(count: int) -> Text:
    return Text(f"{count:,}", "red" if count else "")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
