"""What a store says is to be done at a bucket: SQLite and Postgres agree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from libraries_in_postgres import library_in
from scripted import attempt, landed

from batch.attempt import Attempt, Checked, Landed
from batch.output.sqlite import Database
from batch.output.state import Put, Uploaded
from batch.output.store import Store

BUCKET, ELSEWHERE = "s3://studio/loops", "gs://studio"
FOX, OLD = "videos/fox.mp4", "versions/fox/1.mp4"
THERE = Uploaded(BUCKET, FOX, "0a", 9, 3.5, "kb-1", '"e1"')


@asynccontextmanager
async def sqlite(root: Path, _engine_url: Callable[[], str]) -> AsyncIterator[Store]:
    with Database.open(root / "state.db") as database:
        yield database


@asynccontextmanager
async def postgres(_root: Path, engine_url: Callable[[], str]) -> AsyncIterator[Store]:
    async with library_in(engine_url()) as library:
        yield library.database


IMPLEMENTATIONS: list[Callable[[Path, Callable[[], str]], AbstractAsyncContextManager[Store]]] = [
    sqlite,
    postgres,
]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda made: made.__name__)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with request.param(tmp_path, lambda: request.getfixturevalue("engine_url")) as made:
        yield made


def video(number: int, file: str, sha256: str, checked: str | None = None) -> Attempt:
    """Return an attempt whose video has landed."""
    state: Landed = replace(landed(str(number), file, 9), sha256=sha256)
    if checked is not None:
        state = replace(state, checked=Checked(9, 4.0, checked))
    return replace(attempt(state, name=f"kb-{number}", job_id="fox"), number=number)


def test_video_is_to_be_uploaded_until_it_is_there(store: Store) -> None:
    store.write([Put(video(1, FOX, "0a"))])
    assert store.not_uploaded(BUCKET) == [FOX]
    store.write([THERE._replace(target=ELSEWHERE)])
    assert store.not_uploaded(BUCKET) == [FOX]
    store.write([THERE])
    assert store.not_uploaded(BUCKET) == []
    assert store.targets() == [ELSEWHERE, BUCKET]


def test_edited_video_is_to_be_uploaded_again(store: Store) -> None:
    store.write([Put(video(1, FOX, "0a", checked="0b")), THERE])
    assert store.not_uploaded(BUCKET) == [FOX]
    store.write([THERE._replace(sha256="0b")])
    assert store.not_uploaded(BUCKET) == []


def test_displaced_video_belongs_elsewhere(store: Store) -> None:
    store.write([Put(video(1, OLD, "0a")), Put(video(2, FOX, "0b")), THERE])
    assert store.not_uploaded(BUCKET) == [OLD, FOX]
    assert store.surplus(BUCKET) == []


def test_object_with_another_place_may_go(store: Store) -> None:
    store.write([Put(video(1, OLD, "0a")), THERE])
    assert store.surplus(BUCKET) == []
    store.write([THERE._replace(file=OLD)])
    assert store.surplus(BUCKET) == [THERE]
    assert store.surplus(ELSEWHERE) == []


def test_object_of_a_discarded_video_may_go(store: Store) -> None:
    store.write([Put(video(1, FOX, "0a")), THERE])
    assert store.surplus(BUCKET) == []
    store.write([Put(store.attempt("kb-1").discarded(5.0))])
    assert store.surplus(BUCKET) == [THERE]


def test_only_copy_and_files_beside_videos_stay(store: Store) -> None:
    """The original of an edited video, and index.json, which belongs to no attempt."""
    index = Uploaded(BUCKET, "index.json", "0a", 5, 4.0)
    store.write([Put(video(1, FOX, "00", checked="0b")), THERE._replace(file=OLD), index])
    store.write([THERE._replace(sha256="0b"), index._replace(sha256="0c")])
    assert store.surplus(BUCKET) == []
