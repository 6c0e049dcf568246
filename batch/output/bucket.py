"""A bucket at S3, Google or Azure, or a place in one: put, head, copy, get, delete and list.

It knows keys, bytes and e_tags, and nothing of jobs. Each object carries the sha256 of its content and
whose it is as metadata, which a copy keeps: that is how a later run knows its own objects again.

Every call is one request in a thread, tried three times where nothing answers. obstore's calls for
the event loop are not used: they have aborted the interpreter at its exit.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from batch.errors import BatchError
from batch.frozen import frozen
from batch.target import check_installed

T = TypeVar("T")
AT_ONCE = 3  # each upload holds its file in memory: a conditional one cannot be sent in parts
TRIES = 3
TIMEOUT = timedelta(minutes=5)  # of one request, its body included
CONNECT_TIMEOUT = timedelta(seconds=5)
CHUNK_BYTES = 2 * 1024 * 1024
TYPES = {".mp4": "video/mp4", ".json": "application/json", ".xmp": "application/rdf+xml"}
ENDPOINTS = ("AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT")
SHA256, LIBRARY, ATTEMPT = "sha256", "library", "attempt"  # Azure takes no hyphens in these


class BucketError(BatchError):
    """The bucket cannot be used now: it does not answer, or it refuses all of this."""


class TakenError(Exception):
    """Something else is, or is not, under a key than the caller has said."""


class GoneError(Exception):
    """There is no object under a key."""


class ChangedError(Exception):
    """A file does not hold what it is said to hold."""


@frozen
class Stored:
    """An object: its size, its names for this content, and the metadata that is ours.

    A listing does not tell the metadata.
    """

    bytes: int
    e_tag: str | None = None
    version: str | None = None
    sha256: str | None = None
    library: str | None = None
    attempt: str | None = None


class Bucket:
    """A place in a bucket. Use as a context manager; leaving it waits for the calls under way."""

    def __init__(self, store: Any, *, library: str) -> None:
        self._store = store
        self._library = library
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket")

    @classmethod
    def open(cls, url: str, *, library: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Open the bucket at *url*; its credentials come from the environment. Sends nothing.

        Raises:
            BucketError: the environment says too little, or what it says is not valid.
            UsageError: obstore is not installed.
        """
        check_installed()
        from obstore.exceptions import BaseError  # noqa: PLC0415 - for libraries with a bucket
        from obstore.store import from_url  # noqa: PLC0415

        try:
            store = from_url(
                url,
                client_options={
                    "timeout": TIMEOUT,
                    "connect_timeout": CONNECT_TIMEOUT,
                    "allow_http": _may_be_plain(environ),
                },
                retry_config={"max_retries": TRIES - 1, "retry_timeout": TIMEOUT},
            )
        except (BaseError, ValueError) as error:
            raise BucketError(_clean(str(error))) from None
        return cls(store, library=library)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def put(
        self,
        key: str,
        source: Path,
        *,
        sha256: str,
        attempt: str | None = None,
        replaces: Stored | None = None,
    ) -> Stored:
        """Upload a file: visible whole or not at all; return what is there now.

        Args:
            key: where it goes.
            source: the file.
            sha256: what it holds.
            attempt: the external id of the attempt whose video it is.
            replaces: what is there now, as far as is known; None for nothing.

        Raises:
            BucketError: the bucket cannot be used.
            ChangedError: the file holds something else.
            OSError: the file cannot be read.
            TakenError: something else is there, and stays.
        """

        def put() -> None:
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ChangedError(key)
            marks = {SHA256: sha256, LIBRARY: self._library, ATTEMPT: attempt}
            attributes = {name: value for name, value in marks.items() if value}
            attributes["Content-Type"] = TYPES.get(source.suffix, "application/octet-stream")
            self._asked(
                "put", key, data, attributes=attributes, mode=_mode(replaces), use_multipart=False
            )

        await self._run(put)
        return await self.known_head(key)

    async def head(self, key: str) -> Stored | None:
        """Return what is under a key; None for nothing.

        Raises:
            BucketError: the bucket cannot be used.
        """
        try:
            return await self.known_head(key)
        except GoneError:
            return None

    async def known_head(self, key: str) -> Stored:
        """Return what is under a key.

        Raises:
            BucketError: the bucket cannot be used.
            GoneError: nothing is there.
        """
        found = await self._run(self._asked, "get", key, options={"head": True})
        marks = {name: found.attributes.get(name) for name in (SHA256, LIBRARY, ATTEMPT)}
        return _stored(found.meta, **marks)

    async def copy(self, source: str, key: str) -> Stored:
        """Copy an object within the bucket, over what is there; return what is there now.

        Raises:
            BucketError: the bucket cannot be used.
            GoneError: there is nothing to copy.
        """
        await self._run(self._asked, "copy", source, key)
        return await self.known_head(key)

    async def get(self, key: str, take: Callable[[Iterable[bytes]], T]) -> T:
        """Have *take*, in a thread, consume the content of an object; return its result.

        Raises:
            BucketError: the bucket cannot be used.
            GoneError: nothing is there.
        """

        def get() -> T:
            found = self._asked("get", key)
            try:
                return take(map(bytes, found.stream(min_chunk_size=CHUNK_BYTES)))
            except _base_error() as error:  # it broke on its way
                raise _mapped(error, key) from None

        return await self._run(get)

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there.

        Raises:
            BucketError: the bucket cannot be used.
        """
        try:
            await self._run(self._asked, "delete", key)
        except GoneError:
            return

    async def list(self) -> dict[str, Stored]:
        """Return all objects by key.

        Raises:
            BucketError: the bucket cannot be used.
        """

        def walk() -> dict[str, Stored]:
            try:
                chunks = self._asked("list")
                return {item["path"]: _stored(item) for chunk in chunks for item in chunk}
            except _base_error() as error:
                raise _mapped(error, "") from None

        return await self._run(walk)

    def _asked(self, name: str, *args: Any, **options: Any) -> Any:
        """Make one call of obstore."""
        import obstore  # noqa: PLC0415 - for libraries with a bucket

        try:
            return getattr(obstore, name)(self._store, *args, **options)
        except (_base_error(), FileNotFoundError) as error:
            raise _mapped(error, str(args[0]) if args else "") from None

    async def _run(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*args, **options))


def _may_be_plain(environ: Mapping[str, str]) -> bool:
    """Return whether HTTP without TLS is right: on this machine, or where a person says so."""
    if environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true"}:
        return True
    hosts = {urlsplit(environ.get(name, "")).hostname or "" for name in ENDPOINTS}
    return any(host in {"localhost", "::1"} or host.startswith("127.") for host in hosts)


def _mode(replaces: Stored | None) -> Any:
    """Return what makes a put fail where another object has come in between."""
    if replaces is None:
        return "create"
    names = {"e_tag": replaces.e_tag, "version": replaces.version}
    return {name: value for name, value in names.items() if value is not None} or "create"


def _stored(meta: Mapping[str, Any], **marks: str | None) -> Stored:
    e_tag = meta["e_tag"]
    if e_tag and e_tag.startswith("0x"):  # Azure quotes it in an answer, but not in a listing
        e_tag = f'"{e_tag}"'
    return Stored(meta["size"], e_tag, meta["version"], **marks)


def _base_error() -> type[Exception]:
    from obstore.exceptions import BaseError  # noqa: PLC0415

    return BaseError


def _mapped(error: Exception, key: str) -> Exception:
    """Return our error for one of obstore's, whose text may hold more than may be shown."""
    from obstore import exceptions  # noqa: PLC0415

    text = str(error)
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return TakenError(key)
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return BucketError("there is no such bucket")
    if isinstance(error, FileNotFoundError):
        return GoneError(key)
    if isinstance(error, exceptions.PermissionDeniedError):
        return BucketError("it denies access (403): check the credentials and their rights")
    if isinstance(error, exceptions.UnauthenticatedError):
        return BucketError("it does not accept the credentials (401)")
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return BucketError("the environment holds no credentials for it")
    if "builder error" in text:
        return BucketError("its address is not an https one; AWS_ALLOW_HTTP=true allows that")
    status = re.search(r"non-2xx status code: (\d{3})", text)
    if status is not None:
        return BucketError(f"it answers {status[1]}")
    if "HTTP error" in text:
        return BucketError("it cannot be reached")
    return BucketError(_clean(text))


def _clean(text: str) -> str:
    """Return the first line of a message of obstore, without addresses."""
    return re.sub(r"\S+://\S+", "…", text.splitlines()[0] if text else "it fails")[:200]
