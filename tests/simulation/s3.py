"""A real S3 server on loopback, moto's, in a thread of its own: for the tests of buckets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

ACCESS, SECRET = "AKIDEXAMPLE", "verysecret+bucket/credential"
ACCOUNT = "123456789012"
ERROR = "<Error><Code>{}</Code><Message>as the test wants it</Message></Error>"
_numbers = count(1)


@dataclass
class Bucket:
    """A bucket of a test's own, as another program sees it, and what was asked of it.

    *refuses* are (method, part of the path) that are answered with a status and a code instead.
    """

    server: str
    name: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuses: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The target of a manifest."""
        return f"s3://{self.name}/loops"

    @property
    def environ(self) -> dict[str, str]:
        """What a run has to know of it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.server,
        }

    @property
    def objects(self) -> dict[str, bytes]:
        """Every object, by its key below the prefix."""
        return {name: bytes(item.value) for name, item in self._items()}

    @property
    def metadata(self) -> dict[str, dict[str, str]]:
        """The metadata of every object."""
        return {name: dict(item.metadata) for name, item in self._items()}

    def put(self, name: str, data: bytes) -> None:
        """Put an object, as another program does."""
        _backend().put_object(self.name, f"loops/{name}", data)

    def delete(self, name: str) -> None:
        """Delete an object, as another program does."""
        _backend().delete_object(self.name, f"loops/{name}")

    def asked(self, method: str) -> list[str]:
        """Return the names that were asked for by *method*."""
        return [path for asked, path in self.requests if asked == method]

    def _items(self) -> Iterator[tuple[str, Any]]:
        for key, item in sorted(_backend().get_bucket(self.name).keys.items()):
            yield key.removeprefix("loops/"), item


class Server:
    """The server, which records what is asked of each bucket."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.address = ""
        self.buckets: dict[str, Bucket] = {}

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        name, _, key = path.lstrip("/").partition("/")
        if name not in self.buckets:  # an endpoint with a path: a world of its own
            world, (name, _, key) = name, key.partition("/")
            bucket = self.world(self.buckets[name], world)
            environ["PATH_INFO"] = environ["RAW_URI"] = environ["REQUEST_URI"] = (
                f"/{bucket.name}/{key}"
            )
            source = environ.get("HTTP_X_AMZ_COPY_SOURCE", "")
            environ["HTTP_X_AMZ_COPY_SOURCE"] = source.replace(f"{name}/", f"{bucket.name}/", 1)
            if not source:
                del environ["HTTP_X_AMZ_COPY_SOURCE"]
            name = bucket.name
        bucket = self.buckets[name]
        bucket.requests.append((method, key.removeprefix("loops/")))
        for (refused, part), (status, code) in bucket.refuses.items():
            if method == refused and part in path:
                start(status, [("Content-Type", "application/xml")])
                return [ERROR.format(code).encode()]
        answer: Iterable[bytes] = self._app(environ, start)
        return answer

    def world(self, bucket: Bucket, world: str) -> Bucket:
        """Return the bucket that *bucket* is behind an endpoint of that path: at first, a copy."""
        name = f"{bucket.name}-{world}"
        if name not in self.buckets:
            backend = _backend()
            backend.create_bucket(name, "us-east-1")
            for key, item in backend.get_bucket(bucket.name).keys.items():
                backend.copy_object(item, name, key)
            self.buckets[name] = Bucket(self.address, name)
        return self.buckets[name]

    def bucket(self) -> Bucket:
        """Make a bucket."""
        bucket = Bucket(self.address, f"studio-{next(_numbers)}")
        _backend().create_bucket(bucket.name, "us-east-1")
        self.buckets[bucket.name] = bucket
        return bucket


@contextmanager
def s3_server() -> Iterator[Server]:
    """Serve buckets on loopback."""
    # Imported late: it takes a second, and only some workers come to these tests.
    server_module = pytest.importorskip("moto.server", reason="needs moto")
    from werkzeug.serving import make_server  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = server_module.DomainDispatcherApplication(server_module.create_backend_app)
    server = Server(app)
    listening = make_server("127.0.0.1", 0, server, threaded=True)
    server.address = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, name="s3")
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def _backend() -> Any:
    from moto.s3.models import s3_backends  # noqa: PLC0415

    return s3_backends[ACCOUNT]["aws"]
