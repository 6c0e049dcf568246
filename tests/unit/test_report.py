"""What the report says: from attempts and runs to entries, needs, lanes and sums."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from batch.attempt import (
    Attempt,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Landed,
    Open,
    PaidTask,
    Pin,
    TimedOut,
    Unconfirmed,
)
from batch.errors import ExitCode
from batch.job import Failure, FailureKind, Video, canonical_request
from batch.report.data import build, script_json
from batch.report.entries import entries
from batch.report.money import money
from batch.report.needs import needs
from batch.report.night import nights, sentence
from batch.report.page import render
from batch.report.records import Records, Run, arranged

DAY_S = 86_400
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
NIGHT = Run("tonight", NOW - 9 * 3600, NOW - 6 * 3600, NOW - 6 * 3600, 1)
EARLIER = Run("earlier", NOW - 5 * DAY_S, NOW - 5 * DAY_S + 600, NOW - 5 * DAY_S + 600, 0)
TONIGHT, BEFORE = NIGHT.started_at, EARLIER.started_at


def attempt(job_id: str, state: Any, *, number: int = 1, **options: Any) -> Attempt:
    body = {"prompt": f"a {job_id}", "model_name": "kling-v3", "mode": "std", **options}
    request = canonical_request(body)
    name = f"kb-{job_id}-{number}"
    return Attempt(name, job_id, "v2:0", number, request, state, cost_usd=0.42)


def task(sent: float, task_id: str = "8") -> PaidTask:
    return PaidTask(task_id, sent)


def landed(job_id: str, sent: float, *, file: str | None = None, **more: Any) -> Attempt:
    state = Landed(
        task=task(sent),
        generated_at=sent + 60,
        landed_at=sent + 70,
        file=file or f"videos/{job_id}.mp4",
        bytes=9,
        sha256="ab" * 32,
        video=Video(5.04, 320, 180),
    )
    return attempt(job_id, state, **more)


def failed(job_id: str, kind: FailureKind, sent: float = TONIGHT + 5, **more: Any) -> Attempt:
    return attempt(job_id, Failed(Failure(kind, "no luck"), sent + 30, task(sent)), **more)


def records(*attempts: Attempt, **more: Any) -> Records:
    by_job: dict[str, list[Attempt]] = {}
    for item in attempts:
        by_job.setdefault(item.job_id, []).append(item)
    files = frozenset(getattr(item.state, "file", "") for item in attempts)
    return Records(
        **{
            "name": "library",
            "now": NOW,
            "attempts": by_job,
            "runs": (EARLIER, NIGHT),
            "present": files,
            **more,
        }
    )


def entry(*attempts: Attempt, **more: Any) -> dict[str, Any]:
    (found,) = entries(records(*attempts, **more), NIGHT)
    return found


# -- entries


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (Open(task(TONIGHT)), "timed_out"),
        (TimedOut(task(TONIGHT), NOW), "timed_out"),
        (Generated(task(TONIGHT), NOW), "to_download"),
        (Intended(TONIGHT), "unconfirmed"),
        (Unconfirmed(NOW, Doubt(Failure(FailureKind.NETWORK, "lost"))), "unconfirmed"),
        (Failed(Failure(FailureKind.MODERATION, "no"), NOW), "failed"),
    ],
)
def test_status_follows_the_latest_attempt(state: Any, status: str) -> None:
    assert entry(attempt("a", state))["status"] == status


def test_open_task_is_generating_during_a_run() -> None:
    assert entry(attempt("a", Open(task(TONIGHT))), is_running=True)["status"] == "generating"


def test_landed_job_without_its_file_is_missing() -> None:
    found = entry(landed("a", BEFORE), present=frozenset())
    assert (found["status"], "now" in found, "file" in found["tries"][0]) == (
        "missing",
        False,
        False,
    )


def test_failed_change_keeps_showing_the_former_video() -> None:
    found = entry(landed("a", BEFORE), failed("a", FailureKind.MODERATION, number=2))
    assert (found["status"], found["now"]) == ("failed", 1)
    assert found["tries"][1]["file"] is True


def test_first_video_of_the_night_is_new() -> None:
    assert entry(landed("a", TONIGHT + 1))["flag"] == "new"


def test_second_video_of_a_job_is_changed() -> None:
    former = landed("a", BEFORE, file="versions/a/20261123T120000Z.mp4", prompt="before")
    found = entry(former, landed("a", TONIGHT + 1, number=2))
    assert found["flag"] == "changed"
    assert found["tries"][1]["prompt"] == "before"


def test_video_of_an_earlier_night_has_no_flag() -> None:
    found = entry(landed("a", BEFORE))
    assert "flag" not in found
    assert "night" not in found


def test_restored_version_is_pinned() -> None:
    restored = landed("a", BEFORE)
    restored = replace(restored, state=replace(restored.state, pin=Pin("v2:0", BEFORE)))
    newer = landed("a", TONIGHT, number=2, file="versions/a/20261128T030000Z.mp4")
    found = entry(restored, newer)
    assert (found["status"], found["flag"], found["now"]) == ("succeeded", "pinned", 1)


def test_restored_version_has_the_time_that_restore_lists() -> None:
    """Not that of the moment at which it was restored."""
    restored = landed("a", TONIGHT)
    restored = replace(restored, state=replace(restored.state, first_at=BEFORE))
    assert entry(restored)["tries"][0]["landed"] == round(BEFORE)


def test_discarded_video_needs_nobody() -> None:
    state = Discarded(task(TONIGHT), TONIGHT + 60, TONIGHT + 70, NOW, 9, "ab" * 32)
    read = records(attempt("a", state))
    (found,) = entries(read, NIGHT)
    assert found["status"] == "discarded"
    assert needs([found], NIGHT, NOW) == []
    assert nights(read, [found])[0]["tasks"] == [[0, 0, 0.0, 60.0, 0, 70.0]]


def test_missing_video_of_an_orphan_needs_nobody() -> None:
    read = records(landed("a", BEFORE), present=frozenset(), listed=(("b", ()),))
    assert needs(entries(read, NIGHT), NIGHT, NOW) == []


def test_marks_of_origin_are_named() -> None:
    made = landed("a", TONIGHT)
    video = replace(made.state.video, credentials=("c2pa", "xmp"))
    assert entry(replace(made, state=replace(made.state, video=video)))["tries"][0]["marks"] == (
        "c2pa, xmp"
    )


def test_equal_request_is_written_once() -> None:
    found = entry(failed("a", FailureKind.GENERATION), landed("a", TONIGHT + 1, number=2))
    assert "prompt" in found["tries"][0]
    assert "prompt" not in found["tries"][1]


def test_jobs_stand_in_the_order_of_the_manifest() -> None:
    read = records(
        landed("gone", BEFORE),
        landed("a", TONIGHT),
        landed("b", BEFORE),
        listed=(("b", ("x",)), ("waiting", ()), ("a", ())),
    )
    found = entries(read, NIGHT)
    assert [item["id"] for item in found] == ["b", "waiting", "a", "gone"]
    assert found[0]["tags"] == ["x"]
    assert found[1]["status"] == "not_made"
    assert [item.get("orphan") for item in found] == [None, None, None, True]


def test_without_a_manifest_the_first_submission_decides() -> None:
    found = entries(records(landed("b", BEFORE), landed("a", TONIGHT)), NIGHT)
    assert [item["id"] for item in found] == ["b", "a"]


def test_file_elsewhere_is_not_linked() -> None:
    found = entry(landed("a", BEFORE, file="../secret.mp4"))
    assert "file" not in found["tries"][0]


def test_message_is_redacted() -> None:
    words = "see https://cdn.example/v.mp4?ksSecret=abc"
    state = Failed(Failure(FailureKind.DOWNLOAD, words), NOW, task(TONIGHT))
    assert "ksSecret" not in json.dumps(entry(attempt("a", state)))


# -- needs


def kinds(*attempts: Attempt, run: Run = NIGHT, **more: Any) -> dict[str, list[int]]:
    found = entries(records(*attempts, **more), NIGHT)
    return {need.kind: need.jobs for need in needs(found, run, NOW)}


def test_trouble_is_grouped_and_paid_videos_come_first() -> None:
    found = kinds(
        failed("a", FailureKind.GENERATION),
        failed("b", FailureKind.MODERATION),
        attempt("c", Unconfirmed(NOW, Doubt(Failure(FailureKind.NETWORK, "lost")))),
        attempt("d", Generated(task(BEFORE), BEFORE + 60)),
        failed("e", FailureKind.MODERATION),
        landed("f", BEFORE),
        listed=tuple((job_id, ()) for job_id in "abcdef"),
    )
    assert list(found.items()) == [
        ("missing", [3]),
        ("unconfirmed", [2]),
        ("moderation", [1, 4]),
        ("generation", [0]),
    ]


def test_reason_in_unknown_words_is_a_group_of_its_own() -> None:
    failure = Failure(FailureKind.GENERATION, "the take did not come together", is_unexplained=True)
    state = Failed(failure, TONIGHT + 30, task(TONIGHT))
    assert list(kinds(attempt("a", state))) == ["unexplained"]


def test_refused_account_comes_before_everything() -> None:
    refused = replace(NIGHT, exit_code=ExitCode.ACCOUNT, summary={"stopped": "no credit"})
    found = needs(entries(records(failed("a", FailureKind.MODERATION)), refused), refused, NOW)
    assert [need.kind for need in found] == ["account", "moderation"]
    assert found[0].message == "no credit"


def test_failed_job_without_a_manifest_entry_needs_nobody() -> None:
    read = {"listed": (("b", ()),)}
    assert kinds(failed("a", FailureKind.MODERATION), **read) == {}


@pytest.mark.parametrize(
    ("age", "left"), [(1, "29 days left"), (29.5, "the last day"), (40, "late")]
)
def test_missing_video_says_how_long_it_is_kept(age: float, left: str) -> None:
    state = Generated(task(NOW - age * DAY_S), NOW - age * DAY_S)
    (need,) = needs(entries(records(attempt("a", state)), None), None, NOW)
    assert left in need.message


def test_common_message_is_said_once() -> None:
    found = entries(
        records(failed("a", FailureKind.MODERATION), failed("b", FailureKind.MODERATION)), NIGHT
    )
    (need,) = needs(found, NIGHT, NOW)
    assert (need.message, need.notes) == ("no luck", ["", ""])


# -- the night


def drawn(*attempts: Attempt) -> list[list[Any]]:
    read = records(*attempts, runs=(NIGHT,))
    return nights(read, entries(read, NIGHT))[0]["tasks"]


def test_tasks_at_the_same_time_take_a_lane_each() -> None:
    tasks = drawn(landed("a", TONIGHT + 1), landed("b", TONIGHT + 2), landed("c", TONIGHT + 61))
    assert [(row[1], row[2], row[3]) for row in tasks] == [
        (0, 1.0, 61.0),
        (1, 2.0, 62.0),
        (0, 61.0, 121.0),
    ]


def test_download_is_drawn_after_its_generation() -> None:
    assert drawn(landed("a", TONIGHT + 1)) == [[0, 0, 1.0, 61.0, 0, 71.0]]


def test_every_paid_attempt_of_a_job_is_drawn() -> None:
    first = failed("a", FailureKind.GENERATION, sent=TONIGHT)
    tasks = drawn(first, landed("a", TONIGHT + 40, number=2))
    assert [row[4] for row in tasks] == [1, 0]


def test_task_of_an_earlier_run_begins_with_this_one() -> None:
    state = TimedOut(task(TONIGHT - 1000), TONIGHT + 50)
    assert drawn(attempt("a", state)) == [[0, 0, 0.0, 50.0, 2]]


def test_video_fetched_again_is_no_task_of_the_night() -> None:
    again = landed("a", BEFORE)
    again = replace(again, state=replace(again.state, landed_at=TONIGHT + 5))
    assert drawn(again) == []


def test_clock_set_back_gives_no_time_below_zero() -> None:
    """An hour back between submission and end; and the video is kept for 30 days at most."""
    back = landed("a", TONIGHT + 4000)
    back = replace(
        back, state=replace(back.state, generated_at=TONIGHT + 460, landed_at=TONIGHT + 470)
    )
    assert drawn(back) == [[0, 0, 4000.0, 4000.0, 0, 470.0]]
    found = [entry(landed("a", NOW + 400 * DAY_S), present=frozenset())]
    assert needs(found, NIGHT, NOW)[0].message == "30 days left"


def test_runs_that_did_nothing_are_left_out() -> None:
    read = records(landed("a", BEFORE))
    assert [night["id"] for night in nights(read, entries(read, EARLIER))] == ["earlier"]


def test_refusals_of_a_run_are_marked() -> None:
    night = replace(NIGHT, summary={"refused": [[3, "1303", 2]]})
    read = records(landed("a", TONIGHT), runs=(night,))
    assert nights(read, entries(read, night))[0]["refused"] == [[3, "1303", 2]]


def test_run_without_an_end_lasts_until_the_next() -> None:
    rows = [("r-1", 10.0, None, None, None), ("r-2", 50.0, None, None, '{"stopped": "budget"}')]
    first, second = arranged(rows, now=99.0)
    assert (first.until, second.until, second.summary) == (50.0, 99.0, {"stopped": "budget"})
    assert "did not end" in sentence(first, is_running=False)
    assert sentence(second, is_running=True) == "under way"


# -- money


def test_sums_are_over_attempts_and_not_over_jobs() -> None:
    tries = [failed("a", FailureKind.GENERATION, number=n) for n in (1, 2)]
    found = money([*tries, landed("a", TONIGHT, number=3)], NOW)
    (model,) = found["models"]
    assert (found["tasks"], found["total"]) == (3, 1.26)
    assert (model["lost"], model["times"], model["median"]) == (0.84, [60.0], 60.0)


def test_attempt_without_a_task_costs_nothing() -> None:
    assert money([attempt("a", Intended(NOW))], NOW)["tasks"] == 0


def test_days_are_local_and_begin_as_the_budgets() -> None:
    at_two = landed("b", TONIGHT)  # 3:00 UTC, 4:00 in Berlin: with days from noon, of the 27th
    found = money([landed("a", NOW - 40 * DAY_S), at_two], NOW, time(13), ZoneInfo("Europe/Berlin"))
    assert (found["month"], found["total"], len(found["days"])) == (0.42, 0.84, 30)
    assert [day["date"] for day in found["days"] if day["usd"]] == [date(2026, 11, 27)]
    assert (found["days"][-1]["date"], found["day_starts"]) == (date(2026, 11, 28), "13:00")


def test_month_begins_at_local_midnight() -> None:
    """31 October, 23:30 UTC, is November in Berlin, as it is for a budget."""
    last = landed("a", datetime(2026, 10, 31, 23, 30, tzinfo=UTC).timestamp())
    assert money([last], NOW, zone=ZoneInfo("Europe/Berlin"))["month"] == 0.42
    assert money([last], NOW, zone=UTC)["month"] == 0.0


def test_unconfirmed_money_stands_beside_the_sums() -> None:
    doubt = Doubt(Failure(FailureKind.NETWORK, "lost"), sent_at=TONIGHT + 9)
    page = build(records(attempt("a", Unconfirmed(NOW, doubt)), runs=(NIGHT,)))
    tiles = page.data["tiles"]
    assert (tiles["night_usd"], tiles["night_perhaps_usd"]) == (0.0, 0.42)
    assert (tiles["month_usd"], tiles["month_perhaps_usd"]) == (0.0, 0.42)
    assert (page.money["perhaps"], page.money["unconfirmed"], page.money["tasks"]) == (0.42, 1, 0)
    assert render(page).count("perhaps $0.42 more") == 2


def test_running_run_goes_by_the_limits_of_the_last() -> None:
    ended = replace(NIGHT, summary={"limits": {"budget_per_month_usd": 9.0, "day_starts": "12:00"}})
    runs = (ended, Run("now", NOW - 60, NOW))
    page = build(records(landed("a", NOW - 59), runs=runs, is_running=True))
    assert page.data["tiles"]["month_budget"] == 9.0
    assert (page.night, page.money["day_starts"]) == ("this run", "12:00")


def test_run_that_did_nothing_yet_leaves_last_night() -> None:
    runs = (NIGHT, Run("now", NOW - 60, NOW))
    page = build(records(landed("a", TONIGHT), runs=runs, is_running=True))
    assert (page.night, page.data["tiles"]["night_usd"]) == ("last night", 0.42)


# -- the page's data


def test_data_has_no_character_of_markup() -> None:
    text = script_json({"prompt": "</script><!--&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"prompt": "</script><!--&\u2028"}


def test_tiles_count_what_is_here_and_what_is_not() -> None:
    tiles = build(
        records(
            landed("a", BEFORE),
            landed("b", TONIGHT),
            failed("c", FailureKind.MODERATION),
            attempt("d", TimedOut(task(TONIGHT), NOW)),
        )
    ).data["tiles"]
    assert (tiles["here"], tiles["all"], tiles["needs"], tiles["away"]) == (2, 4, 2, 1)
    assert (tiles["new"], tiles["changed"], tiles["night_usd"]) == (1, 0, 1.26)


def test_empty_state_makes_a_page() -> None:
    data = build(Records("library", NOW, {})).data
    assert (data["jobs"], data["run"], data["nights"]) == ([], None, [])


def test_page_holds_no_account_and_no_address() -> None:
    secret = replace(
        landed("a", TONIGHT),
        account=replace(attempt("a", Intended(0)).account, base_url="https://x", key_hash="k3y"),
        token_hash="t0ken",
    )
    text = json.dumps(build(records(secret)).data)
    assert not [word for word in ("https://x", "k3y", "t0ken") if word in text]
