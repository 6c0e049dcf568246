"""The promises of `Bucket`, kept on a store in memory and on a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback import server

from batch.output.bucket import Bucket, BucketError, ChangedError, GoneError, TakenError

KEY, OTHER = "videos/a fox/ü#1?&%41.mp4", "versions/fox/1.mp4"


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Return an empty bucket."""
    if request.param == "memory":
        store = pytest.importorskip("obstore.store").MemoryStore()
        with Bucket(store, library="lib") as made:
            yield made
        return
    found = request.getfixturevalue("s3").bucket()
    for name, value in found.environ.items():
        monkeypatch.setenv(name, value)
    with Bucket.open(found.url, library="lib") as made:
        yield made


@pytest.fixture
def put(bucket: Bucket, tmp_path: Path) -> Any:
    """Return what puts a content under a key."""

    async def put(data: bytes, key: str = KEY, **options: Any) -> Any:
        source = tmp_path / "video.mp4"
        source.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return await bucket.put(key, source, sha256=sha256, **options)

    return put


async def test_put_says_what_is_there(bucket: Bucket, put: Any) -> None:
    stored = await put(b"fox", attempt="kb-1")
    assert (stored.bytes, stored.library, stored.attempt) == (3, "lib", "kb-1")
    assert stored.sha256 == hashlib.sha256(b"fox").hexdigest()
    assert await bucket.head(KEY) == stored
    assert await bucket.get(KEY, b"".join) == b"fox"


async def test_second_put_takes_nothing_away(bucket: Bucket, put: Any) -> None:
    await put(b"fox")
    with pytest.raises(TakenError):
        await put(b"owl")
    assert await bucket.get(KEY, b"".join) == b"fox"


async def test_put_replaces_only_what_it_names(bucket: Bucket, put: Any) -> None:
    first = await put(b"fox")
    second = await put(b"owl", replaces=first)
    with pytest.raises(TakenError):
        await put(b"bee", replaces=first)
    assert await bucket.head(KEY) == second
    assert await bucket.get(KEY, b"".join) == b"owl"


async def test_put_in_place_of_nothing_is_refused(bucket: Bucket, put: Any) -> None:
    stored = await put(b"fox", OTHER)
    with pytest.raises((TakenError, GoneError)):
        await put(b"owl", replaces=stored)
    assert await bucket.head(KEY) is None


async def test_changed_file_is_not_put(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "video.mp4"
    source.write_bytes(b"edited")
    with pytest.raises(ChangedError):
        await bucket.put(KEY, source, sha256=hashlib.sha256(b"fox").hexdigest())
    assert await bucket.list() == {}


async def test_copy_keeps_content_and_metadata(bucket: Bucket, put: Any) -> None:
    stored = await put(b"fox", attempt="kb-1")
    copied = await bucket.copy(KEY, OTHER)
    assert replace(copied, e_tag=None) == replace(stored, e_tag=None)
    assert await bucket.get(OTHER, b"".join) == b"fox"


async def test_list_has_sizes_and_names_of_all(bucket: Bucket, put: Any) -> None:
    stored = await put(b"fox")
    await bucket.copy(KEY, OTHER)
    listed = await bucket.list()
    assert {key: item.bytes for key, item in listed.items()} == {KEY: 3, OTHER: 3}
    assert listed[KEY].e_tag == stored.e_tag


async def test_names_azure_lists_are_the_answered_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its listings leave the quotes out; no object may look like another one for that."""
    async with server(azure) as address:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "studio")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{address}/studio")
        with Bucket.open("az://loops", library="lib") as bucket:
            stored = await bucket.head("videos/fox.mp4")
            assert (await bucket.list())["videos/fox.mp4"] == stored


async def azure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as Azure does of a container with one blob."""
    listed = (
        "<EnumerationResults><Blobs><Blob><Name>videos/fox.mp4</Name><Properties>"
        "<Last-Modified>Sat, 28 Nov 2026 00:00:00 GMT</Last-Modified><Etag>0x8DE2E1</Etag>"
        "<Content-Length>3</Content-Length><Content-Type>video/mp4</Content-Type>"
        "</Properties></Blob></Blobs></EnumerationResults>"
    )
    while head := await reader.readuntil(b"\r\n\r\n"):
        is_list = b"comp=list" in head
        body = listed if is_list else ""
        of_it = "" if is_list else 'ETag: "0x8DE2E1"\r\n'
        length = len(body) if is_list else 3
        writer.write(
            "HTTP/1.1 200 OK\r\nLast-Modified: Sat, 28 Nov 2026 00:00:00 GMT\r\n"
            f"{of_it}Content-Length: {length}\r\n\r\n{body}".encode()
        )
        await writer.drain()


async def test_deleted_object_is_gone(bucket: Bucket, put: Any) -> None:
    await put(b"fox")
    await bucket.delete(KEY)
    await bucket.delete(KEY)
    assert await bucket.head(KEY) is None
    for call in (bucket.get(KEY, b"".join), bucket.copy(KEY, OTHER), bucket.known_head(KEY)):
        with pytest.raises(GoneError):
            await call


REFUSALS = [
    ("403 Forbidden", "SignatureDoesNotMatch", "it denies access (403): check the credentials"),
    ("401 Unauthorized", "Unauthorized", "it does not accept the credentials (401)"),
    ("404 Not Found", "NoSuchBucket", "there is no such bucket"),
    ("400 Bad Request", "InvalidRequest", "it answers 400"),
    ("503 Slow Down", "SlowDown", "it answers 503"),
]


@pytest.mark.parametrize(("status", "code", "said"), REFUSALS, ids=[item[1] for item in REFUSALS])
async def test_refusal_is_told_in_words(
    s3: Any, put_at: Any, status: str, code: str, said: str
) -> None:
    found = s3.bucket()
    found.refuses["PUT", ""] = status, code
    with pytest.raises(BucketError) as caught:
        await put_at(found)
    assert str(caught.value).startswith(said)


async def test_silent_bucket_cannot_be_reached(s3: Any, put_at: Any) -> None:
    found = s3.bucket()
    with pytest.raises(BucketError, match="it cannot be reached"):
        await put_at(found, AWS_ENDPOINT_URL="http://127.0.0.1:9")


async def test_plain_http_elsewhere_is_refused(s3: Any, put_at: Any) -> None:
    """Nothing is sent, not even a signature."""
    with pytest.raises(BucketError, match="its address is not an https one"):
        await put_at(s3.bucket(), AWS_ENDPOINT_URL="http://192.0.2.1:9")


@pytest.fixture
def put_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return what puts a file into a bucket of the server."""

    async def put_at(found: Any, **environ: str) -> None:
        for name, value in {**found.environ, **environ}.items():
            monkeypatch.setenv(name, value)
        source = tmp_path / "video.mp4"
        source.write_bytes(b"fox")
        with Bucket.open(found.url, library="lib") as bucket:
            await bucket.put(KEY, source, sha256=hashlib.sha256(b"fox").hexdigest())

    return put_at


async def test_error_shows_no_secret(s3: Any, put_at: Any) -> None:
    """The store itself would: nobody prints it."""
    found = s3.bucket()
    found.refuses["PUT", ""] = "418 Teapot", "verysecret"
    with pytest.raises(BucketError) as caught:
        await put_at(found)
    chain = (caught.value, caught.value.__cause__)
    assert "verysecret" not in "".join(map(str, chain))
    assert caught.value.__suppress_context__
