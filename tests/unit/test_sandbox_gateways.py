"""The observed habits of gateways, relays and file servers, as faults on request."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from sandbox_desk import desk

from batch.cli.commands.sandbox import command
from batch.sandbox import (
    KINDS,
    FaultPlanError,
    FaultRule,
    suffixes,
)
from batch.sandbox.api import PATH
from batch.sandbox.shapes import LINK_PLACES, OWN_ORIGIN

# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("throttled-words", 400, "Too many requests"),
        ("saturated-words", 400, "parallel task"),
        ("403-rate-limit", 403, "rate_limit_exceeded"),
        ("credit-words", 400, "credit balance is too low"),
        ("429-credit", 429, "Exhausted balance"),
        ("200-401", 200, '"code": 401'),
        ("200-402", 200, '"code": 402'),
        ("200-403", 200, '"code": 403'),
        ("200-422", 200, '"code": 422'),
        ("200-429", 200, '"code": 429'),
        ("200-false", 200, '"success": false'),
        ("200-error", 200, '"err_code"'),
    ],
)
def test_refusal_says_its_meaning_in_words(kind: str, status: int, words: str) -> None:
    """Without Kling's code, or under HTTP 200; nothing is created."""
    api = desk(f"submit:{kind}")

    got, body = api.post()

    assert got == status
    assert words in json.dumps(body)
    assert len(api.tasks) == 0


@pytest.mark.parametrize("kind", ["throttled-words", "credit-words", "200-429", "1302"])
def test_refusal_takes_other_words(kind: str) -> None:
    """In any language."""
    _, body = desk(f"submit:{kind}:message=负载已饱和").post()

    assert "负载已饱和" in json.dumps(body, ensure_ascii=False)


@pytest.mark.parametrize(
    ("suffix", "value"),
    [
        ("retry_after=20", "20"),
        ("retry_after=20,moment=s", "1800000020"),
        ("retry_after=20,moment=ms", "1800000020000"),
    ],
)
def test_retry_after_is_span_or_moment(suffix: str, value: str) -> None:
    """In seconds, or since the epoch."""
    api = desk(f"submit:429:{suffix}")
    api.post()

    assert api.heads == [{"Retry-After": value}]


@pytest.mark.parametrize(
    ("rule", "size"), [("big-header", 60_000), ("big-header:size=9", 9), ("many-headers:size=9", 9)]
)
@pytest.mark.parametrize("stage", ["submit", "query", "lookup", "list", "any"])
def test_large_head_comes_with_real_answer(stage: str, rule: str, size: int) -> None:
    """At every stage."""
    api = desk(f"{stage}:{rule}")
    task_id = api.create(external_task_id="mine")
    answers = [api.query("mine"), api.query(task_id), api.ask("GET", PATH)]
    heads = list(filter(None, api.heads))

    assert [status for status, _ in answers] == [200] * 3
    assert len(heads) == (4 if stage == "any" else 1)
    assert (len(heads[0]) if "many" in rule else len(heads[0]["X-Large"])) == size


@pytest.mark.parametrize(
    ("kind", "status"), [("html-2xx", 200), ("404-html", 404), ("405-html", 405)]
)
def test_wrong_address_shows_page_at_every_path(kind: str, status: int) -> None:
    """Nothing is created."""
    api = desk(f"any:{kind}")

    answers = [api.post(), api.query("1"), api.ask("GET", PATH), api.ask("POST", "/v1")]

    assert {got for got, _ in answers} == {status}
    assert all(body.startswith("<") for _, body in answers)
    assert api.stats.posts == 0


# -- tasks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in LINK_PLACES if place != OWN_ORIGIN])
def test_link_stands_elsewhere(place: str) -> None:
    """Once, and not where the documentation has it."""
    api = desk(f"query:link:{place}")
    task_id = api.create()
    api.moment += 1000

    _, body = api.query(task_id)

    videos = body.get("data", {}).get("task_result", {}).get("videos", [])
    assert json.dumps(body).count("https://cdn.example/") == 1
    assert not any(isinstance(video, dict) and video["url"] for video in videos)
    assert place.rpartition(".")[2] in json.dumps(body)


