"""Who is told how a run has ended: webhooks, pings and commands, on real local servers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from patience import PATIENCE_S

SECRET = "verysecretpath"
HANG = 0  # in place of a status: no answer comes
CUT = -1  # the connection is closed without one


@dataclass
class Hook:
    """A server that remembers what it was sent; *answers* are its next statuses, then 200."""

    answers: list[int] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.path_qs, dict(request.headers), await request.read()))
        assert request.method == "POST"
        status = self.answers.pop(0) if self.answers else 200
        if status == HANG:
            await asyncio.sleep(60)
        if status == CUT and request.transport is not None:
            request.transport.abort()
        headers = {"Location": f"{self.url}/elsewhere"} if status // 100 == 3 else {}
        return web.Response(status=max(status, 200), headers=headers)

    @property
    def paths(self) -> list[str]:
        return [path.partition("?")[0].removeprefix(f"/{SECRET}") for path, _, _ in self.seen]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.seen]


@pytest.fixture
def hook() -> Iterator[Callable[..., Hook]]:
    """Give a function that starts a server in a thread."""
    with ExitStack() as exits:

        def start(*answers: int) -> Hook:
            hook, loop = Hook(list(answers)), asyncio.new_event_loop()
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", hook.answer)
            server = TestServer(app)
            loop.run_until_complete(server.start_server())
            hook.url = f"http://127.0.0.1:{server.port}/{SECRET}"
            thread = threading.Thread(target=loop.run_forever)
            thread.start()

            def end() -> None:
                asyncio.run_coroutine_threadsafe(server.close(), loop).result()
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()

            exits.callback(end)
            return hook

        yield start


@pytest.fixture
def night(shell: Any, sandbox: Any) -> Callable[..., Any]:
    """Give a function that runs a manifest of jobs with `notify:` and variables."""
    box = sandbox()

    def run(
        notify: Any = None,
        jobs: Any = 1,
        args: tuple[str, ...] = (),
        key: str = "sk-none",
        **env: str,
    ) -> Any:
        keys = {} if notify is None else {"notify": notify}
        manifest = shell.manifest(jobs, base_url=box.base_url, **keys)
        said = shell("run", manifest, *args, key=key, **env)
        assert SECRET not in said.out + said.err
        for name, data in shell.files().items():
            is_state = name.startswith("outputs")
            assert not (is_state and SECRET.encode() in data), f"an address is in {name}"
        return said

    run.box = box  # type: ignore[attr-defined]
    return run


BAD = [{"id": "bad", "prompt": "sandbox:moderation"}]
GOOD = [{"id": "good", "prompt": "a fox"}]
WEBHOOK = {"webhook": "env:HOOK", "timeout": "5s"}


# -- the webhook -----------------------------------------------------------------------------


def test_webhook_gets_the_summary_and_the_news(night: Any, hook: Any) -> None:
    server = hook()
    said = night(WEBHOOK, GOOD + BAD, ("--json",), HOOK=server.url)
    ((path, headers, _),) = server.seen
    (body,) = server.bodies
    assert path == f"/{SECRET}"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == said.json["run_id"]
    assert body == {**said.json, "news": body["news"], "text": body["text"]}
    assert body["news"] == [
        {"job_id": "bad", "status": "failed", "kind": "moderation"},
        {"job_id": "good", "status": "succeeded", "kind": None},
    ]
    assert "bad: failed (moderation)" in body["text"]
    assert "not everybody" not in said.err


def test_quiet_night_is_no_news(night: Any, hook: Any) -> None:
    """A resting job is exit code 1 every night, and told once."""
    server = hook()
    for _ in range(3):
        assert night(WEBHOOK, BAD, HOOK=server.url).code == 1
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("on", "codes", "told"),
    [("always", [0, 0], 2), ("trouble", [0, 0], 0), ("news", [0, 0], 1)],
)
def test_on_says_when_it_is_told(
    night: Any, hook: Any, on: str, codes: list[int], told: int
) -> None:
    server = hook()
    assert [night({**WEBHOOK, "on": on}, GOOD, HOOK=server.url).code for _ in codes] == codes
    assert len(server.seen) == told


def test_trouble_is_told_every_night(night: Any, hook: Any) -> None:
    server = hook()
    for _ in range(2):
        night({**WEBHOOK, "on": "trouble"}, BAD, HOOK=server.url)
    assert [body["exit_code"] for body in server.bodies] == [1, 1]


def test_news_are_what_differs_from_the_last_told(night: Any, hook: Any) -> None:
    server = hook()
    night(WEBHOOK, GOOD + BAD, HOOK=server.url)
    night(WEBHOOK, [{"id": "good", "prompt": "another fox"}, *BAD], HOOK=server.url)
    night(WEBHOOK, [{"id": "good", "prompt": "another fox"}], HOOK=server.url)
    assert [body["news"] for body in server.bodies[1:]] == [
        [{"job_id": "good", "status": "succeeded", "kind": None}],
        [{"job_id": "bad", "status": None, "kind": None}],
    ]


def test_undelivered_news_are_told_the_next_night(night: Any, hook: Any) -> None:
    server = hook(400)
    assert "webhook at 127.0.0.1: it answered HTTP 400" in night(WEBHOOK, HOOK=server.url).err
    night(WEBHOOK, HOOK=server.url)
    night(WEBHOOK, HOOK=server.url)
    assert [body["news"] for body in server.bodies] == [
        [{"job_id": "job-0", "status": "succeeded", "kind": None}]
    ] * 2


def test_server_error_is_tried_again_under_one_key(night: Any, hook: Any) -> None:
    server = hook(500, 503)
    said = night(WEBHOOK, HOOK=server.url)
    assert (said.code, said.err.count("warning")) == (0, 0)
    assert len({headers["Idempotency-Key"] for _, headers, _ in server.seen}) == 1
    assert len(server.seen) == 3


def test_server_error_is_given_up_after_three_tries_more(night: Any, hook: Any) -> None:
    server = hook(*[502] * 9)
    said = night({**WEBHOOK, "timeout": "30s"}, HOOK=server.url)
    assert (said.code, len(server.seen)) == (0, 4)
    assert said.err.count("warning: not everybody was told") == 1


@pytest.mark.parametrize("answer", [400, 404, 302, HANG, CUT])
def test_what_may_have_arrived_is_not_sent_twice(night: Any, hook: Any, answer: int) -> None:
    server = hook(answer)
    said = night({**WEBHOOK, "timeout": "1s"}, HOOK=server.url)
    assert (said.code, len(server.seen)) == (0, 1)
    assert said.err.count("warning: not everybody was told") == 1
    assert "webhook at 127.0.0.1" in said.err


def test_server_that_is_away_is_a_warning(night: Any) -> None:
    said = night(WEBHOOK, HOOK=f"http://127.0.0.1:9/{SECRET}")
    assert said.code == 0
    assert "webhook at 127.0.0.1: cannot connect to 127.0.0.1:9 (connection refused)" in said.err


def test_proxy_of_the_environment_is_used(night: Any, hook: Any) -> None:
    proxy = hook()
    said = night(WEBHOOK, HOOK=f"http://hooks.invalid/{SECRET}", HTTP_PROXY=proxy.url)
    assert "not everybody" not in said.err
    assert [headers["Host"] for _, headers, _ in proxy.seen] == ["hooks.invalid"]


def test_signal_ends_the_telling_and_keeps_the_exit_code(
    shell: Any, sandbox: Any, hook: Any
) -> None:
    server = hook(HANG)
    manifest = shell.manifest(1, base_url=sandbox().base_url, notify={"timeout": "20s"})
    with shell.running("run", manifest, KLING_BATCH_NOTIFY_WEBHOOK=server.url) as process:
        shell.until(lambda: bool(server.seen))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0


def test_warning_of_a_quiet_good_night_is_not_mailed(night: Any) -> None:
    said = night(WEBHOOK, args=("--quiet",), HOOK=f"http://127.0.0.1:9/{SECRET}")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_warning_is_a_record_of_a_json_log(night: Any) -> None:
    said = night(WEBHOOK, args=("--log-format", "json"), HOOK=f"http://127.0.0.1:9/{SECRET}")
    assert json.loads(said.err.splitlines()[-1])["message"].startswith("not everybody was told")


def test_variable_that_is_not_set_is_warned_of(night: Any) -> None:
    said = night(WEBHOOK)
    assert (
        "warning: notify.webhook: the variable HOOK is not set, so nothing is sent there"
        in said.err
    )


# -- however it ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "args", "said"),
    [
        ("version: 1\njobs: [{id: a, promt: x}]", (), "unknown key 'promt'"),
        ("version: [", (), "night.yaml"),
        (None, (), "night.yaml"),
        ("version: 1\njobs: [{id: a, prompt: x}]", ("--budgt", "3"), "--budget"),
        ("version: 1\njobs: [{id: a, prompt: x}]", ("--select", "nothing"), "selects no job"),
    ],
)
def test_exit_code_2_is_told_without_a_readable_manifest(
    shell: Any, hook: Any, manifest: str | None, args: tuple[str, ...], said: str
) -> None:
    """The likeliest broken night is a typo."""
    path, server, monitor = shell.folder / "night.yaml", hook(), hook()
    if manifest is not None:
        path.write_text(manifest, "utf-8")
    urls = {"KLING_BATCH_NOTIFY_WEBHOOK": server.url, "KLING_BATCH_NOTIFY_PING": monitor.url}
    done = shell("run", path, *args, "--json", **urls)
    (body,) = server.bodies
    assert (done.code, body["exit_code"]) == (2, 2)
    assert body["problems"] == done.json["problems"]
    assert said in body["text"]
    assert monitor.paths == ["/2"]


def test_only_a_run_is_told(shell: Any, sandbox: Any, hook: Any) -> None:
    server = hook()
    urls = {"KLING_BATCH_NOTIFY_WEBHOOK": server.url, "KLING_BATCH_NOTIFY_PING": server.url}
    manifest = shell.manifest(1, base_url=sandbox().base_url)
    for args in (
        ("plan", manifest),
        ("run", manifest, "--dry-run"),
        ("run", "--help"),
        ("plan", "gone.yaml"),
        ("status",),
        ("rn",),
    ):
        shell(*args, new=False, **urls)
    assert server.seen == []


def test_refused_folder_does_not_report_over_the_run_that_holds_it(
    shell: Any, sandbox: Any, hook: Any
) -> None:
    server, hanging = hook(), sandbox(median_s=600.0)
    manifest = shell.manifest(1, base_url=hanging.base_url)
    with shell.running("run", manifest, KLING_BATCH_NOTIFY_PING=server.url) as process:
        shell.until(lambda: hanging.stats.created == 1 and server.paths == ["/start"])
        assert shell("run", manifest, KLING_BATCH_NOTIFY_PING=server.url).code == 75
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert server.paths == ["/start", "/log", "/log"]


@pytest.mark.parametrize(
    ("jobs", "args", "code", "path"),
    [
        (GOOD, (), 0, ""),
        (GOOD, ("--budget", "0.01"), 3, ""),
        (BAD, (), 1, "/1"),
        ([{"id": "a", "prompt": "x"}], (), 4, "/4"),
    ],
)
def test_monitor_hears_of_start_and_end(
    night: Any, hook: Any, jobs: Any, args: tuple[str, ...], code: int, path: str
) -> None:
    server = hook()
    if code == 4:
        night.box.set_faults(_no_credit())
    said = night({"ping": "env:HC"}, jobs, args, HC=f"{server.url}?create=1")
    assert (said.code, server.paths) == (code, ["/start", path])
    queries = {target.partition("?")[2] for target, _, _ in server.seen}
    assert len(queries) == 1
    assert queries.pop().startswith("create=1&rid=")
    assert server.seen[-1][2].decode().startswith("night: ")


def _no_credit() -> Any:
    from batch.sandbox import FaultPlan  # noqa: PLC0415

    return FaultPlan.from_strings(("submit:429-credit",))


def test_monitor_may_have_an_address_for_each_end(night: Any, hook: Any) -> None:
    server = hook()
    ping = {name: f"env:{name.upper()}" for name in ("start", "success", "failure")}
    env = {name.upper(): f"{server.url}/{name}?x=1" for name in ping}
    night({"ping": ping}, GOOD, **env)
    night({"ping": ping}, GOOD + BAD, **env)
    assert server.paths == ["/start", "/success", "/start", "/failure"]
    assert {target.partition("?")[2] for target, _, _ in server.seen} == {"x=1"}


def test_monitor_hears_of_a_quiet_night(night: Any, hook: Any) -> None:
    """Silence is what it warns of."""
    server = hook()
    night({"ping": "env:HC"}, HC=server.url)
    night({"ping": "env:HC"}, HC=server.url)
    assert server.paths == ["/start", "", ""]


def test_ping_is_repeated_whatever_happened(night: Any, hook: Any) -> None:
    server = hook(200, CUT, 500)
    said = night({"ping": "env:HC"}, HC=server.url)
    assert server.paths == ["/start", "", "", ""]
    assert "not everybody" not in said.err


def test_long_text_is_cut_for_a_monitor(night: Any, hook: Any) -> None:
    server = hook()
    jobs = [{"id": f"{'ü' * 90}-{n}", "prompt": f"sandbox:moderation {n}"} for n in range(60)]
    night({"ping": "env:HC"}, jobs, args=("--select", "*"), HC=server.url)
    (text,) = (body for _, _, body in server.seen[1:])
    assert len(text) <= 10_000
    text.decode()


# -- the command -----------------------------------------------------------------------------


def script(folder: Path, *lines: str) -> None:
    """Write a program beside the manifest."""
    path = folder / "tell.sh"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), "utf-8")
    path.chmod(0o755)


def test_command_gets_the_summary_without_a_shell(shell: Any, night: Any) -> None:
    script(shell.folder, 'cat > told.json; pwd > where; printf "%s|" "$@" "$COMETAPI_KEY" > args')
    said = night(
        {"command": ["./tell.sh", "$HOME; rm *", "b c"]}, args=("--json",), PATH=os.environ["PATH"]
    )
    told = json.loads((shell.folder / "told.json").read_text("utf-8"))
    assert told["run_id"] == said.json["run_id"]
    assert [item["job_id"] for item in told["news"]] == ["job-0"]
    assert (shell.folder / "where").read_text().strip() == str(shell.folder)
    assert (shell.folder / "args").read_text() == "$HOME; rm *|b c||"


def test_what_a_command_says_is_not_taken_for_the_result(shell: Any, night: Any) -> None:
    script(shell.folder, "echo heard; exit 3")
    said = night({"command": ["./tell.sh"]}, args=("--json",))
    assert said.code == 0
    assert said.json["exit_code"] == 0
    assert "heard" in said.err
    assert "command ./tell.sh: ended with exit code 3" in said.err


def test_command_is_killed_with_its_children_at_the_timeout(shell: Any, night: Any) -> None:
    script(shell.folder, "sleep 60 & echo $! > child; wait")
    said = night({"command": ["./tell.sh"], "timeout": "1s"}, PATH=os.environ["PATH"])
    assert said.code == 0
    assert "command ./tell.sh: not done within 1 s" in said.err
    child = int((shell.folder / "child").read_text())
    shell.until(lambda: not _is_alive(child))


def _is_alive(number: int) -> bool:
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_command_that_is_not_there_is_a_warning(night: Any) -> None:
    said = night({"command": ["./gone.sh"]})
    assert (said.code, said.err.count("warning")) == (0, 1)
    assert "command ./gone.sh: cannot be started (No such file or directory)" in said.err


def test_variable_names_a_command_with_its_arguments(shell: Any, night: Any) -> None:
    script(shell.folder, 'echo "$2" > told')
    night(KLING_BATCH_NOTIFY_COMMAND="./tell.sh ops 'the night'")
    assert (shell.folder / "told").read_text() == "the night\n"


# -- a test ----------------------------------------------------------------------------------


def test_test_tells_everybody_and_changes_nothing(shell: Any, hook: Any) -> None:
    server, monitor = hook(), hook()
    script(shell.folder, "cat > told.json")
    manifest = shell.manifest(notify={"command": ["./tell.sh"], "on": "trouble"})
    env = {"KLING_BATCH_NOTIFY_WEBHOOK": server.url, "KLING_BATCH_NOTIFY_PING": monitor.url}
    said = shell("notify", "--test", manifest, PATH=os.environ["PATH"], **env)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "command ./tell.sh: told",
        "webhook at 127.0.0.1: told",
        "ping to 127.0.0.1: told",
    ]
    assert server.bodies[0]["test"] is True
    assert monitor.paths == ["/log"]
    assert not (shell.folder / "outputs").exists()


def test_test_that_fails_is_exit_code_1(shell: Any, hook: Any) -> None:
    said = shell("notify", "--test", KLING_BATCH_NOTIFY_WEBHOOK=hook(404).url)
    assert (said.code, said.out) == (1, "webhook at 127.0.0.1: it answered HTTP 404\n")


def test_test_of_nobody_is_exit_code_2(shell: Any) -> None:
    assert "no notification is configured" in shell("notify", "--test").err
    assert shell("notify", "--test").code == 2
    assert shell("notify").code == 2
