"""`kling-batch doctor`: what it finds, what it says to do, and that it spends nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from time import time
from typing import Any

import pytest

from batch.output import lock

KEY = "sk-verysecretkey0123456789"
NOBODY_HOME = "http://127.0.0.1:9"
SKY = {"id": "sky", "prompt": "a sky"}


def checks(said: Any) -> dict[str, tuple[str, str]]:
    """Return status and message of each check, by its name."""
    assert said.json["schema"] == 1
    assert said.json["exit_code"] == said.code
    return {item["name"]: (item["status"], item["message"]) for item in said.json["checks"]}


@contextmanager
def provider(status: int = 404, *, date: float | None = None, body: bytes = b"") -> Iterator[Any]:
    """Serve one answer to everything; `seen` lists the requests, `address` is the base URL."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path} {self.headers['Authorization']}")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(date or timestamp, usegmt=True)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = seen  # type: ignore[attr-defined]
        server.base_url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_doctor_finds_a_sound_machine_sound(shell: Any, sandbox: Any) -> None:
    """One GET, no POST, and not a file."""
    box = sandbox()
    manifest = shell.manifest(3, base_url=box.base_url)
    before = shell.files()

    said = shell("doctor", manifest, "--json")
    found = checks(said)
    assert said.code == 0
    assert {status for status, _ in found.values()} == {"ok"}
    assert "takes the key" in found["provider"][1]
    assert (box.stats.posts, box.stats.created) == (0, 0)
    assert shell.files() == before
    assert not (shell.folder / "outputs").exists()


def test_doctor_asks_once_and_by_get(shell: Any) -> None:
    with provider() as server:
        shell("doctor", shell.manifest(base_url=server.base_url))
        (request,) = server.seen
    assert request.startswith("GET /kling/v1/videos/text2video/kb-doctor-")
    assert request.endswith(KEY)


def test_doctor_says_what_to_do_in_text(shell: Any) -> None:
    said = shell("doctor", "--base-url", NOBODY_HOME, key=None)
    assert said.code == 1
    lines = said.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("fail  key"))
    assert "COMETAPI_KEY is not set" in lines[at]
    assert "--env-file" in lines[at + 1]
    assert f"{NOBODY_HOME} cannot be reached: cannot connect" in said.out


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("COMETAPI_KEY=sk-0123456789abcdefghij", "ok", "COMETAPI_KEY in .env"),
        ("COMETAPI_KEY=sk 0123456789", "fail", "blanks"),
        ("COMETAPI_KYE=sk-0123456789abcdefghij", "fail", "it holds COMETAPI_KYE"),
        ("COMETAPI_KEY=", "fail", "it is empty"),
    ],
)
def test_doctor_reads_the_key_and_shows_nothing_of_it(
    shell: Any, line: str, status: str, told: str
) -> None:
    (shell.folder / ".env").write_text(line)
    said = shell("doctor", "--env-file", ".env", "--base-url", NOBODY_HOME, "--json", key=None)
    found = checks(said)["key"]
    assert (found[0], told in found[1]) == (status, True), found
    assert "0123456789" not in said.out + said.err


def test_doctor_doubts_a_key_of_another_shape(shell: Any) -> None:
    """Only where the keys of the address are known; no name is resolved for it here."""
    said = shell("doctor", "--proxy", NOBODY_HOME, "--json", key="0123456789abcdefghijklmn")
    assert checks(said)["key"][0] == "warn"
    assert "0123456789" not in said.out + said.err


@pytest.mark.parametrize(
    ("status", "body", "key", "found", "told"),
    [
        (401, b'{"code":1002,"message":"bad key"}', KEY, "fail", "refuses the key"),
        (401, b'{"code":1002,"message":"bad key"}', None, "ok", "answers in"),
        (200, b"<html>hello</html>", KEY, "fail", "not as the API does"),
        (503, b'{"code":5001,"message":"busy"}', KEY, "warn", "busy"),
        (404, b'{"code":1203,"message":"no such task"}', KEY, "ok", "takes the key"),
    ],
)
def test_doctor_tells_provider_page_and_refusal_apart(
    shell: Any, status: int, body: bytes, key: str | None, found: str, told: str
) -> None:
    with provider(status, body=body) as server:
        said = shell("doctor", "--base-url", server.base_url, "--json", key=key)
    seen = checks(said)["provider"]
    assert (seen[0], told in seen[1]) == (found, True), seen


@pytest.mark.parametrize(
    ("ahead_s", "status", "told"),
    [(0, "ok", "agrees"), (3600, "warn", "behind"), (-86_400, "warn", "ahead of")],
)
def test_doctor_compares_the_clocks(shell: Any, ahead_s: float, status: str, told: str) -> None:
    with provider(date=time() + ahead_s) as server:
        said = shell("doctor", "--base-url", server.base_url, "--json")
    found = checks(said)["clock"]
    assert (found[0], told in found[1]) == (status, True), found


