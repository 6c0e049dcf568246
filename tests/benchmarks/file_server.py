"""A file server that needs almost no CPU: the kernel sends one file in answer to every request.

    python tests/benchmarks/file_server.py FILE

Prints its address. The sandbox generates its videos while it sends them, which costs as much CPU as
receiving them: on one machine the figures of a client would include those of the server.
"""

from __future__ import annotations

import socketserver
import sys
from pathlib import Path

HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {size}\r\n"
    'ETag: "bench"\r\nConnection: close\r\n\r\n'
)


class Server(socketserver.ThreadingTCPServer):
    """Serve one file under every path."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), Sending)
        self.path = path


class Sending(socketserver.StreamRequestHandler):
    """Answer one request with the file."""

    server: Server

    def handle(self) -> None:
        """Read a request to its end and send the file."""
        while self.rfile.readline(65_536).strip():
            pass
        with self.server.path.open("rb") as file:
            size = self.server.path.stat().st_size
            self.connection.sendall(HEAD.format(size=size).encode())
            self.connection.sendfile(file)


if __name__ == "__main__":
    with Server(Path(sys.argv[1])) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/video.mp4", flush=True)
        server.serve_forever()
