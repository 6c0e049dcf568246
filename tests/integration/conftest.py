"""A desk for integration tests: a sandbox and runs in one event loop, real HTTP, real files.

`desk.run` does what the command does, without the command line. After every run it checks that
files are whole, rows are complete and no secret is written anywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from s3 import Bucket, Server

from batch.cli import logs
from batch.clock import Clock, SystemClock
from batch.errors import ExitCode
from batch.events import Event
from batch.manifest.model import Manifest
from batch.manifest.reader import load
from batch.run.execute import execute
from batch.run.planner import open_planned_run, plan_only
from batch.run.stop import Stop
from batch.run.summary import Summary
from batch.sandbox import FaultPlan, Sandbox, SandboxConfig, serve
from batch.settings import resolve

KEY = "sk-verysecretkey0123456789"
SECRETS = (KEY, "verysecret", "AKIDEXAMPLE", "ksSecret=", "cacheKey=")
LIMITS: dict[str, Any] = {
    "submit_rate": "2000/s",
    "max_in_flight": 50,
    "max_downloads": 20,
    "poll_interval": "50ms",
    "request_timeout": "60s",
    "stall_timeout": "60s",
    "settle_time": "200ms",
    "task_timeout": "20s",
}
# Where the sandbox falls silent, and only there: elsewhere, a busy machine must not look like that.
SILENT = re.compile(r"(hang|stall|slow)\b(?!:bytes)")
FIELDS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "run_id": (str,),
    "job_id": (str,),
    "status": (str,),
    "prompt": (str,),
    "options": (dict,),
    "fingerprint": (str,),
    "task_id": (str, type(None)),
    "external_task_id": (str, type(None)),
    "request_id": (str, type(None)),
    "attempts": (int,),
    "polls": (int,),
    "file": (str, type(None)),
    "bytes": (int, type(None)),
    "sha256": (str, type(None)),
    "video": (dict, type(None)),
    "warnings": (list,),
    "tags": (list,),
    "paid": (bool,),
    "cost_usd": (int, float, type(None)),
    "submitted_at": (str, type(None)),
    "generated_at": (str, type(None)),
    "finished_at": (str,),
    "error": (dict, type(None)),
}


def jobs(count: int, **options: Any) -> list[dict[str, Any]]:
    """Return *count* jobs."""
    return [{"id": f"job-{n:02}", "prompt": f"fox number {n}", **options} for n in range(count)]


def impatience(faults: Sequence[str]) -> dict[str, str]:
    """Return short timeouts for what falls silent by *faults*: files, or requests."""
    silent = [fault for fault in faults if SILENT.search(fault)]
    files = [fault for fault in silent if fault.startswith("download:")]
    requests = {"request_timeout": "500ms"} if len(files) < len(silent) else {}
    return requests | ({"stall_timeout": "150ms"} if files else {})


class Witness:
    """Records the events of a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Desk:
    """One output folder and its runs."""

    jobs = staticmethod(jobs)
    witness = Witness

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.root = tmp_path / "out"
        self.log = io.StringIO()
        self.clock: Clock = SystemClock()
        self.limits: dict[str, Any] = {}
        self._timeouts: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}

    # -- surroundings

    @asynccontextmanager
    async def sandbox(
        self, *faults: str, now: Callable[[], float] = time.time, **options: Any
    ) -> AsyncIterator[Sandbox]:
        """Serve a fast sandbox in this loop."""
        config: dict[str, Any] = {"median_s": 0.05, "sigma": 0.1, "seed": 1, "clip": "tiny"}
        plan = FaultPlan.from_strings(faults)
        self._timeouts = impatience(faults)
        async with serve(SandboxConfig(**{**config, **options}, faults=plan), now=now) as box:
            yield box
            assert box.stats.key_leaks == 0, "the key went to the video server"

    @staticmethod
    def rule(stage: str, fault: str, options: str) -> str:
        """Return a rule for a sandbox: a fault with *options* behind its own."""
        return f"{stage}:{fault}{',' if ':' in fault else ':'}{options}"

    def manifest(self, listed: Sequence[dict[str, Any]] | int = 20, **limits: Any) -> Manifest:
        """Write a manifest (JSON is YAML) and load it."""
        path = self.tmp_path / "night.yaml"
        content = {
            "version": 1,
            **self.extra,
            "limits": {**LIMITS, **self._timeouts, **self.limits, **limits},
            "jobs": jobs(listed) if isinstance(listed, int) else list(listed),
        }
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return load(path)

    def settings(self, box: Sandbox | str, manifest: Manifest, **given: Any) -> Any:
        """Return the settings of a run against *box*."""
        base_url = box if isinstance(box, str) else box.base_url
        asked = {"output_dir": self.root, "base_url": base_url, "api_key": KEY, "new": True}
        asked |= given
        return resolve(manifest, asked, {})

    # -- running

    async def run(
        self,
        box: Sandbox | str,
        listed: Sequence[dict[str, Any]] | int = 20,
        *,
        limits: dict[str, Any] | None = None,
        stop: Stop | None = None,
        observers: Sequence[Any] = (),
        is_checked: bool = True,
        **given: Any,
    ) -> Summary:
        """Run as `kling-batch run` does, then check the invariants."""
        manifest = self.manifest(listed, **(limits or {}))
        settings = self.settings(box, manifest, **given)
        self._log_everything()
        clock = self.clock
        before = self.results() if is_checked else ""
        with open_planned_run(manifest, settings, clock) as planned:
            if planned.is_quiet:
                summary = planned.end_quietly(clock)
            else:
                summary = await execute(planned, [logs.LogObserver(), *observers], clock, stop=stop)
        assert summary.exit_code is not ExitCode.BUG, "\n".join(summary.bugs)
        if is_checked:
            assert self.results().startswith(before), "results.jsonl was rewritten"
            self.check()
        return summary

    def plan(self, box: Sandbox | str, listed: Any = 20, **given: Any) -> dict[str, int]:
        """Return the counts of a plan."""
        manifest = self.manifest(listed)
        plan = plan_only(manifest, self.settings(box, manifest, **given))
        return {action.value: count for action, count in plan.counts.items()}

    def _log_everything(self) -> None:
        handler = logs.configure(level=logging.DEBUG, log_format="text", stream=self.log)
        as_json = logging.StreamHandler(self.log)
        as_json.setFormatter(logs.JsonFormatter())
        logs.logger.handlers[:] = [handler, as_json]

    # -- results

    def results(self) -> str:
        """Return results.jsonl unparsed."""
        path = self.root / "results.jsonl"
        return path.read_text("utf-8") if path.exists() else ""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first."""
        return [json.loads(line) for line in self.results().splitlines()]

    @property
    def last(self) -> dict[str, dict[str, Any]]:
        """The last row of each job: its state."""
        return {row["job_id"]: row for row in self.rows}

    @property
    def statuses(self) -> Counter[str]:
        """The number of jobs by status."""
        return Counter(row["status"] for row in self.last.values())

    @property
    def kinds(self) -> Counter[str]:
        """The number of jobs by kind of error."""
        return Counter(row["error"]["kind"] for row in self.last.values() if row["error"])

    @property
    def videos(self) -> dict[str, Path]:
        """The files under videos/, by name."""
        root = self.root / "videos"
        return {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if p.is_file()}

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Query the state file."""
        connection = sqlite3.connect(self.root / ".kling-batch" / "state.db")
        try:
            with connection:
                return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def states(self) -> Counter[str]:
        """Count the attempts by state."""
        return Counter(state for (state,) in self.sql("SELECT state FROM attempts"))

    # -- invariants

    def check(self) -> None:
        """Check files, rows and secrets."""
        whole = {}
        for row in self.rows:
            check_row(row)
            if row["file"] is not None:
                whole[row["sha256"]] = row["bytes"]
        for name, path in self.videos.items():
            if "output" in self.extra and name.endswith((".json", ".mp4.xmp")):
                continue  # beside a video, and tested by themselves
            data = path.read_bytes()
            assert whole.get(hashlib.sha256(data).hexdigest()) == len(data), f"{name} is not whole"
        for job_id, row in self.last.items():
            if row["status"] == "succeeded":
                data = (self.root / row["file"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == row["sha256"], job_id
        assert not list((self.root / ".kling-batch").glob("parts/*")), "a part file is left"
        self.check_secrets()

    def check_secrets(self) -> None:
        """Check every file and the log, at every level and in both formats, for secrets."""
        texts = {str(p): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}
        texts["log"] = self.log.getvalue().encode()
        for name, data in texts.items():
            for secret in SECRETS:
                assert secret.encode() not in data, f"{secret} is in {name}"


def check_row(row: dict[str, Any]) -> None:
    """Check that a row has exactly the fields of the contract, in their types."""
    assert list(row) == list(FIELDS)
    for name, types in FIELDS.items():
        assert isinstance(row[name], types), (name, row[name])
    assert row["schema"] == 1
    assert row["status"] in {"succeeded", "failed", "timed_out", "unconfirmed"}
    assert (row["status"] == "succeeded") == (row["error"] is None)
    if row["error"] is not None:
        assert list(row["error"]) == ["kind", "code", "http_status", "message", "request_id"]
    if row["status"] == "succeeded":
        assert set(row["video"]) - {"credentials"} == {"duration_s", "width", "height"}
        assert None not in (row["task_id"], row["file"], row["bytes"], row["sha256"])
        assert row["submitted_at"] <= row["generated_at"] <= row["finished_at"]
        assert row["attempts"] >= 1


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk with short waits between retries."""
    monkeypatch.setattr("batch.run.gate.REFUSAL_BASE_S", 0.04)
    monkeypatch.setattr("batch.run.lookup.FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("batch.run.fetch.RETRY_BASE_S", 0.01)
    monkeypatch.setattr("batch.run.fetch.RETRY_CAP_S", 0.05)
    return Desk(tmp_path)


@pytest.fixture
def bucket(s3: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Return a bucket that the desk's manifest has as its target."""
    made = s3.bucket()
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    desk.extra["output"] = {"target": made.url}
    return made
