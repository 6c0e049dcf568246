"""The observed habits of gateways, relays and file servers, as faults on request."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from batch.cli.commands.sandbox import command
from batch.sandbox import (
    KINDS,
    FaultPlan,
    FaultPlanError,
    FaultRule,
    SandboxConfig,
    serve,
    suffixes,
)
from batch.sandbox.api import PATH, Api, Request
from batch.sandbox.shapes import LINK_PLACES, OWN_ORIGIN
from batch.sandbox.world import World

BODY = {"prompt": "A fox", "model_name": "kling-v2-6", "external_task_id": "mine"}
START = 1_800_000_000.0


@dataclass
class Desk:
    """The API in memory, and a clock that stands still."""

    faults: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    moment: float = START

    def __post_init__(self) -> None:
        plan = FaultPlan.from_strings(self.faults)
        config = SandboxConfig(seed=1, faults=plan, **self.options)
        self.world = World.from_config(config, lambda: self.moment)
        self.world.links.origin = "https://cdn.example"
        self.world.links.api_origin = "https://api.example"
        self.api = Api(self.world, lambda _task: None)

    def ask(
        self, method: str, path: str, body: Any = None, key: str = "k"
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers, and the body as JSON or text."""
        headers = {"Authorization": f"Bearer {key}"}
        answer, _ = self.api.answer(Request(method, path, headers, json.dumps(body).encode()))
        text = answer.body.decode()
        is_json = answer.content_type.startswith("application/json") and text
        return answer.status, answer.headers, json.loads(text) if is_json else text

    def post(self, key: str = "k", **changes: Any) -> tuple[int, dict[str, str], Any]:
        return self.ask("POST", PATH, {**BODY, **changes}, key)

    def query(self, reference: str, key: str = "k") -> tuple[int, dict[str, str], Any]:
        return self.ask("GET", f"{PATH}/{reference}", key=key)

    def task_id(self, index: int = 0) -> str:
        return list(self.world.engine)[index].task_id


def desk(*faults: str, **options: Any) -> Desk:
    return Desk(faults, options)


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

    got, _, body = api.post()

    assert got == status
    assert words in json.dumps(body)
    assert len(api.world.engine) == 0


@pytest.mark.parametrize("kind", ["throttled-words", "credit-words", "200-429", "1302"])
def test_refusal_takes_other_words(kind: str) -> None:
    """In any language."""
    _, _, body = desk(f"submit:{kind}:message=负载已饱和").post()

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
    _, headers, _ = desk(f"submit:429:{suffix}").post()

    assert headers["Retry-After"] == value


@pytest.mark.parametrize(
    ("rule", "size"), [("big-header", 60_000), ("big-header:size=9", 9), ("many-headers:size=9", 9)]
)
@pytest.mark.parametrize("stage", ["submit", "query", "lookup", "list", "any"])
def test_large_head_comes_with_real_answer(stage: str, rule: str, size: int) -> None:
    """At every stage."""
    api = desk(f"{stage}:{rule}")
    answers = [api.post(), api.query("mine"), api.query(api.task_id()), api.ask("GET", PATH)]
    heads = [headers for _, headers, _ in answers if headers]

    assert [status for status, _, _ in answers] == [200] * 4
    assert len(heads) == (4 if stage == "any" else 1)
    assert (len(heads[0]) if "many" in rule else len(heads[0]["X-Large"])) == size


@pytest.mark.parametrize(
    ("kind", "status"), [("html-2xx", 200), ("404-html", 404), ("405-html", 405)]
)
def test_wrong_address_shows_page_at_every_path(kind: str, status: int) -> None:
    """Nothing is created."""
    api = desk(f"any:{kind}")

    answers = [api.post(), api.query("1"), api.ask("GET", PATH), api.ask("POST", "/v1")]

    assert {got for got, _, _ in answers} == {status}
    assert all(body.startswith("<") for _, _, body in answers)
    assert api.world.stats.posts == 0


# -- tasks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in LINK_PLACES if place != OWN_ORIGIN])
def test_link_stands_elsewhere(place: str) -> None:
    """Once, and not where the documentation has it."""
    api = desk(f"query:link:{place}")
    api.post()
    api.moment += 1000

    _, _, body = api.query(api.task_id())

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
        api.post()
        api.moment += 1000
        seen.append(api.query("mine")[2]["data"])

    assert [task["task_status"] for task in seen] == ["failed", "failed"]
    assert seen[0]["task_status_msg"] in KINDS["outcome"][kind]
    assert seen[1]["task_status_msg"] == "违禁词"


