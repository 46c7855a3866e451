"""Behind a company's TLS proxy: what `make` fetches is trusted as the system trusts it, in uv, pip and Node alike."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[1]
THEIRS = ("UV_", "PIP_", "NODE_", "SSL_", "REQUESTS_", "CURL_")
"""Variables of whoever runs the tests that could make up for what the Makefile lacks."""

PROBES = """\
include Makefile
probe-uv: ; @$(UV) pip install --quiet --no-cache --no-config --target $(INTO) --index-url $(INDEX) --no-deps tiny
probe-pip: ; @.tools/uv/bin/pip --quiet --retries 0 download --no-cache-dir --dest $(INTO) --no-deps --index-url $(INDEX) tiny
probe-node: ; @$(BIN)/node -e 'fetch("$(INDEX)/tiny/").then(x => require("fs").writeFileSync("$(INTO)/tiny", x.statusText), x => process.exit(1))'
"""


def _wheel(folder: Path) -> Path:
    """The smallest package that there is."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text)}")
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A private authority, and a server's key and certificate by it."""
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private authority of a test")])
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def made(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        for each in extensions:
            builder = builder.add_extension(each, critical=isinstance(each, x509.BasicConstraints))
        return builder.sign(authority, hashes.SHA256())

    root = made(name, authority, x509.BasicConstraints(ca=True, path_length=None))
    local = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = made(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), server, local)
    bundle, chain = folder / "authority.pem", folder / "server.pem"
    bundle.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    key = server.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(key + leaf.public_bytes(serialization.Encoding.PEM))
    return bundle, chain


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a package index behind a certificate that only a private authority vouches for, and that authority."""
    bundle, chain = _certificate(tmp_path)
    page = tmp_path / "served" / "tiny"
    page.mkdir(parents=True)
    wheel = _wheel(page)
    (page / "index.html").write_text(f'<!doctype html><html><body><a href="{wheel.name}">{wheel.name}</a></body></html>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(page.parent)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}", bundle
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("program", ["uv", "pip", "node"])
@pytest.mark.parametrize("trusted", [True, False])
def test_what_the_system_trusts_is_trusted(tmp_path: Path, index: tuple[str, Path], program: str, trusted: bool) -> None:
    address, authority = index
    (tmp_path / "into").mkdir()
    (tmp_path / "probe.mk").write_text(PROBES)
    env = {key: each for key, each in os.environ.items() if not key.startswith(THEIRS)}
    env["UV_HTTP_RETRIES"] = "0"
    if trusted:
        env["SSL_CERT_FILE"] = str(authority)
    # Variables of the command line reach the programs through the Makefile alone.
    command = [
        "make",
        "-s",
        "-f",
        str(tmp_path / "probe.mk"),
        f"probe-{program}",
        f"INDEX={address}",
        f"INTO={tmp_path / 'into'}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is trusted, done.stdout + done.stderr
    assert any((tmp_path / "into").glob("tiny*")) is trusted


PROBE = "include Makefile\nprobe: ; @echo $$UV_SYSTEM_CERTS $$PIP_CERT $$NODE_EXTRA_CA_CERTS\n"


def _exported(tmp_path: Path, **said: str) -> list[str]:
    (tmp_path / "probe.mk").write_text(PROBE)
    env = {key: each for key, each in os.environ.items() if not key.startswith(THEIRS)}
    command = ["make", "-s", "-f", str(tmp_path / "probe.mk"), "probe"]
    return subprocess.run(command, cwd=ROOT, env=env | said, capture_output=True, text=True, check=True).stdout.split()


def test_each_program_is_told_of_the_systems_certificates(tmp_path: Path) -> None:
    (tmp_path / "company.pem").touch()
    assert _exported(tmp_path, SSL_CERT_FILE=f"{tmp_path}/company.pem") == ["true", *[f"{tmp_path}/company.pem"] * 2]


def test_what_a_caller_says_of_one_program_counts(tmp_path: Path) -> None:
    said = {"UV_SYSTEM_CERTS": "false", "PIP_CERT": "/a.pem", "NODE_EXTRA_CA_CERTS": "/b.pem"}
    assert _exported(tmp_path, **said) == ["false", "/a.pem", "/b.pem"]
