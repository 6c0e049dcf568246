"""`kling-batch engine status` and `engine account`: what they say of a fleet, and what they set."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from batch.attempt import Account
from batch.key import account_of
from batch.output.fleet import JobState, OpenRun, Work
from batch.run.stop import StopReason

KEY = "sk-verysecretkey0123456789"
ACCOUNT = Account("https://api.example", account_of(KEY))
WORKERS = {"here": 2.0, "gone": 90.0}  # seconds since the last beat
PAGE = Path(__file__).parents[2] / "batch/cli/pages/fleet.md"


@pytest.fixture
def engine(emptied_url: str) -> dict[str, str]:
    """Return the environment with an empty fleet."""
    return {"KLING_BATCH_ENGINE": emptied_url}


async def _begin(url: str) -> None:
    """Have three workers, a run of three jobs, and a refused account."""
    from fleets import opened_fleet  # noqa: PLC0415 - needs psycopg

    async with opened_fleet(url) as its:
        run = OpenRun(
            *("r1", "library", "/videos/night", ACCOUNT, "{}"), began_at=1.5, budget_usd=2.5
        )
        jobs = [Work(place, name, "{}") for place, name in enumerate("abc")]
        await its.fleet.hand_over(run, jobs, lambda _transaction: None)
        for name in (*WORKERS, "ended"):
            await its.fleet.beat(name, [ACCOUNT])
        done = await its.fleet.claim("r1", "a", "here")
        assert done is not None
        await its.fleet.settle(done.claim, JobState.DONE)
        assert await its.fleet.claim("r1", "b", "gone")
        await its.fleet.stop("r1", StopReason.ACCOUNT.value, "no balance is left")
        for name, seconds in WORKERS.items():
            its.age(name, seconds)
        await its.fleet.leave("ended")


def test_status_tells_workers_runs_and_accounts(shell: Any, engine: dict[str, str]) -> None:
    asyncio.run(_begin(*engine.values()))
    found = shell("engine", "status", "--json", key=None, **engine).json
    assert (found["schema"], found["backlog"]) == (1, 2)
    told = {item["worker"]: (item["state"], item["jobs"]) for item in found["workers"]}
    assert told == {"here": ("alive", 0), "gone": ("silent", 1), "ended": ("ended", 0)}
    (run,) = found["runs"]
    assert run["jobs"] == {"todo": 2, "done": 1, "left": 0, "parked": 0, "bug": 0}
    assert run["stop"] == {"reason": "account", "sentence": "no balance is left"}
    (account,) = found["accounts"]
    assert (account["account"], account["refused"]) == (ACCOUNT.key_hash, "no balance is left")
    text = shell("engine", "status", key=None, **engine).out
    assert "1 worker alive\n" in text
    assert "another worker takes over its 1 job\n" in text
    assert "1 run under way, 2 jobs to do\n" in text
    assert "stopped (account): no balance is left\n" in text


def test_page_names_every_field_of_status(shell: Any, engine: dict[str, str]) -> None:
    asyncio.run(_begin(*engine.values()))
    found = shell("engine", "status", "--json", key=None, **engine).json
    names = {*found, *(name for part in ("workers", "runs", "accounts") for name in found[part][0])}
    page = PAGE.read_text("utf-8")
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_status_of_empty_fleet_says_how_to_begin(shell: Any, engine: dict[str, str]) -> None:
    said = shell("engine", "status", key=None, **engine)
    assert said.code == 0
    assert "start one with `kling-batch worker`" in said.out
    assert "0 runs under way, 0 jobs to do" in said.out


def test_limits_of_account_are_set_shown_and_lifted(shell: Any, engine: dict[str, str]) -> None:
    def account(*args: str) -> str:
        said = shell("engine", "account", "--base-url", ACCOUNT.base_url, *args, **engine)
        assert said.code == 0, said.err
        return str(said.out).split(": ", 1)[-1].strip()

    assert account().endswith("has not been used")
    assert account("--rate", "90/min") == "0 in flight, 1.5 a second (set)"
    both = "0 in flight of 20 (set), 1.5 a second (set)"
    assert account("--max-in-flight", "20") == both
    assert account() == both
    assert account("--rate", "none") == "0 in flight of 20 (set)"
    assert account("--max-in-flight", "none") == "0 in flight, no limit but those of its runs"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--rate", "fast", "'fast' is not a valid rate"),
        ("--max-in-flight", "0", "'0' is not a whole number from 1"),
        ("--base-url", "api.example", "api.example"),
    ],
)
def test_wrong_limits_set_nothing(shell: Any, option: str, value: str, words: str) -> None:
    pytest.importorskip("psycopg")
    nowhere = {"KLING_BATCH_ENGINE": "postgresql://kling@127.0.0.1:9/studio"}
    said = shell("engine", "account", option, value, **nowhere)
    assert said.code == 2
    assert words in said.err