def test_doctor_lists_faults_of_the_manifest(shell: Any) -> None:
    """The exit code is that of a wrong manifest; the key is sent nowhere."""
    with provider() as server:
        manifest = shell.manifest([{**SKY, "duration": "5 min"}], base_url=server.base_url)
        said = shell("doctor", manifest, "--json")
        assert server.seen == []
    found = checks(said)
    assert said.code == 2
    assert found["manifest"][0] == "fail"
    assert "job 'sky': duration" in found["manifest"][1]
    assert found["provider"] == ("warn", "not asked")
    assert found["key"][0] == "ok"

    missing = shell("doctor", "nope.yaml", "--json")
    assert (missing.code, "there is no such file" in checks(missing)["manifest"][1]) == (2, True)


def test_doctor_names_the_run_that_holds_the_folder(shell: Any) -> None:
    assert shell("run", shell.manifest([SKY]), "--sandbox").code == 0
    folder = shell.folder / "outputs/night.sandbox"
    with lock.hold(folder / ".kling-batch/lock"):
        found = checks(shell("doctor", "night.yaml", "--sandbox", "--json"))
    assert found["lock"][0] == "warn"
    assert f"process {os.getpid()}" in found["lock"][1]
    assert found["state"] == ("ok", "outputs/night.sandbox knows 1 job")


@pytest.mark.parametrize("named", [(), ("night.yaml", "--sandbox")])
def test_doctor_finds_a_state_that_cannot_be_read(shell: Any, named: tuple[str, ...]) -> None:
    """Also where no manifest is named."""
    assert shell("run", shell.manifest([SKY]), "--sandbox").code == 0
    state = shell.folder / "outputs/night.sandbox/.kling-batch/state.db"
    state.write_bytes(b"rubbish" * 999)
    said = shell("doctor", *named, "--base-url", NOBODY_HOME, "--json") if not named else None
    said = said or shell("doctor", *named, "--json")
    assert said.code == 1
    assert checks(said)["state"][0] == "fail"


def test_doctor_finds_lost_state_and_foreign_videos(shell: Any) -> None:
    assert shell("run", shell.manifest([SKY]), "--sandbox").code == 0
    folder = shell.folder / "outputs/night.sandbox"
    real = ("doctor", "night.yaml", "--output-dir", folder, "--json")
    assert "holds videos of the sandbox" in checks(shell(*real))["state"][1]
    (folder / ".kling-batch/state.db").unlink()
    said = shell("doctor", "night.yaml", "--sandbox", "--json")
    assert checks(said)["state"][0] == "fail"
    assert "is gone" in checks(said)["state"][1]


def test_doctor_finds_a_place_that_takes_no_videos(shell: Any) -> None:
    (shell.folder / "outputs").mkdir()
    (shell.folder / "outputs/night").write_text("in the way")
    found = checks(shell("doctor", shell.manifest([SKY]), "--json"))
    assert found["folder"][0] == "fail"
    assert "is not a folder" in found["folder"][1]


def test_doctor_warns_of_an_unknown_variable(shell: Any) -> None:
    said = shell("doctor", "--base-url", NOBODY_HOME, "--json", KLING_BATCH_BUDGTE="5")
    assert "did you mean KLING_BATCH_BUDGET" in checks(said)["variables"][1]


@pytest.mark.skipif(os.name != "posix", reason="needs limits of the system")
@pytest.mark.parametrize(
    ("limit", "name", "status"),
    [("--nofile=30", "descriptors", "warn"), ("--nofile=12", "descriptors", "fail")],
)
def test_doctor_counts_what_the_system_grants(
    shell: Any, limit: str, name: str, status: str
) -> None:
    done = subprocess.run(
        ["prlimit", limit, *shell.command, "doctor", "--base-url", NOBODY_HOME],
        cwd=shell.folder,
        env=shell.env(KEY, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{status:<4}  {name}" in done.stdout, done


def test_doctor_refuses_wrong_options(shell: Any) -> None:
    assert shell("doctor", "--base-url", "ftp://x", "--json").json["exit_code"] == 2


def test_doctor_leaves_a_folder_as_it_was(shell: Any) -> None:
    assert shell("run", shell.manifest([SKY]), "--sandbox").code == 0
    before: dict[str, bytes] = shell.files()
    folders = [path for path in Path(shell.folder).rglob("*") if path.is_dir()]
    assert shell("doctor", "night.yaml", "--sandbox").code == 0
    assert shell.files() == before
    assert [path for path in Path(shell.folder).rglob("*") if path.is_dir()] == folders
