from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import av
import pytest

from batch.sandbox import FaultPlan, Sandbox, SandboxConfig, serve

PATH = "/kling/v1/videos/text2video"


class Viewer:
    """A client with a link to a video, and a clock that stands still."""

    def __init__(self) -> None:
        self.moment = 1_800_000_000.0
        self.session: aiohttp.ClientSession
        self.sandbox: Sandbox
        self.url = ""
        self.whole = b""

    def now(self) -> float:
        return self.moment

    async def get(
        self, method: str = "GET", url: str | None = None, **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, url or self.url, headers=named, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers.copy(), await answer.read()


@asynccontextmanager
async def viewer(*faults: str, **options: Any) -> AsyncIterator[Viewer]:
    made = Viewer()
    config = SandboxConfig(seed=1, faults=FaultPlan.from_strings(faults), **options)
    async with serve(config, now=made.now) as made.sandbox, aiohttp.ClientSession() as made.session:
        body = {"prompt": "A fox", "model_name": "kling-v2-6"}
        headers = {"Authorization": "Bearer k"}
        url = made.sandbox.base_url + PATH
        async with made.session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 200
        made.moment += 1000
        (task,) = made.sandbox.tasks
        made.url = made.sandbox.link(task)
        made.whole = made.sandbox.clip(task).content()
        yield made


async def test_video_is_served_whole() -> None:
    """With its length, its type, an ETag, and the offer of ranges."""
    async with viewer() as it:
        status, headers, body = await it.get()
        head_status, head, nothing = await it.get("HEAD")

        assert status == head_status == 200
        assert headers["Content-Type"] == "video/mp4"
        assert headers["Accept-Ranges"] == "bytes"
        assert int(headers["Content-Length"]) == int(head["Content-Length"]) == len(body)
        assert headers["ETag"].startswith('"')
        assert (body, nothing) == (it.whole, b"")
        assert it.sandbox.stats.bytes == len(body)
        assert it.sandbox.stats.downloads == 2


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=100-", 100, None),
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=-7", -7, None),
        ("bytes=5-99999999", 5, None),
    ],
)
async def test_range_returns_part_of_video(asked: str, start: int, stop: int | None) -> None:
    """206, and Content-Range says which part."""
    async with viewer() as it:
        status, headers, body = await it.get(Range=asked)
        first = start % len(it.whole)

        assert status == 206
        assert body == it.whole[start:stop]
        last = first + len(body) - 1
        assert headers["Content-Range"] == f"bytes {first}-{last}/{len(it.whole)}"


async def test_range_beyond_end_is_refused_malformed_ignored() -> None:
    """416 tells the size; a malformed range gets the whole."""
    async with viewer() as it:
        status, headers, _ = await it.get(Range="bytes=99999999-")
        nonsense = [await it.get(Range=text) for text in ("bytes=9-5", "bytes=-", "lines=1-2")]

        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(it.whole)}")
        assert [answer[0] for answer in nonsense] == [200, 200, 200]


async def test_range_of_changed_file_returns_whole() -> None:
    """If-Range with another ETag gets the whole."""
    async with viewer() as it:
        _, headers, _ = await it.get()
        same = await it.get(Range="bytes=5-", If_Range=headers["ETag"])
        other = await it.get(Range="bytes=5-", If_Range='"another"')

        assert (same[0], other[0]) == (206, 200)
        assert other[2] == it.whole


async def test_key_sent_with_download_is_counted() -> None:
    """A client that leaks its key must not get away with it."""
    async with viewer() as it:
        status, _, _ = await it.get(Authorization="Bearer sk-secret")

        assert status == 400
        assert it.sandbox.stats.key_leaks == 1


async def test_changed_or_expired_link_is_refused() -> None:
    """A fresh one works as long as the video is kept."""
    async with viewer(link_ttl_s=60.0, kept_s=5000.0) as it:
        (task,) = it.sandbox.tasks
        bare = it.url.partition("?")[0]
        mangled = it.url.replace("ksSecret=", "ksSecret=0")
        extended = it.url[:-1] + ("0" if it.url[-1] != "0" else "1")
        changed = [(await it.get(url=url))[0] for url in (bare, mangled, extended)]
        it.moment += 61
        old = (await it.get())[0]
        fresh = (await it.get(url=it.sandbox.link(task)))[0]
        it.moment += 5000
        cleared = (await it.get(url=it.sandbox.link(task)))[0]

        assert changed == [403, 403, 403]
        assert it.sandbox.stats.bad_links == 4
        assert (old, fresh, cleared) == (403, 200, 404)


async def test_video_can_have_any_size() -> None:
    """Without being held in memory; ranges work in the padding too."""
    async with viewer(video_bytes=3_000_000) as it:
        _, headers, body = await it.get()
        _, _, part = await it.get(Range="bytes=2500000-")

        assert int(headers["Content-Length"]) == len(body) == 3_000_000
        assert body == it.whole
        assert part == it.whole[2_500_000:]
        with av.open(io.BytesIO(body), "r") as container:
            assert len(list(container.decode(video=0))) == 121


