"""Patterns: which jobs they take, and what is refused because it takes none."""

from __future__ import annotations

import pytest

from batch.attempt import Phase
from batch.errors import UsageError
from batch.job import Job
from batch.plan.select import STATES, Selection, read_pattern, state_of

JOBS = [
    Job("sea/whale", "{}", "v1:1", ("blue",)),
    Job("city night", "{}", "v1:2"),
    Job("night", "{}", "v1:3"),
]


def refused(*select: str, exclude: tuple[str, ...] = (), known: tuple[str, ...] = ()) -> str | None:
    try:
        Selection(select, exclude).check(JOBS, lambda: known)
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("select", "exclude", "is_taken"),
    [
        ((), (), True),
        (("sea/*",), (), True),
        (("sky/*",), (), False),
        (("tag:blue",), (), True),
        (("tag:re*",), (), False),
        (("sky/*", "tag:b*"), (), True),
        (("state:failed",), (), True),
        (("state:new",), (), False),
        ((), ("sky/*",), True),
        ((), ("tag:blue",), False),
        (("sea/*",), ("state:failed",), False),
    ],
)
def test_patterns_take_ids_tags_and_states(
    select: tuple[str, ...], exclude: tuple[str, ...], is_taken: bool
) -> None:
    assert Selection(select, exclude).takes("sea/whale", ("blue",), "failed") is is_taken


@pytest.mark.parametrize("id_", ["city night", "shot[1]", "a!", "café", "cafe\u0301"])
def test_id_takes_its_own_job(id_: str) -> None:
    assert Selection((read_pattern(id_),)).takes(id_, (), "new")
    assert not Selection((read_pattern(id_),)).takes("night", (), "new")


def test_every_phase_is_a_state() -> None:
    words = {state_of(phase) for phase in (None, *Phase)}
    assert words == set(STATES)
    assert state_of(Phase.GENERATED, "download") == "failed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty pattern matches no job"),
        (" ", "an empty pattern matches no job"),
        ("state:faild", r"the states are new, open, .*for example state:failed"),
        ("state:", "the states are"),
        ("night\r", "an invisible character"),
        ("a\nb", "an invisible character"),
    ],
)
def test_pattern_that_never_matches_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pattern(text)


def test_pattern_without_a_job_is_refused() -> None:
    assert refused("sea/*", "city night", "tag:blue", "state:failed") is None
    assert refused("nigth", "tag:blu") == (
        "the pattern 'nigth' selects no job of the manifest; did you mean 'night'?\n"
        "the pattern 'tag:blu' selects no job of the manifest; did you mean 'tag:blue'?"
    )
    assert refused(exclude=("nigth",)) is not None


def test_excluded_tag_may_be_idle() -> None:
    assert refused(exclude=("tag:draft", "state:open")) is None
    assert list(Selection(exclude=("tag:draft", "tag:blue")).idle_tags(JOBS)) == ["tag:draft"]


def test_pattern_of_orphans_is_told() -> None:
    told = refused("old-*", known=("night", "old-1", "old-2"))
    assert told is not None
    assert "no job of the manifest, only what has left it: 'old-1' and 1 more" in told


def test_nothing_left_by_exclusion_is_refused() -> None:
    assert refused("tag:blue", exclude=("sea/*",)) == "every job that is selected is excluded, too"
    assert refused("tag:blue", exclude=("state:succeeded",)) is None