@pytest.mark.parametrize("kind", ["reworded-moderation", "unknown-words"])
def test_task_fails_in_other_words(kind: str) -> None:
    """Those of the kind, or any that the rule names."""
    usual, chosen = desk(f"outcome:{kind}"), desk(f"outcome:{kind}:message=违禁词")
    seen = []
    for api in (usual, chosen):
        task_id = api.create()
        api.moment += 1000
        seen.append(api.query(task_id)[1]["data"])

    assert [task["task_status"] for task in seen] == ["failed", "failed"]
    assert seen[0]["task_status_msg"] in KINDS["outcome"][kind]
    assert seen[1]["task_status_msg"] == "违禁词"


def test_word_in_prompt_fails_first_tasks() -> None:
    """`*2` lets the first two of this prompt fail, whatever other prompts do."""
    api = desk()
    prompts = ["sandbox:generation*2 a", "sandbox:generation*2 b"]
    for prompt in prompts * 3:
        api.create(prompt=prompt)

    outcomes = [task.outcome for task in api.tasks]

    assert outcomes == ["failed"] * 4 + ["succeed"] * 2


@pytest.mark.parametrize("stage", ["query", "lookup"])
def test_relay_answers_with_oldest_task(stage: str) -> None:
    """Whatever was asked for."""
    api = desk(f"{stage}:other-task")
    oldest, newest = api.create(), api.create(external_task_id="mine")

    _, body = api.query("mine" if stage == "lookup" else newest)

    assert body["data"]["task_id"] == oldest


# -- accounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other_keys", "by_task_id", "by_external_id", "again"),
    [("nothing", 404, 404, 200), ("task-ids", 200, 404, 200), ("everything", 200, 200, 400)],
)
def test_other_key_sees_as_configured(
    other_keys: str, by_task_id: int, by_external_id: int, again: int
) -> None:
    """The external ids of a key collide with those of tasks that it finds."""
    api = desk(other_keys=other_keys)
    task_id = api.create(external_task_id="mine")

    assert api.query(task_id, key="another")[0] == by_task_id
    assert api.query("mine", key="another")[0] == by_external_id
    assert api.post(key="another", external_task_id="mine")[0] == again


@pytest.mark.parametrize(("first", "code"), [(True, 1201), (False, 1102)])
def test_empty_account_is_refused_until_topped_up(first: bool, code: int) -> None:
    """A duplicate is noticed before that or after, as configured."""
    api = desk(checks_duplicates_first=first)
    api.create(external_task_id="mine")
    api.world.configure(has_credit=False)
    (status, fresh), (_, again) = (api.post(external_task_id=name) for name in ("new", "mine"))
    api.world.configure(has_credit=True)

    assert (status, fresh["code"], again["code"]) == (429, 1102, code)
    assert api.post(external_task_id="new")[0] == 200


def test_answer_can_omit_external_id() -> None:
    """The task is found by it all the same."""
    api = desk(tells_external_id=False)
    _, created = api.post(external_task_id="mine")
    _, found = api.query("mine")

    assert created["data"]["task_info"] == found["data"]["task_info"] == {}
    assert found["data"]["task_id"] == created["data"]["task_id"]


# -- the command -----------------------------------------------------------------------------------


def test_help_shows_every_fault_and_suffix() -> None:
    """Those before and after creation by one line."""
    shown = CliRunner().invoke(command, ["--help"]).output
    names = {line.split()[0] for line in shown.splitlines() if line.startswith("    ")}
    faults = {kind for kinds in KINDS.values() for kind in kinds}
    derived = {kind for kind in faults if kind.endswith(("-before", "-after"))}

    assert faults - derived <= names
    assert set(suffixes()) <= names
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("qery:500", "query"),
        ("submit:trottled-words", "throttled-words"),
        ("query:500:frist=3", "first"),
        ("query:link:to=vide_url", "video_url"),
    ],
)
def test_misspelt_rule_gets_did_you_mean(text: str, meant: str) -> None:
    """Whichever part of it is misspelt."""
    with pytest.raises(FaultPlanError, match=f"did you mean {meant}"):
        FaultRule.from_text(text)
