"""Result files: redirects, odd heads, and where the key goes."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from loopback import KEY, Talk, client, says, server
from patience import PATIENCE_S

from batch.provider.client import Client
from batch.provider.protocol import BrokenFetchError, ExpiredLinkError, Stream, UselessPartError

VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 1_000


async def read(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks()])


async def fetched(api: Client, url: str) -> tuple[bytes, int | None, str | None]:
    async with api.fetch(url) as stream:
        return await read(stream), stream.total, stream.validator


# -- the first bytes decide ------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["text/html", "text/plain; charset=utf-8", "application/json", "video/mp4", "x"]
)
async def test_video_is_taken_under_any_label(label: str) -> None:
    async with server(says(200, VIDEO, f"Content-Type: {label}")) as url, client(url) as api:
        assert await fetched(api, f"{url}/v.mp4") == (VIDEO, len(VIDEO), None)


@pytest.mark.parametrize(
    ("label", "body"),
    [
        ("text/html", b"<!doctype html>"),
        ("video/mp4", b"\n<html>Just a moment"),
        ("application/octet-stream", b'{"error":"expired"}'),
        ("application/json", b"[1]"),
        ("text/plain", b"expired"),
        ("application/xml", b"<?xml?><Error/>"),
    ],
)
async def test_page_is_no_video_under_any_label(label: str, body: bytes) -> None:
    async with server(says(200, body, f"Content-Type: {label}")) as url, client(url) as api:
        with pytest.raises(ExpiredLinkError, match="page"):
            await fetched(api, f"{url}/v.mp4")


@pytest.mark.parametrize("label", ["Content-Encoding: gzip", "Content-Type: video/mp4"])
async def test_gzip_is_undone_although_not_requested(label: str) -> None:
    """Its length and its tag are those of what was packed: the file has neither."""
    packed = gzip.compress(VIDEO)
    async with server(says(200, packed, label, 'ETag: "v"')) as url, client(url) as api:
        assert await fetched(api, f"{url}/v.mp4") == (VIDEO, None, None)


@pytest.mark.parametrize("window", [15, -15], ids=["zlib", "raw"])
async def test_deflate_is_undone_although_not_requested(window: int) -> None:
    """Some servers leave out the header that the standard wants."""
    pack = zlib.compressobj(wbits=window)
    packed = pack.compress(VIDEO) + pack.flush()
    async with server(says(200, packed, "Content-Encoding: deflate")) as url, client(url) as api:
        assert await fetched(api, f"{url}/v.mp4") == (VIDEO, None, None)


async def test_video_that_is_only_called_deflate_is_taken() -> None:
    async with server(says(200, VIDEO, "Content-Encoding: deflate")) as url, client(url) as api:
        assert (await fetched(api, f"{url}/v.mp4"))[0] == VIDEO


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw[:99] + bytes(99)])
async def test_damaged_gzip_breaks_the_fetch(damage: object) -> None:
    assert callable(damage)
    async with server(says(200, damage(gzip.compress(VIDEO)))) as url, client(url) as api:
        with pytest.raises(BrokenFetchError):
            await fetched(api, f"{url}/v.mp4")


async def test_gzip_bomb_comes_in_bounded_pieces() -> None:
    bomb = gzip.compress(VIDEO[:12] + bytes(32 * 1024 * 1024))
    async with server(says(200, bomb)) as url, client(url) as api, api.fetch(url) as stream:
        assert max([len(chunk) async for chunk in stream.chunks()]) <= 1024 * 1024


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        *((203, []), (201, []), (226, []), (206, []), (206, ["Content-Range: bytes */*"])),
        (206, [f"Content-Range: bytes 0-1/{len(VIDEO)}"]),
    ],
)
async def test_odd_success_is_the_whole_file(status: int, headers: list[str]) -> None:
    async with server(says(status, VIDEO, *headers)) as url, client(url) as api:
        assert await fetched(api, f"{url}/v.mp4") == (VIDEO, len(VIDEO), None)


async def test_part_without_range_is_useless() -> None:
    """It was asked to go on at a byte, and does not say that it does."""
    async with server(says(206, VIDEO)) as url, client(url) as api:
        with pytest.raises(UselessPartError):
            async with api.fetch(f"{url}/v.mp4", start=5, validator='"v"'):
                pytest.fail("where does it begin?")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "wait_s"), [("12", 12.0), ("60.5", 60.5), ("soon", None)])
async def test_retry_after_of_a_file_server_is_told(
    status: int, asked: str, wait_s: float | None
) -> None:
    async with server(says(status, b"", f"Retry-After: {asked}")) as url, client(url) as api:
        with pytest.raises(BrokenFetchError) as caught:
            await fetched(api, f"{url}/v.mp4")
    assert caught.value.retry_after_s == wait_s
    assert caught.value.failure.http_status == status


# -- links -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/k/夜.mp4?sig=a%2Fb", "/k/%E5%A4%9C.mp4?sig=a%2Fb"),
        ("/a b.mp4?q=x y+z", "/a%20b.mp4?q=x%20y+z"),
        ("/%e5%A4%9c/(1)[2]'!*~.mp4?s=%2f/@:&&=;,|{}\"<>^`\\", None),
        ("?sig=a%%2", "/?sig=a%%2"),
        ("/v.mp4#t=1", "/v.mp4"),
    ],
)
async def test_only_blanks_and_non_ascii_are_quoted(path: str, target: str | None) -> None:
    seen: list[bytes] = []
    async with server(says(200, VIDEO, seen=seen)) as url, client(url) as api:
        await fetched(api, url + path)
    assert seen[0].split(b"\r\n")[0].decode() == f"GET {target or path} HTTP/1.1"


async def test_redirect_with_raw_letters_is_quoted() -> None:
    seen: list[bytes] = []
    async with server(says(200, VIDEO, seen=seen)) as cdn:
        moved = says(302, b"", f"Location: {cdn}/夜.mp4?s=%2F")
        async with server(moved) as url, client(url) as api:
            await fetched(api, f"{url}/v.mp4")
    assert seen[0].startswith(b"GET /%E5%A4%9C.mp4?s=%2F HTTP/1.1")


def has_key(request: bytes) -> bool:
    return f"authorization: bearer {KEY}".encode().lower() in request.lower()


async def test_key_goes_only_to_the_own_origin() -> None:
    own: list[bytes] = []
    other: list[bytes] = []
    async with (
        server(says(200, VIDEO, seen=own)) as url,
        server(says(200, VIDEO, seen=other)) as cdn,
        client(url + "/kling") as api,
    ):
        await fetched(api, f"{url}/v.mp4")
        await fetched(api, f"{cdn}/v.mp4")
        await fetched(api, url.replace("127.0.0.1", "localhost") + "/v.mp4")
        await fetched(api, url.replace("//", "//joe@") + "/v.mp4")
    assert [has_key(request) for request in own] == [True, False, False]
    assert [has_key(request) for request in other] == [False]


async def test_path_alone_is_fetched_from_the_base_url() -> None:
    seen: list[bytes] = []
    async with server(says(200, VIDEO, seen=seen)) as url, client(url + "/relay") as api:
        await fetched(api, "/v1/8/content?k=%2F")
    assert seen[0].startswith(b"GET /v1/8/content?k=%2F HTTP/1.1")
    assert has_key(seen[0])


async def test_key_never_follows_a_redirect_elsewhere() -> None:
    """Nor does it come back when that one leads home."""
    seen: list[tuple[str, bool]] = []

    def moves(name: str, targets: dict[str, str]) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split()[1].decode()
            seen.append((name + path, has_key(request)))
            if path not in targets:
                return await says_video(writer)
            head = f"HTTP/1.1 302 X\r\nLocation: {targets[path]}\r\nContent-Length: 0\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            return await writer.drain()

        return talk

    async def says_video(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 X\r\nContent-Length: {len(VIDEO)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + VIDEO)
        await writer.drain()

    home: dict[str, str] = {"/1": "/2"}
    away: dict[str, str] = {}
    async with server(moves("own", home)) as url, server(moves("cdn", away)) as cdn:
        home["/2"], away["/3"] = f"{cdn}/3", f"{url}/4"
        async with client(url) as api:
            await fetched(api, f"{url}/1")
    assert seen == [("own/1", True), ("own/2", True), ("cdn/3", False), ("own/4", False)]


# -- time ------------------------------------------------------------------------------------


def again_and_again(piece: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    return talk


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H"])
async def test_endless_head_of_a_file_times_out(piece: bytes) -> None:
    """However often something comes that is no head yet: the download slot is free again."""
    async with server(again_and_again(piece)) as url, client(url, stall_timeout_s=0.2) as api:
        with pytest.raises(BrokenFetchError):
            async with asyncio.timeout(PATIENCE_S), api.fetch(f"{url}/x.mp4?sig=1"):
                pytest.fail("there was no head")


async def test_redirects_do_not_prolong_the_wait() -> None:
    """Each hop comes just in time."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.4)
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        await writer.drain()

    async with server(talk) as url, client(url, stall_timeout_s=0.6) as api:
        with pytest.raises(BrokenFetchError, match="in time"):
            async with api.fetch(f"{url}/x.mp4"):
                pytest.fail("there was no head")
