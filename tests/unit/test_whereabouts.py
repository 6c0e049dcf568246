"""Where the bytes of a video are: here first, then in the library's bucket, then in any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch.output.sqlite import Database
from batch.output.state import Uploaded
from batch.output.whereabouts import Bytes, Where, Whereabouts
from batch.target import Target

OWN, OTHER = "s3://studio/loops", "gs://studio"
FOX, OLD = "videos/fox.mp4", "versions/fox/20261120T023108Z.mp4"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "state.db") as made:
        yield made


def put(database: Database, url: str, file: str, attempt: str | None = "kb-1") -> Uploaded:
    record = Uploaded(url, file, "0a", 9, 3.5, attempt)
    database.write([record])
    return record


def of(database: Database, url: str | None, file: str, *attempts: str, is_here: bool) -> Bytes:
    target = None if url is None else Target(url)
    return Whereabouts(database, target).of(file, *attempts, is_here=is_here)


def test_first_place_counts(database: Database) -> None:
    """What is here may be in the bucket, too; another bucket counts for what is nowhere else."""
    assert of(database, OWN, FOX, "kb-1", is_here=True) == (Where.HERE, None)
    assert of(database, OWN, FOX, "kb-1", is_here=False) == (Where.NOWHERE, None)
    other = put(database, OTHER, FOX)
    assert of(database, OWN, FOX, "kb-1", is_here=True) == (Where.HERE, None)
    assert of(database, OWN, FOX, "kb-1", is_here=False) == (Where.ELSEWHERE, other)
    assert of(database, None, FOX, "kb-1", is_here=False) == (Where.ELSEWHERE, other)
    own = put(database, OWN, FOX)
    assert of(database, OWN, FOX, "kb-1", is_here=False) == (Where.IN_BUCKET, own)
    assert of(database, OWN, FOX, "kb-1", is_here=True).url == f"{OWN}/{FOX}"


def test_video_is_known_by_its_attempt(database: Database) -> None:
    """Its name in the bucket may be the one before it moved; another's may stand at its own still."""
    put(database, OWN, FOX)
    assert of(database, OWN, OLD, "kb-1", is_here=False).url == f"{OWN}/{FOX}"
    assert of(database, OWN, FOX, "kb-2", is_here=False).where is Where.NOWHERE
    assert of(database, OWN, FOX, "kb-2", "kb-1", is_here=False).where is Where.IN_BUCKET
    put(database, OWN, "videos/owl.json", None)
    assert of(database, OWN, "videos/owl.json", "None", is_here=False).where is Where.NOWHERE


@pytest.mark.parametrize("original", ["versions/fox/1.mp4", "videos/fox-2.mp4", "videos/goat.mp4"])
def test_edited_video_is_not_what_it_was_before(database: Database, original: str) -> None:
    put(database, OWN, original)
    own = put(database, OWN, FOX)
    assert of(database, OWN, FOX, "kb-1", is_here=False).record == own
