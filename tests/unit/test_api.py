"""The Python API: rows as they come, options checked by mypy and at entry."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import batch
from batch import events
from batch.attempt import Outcome
from batch.job import FailureKind
from batch.rows import ErrorKind, Status
from batch.sandbox import SandboxConfig, serve

FIELDS = [
    *("schema", "run_id", "job_id", "status", "prompt", "options", "fingerprint"),
    *("task_id", "external_task_id", "request_id", "attempts", "polls"),
    *("file", "bytes", "sha256", "video", "warnings", "tags", "paid", "cost_usd"),
    *("submitted_at", "generated_at", "finished_at", "error"),
]
CALLER = """\
import batch
from batch import events


class Printer:
    def notify(self, event: events.Event) -> None:
        if isinstance(event, events.Submitted):
            print(event.job_id, event.task_id)


async def main(manifest: batch.Manifest) -> None:
    batch.plan_run(manifest, select=["a"], exclude=("b",), budget_usd=5, output_dir=None)
    batch.plan_run(manifest, select="a*")  # wrong
    batch.plan_run(manifest, max_in_flight="5")  # wrong
    batch.plan_run(manifest, budget=5)  # wrong
    batch.plan_run("night.yaml")  # wrong
    async with batch.open_run(manifest, observers=[Printer()], force=True) as run:
        async for row in run:
            print(row["job_id"].upper(), row["paid"])
            row["sha265"]  # wrong
            row["file"].upper()  # wrong
            print(row["status"] == "timedout")  # wrong
        run.stop()
    batch.open_run(manifest, sandbox=1)  # wrong
    batch.open_run(manifest, observers=[print])  # wrong
    print(run.summary.tasks_created.upper())  # wrong
"""


@pytest.fixture
def manifest(tmp_path: Path) -> batch.Manifest:
    path = tmp_path / "night.yaml"
    path.write_text(
        "version: 1\nlimits: {poll_interval: 50ms}\n"
        "jobs: [{id: a, prompt: fox}, {id: b, prompt: hare}]\n"
    )
    return batch.load_manifest(path)


async def test_run_yields_rows_then_a_summary(manifest: batch.Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with serve(SandboxConfig(median_s=0.05, clip="tiny")) as box:
        url, key = box.base_url, "sk-any"
        async with batch.open_run(
            manifest, base_url=url, api_key=key, select=["a"], output_dir=out, new=True
        ) as run:
            rows = [row async for row in run]

    assert [(row["job_id"], row["status"]) for row in rows] == [("a", "succeeded")]
    assert run.summary.tasks_created == 1
    assert batch.plan_run(manifest, output_dir=out).counts == {"unchanged": 1, "new": 1}


async def test_new_library_must_be_meant(manifest: batch.Manifest, tmp_path: Path) -> None:
    with pytest.raises(batch.UsageError, match="is a new library"):
        async with batch.open_run(manifest, api_key="sk-any", output_dir=tmp_path / "out"):
            pass

    assert not (tmp_path / "out").exists()


async def test_unusable_option_touches_nothing(manifest: batch.Manifest, tmp_path: Path) -> None:
    with pytest.raises(batch.UsageError, match="^max_in_flight: "):
        async with batch.open_run(manifest, sandbox=True, max_in_flight=0):
            pass

    assert not (tmp_path / "outputs").exists()


async def test_key_is_needed_before_anything_is_made(
    manifest: batch.Manifest, tmp_path: Path
) -> None:
    with pytest.raises(batch.UsageError, match="no API key"):
        async with batch.open_run(manifest, output_dir=tmp_path / "out"):
            pass

    assert not (tmp_path / "out").exists()


def test_path_instead_of_manifest_is_refused() -> None:
    with pytest.raises(batch.UsageError, match=r"^manifest: 'night\.yaml' is not one"):
        batch.plan_run("night.yaml")  # type: ignore[arg-type]


def test_pattern_without_a_job_is_refused(manifest: batch.Manifest) -> None:
    with pytest.raises(batch.UsageError, match="^the pattern 'c' selects no job of the manifest"):
        batch.plan_run(manifest, select=["c"], sandbox=True)


class Broken:
    def notify(self, event: events.Event) -> None:
        if isinstance(event, events.Submitted):
            raise ZeroDivisionError(event.job_id)


async def test_observer_that_raises_loses_nothing(manifest: batch.Manifest, tmp_path: Path) -> None:
    """The task that it was told of is recorded, and the next run brings its video."""
    out, rows = tmp_path / "out", []
    where = {"output_dir": out, "api_key": "sk-any"}
    async with serve(SandboxConfig(median_s=0.05, clip="tiny")) as box:
        url = box.base_url
        with pytest.raises(ZeroDivisionError):
            async with batch.open_run(
                manifest, observers=[Broken()], base_url=url, new=True, **where
            ) as run:
                rows += [row["job_id"] async for row in run]
        async with batch.open_run(manifest, base_url=url, **where) as run:
            rows += [row["job_id"] async for row in run]
        assert sorted(rows) == ["a", "b"]
        assert box.stats.created == 2


def test_row_has_the_fields_of_the_contract() -> None:
    assert list(get_type_hints(batch.Row)) == FIELDS
    assert set(get_args(Status)) == set(Outcome)
    assert set(get_args(ErrorKind)) == set(FailureKind)


def test_mypy_finds_wrong_calls(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the linters are not installed")
    path = tmp_path / "caller.py"
    path.write_text(CALLER)
    cache = Path(__file__).parents[2] / ".mypy_cache"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = {n for n, line in enumerate(CALLER.splitlines(), 1) if line.endswith("# wrong")}
    found = {int(line) for line in re.findall(r"caller\.py:(\d+): error:", done.stdout)}
    assert found == wrong, done.stdout
