"""Result files over aiohttp: redirects, resumption, and what the first bytes are.

The bytes decide, not the labels: a video is taken under any Content-Type, gzip is undone although it
was not asked for, and a page is refused whatever it is called.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from batch.clock import Clock
from batch.frozen import frozen
from batch.job import Failure, FailureKind
from batch.provider.fields import parse_retry_after
from batch.provider.links import as_sent, is_fetchable, is_same_origin
from batch.provider.network import file_session, network_failure
from batch.provider.protocol import (
    BrokenFetchError,
    ExpiredLinkError,
    Stream,
    UselessPartError,
)

MAX_REDIRECTS = 5
# Each download goes on reading up to twice so much while what came before is hashed and written.
READ_AHEAD_BYTES = 512 * 1024
MAX_PIECE_BYTES = 1024 * 1024  # unpacked at once
SNIFFED_BYTES = 12  # of a file, enough to tell what it is
EXPIRED_STATUSES = frozenset({401, 403, 404, 410})
_WHOLE_STATUSES = frozenset({200, 201, 203, 206, 226})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$")
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's number for a gzip header and the largest window


class Files:
    """Opens signed links. The key goes along only to the origin of *base_url*."""

    def __init__(
        self,
        *,
        base_url: str,
        key: str,
        stall_timeout_s: float,
        clock: Clock,
        proxy: str | None = None,
    ) -> None:
        self._base_url = base_url
        self._key = key
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._proxy = proxy

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Keep connections open as long as the block lasts."""
        async with file_session(
            stall_timeout_s=self._stall_timeout_s,
            read_ahead_bytes=READ_AHEAD_BYTES,
            proxy=self._proxy,
        ) as self._session:
            yield

    @asynccontextmanager
    async def fetch(self, url: str, start: int, validator: str | None) -> AsyncIterator[Stream]:
        """Open a link; see `VideoApi.fetch`."""
        headers = {}
        if start and validator:
            headers = {"Range": f"bytes={start}-", "If-Range": validator}
        if url.startswith("/"):  # some relays give the path alone
            url = urljoin(self._base_url, url)
        is_own = is_same_origin(url, self._base_url)
        until = asyncio.get_running_loop().time() + self._stall_timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            if not is_fetchable(url):
                raise ExpiredLinkError(
                    _broken("the link leads to something that is no http address")
                )
            async with _mapped(url), AsyncExitStack() as opened:
                # aiohttp bounds each read; a head that comes byte by byte, or after any number of
                # interim answers, would never be late.
                async with asyncio.timeout_at(until):
                    request = self._session.get(
                        # encoded: the signature covers the link as it is
                        URL(as_sent(url), encoded=True),
                        headers=headers | self._authorization(is_own=is_own),
                        allow_redirects=False,
                    )
                    response = await opened.enter_async_context(request)
                location = response.headers.get("Location")
                if response.status in {301, 302, 303, 307, 308} and location:
                    url = urljoin(url, location)
                    is_own = is_own and is_same_origin(url, self._base_url)
                    continue
                self._check_status(response)
                pieces = await opened.enter_async_context(aclosing(_pieces(response)))
                yield await self._body(response, pieces, start if headers else 0)
                return
        raise BrokenFetchError(_broken(f"more than {MAX_REDIRECTS} redirects"))

    def _authorization(self, *, is_own: bool) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if is_own else {}

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in EXPIRED_STATUSES:
            raise ExpiredLinkError(_broken(f"the link is no longer served (HTTP {status})", status))
        if status == 416:
            raise UselessPartError(_broken("the server refuses to go on with the part", status))
        if status not in _WHOLE_STATUSES:
            asked_s = parse_retry_after(response.headers.get("Retry-After"), self._clock.now())
            raise BrokenFetchError(
                _broken(f"the file server answered HTTP {status}", status), asked_s
            )

    async def _body(
        self, response: aiohttp.ClientResponse, pieces: AsyncGenerator[bytes, None], asked: int
    ) -> Stream:
        start, total = _span(response, asked)
        validator = _validator(response.headers)
        if start:
            return _Body(start, total, validator, pieces)
        head = b""
        async with asyncio.timeout(self._stall_timeout_s):
            while len(head) < SNIFFED_BYTES and (piece := await anext(pieces, None)) is not None:
                head += piece
        if (window := _window(head, response.headers)) is not None:
            # Neither length nor validator are of the file that is inside.
            return _Body(0, None, None, _unpacked(window, head, pieces))
        if _is_page(head, response.content_type):
            raise ExpiredLinkError(
                _broken("the file server sent a page instead of a video", response.status)
            )
        return _Body(0, total, validator, pieces, head)


