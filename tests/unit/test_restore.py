"""Which version a person means, and which of them would be chosen anyway."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted import attempt, landed

from batch.errors import UsageError
from batch.library.restore import Version, choose, version_of

SECOND = 1_795_141_868.0  # 2026-11-20T02:31:08Z


def version(name: str, file: str, sha256: str, at: float = SECOND) -> Version:
    state = replace(landed("8", file, 9), sha256=sha256, landed_at=at)
    return version_of(attempt(state, name=name), state)


CURRENT = version("kb-3", "videos/a.mp4", "c0ffee" * 10)
TWIN = version("kb-2", "versions/a/20261120T023108Z-2.mp4", "20261" + "b" * 59)
OLDEST = version("kb-1", "versions/a/20261120T023108Z.mp4", "a" * 64)
OLDER_RELEASE = version("kb-0", ".kling-batch/former/a.kb-0.mp4", "d" * 64, SECOND - 86_400.0)
ALL = [CURRENT, TWIN, OLDEST, OLDER_RELEASE]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (None, TWIN),
        ("20261120T023108Z", OLDEST),
        ("20261120T023108Z.mp4", OLDEST),
        ("20261120T023108Z-2", TWIN),
        ("versions/a/20261120T023108Z-2.mp4", TWIN),
        ("2026-11-19", OLDER_RELEASE),
        ("2026-11-19T02:31", OLDER_RELEASE),
        ("2026-11-19 02:31:08", OLDER_RELEASE),
        ("aaaa", OLDEST),
        ("C0FFEE", CURRENT),
        ("a.kb-0", OLDER_RELEASE),
    ],
)
def test_version_is_chosen_by_what_names_it(name: str | None, meant: Version) -> None:
    assert choose(ALL, "a", name) == meant


@pytest.mark.parametrize("name", ["2026-11-20", "20261120", "2026", "----", "aaa", "", "ffff"])
def test_name_of_none_or_several_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"means (no version|\d versions) of job 'a'"):
        choose(ALL, "a", name)


def test_job_with_one_video_has_no_former_version() -> None:
    with pytest.raises(UsageError, match="has no former version"):
        choose([CURRENT], "a", None)