def test_word_in_prompt_fails_first_tasks() -> None:
    """`*2` lets the first two of this prompt fail, whatever other prompts do."""
    api = desk()
    prompts = ["sandbox:generation*2 a", "sandbox:generation*2 b"]
    for prompt in prompts * 3:
        assert api.post(prompt=prompt, external_task_id=None)[0] == 200

    outcomes = [task.outcome for task in api.world.engine]

    assert outcomes == ["failed"] * 4 + ["succeed"] * 2


@pytest.mark.parametrize("stage", ["query", "lookup"])
def test_relay_answers_with_oldest_task(stage: str) -> None:
    """Whatever was asked for."""
    api = desk(f"{stage}:other-task")
    api.post(external_task_id="first")
    api.post()

    _, _, body = api.query("mine" if stage == "lookup" else api.task_id(1))

    assert body["data"]["task_id"] == api.task_id(0)


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
    api.post()

    assert api.query(api.task_id(), key="another")[0] == by_task_id
    assert api.query("mine", key="another")[0] == by_external_id
    assert api.post(key="another")[0] == again


@pytest.mark.parametrize(("first", "code"), [(True, 1201), (False, 1102)])
def test_empty_account_is_refused_until_topped_up(first: bool, code: int) -> None:
    """A duplicate is noticed before that or after, as configured."""
    api = desk(checks_duplicates_first=first)
    api.post()
    api.world.configure(has_credit=False)
    fresh, again = api.post(external_task_id="new"), api.post()
    api.world.configure(has_credit=True)

    assert (fresh[0], fresh[2]["code"]) == (429, 1102)
    assert again[2]["code"] == code
    assert api.post(external_task_id="new")[0] == 200


def test_answer_can_omit_external_id() -> None:
    """The task is found by it all the same."""
    api = desk(tells_external_id=False)
    created = api.post()[2]["data"]

    assert created["task_info"] == {}
    assert api.query("mine")[2]["data"]["task_id"] == created["task_id"]


# -- the line --------------------------------------------------------------------------------------


async def test_idle_connection_loses_next_request() -> None:
    """A fresh connection serves the same request."""
    plan = FaultPlan.from_strings(["connection:idle:seconds=0"])
    headers = {"Authorization": "Bearer k"}
    async with serve(SandboxConfig(faults=plan)) as sandbox:

        async def post(session: aiohttp.ClientSession, name: str) -> int:
            body = {**BODY, "external_task_id": name}
            async with session.post(sandbox.base_url + PATH, json=body) as answer:
                return answer.status

        async with aiohttp.ClientSession(headers=headers) as reused:
            assert await post(reused, "first") == 200
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await post(reused, "second")
        async with aiohttp.ClientSession(headers=headers) as fresh:
            assert await post(fresh, "second") == 200
        assert sandbox.faults_fired == {"connection:idle": 1}
        assert sandbox.stats.created == 2


async def test_link_on_own_origin_wants_key() -> None:
    """And serves the same bytes as the origin of the videos."""
    plan = FaultPlan.from_strings([f"query:link:{OWN_ORIGIN}"])
    headers = {"Authorization": "Bearer k"}
    async with (
        serve(SandboxConfig(speed=1e9, faults=plan)) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        url = sandbox.base_url + PATH
        async with session.post(url, json=BODY, headers=headers) as answer:
            task_id = (await answer.json())["data"]["task_id"]
        async with session.get(f"{url}/{task_id}", headers=headers) as answer:
            link = (await answer.json())["data"]["task_result"]["videos"][0]["url"]
        async with session.get(link) as refused, session.get(link, headers=headers) as served:
            content = await served.read()

        assert link.startswith(sandbox.base_url + "/")
        assert (refused.status, served.status) == (401, 200)
        assert content == sandbox.clip(sandbox.tasks[0]).content()
        assert sandbox.stats.key_leaks == 0


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
    plan = FaultPlan.from_strings([f"download:{rule}"])
    async with (
        serve(SandboxConfig(speed=1e9, faults=plan)) as sandbox,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        headers = {"Authorization": "Bearer k"}
        async with session.post(sandbox.base_url + PATH, json=BODY, headers=headers):
            (task,) = sandbox.tasks
        async with session.get(sandbox.link(task)) as answer:
            body = await answer.read()

        assert answer.status == status
        assert {name: answer.headers[name] for name in head} == head
        assert "Content-Range" not in answer.headers
        if status < 300:
            whole = sandbox.clip(task).content()
            assert (gzip.decompress(body) if rule == "gzip" else body) == whole


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
