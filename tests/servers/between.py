"""A forwarder between a client and a server, like an address translation or a proxy with its own connection numbers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Between:
    """Forwards connections to a port until the process ends.

    :param port: the port of the server on this machine
    :param greeting: changes the first packet of the server
    :ivar port: the port on which it listens
    """

    def __init__(self, port: int, greeting: Callable[[bytes], bytes] = lambda packet: packet) -> None:
        self._target, self._greeting = port, greeting
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, sink, change in ((server, client, self._greeting), (client, server, bytes)):
                threading.Thread(target=_pump, args=(source, sink, change), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):
        while packet := source.recv(65536):
            sink.sendall(change(packet))
            change = bytes
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def other_number(packet: bytes) -> bytes:
    """Changes the connection number in a greeting of the MySQL family, as ProxySQL and MaxScale do."""
    at = packet.index(b"\0", 5) + 1
    number = int.from_bytes(packet[at : at + 4], "little") + 1_000_000
    return packet[:at] + number.to_bytes(4, "little") + packet[at + 4 :]
