"""The video server: another origin, signed links, ranges, and the faults of downloads."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import re
from dataclasses import dataclass, replace

from aiohttp import web

from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultRule
from batch.sandbox.video.clips import CHUNK, SIZES, Clip
from batch.sandbox.world import World

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_LONG_S = 3600.0
_TICK_S = 0.05  # between two pieces of a slow download
_STATUSES = ("403", "404", "429", "500", "503")
_WITHOUT_RANGES = ("no-range", "no-length")


@dataclass(frozen=True, slots=True)
class _Span:
    """The part of a file that is sent: bytes from *start* up to *stop*."""

    start: int
    stop: int
    is_partial: bool


class Cdn:
    """Serves the videos of one sandbox."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._editions = itertools.count(1)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request at the origin of the videos."""
        if "Authorization" in request.headers:
            self._world.stats.key_leaks += 1
            return _plain(400, "the API key does not belong here")
        return await self.serve(request)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve the video of a signed link."""
        world = self._world
        if request.method not in ("GET", "HEAD"):
            return _plain(405, "method not allowed")
        moment = world.now()
        task_id = world.links.check(request.path, request.rel_url.query, moment)
        if task_id is None:
            world.stats.bad_links += 1
            return _plain(403, "signature wrong or expired")
        task = world.engine.by_task_id(task_id)
        if task is None or task.status(moment) != "succeed":
            return _plain(404, "no such video")
        if moment - task.created_at > world.config.kept_s:
            return _plain(404, "cleared after 30 days")
        world.stats.downloads += 1
        fault = None if request.path.startswith("/moved") else world.fault("download", task)
        if fault is not None and (instead := await _instead(request, fault, moment)) is not None:
            return instead
        return await self._send(request, self._clip(task, fault), fault)

    def _clip(self, task: Task, fault: FaultRule | None) -> Clip:
        """Return the file, or the one that the fault puts in its place."""
        world = self._world
        kind = None if fault is None else fault.kind
        if kind == "wrong-ratio":
            other = next(ratio for ratio in SIZES if ratio != task.aspect_ratio)
            return world.clip(task, aspect_ratio=other)
        if kind == "wrong-duration":
            return world.clip(task, duration_s=max(3, task.duration_s // 2))
        if kind == "etag-changes":
            return world.clip(task, edition=next(self._editions) + 1)
        clip = world.clip(task)
        if fault is not None and kind == "zero-filled":
            return replace(clip, zero_from=int(clip.size * fault.at))
        if fault is not None and kind == "truncated-file":
            return replace(clip, cut=int(clip.size * fault.at))
        return clip

    async def _send(
        self, request: web.BaseRequest, clip: Clip, fault: FaultRule | None
    ) -> web.StreamResponse:
        kind = None if fault is None else fault.kind
        span: _Span | None = _Span(0, clip.size, is_partial=False)
        if kind not in _WITHOUT_RANGES:
            span = _asked_span(request, clip)
        if span is None or (kind == "416" and span.is_partial):
            head = {"ETag": clip.etag, "Content-Range": f"bytes */{clip.size}"}
            return web.Response(status=416, headers=head)
        if kind == "wrong-offset" and span.is_partial:
            span = replace(span, start=span.start // 2)
        status, headers = self._head(clip, span, fault)
        is_short = fault is None and span.stop - span.start <= CHUNK
        if request.method == "GET" and (is_short or kind == "gzip"):
            body = b"".join(clip.chunks(span.start, span.stop))
            self._world.stats.bytes += len(body)
            body = gzip.compress(body, mtime=0) if kind == "gzip" else body
            return web.Response(status=status, headers=headers, body=body)
        response = web.StreamResponse(status=status, headers=headers)
        if kind == "no-length":
            response.enable_chunked_encoding()
        else:
            response.content_length = span.stop - span.start
        await response.prepare(request)
        if request.method != "HEAD":
            await self._stream(request, response, clip, span, fault)
        return response

    def _head(self, clip: Clip, span: _Span, fault: FaultRule | None) -> tuple[int, dict[str, str]]:
        """Return status and headers of a file or of a part."""
        kind = None if fault is None else fault.kind
        headers = {"Content-Type": "video/mp4", "ETag": clip.etag}
        if kind not in _WITHOUT_RANGES:
            headers["Accept-Ranges"] = "bytes"
        status = 200
        if span.is_partial:
            status = 206
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{clip.size}"
        elif kind in ("203", "206"):
            status = int(kind)
        if fault is not None:
            headers |= fault.head(self._world.now())
        if fault is not None and kind == "label":
            headers["Content-Type"] = fault.to or "text/html"
        if kind == "gzip":
            headers["Content-Encoding"] = "gzip"
        return status, headers

    async def _stream(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        clip: Clip,
        span: _Span,
        fault: FaultRule | None,
    ) -> None:
        kind = None if fault is None else fault.kind
        stop = span.stop
        if fault is not None and kind in ("cut", "stall"):
            stop = span.start + int((span.stop - span.start) * fault.at)
        slow = fault if kind == "slow" else None
        for chunk in clip.chunks(span.start, stop):
            if slow is None:
                await response.write(chunk)
            else:
                await _drip(response, chunk, slow.bytes_per_s)
            self._world.stats.bytes += len(chunk)
        if fault is not None and kind in ("cut", "stall"):
            if kind == "stall":
                await asyncio.sleep(fault.lasts(_LONG_S))
            hang_up(request, is_clean=True)


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)


async def _instead(
    request: web.BaseRequest, fault: FaultRule, moment: float
) -> web.StreamResponse | None:
    """Return the answer in place of a file, if the fault is of that sort."""
    kind = fault.kind
    if kind in _STATUSES:
        text = fault.message or "asked for by the fault plan"
        return web.Response(status=int(kind), text=text, headers=fault.head(moment))
    match kind:
        case "html-200":
            return web.Response(text="<!doctype html><p>Just a moment...", content_type="text/html")
        case "empty-200":
            return web.Response(body=b"", content_type="video/mp4")
        case "redirect":
            target = fault.to or f"/moved{request.rel_url.raw_path_qs}"
            return web.Response(status=302, headers={"Location": target})
        case "redirect-evil":
            return web.Response(
                status=302, headers={"Location": fault.to or "file:///etc/hostname"}
            )
        case "drop" | "hang":
            if kind == "hang":
                await asyncio.sleep(fault.lasts(_LONG_S))
            hang_up(request)
            return web.Response()
        case _:
            return None


def _asked_span(request: web.BaseRequest, clip: Clip) -> _Span | None:
    """Read Range and If-Range (RFC 9110, 14.2 and 13.1.5). None: cannot be satisfied.

    A malformed range, several ranges and another ETag return the whole file.
    """
    whole = _Span(0, clip.size, is_partial=False)
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", clip.etag) != clip.etag:
        return whole
    first, last = match.groups()
    if not first and not last:
        return whole
    if not first:
        start, stop = max(clip.size - int(last), 0), clip.size
    else:
        start = int(first)
        stop = min(int(last) + 1, clip.size) if last else clip.size
        if last and int(last) < start:
            return whole
    return _Span(start, stop, is_partial=True) if start < stop else None


async def _drip(response: web.StreamResponse, chunk: bytes | memoryview, bytes_per_s: int) -> None:
    step = max(int(bytes_per_s * _TICK_S), 1)
    for start in range(0, len(chunk), step):
        await response.write(chunk[start : start + step])
        await asyncio.sleep(_TICK_S)


def hang_up(request: web.BaseRequest, *, is_clean: bool = False) -> None:
    """Close the connection under the request; *is_clean* lets written bytes arrive."""
    if request.transport is None:
        return
    if is_clean:
        request.transport.close()
    else:
        request.transport.abort()
