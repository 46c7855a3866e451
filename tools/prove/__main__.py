"""The command line of the proof."""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from projection_rebuild.spec.live_writer import LiveWriter
from tests.servers import OwnServer, Server, mariadb_server, mysql_server, postgres_server
from tools import prove as package
from tools.prove.proof import Proof, prove
from tools.prove.report import describe, summary
from tools.prove.setting import ENGINES, Clients, Setting

SERVERS = {"postgres": postgres_server, "mariadb": mariadb_server, "mysql": mysql_server}


def main() -> int:
    """Runs the proof for the selected settings; returns 0 if it holds for all of them."""
    arguments = _arguments()
    # SIGTERM acts like Ctrl-C, so that the process stops its servers and removes its folders.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say = Console(highlight=False, soft_wrap=True)
    proofs: dict[Setting, Proof] = {}
    pause, began = 0.0, time.monotonic()
    for engine in arguments.engine or ENGINES:
        settings = [
            Setting(engine, LiveWriter(contract), Clients(clients), arguments.declared and LiveWriter(arguments.declared))
            for contract in arguments.contract or LiveWriter
            for clients in arguments.clients or Clients
        ]
        with _databases(engine) as databases:
            for number, setting in enumerate(settings):
                rebuilds, kills = (_share(total, number, len(settings)) for total in (arguments.rebuilds, arguments.kills))
                if rebuilds == 0:
                    continue
                pause = setting.spec().swap.max_pause.total_seconds()
                proofs[setting] = prove(setting, next(databases), rebuilds, kills, writers=arguments.writers, seed=arguments.seed)
                say.print(describe(setting.describe(), proofs[setting], pause))
    say.print()
    Console(highlight=False, width=max(say.width, WIDTH)).print(summary(proofs, pause))
    say.print(f"took {timedelta(seconds=round(time.monotonic() - began))}")
    return 0 if all(proof.holds for proof in proofs.values()) else 1


WIDTH = 190
"""Columns that the summary needs; a narrower terminal wraps its lines."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make prove", description=(package.__doc__ or "").splitlines()[0])
    contracts = [contract.value for contract in LiveWriter]
    only = "only this one (may be repeated; all by default)"
    parser.add_argument("--engine", choices=ENGINES, action="append", help=only)
    parser.add_argument("--contract", choices=contracts, action="append", help=only)
    parser.add_argument("--clients", choices=[clients.value for clients in Clients], action="append", help=only)
    parser.add_argument(
        "--rebuilds", type=int, default=20, help="per engine, spread over its contracts and clients (%(default)s)"
    )
    parser.add_argument("--kills", type=int, default=6, help="rebuilds among them that are killed and run again (%(default)s)")
    parser.add_argument("--declared", choices=contracts, help="a contract that the specs name instead: see the harm (none)")
    parser.add_argument("--writers", type=int, default=3, help="appending clients (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is killed when (%(default)s)")
    return parser.parse_args()


def _share(total: int, number: int, settings: int) -> int:
    """The share of one setting in a total that all settings divide evenly; the first ones take the remainder."""
    return total // settings + (number < total % settings)


@contextmanager
def _databases(engine: str) -> Iterator[Iterator[str]]:
    """URLs of empty databases on one server, which stops at the end."""
    with tempfile.TemporaryDirectory() as folder:
        server = None if engine == "sqlite" else SERVERS[engine]()
        try:
            yield _urls(server, Path(folder))
        finally:
            if isinstance(server, OwnServer):
                server.remove()


def _urls(server: Server | None, folder: Path) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        if server is None:
            yield f"sqlite:///{folder / f'proof{number}.db'}"
        else:
            yield server.create_database(f"proof{number}").render_as_string(hide_password=False)


if __name__ == "__main__":
    raise SystemExit(main())