async def test_tiny_clips_share_one_body() -> None:
    """For load tests."""
    async with viewer(clip="tiny") as it:
        assert len((await it.get())[2]) < 8_000


# -- faults of downloads ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["download:cut:per_task=1", "download:drop:per_task=2"])
async def test_download_breaks_off_on_request(rule: str) -> None:
    """The next one goes through. Two drops, because aiohttp asks again once by itself."""
    async with viewer(rule) as it:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await it.get()

        assert (await it.get())[2] == it.whole


@pytest.mark.parametrize("kind", ["stall", "hang"])
async def test_download_stalls_on_request(kind: str) -> None:
    """Half of it comes, or nothing, and then nothing more."""
    async with viewer(f"download:{kind}") as it:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await it.get()


@pytest.mark.parametrize(
    ("kind", "status"),
    [("500", 500), ("503", 503), ("403", 403), ("404", 404), ("html-200", 200), ("empty-200", 200)],
)
async def test_download_returns_something_else_on_request(kind: str, status: int) -> None:
    """An error, a page, or nothing at all."""
    async with viewer(f"download:{kind}") as it:
        got, _, body = await it.get()

        assert got == status
        assert b"ftyp" not in body


@pytest.mark.parametrize(
    ("kind", "status", "part", "start"),
    [
        ("no-range", 200, "", 0),
        ("416", 416, "bytes */", None),
        ("wrong-offset", 206, "bytes 500-", 500),
    ],
)
async def test_range_is_ignored_refused_or_wrong(
    kind: str, status: int, part: str, start: int | None
) -> None:
    """A client that trusts them blindly ends up with a broken file."""
    async with viewer(f"download:{kind}") as it:
        got, headers, body = await it.get(Range="bytes=1000-")

        assert got == status
        assert headers.get("Content-Range", "").startswith(part)
        assert body == (b"" if start is None else it.whole[start:])


async def test_length_is_missing_on_request() -> None:
    """Sent in pieces, as some proxies do."""
    async with viewer("download:no-length") as it:
        _, headers, body = await it.get()

        assert "Content-Length" not in headers
        assert body == it.whole


async def test_file_changes_between_two_requests() -> None:
    """Another ETag and other bytes, so that spliced parts do not fit."""
    async with viewer("download:etag-changes") as it:
        (_, first, one), (_, second, two) = [await it.get() for _ in range(2)]

        assert first["ETag"] != second["ETag"]
        assert one != two


async def test_file_is_broken_inside() -> None:
    """Zeros or a half, with a length that matches."""
    async with viewer("download:zero-filled:first=1,at=0.25", "download:truncated-file") as it:
        _, _, zeros = await it.get()
        _, headers, half = await it.get()
        quarter = len(it.whole) // 4

        assert zeros[:quarter] == it.whole[:quarter]
        assert not any(zeros[quarter:])
        assert len(zeros) == len(it.whole)
        assert half == it.whole[: len(it.whole) // 2]
        assert int(headers["Content-Length"]) == len(half)


async def test_file_has_another_ratio_or_length() -> None:
    """Playable, but of another ratio or another length."""
    async with viewer("download:wrong-ratio:first=1", "download:wrong-duration") as it:
        shapes = []
        for _ in range(2):
            with av.open(io.BytesIO((await it.get())[2]), "r") as container:
                stream = container.streams.video[0]
                shapes.append((stream.width > stream.height, stream.frames))

        assert shapes == [(False, 121), (True, 73)]


async def test_download_is_redirected_on_request() -> None:
    """To a good place, or to one where no client should go."""
    async with viewer("download:redirect:first=1", "download:redirect-evil") as it:
        status, good, _ = await it.get()
        moved = await it.get(url=it.sandbox.cdn_url + good["Location"])
        _, evil, _ = await it.get()

        assert status == 302
        assert moved[2] == it.whole
        assert evil["Location"].startswith("file:")


async def test_download_is_slow_on_request() -> None:
    """So many bytes a second, in small pieces."""
    async with viewer("download:slow:bytes_per_s=200000") as it:
        assert (await it.get())[2] == it.whole


@pytest.mark.parametrize(
    ("rule", "status", "head"),
    [
        ("label", 200, {"Content-Type": "text/html"}),
        ("label:to=application/json", 200, {"Content-Type": "application/json"}),
        ("gzip", 200, {"Content-Encoding": "gzip"}),
        ("203", 203, {"Content-Type": "video/mp4"}),
        ("206", 206, {"Content-Type": "video/mp4"}),
        ("big-header:size=9", 200, {"X-Large": "xxxxxxxxx"}),
        ("429:retry_after=12", 429, {"Retry-After": "12"}),
        ("503:retry_after=60", 503, {"Retry-After": "60"}),
    ],
)
async def test_video_comes_under_odd_head(rule: str, status: int, head: dict[str, str]) -> None:
    """The bytes are right, if there are any."""
    async with viewer(f"download:{rule}") as it:
        got, headers, body = await it.get()  # unpacked by aiohttp

        assert got == status
        assert {name: headers[name] for name in head} == head
        assert "Content-Range" not in headers
        assert status >= 300 or body == it.whole
