"""A night on which nothing is to be done."""

from __future__ import annotations

import socket
from typing import Any

import pytest

JOBS = [
    {"id": "a", "prompt": "fox"},
    {"id": "b", "prompt": "deer", "model": "kling-v1"},  # retired: a warning
    {"id": "bad", "prompt": "sandbox:moderation"},
]


@pytest.fixture
def night(shell: Any, sandbox: Any) -> Any:
    """Give a folder after its first night, and what runs the next one."""
    box = sandbox()
    manifest = shell.manifest(JOBS, name="night.yaml")

    def run(*args: Any, **env: Any) -> Any:
        return shell("run", manifest, "--base-url", box.base_url, "--json", *args, **env)

    run.box, run.shell, run.manifest = box, shell, manifest  # type: ignore[attr-defined]
    assert run().json["tasks_created"] == 3
    return run


def test_quiet_night_imports_only_what_it_needs(night: Any) -> None:
    """Nothing is sent or shown, so the time to load what does that is not spent."""
    imported: str = night("--quiet", PYTHONPROFILEIMPORTTIME="1").err
    assert "batch.manifest.yaml_events" in imported
    assert "aiohttp" not in imported
    assert "asyncio" not in imported
    assert "batch.events" not in imported
    assert "postgres" not in imported
    assert "psycopg" not in imported
    names = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert names.isdisjoint({"ssl", "logging", "csv", "shutil", "batch.cli.planned"})


def test_quiet_night_reports_resting_jobs_and_warnings(night: Any) -> None:
    said = night()
    assert said.json["planned"] == {"unchanged": 2, "resting": 1}
    assert said.code == 1
    assert "kling-v1" in said.err


def test_changed_prompt_ends_the_quiet(night: Any) -> None:
    jobs = [{**JOBS[0], "prompt": "hare"}, *JOBS[1:]]
    night.shell.manifest(jobs, name="night.yaml")
    assert night().json["planned"]["changed"] == 1


@pytest.mark.parametrize(
    ("flags", "planned"),
    [
        (["--force", "--select", "a"], {"forced": 1}),
        (["--retry-failed"], {"unchanged": 2, "retry": 1}),
        (["--select", "b"], {"unchanged": 1}),
    ],
)
def test_flags_end_the_quiet(night: Any, flags: list[str], planned: dict[str, int]) -> None:
    assert night(*flags).json["planned"] == planned


def test_quiet_night_refuses_wrong_surroundings(night: Any) -> None:
    """A missing key, an address that cannot be one."""
    assert night(key=None).code == 2
    said = night("--callback-url", "https://studio.example")
    assert (said.code, "--callback-listen" in said.err) == (2, True)
    here = ("--output-dir", "outputs/night")
    said = night.shell("run", night.manifest, "--sandbox", *here, key=None)
    assert said.code == 2  # the folder holds videos of the "real" API


def test_run_that_cannot_be_opened_has_ended(shell: Any, sandbox: Any) -> None:
    """A port is taken: nothing was sent, and no run is said to have died."""
    box = sandbox()
    manifest = shell.manifest(1, base_url=box.base_url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ("--callback-url", "https://studio.example", "--callback-listen", place)
        said = shell("run", manifest, *flags)
    assert (said.code, box.stats.posts) == (2, 0)
    status = shell("status", "outputs/night", key=None)
    assert (status.code, "did not end properly" in status.out) == (0, False)
    (told,) = shell("status", "outputs/night", "--json", key=None).json
    assert told["last_run"]["exit_code"] == 2
    assert shell("run", manifest).code == 0