@frozen
class _Body:
    """A `Stream`: the *head* that was read already, and the rest."""

    start: int
    total: int | None
    validator: str | None
    rest: AsyncIterator[bytes]
    head: bytes = b""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes off the socket."""
        if self.head:
            yield self.head
        async for piece in self.rest:
            yield piece


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    content = response.content
    if response.content_length is None:
        # Chunked, in pieces of the server's choice, even of one byte each.
        async for piece in content.iter_any():
            yield piece
    else:  # as it came off the socket; iter_any would copy all that waits into one
        async for piece, _ in content.iter_chunks():
            yield piece


def _window(head: bytes, headers: Mapping[str, str]) -> int | None:
    """Return zlib's number for how a body is packed, by its first bytes; None if it is not."""
    if head.startswith(_GZIP):
        return _GZIP_WINDOW
    if headers.get("Content-Encoding", "").strip().lower() != "deflate" or _is_video(head):
        return None
    is_zlib = len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2]) % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS  # some servers leave the header out


async def _unpacked(window: int, head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Undo gzip or deflate, in pieces that are bounded however much is in them."""
    unpack = zlib.decompressobj(window)
    packed: bytes | None = head
    try:
        while packed is not None:
            while packed and not unpack.eof:
                yield unpack.decompress(packed, MAX_PIECE_BYTES)
                packed = unpack.unconsumed_tail
            packed = await anext(rest, None)
    except zlib.error:
        raise BrokenFetchError(_broken("the file cannot be unpacked")) from None
    if not unpack.eof:
        raise BrokenFetchError(_broken("the body ended early"))


def _span(response: aiohttp.ClientResponse, asked: int) -> tuple[int, int | None]:
    """Return at which byte of the file the body begins, and how long the file is if that is said."""
    length, content_range = response.content_length, response.headers.get("Content-Range")
    if response.status != 206 or (content_range is None and not asked):
        return 0, length
    match = _CONTENT_RANGE.match(content_range or "")
    if match is None and not asked:  # a range of nothing, in answer to no range
        return 0, length
    if match is None or int(match[1]) != asked:
        raise UselessPartError(
            _broken("the server continues at a byte that was not asked for", response.status)
        )
    return asked, None if match[3] == "*" else int(match[3])


def _is_page(head: bytes, content_type: str) -> bool:
    """Return whether a file is a page or an error in JSON, by its first bytes."""
    if _is_video(head):
        return False
    is_text = content_type.startswith("text/") or content_type.endswith(("json", "html", "xml"))
    return bool(head) and (is_text or head.lstrip().startswith((b"<", b"{")))


def _is_video(head: bytes) -> bool:
    return head[4:8] in {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"}


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return what If-Range takes: a strong ETag or a date (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    if etag is not None:
        return None if etag.startswith("W/") else etag
    return headers.get("Last-Modified")


@asynccontextmanager
async def _mapped(url: str) -> AsyncIterator[None]:
    """Translate aiohttp's errors once, at the edge."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
        # `from None`: the error holds the signed link.
        raise BrokenFetchError(network_failure(error, url, FailureKind.DOWNLOAD)) from None


def _broken(text: str, status: int | None = None) -> Failure:
    return Failure(FailureKind.DOWNLOAD, text, http_status=status)
