"""A way to a server on loopback that may freeze: nothing arrives any more, and nothing is closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Link:
    """Hands on what each connection to *port* sends, both ways; what is frozen arrives later.

    *round_trips* is how often the server was asked something.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self._flows = threading.Event()
        self._flows.set()
        self.round_trips, self._is_asked = 0, False
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hand nothing on while the block runs."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def close(self) -> None:
        """Cut it."""
        self._flows.set()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for way in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._hand_on, args=way, daemon=True).start()

    def _hand_on(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                self.round_trips += asks and not self._is_asked
                self._is_asked = asks
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def link_to(port: int) -> Iterator[Link]:
    """Open a way to a port."""
    link = Link(port)
    try:
        yield link
    finally:
        link.close()
