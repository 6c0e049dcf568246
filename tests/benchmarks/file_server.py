"""A file server that needs almost no CPU: the kernel sends a file in answer to every request.

    python tests/benchmarks/file_server.py [--line GBIT/S] FILE …

Prints its address. Several files are sent in turn, one a request. With --line all answers together
are sent no faster than a line of so many Gbit/s carries them: a token bucket, in this process since
`tc` needs root.

The sandbox generates its videos while it sends them, which costs as much CPU as receiving them: on
one machine the figures of a client would include those of the server.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import socketserver
import threading
import time
from pathlib import Path

HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {size}\r\n"
    'ETag: "bench"\r\nConnection: close\r\n\r\n'
)
BLOCK_S = 0.0005  # of the line's time are sent at once,
LEAST_BLOCK = 64 * 1024  # but not less
BURST_S = 0.002  # of an idle line are made good


class Line:
    """What all connections share: *bytes_s* per second, in blocks."""

    def __init__(self, bytes_s: float) -> None:
        self.block = 2**30 if math.isinf(bytes_s) else max(int(bytes_s * BLOCK_S), LEAST_BLOCK)
        self._bytes_s = bytes_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, size: int) -> None:
        """Wait until the line has carried what was sent before, and *size* bytes more."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BURST_S) + size / self._bytes_s
            wait_s = self._free_at - now
        if wait_s > 0:
            time.sleep(wait_s)


class Server(socketserver.ThreadingTCPServer):
    """Serve the files under every path, in turn."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, paths: list[Path], line: Line) -> None:
        super().__init__(("127.0.0.1", 0), Sending)
        self.paths = itertools.cycle(paths)
        self.line = line


class Sending(socketserver.StreamRequestHandler):
    """Answer one request with a file."""

    server: Server

    def handle(self) -> None:
        """Read a request to its end and send the next file."""
        while self.rfile.readline(65_536).strip():
            pass
        line = self.server.line
        with next(self.server.paths).open("rb") as file:
            left = os.fstat(file.fileno()).st_size
            self.connection.sendall(HEAD.format(size=left).encode())
            while left:
                line.wait(min(left, line.block))
                # Advances the file's own offset; the connection blocks.
                left -= os.sendfile(
                    self.connection.fileno(), file.fileno(), None, min(left, line.block)
                )


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--line", type=float, default=math.inf)
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    with Server(options.files, Line(options.line * 1e9 / 8)) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/video.mp4", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
