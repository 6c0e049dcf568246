"""The places of former versions: readable, and never in each other's way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.output.layout import version_file, version_folder

AT = 1_795_141_868.0  # 2026-11-20, 02:31:08 UTC


def test_version_is_named_by_its_landing() -> None:
    assert version_file("beach", AT) == "versions/beach/20261120T023108Z.mp4"
    assert version_file("night/city", AT + 0.9) == "versions/night/city/20261120T023108Z.mp4"
    assert version_file("beach", AT, 2) == "versions/beach/20261120T023108Z-2.mp4"


@pytest.mark.parametrize("at", [-1e12, -1.0, 0.0, 1e12, 1e300])
def test_impossible_time_still_names_a_version(at: float) -> None:
    name = version_file("a", at)
    assert name in {"versions/a/19700101T000000Z.mp4", "versions/a/99991231T235959Z.mp4"}


@pytest.mark.parametrize(
    ("job_id", "folder"),
    [
        ("a/20261120T023108Z", "versions/a/20261120T023108Z"),
        ("clip.mp4", "versions/clip.mp4"),
        ("a/20261120T023108Z.mp4", "versions/a/20261120T023108Z.mp4_"),
        ("a/20261120t023108z-2.MP4/b", "versions/a/20261120t023108z-2.MP4_/b"),
        ("20261120T023108Z.mp4_", "versions/20261120T023108Z.mp4__"),
    ],
)
def test_only_an_id_like_a_version_is_escaped(job_id: str, folder: str) -> None:
    assert version_folder(job_id) == folder


part = st.sampled_from(["a", "20261120T023108Z", "20261120T023108Z-2"])
end = st.sampled_from(["", ".mp4", ".mp4_", ".MP4", ".mp4__"])
ids = st.lists(st.tuples(part, end).map("".join), min_size=1, max_size=3).map("/".join)


@given(ids, ids, st.integers(1, 3))
def test_no_version_is_where_another_job_needs_a_folder(one: str, other: str, number: int) -> None:
    file, folder = version_file(one, AT, number).casefold(), version_folder(other).casefold()
    assert not f"{folder}/".startswith(f"{file}/")
    if version_folder(one) == version_folder(other):
        assert one == other
