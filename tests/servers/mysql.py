"""MySQL: a server on the PATH, or Debian's package unpacked into a private folder. It installs nothing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import sqlalchemy as sa

from tests.servers.base import GivenServer, OwnServer, Server, ServerMissing

CACHE = Path(__file__).parents[2] / ".tools" / "mysql"
PACKAGE = "mysql-server-core"
PROGRAM = Path("usr/sbin/mysqld")
DURABLE = ["--innodb-buffer-pool-size=1G"]
FAST = ["--innodb-flush-log-at-trx-commit=2", "--innodb-redo-log-capacity=32M"]
HOW = (
    "no MySQL: put its mysqld on the PATH, or name a server by REBUILD_TEST_MYSQL_URL=mysql+mysqldb://...; on Debian the tests "
    "unpack it themselves from the archive's unstable suite, which failed: "
)


class MySQLServer(OwnServer):
    """A private MySQL.

    :param program: the path of ``mysqld``
    :param root: the folder above ``usr`` with all libraries; None: ``mysqld`` is installed
    """

    def __init__(self, program: Path, root: Path | None = None, *, durable: bool = False) -> None:
        super().__init__("mysql", users=("mysql",), durable=durable)
        self.url = sa.URL.create(
            "mysql+mysqldb", username="root", host="127.0.0.1", port=self.port, database="mysql", query={"charset": "utf8mb4"}
        )
        if root is None:
            self._server = [str(program), "--no-defaults"]
            return
        root = self.readable(root)
        loader = next(root.rglob("ld-linux*.so.*"))
        libraries = ":".join(sorted({str(each.parent) for each in root.rglob("*.so.*")}))
        self._server = [
            str(loader), "--library-path", libraries, str(root / program), "--no-defaults", f"--basedir={root}/usr",
            f"--lc-messages-dir={root}/usr/share/mysql", f"--plugin-dir={root}/usr/lib/mysql/plugin",
        ]  # fmt: skip

    def prepare(self) -> None:
        """See :class:`OwnServer`."""
        self.run(
            *self._server,
            "--initialize-insecure",
            f"--datadir={self.folder}/data",
            f"--tmpdir={self.folder}",
            "--secure-file-priv=NULL",
        )

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [
            *self._server, f"--datadir={self.folder}/data", f"--tmpdir={self.folder}", f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid",
            "--secure-file-priv=NULL", "--mysqlx=OFF", "--bind-address=127.0.0.1", f"--port={self.port}", "--local-infile=ON",
            "--max-connections=500", "--disable-log-bin", "--performance-schema=ON",
            *(DURABLE if self.durable else FAST),
        ]  # fmt: skip


def mysql_server(*, durable: bool = False) -> Server:
    """Starts the server for tests, or returns the one that the environment names.

    :raises ServerMissing: no MySQL is available; the message gives the remedy
    """
    if url := os.environ.get("REBUILD_TEST_MYSQL_URL"):
        return GivenServer(url)
    program = _installed()
    server = MySQLServer(program, durable=durable) if program else MySQLServer(PROGRAM, _unpacked(), durable=durable)
    server.start()
    return server


def _installed() -> Path | None:
    program = shutil.which("mysqld", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    # Debian's MariaDB has a program of this name too.
    return None if "MariaDB" in version or not version else Path(program)


def _unpacked() -> Path:
    """The folder with the server's files and all of its libraries. The first call fetches them.

    :raises ServerMissing: this machine is no Debian, or its archive does not answer
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Several test processes may run this at once; the first one fetches the files for all.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _unpacked_by_one()


def _unpacked_by_one() -> Path:
    root = CACHE / "root"
    if (root / PROGRAM).exists():
        return root
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ServerMissing(HOW + "this is no Debian machine")
    apt = _PrivateApt(CACHE / "apt")
    apt.run("update")
    # With the empty status file, apt fetches all libraries of the server, even those that this machine has.
    apt.run("install", "--download-only", "--no-install-recommends", "-y", PACKAGE)
    unpacking = CACHE / "unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)
    unpacking.mkdir(parents=True)
    for package in sorted(apt.archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(unpacking)], check=True)
    # Renamed when it is complete, so that no process uses a half-unpacked folder.
    shutil.rmtree(root, ignore_errors=True)
    unpacking.rename(root)
    shutil.rmtree(apt.folder, ignore_errors=True)
    return root


class _PrivateApt:
    """apt with its own lists, cache, status and sources, and this machine's mirror."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archives = folder / "cache" / "archives"
        for name in ("lists/partial", "cache/archives/partial", "etc"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        mirror, keyring = _mirror()
        (folder / "etc/sources.list").write_text(f"deb [signed-by={keyring}] {mirror} unstable main\n")

    def run(self, *words: str) -> None:
        options = {
            "Dir::State": self.folder,
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Cache::archives": self.archives,
            "Dir::Etc::sourcelist": self.folder / "etc/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-",
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "Debug::NoLocking": "true",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        done = subprocess.run(["apt-get", "-q", *flags, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerMissing(f"{HOW}apt-get {words[0]}: {(done.stderr or done.stdout)[-1500:]}")


def _mirror() -> tuple[str, str]:
    """The machine's Debian mirror, and the path of Debian's keyring.

    :raises ServerMissing: the machine's sources name no mirror
    """
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    for file in [
        *Path("/etc/apt").glob("sources.list.d/*.sources"),
        *Path("/etc/apt").glob("sources.list.d/*.list"),
        Path("/etc/apt/sources.list"),
    ]:
        text = file.read_text() if file.exists() else ""
        match = re.search(r"^(?:URIs:|deb(?: \[[^\]]*\])?)\s*(\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if match:
            return match[1], keyring
    raise ServerMissing(HOW + "no Debian mirror is named in /etc/apt")
