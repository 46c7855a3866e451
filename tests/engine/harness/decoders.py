"""Decoders of payloads as an application would write them, and the matching encoders."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import fastavro
import msgspec
from cryptography.fernet import Fernet

KEY = Fernet(b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
SCHEMA = fastavro.parse_schema(
    {"type": "record", "name": "Made", "fields": [{"name": "customer", "type": "string"}, {"name": "wei", "type": "long"}]}
)


def gzipped(stored: bytes) -> dict[str, Any]:
    return json.loads(gzip.decompress(stored))


def message_pack(stored: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(stored)


def avro(stored: bytes) -> dict[str, Any]:
    return fastavro.schemaless_reader(io.BytesIO(stored), SCHEMA, None)


def encrypted(stored: bytes) -> dict[str, Any]:
    return json.loads(KEY.decrypt(stored))


def encrypted_text(stored: str) -> dict[str, Any]:
    assert isinstance(stored, str)
    return json.loads(KEY.decrypt(stored.encode()))


def a_list(stored: bytes) -> list[str]:
    return ["no", "mapping"]


def on_a_sick_machine(stored: bytes) -> dict[str, Any]:
    raise OSError(28, "No space left on device")


NO_FUNCTION = "no function"


def _avro(said: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    fastavro.schemaless_writer(written, SCHEMA, said)
    return written.getvalue()


ENCODE = {
    "gzipped": lambda said: gzip.compress(json.dumps(said).encode()),
    "message_pack": msgspec.msgpack.encode,
    "avro": _avro,
    "encrypted": lambda said: KEY.encrypt(json.dumps(said).encode()),
}
